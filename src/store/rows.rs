use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::{parsed, parsed_option, time, time_option};
use crate::image::{Digest, Repository, Tag, Version};
use crate::telemetry::TraceContext;

/// Implements an enum whose variants are words in the tables, the API and the metrics.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the word in the tables and the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::store::rows::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(crate::store::rows::UnknownWord {
                        text: text.to_owned(),
                        known: Self::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>().join(", "),
                    }),
                }
            }
        }
    };
}
pub(super) use words;

/// A word that is none of those that are expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of {known}")]
pub struct UnknownWord {
    /// What was written.
    pub text: String,
    /// What may be written.
    pub known: String,
}

words! {
    /// How far an event has come.
    EventState {
        /// Waits for the registry's confirmation; after a failed attempt `reason` says why.
        Queued = "queued",
        /// Confirmed; at least one update waits to be committed.
        Pending = "pending",
        /// Confirmed; an update waits for a hold or freeze to end.
        Waiting = "waiting",
        /// On the branch.
        Committed = "committed",
        /// Every environment runs it already.
        Unchanged = "unchanged",
        /// A newer event took its place before it was committed.
        Superseded = "superseded",
        /// A final, explained no.
        Refused = "refused",
    }
}

words! {
    /// How far an update has come.
    UpdateState {
        /// Waits for the registry's confirmation.
        Unverified = "unverified",
        /// Waits for the writer of its branch.
        Pending = "pending",
        /// Waits for a hold or freeze to end.
        Waiting = "waiting",
        /// On the branch.
        Committed = "committed",
        /// The environment runs it already.
        Unchanged = "unchanged",
        /// A newer update took its place before it was committed.
        Superseded = "superseded",
        /// A final, explained no.
        Refused = "refused",
    }
}

words! {
    /// Why an update is wanted.
    Cause {
        /// A registry announced a push.
        Push = "push",
        /// Nobody announced it, and the registry's list of tags has it.
        CatchUp = "catch-up",
        /// Somebody moved a version from one environment to another.
        Promotion = "promotion",
        /// Somebody went back to an older version.
        Rollback = "rollback",
    }
}

impl Cause {
    /// Returns whether an event is behind it, and nobody's wish: it is compared with what runs, and holds make it wait.
    pub fn is_event(self) -> bool {
        match self {
            Self::Push | Self::CatchUp => true,
            Self::Promotion | Self::Rollback => false,
        }
    }
}

/// A push event and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A ULID: sorts by arrival.
    pub id: String,
    /// Whether a receiver was told of it, or it was found in the registry's list of tags.
    pub cause: Cause,
    /// The receiver that took it; `catch-up` where nobody told.
    pub receiver: String,
    /// What was pushed.
    pub repository: Repository,
    /// Under which tag.
    pub tag: Tag,
    /// The digest that the payload names. A hint.
    pub announced_digest: Option<Digest>,
    /// When the registry says it was pushed.
    pub pushed_at: Option<Timestamp>,
    /// When it reached us.
    pub received_at: Timestamp,
    /// How far it has come.
    pub state: EventState,
    /// Why it is refused, or what the last attempt to confirm it met.
    pub reason: Option<String>,
    /// The pattern of the image rule that takes it.
    pub matched_rule: Option<String>,
    /// The digest that the registry gives.
    pub verified_digest: Option<Digest>,
    /// When the registry confirmed it.
    pub verified_at: Option<Timestamp>,
    /// What else there is to say, such as a digest that differs from the announced one.
    pub note: Option<String>,
    /// How often the registry has been asked in vain.
    pub attempts: u32,
    /// When the registry will be asked again.
    pub next_attempt_at: Option<Timestamp>,
    /// When it reached its final state.
    pub finished_at: Option<Timestamp>,
    /// Which trace it belongs to: the span that everything that becomes of it is a child of.
    pub trace: TraceContext,
}

