use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::words;
use crate::telemetry::TraceContext;
use tagrelay_image::{Repository, Version};

words! {
    /// The state of an update.
    UpdateState {
        /// The registry has not confirmed the image yet (promotions and rollbacks only).
        Unverified = "unverified",
        /// The branch writer decides about the update next.
        Pending = "pending",
        /// The update waits for the end of its wait causes.
        Waiting = "waiting",
        /// On the branch.
        Committed = "committed",
        /// The environment runs the version already.
        Unchanged = "unchanged",
        /// A newer version replaced the update before it was written.
        Superseded = "superseded",
        /// Refused, with a reason.
        Refused = "refused",
        /// Cancelled on request before it was written (promotions and rollbacks only).
        Cancelled = "cancelled",
    }
}

impl UpdateState {
    /// Whether the update has not ended.
    pub fn is_open(self) -> bool {
        match self {
            Self::Unverified | Self::Pending | Self::Waiting => true,
            Self::Committed | Self::Unchanged | Self::Superseded | Self::Refused | Self::Cancelled => false,
        }
    }

    /// Whether the environment ran the version when the update ended.
    #[cfg(test)]
    pub fn has_landed(self) -> bool {
        match self {
            Self::Committed | Self::Unchanged => true,
            Self::Unverified | Self::Pending | Self::Waiting | Self::Superseded | Self::Refused | Self::Cancelled => {
                false
            }
        }
    }

    /// The states in which an update is open.
    pub fn open() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|state| state.is_open())
    }
}

words! {
    /// Why an update is wanted.
    Cause {
        /// A registry announced a push.
        Push = "push",
        /// No webhook announced the tag; the registry's list of tags shows it.
        CatchUp = "catch-up",
        /// A promotion from one environment to another, or of a named version.
        Promotion = "promotion",
        /// A rollback to an earlier version.
        Rollback = "rollback",
        /// The gate of an environment that this one follows has opened for a version.
        Follow = "follow",
    }
}

words! {
    /// The gate of an update that may wait for it, at the last look.
    UpdateGate {
        /// The version may not leave its environment yet.
        Closed = "closed",
        /// The version may leave its environment.
        Open = "open",
    }
}

impl Cause {
    /// Whether the cause is an event.
    ///
    /// An update of an event is compared with the running versions, and waits for holds.
    pub fn is_event(self) -> bool {
        match self {
            Self::Push | Self::CatchUp => true,
            Self::Promotion | Self::Rollback | Self::Follow => false,
        }
    }

    /// Whether no person asked for the update: it is compared with what runs, and waits for holds.
    pub fn is_automatic(self) -> bool {
        match self {
            Self::Push | Self::CatchUp | Self::Follow => true,
            Self::Promotion | Self::Rollback => false,
        }
    }
}

/// One edited site, as a row of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteChange {
    /// The file, from the root of the config repository.
    pub path: String,
    /// The line of the value, counted from 1.
    pub line: u32,
    pub old: Version,
    pub new: Version,
}

/// An update and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// A ULID: sorts by the order in which updates were made.
    pub id: String,
    pub environment: String,
    pub repository: Repository,
    pub version: Version,
    pub cause: Cause,
    /// The id of the event or request: its ULID is the order of arrival.
    pub cause_id: String,
    /// The receiver, or the name of the API token.
    pub actor: String,
    pub state: UpdateState,
    /// Why the update ended or waits, or the answer to the last failed try.
    pub reason: Option<String>,
    /// How many tries failed.
    pub failures: u32,
    /// When the next try is due; `None`: at once.
    pub next_attempt_at: Option<Timestamp>,
    /// When the image was pushed, according to the registry.
    pub pushed_at: Option<Timestamp>,
    /// When the cause arrived.
    pub received_at: Timestamp,
    /// When the last wait cause ended; `None`: the update never waited.
    pub released_at: Option<Timestamp>,
    /// The commit on the branch.
    pub commit: Option<String>,
    /// The version that the environment ran before.
    pub old: Option<Version>,
    /// The edited sites.
    pub changes: Vec<SiteChange>,
    /// When the update reached its final state.
    pub finished_at: Option<Timestamp>,
    /// The criterion that decided whether the version is newer; `None` for promotions and rollbacks.
    pub decided_by: Option<String>,
    /// The version with which the update was compared, and the result, in words.
    pub decided_because: Option<String>,
    /// The versions that the environment ran when a promotion or rollback was requested; `None` for events.
    pub expected: Option<Vec<Version>>,
    /// The parent of all further spans of the update.
    pub trace: TraceContext,
    /// Why a promotion or rollback passes a freeze or a closed gate.
    pub override_reason: Option<String>,
    /// The gate of its source at the last look; `None`: it passes no gate, or passed it with the request.
    pub gate: Option<UpdateGate>,
}

impl Update {
    /// Returns the time since which the update could be written.
    ///
    /// That is the end of its last wait cause, or else the time at which it was made.
    pub fn wanted_since(&self) -> Timestamp {
        let made = || {
            let milliseconds = Ulid::from_string(&self.id).ok()?.timestamp_ms();
            Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
        };
        self.released_at.or_else(made).unwrap_or(self.received_at)
    }

    /// Whether the update passes freezes.
    pub fn passes_freezes(&self) -> bool {
        self.cause == Cause::Rollback || self.override_reason.is_some()
    }
}