impl FromRow<'_, SqliteRow> for Event {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            cause: parsed(row, "cause")?,
            receiver: row.try_get("receiver")?,
            repository: parsed(row, "repository")?,
            tag: parsed(row, "tag")?,
            announced_digest: parsed_option(row, "announced_digest")?,
            pushed_at: time_option(row, "pushed_at")?,
            received_at: time(row, "received_at")?,
            state: parsed(row, "state")?,
            reason: row.try_get("reason")?,
            matched_rule: row.try_get("matched_rule")?,
            verified_digest: parsed_option(row, "verified_digest")?,
            verified_at: time_option(row, "verified_at")?,
            note: row.try_get("note")?,
            attempts: row.try_get("attempts")?,
            next_attempt_at: time_option(row, "next_attempt_at")?,
            finished_at: time_option(row, "finished_at")?,
            trace: parsed(row, "trace_parent")?,
        })
    }
}

/// One edited site, as history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteChange {
    /// The file, from the root of the config repository.
    pub path: String,
    /// The line of the value, counted from 1.
    pub line: u32,
    /// What stood there.
    pub old: Version,
    /// What stands there now.
    pub new: Version,
}

/// An update and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// A ULID.
    pub id: String,
    /// The environment that shall run the version.
    pub environment: String,
    /// The repository.
    pub repository: Repository,
    /// The version.
    pub version: Version,
    /// Why.
    pub cause: Cause,
    /// The event or request.
    pub cause_id: String,
    /// The receiver, or the name of the API token.
    pub actor: String,
    /// How far it has come.
    pub state: UpdateState,
    /// Why it is refused or waits, or what the last attempt met.
    pub reason: Option<String>,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it will be tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// When the registry says the image was pushed.
    pub pushed_at: Option<Timestamp>,
    /// When the cause reached us.
    pub received_at: Timestamp,
    /// When a hold or freeze let it go; `None` when nothing held it back.
    pub released_at: Option<Timestamp>,
    /// The commit on the branch; while the update is pending, that of the last attempt.
    pub commit: Option<String>,
    /// What the environment ran before.
    pub old: Option<Version>,
    /// The edited sites.
    pub changes: Vec<SiteChange>,
    /// When it reached its final state.
    pub finished_at: Option<Timestamp>,
    /// The criterion that decided whether it is newer; `None` for what somebody asked for.
    pub decided_by: Option<String>,
    /// What it was compared with and how that came out, for people.
    pub decided_because: Option<String>,
    /// What it was compared with: the versions that it is not older than or, for what somebody asked for, what ran then.
    pub compared: Option<Vec<Version>>,
    /// Which trace it belongs to: the span that everything that becomes of it is a child of.
    pub trace: TraceContext,
    /// Why a promotion or rollback was made although something stood in its way.
    pub override_reason: Option<String>,
}

impl FromRow<'_, SqliteRow> for Update {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let version = Version::from_parts(parsed_option(row, "tag")?, parsed_option(row, "digest")?);
        let compared: Option<String> = row.try_get("compared")?;
        let compared = compared.map(|json| serde_json::from_str(&json)).transpose();
        let changes: Option<String> = row.try_get("changes")?;
        Ok(Self {
            id: row.try_get("id")?,
            environment: row.try_get("environment")?,
            repository: parsed(row, "repository")?,
            version: version.ok_or_else(|| sqlx::Error::ColumnNotFound("tag".to_owned()))?,
            cause: parsed(row, "cause")?,
            cause_id: row.try_get("cause_id")?,
            actor: row.try_get("actor")?,
            state: parsed(row, "state")?,
            reason: row.try_get("reason")?,
            attempts: row.try_get("attempts")?,
            next_attempt_at: time_option(row, "next_attempt_at")?,
            pushed_at: time_option(row, "pushed_at")?,
            received_at: time(row, "received_at")?,
            released_at: time_option(row, "released_at")?,
            commit: row.try_get("commit_id")?,
            old: Version::from_parts(parsed_option(row, "old_tag")?, parsed_option(row, "old_digest")?),
            changes: match changes {
                Some(json) => serde_json::from_str(&json).map_err(|error| super::decode_error("changes", error))?,
                None => Vec::new(),
            },
            finished_at: time_option(row, "finished_at")?,
            decided_by: row.try_get("decided_by")?,
            decided_because: row.try_get("decided_because")?,
            compared: compared.map_err(|error| super::decode_error("compared", error))?,
            trace: parsed(row, "trace_parent")?,
            override_reason: row.try_get("override_reason")?,
        })
    }
}
