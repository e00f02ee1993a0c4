use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::writer::{Transaction, Write};
use super::{Cause, PlannedUpdate, Store, StoreError, Update, UpdateState, freezes, holds, json_text};
use crate::image::{Digest, Repository, Tag, Version};
use crate::telemetry::TraceContext;

/// Where an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place<'a> {
    pub(super) environment: &'a str,
    pub(super) repository: &'a Repository,
}

impl<'a> Place<'a> {
    pub(super) fn of(update: &'a Update) -> Self {
        Self { environment: &update.environment, repository: &update.repository }
    }
}

/// A row of `updates` before it has an id.
pub(super) struct NewUpdate<'a> {
    pub(super) place: Place<'a>,
    pub(super) version: &'a Version,
    pub(super) cause: Cause,
    pub(super) cause_id: &'a str,
    pub(super) actor: &'a str,
    pub(super) state: UpdateState,
    pub(super) reason: Option<String>,
    pub(super) pushed_at: Option<Timestamp>,
    pub(super) received_at: Timestamp,
    pub(super) trace: &'a TraceContext,
    pub(super) override_reason: Option<&'a str>,
    /// How it was compared; `None` for what somebody asked for.
    pub(super) decided: Option<&'a PlannedUpdate>,
    /// What the place ran when somebody asked for it; `None` where that is noted with the decision.
    pub(super) compared: Option<&'a [Version]>,
}

/// What history is narrowed down to.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Only this environment.
    pub environment: Option<String>,
    /// Only this repository.
    pub repository: Option<Repository>,
    /// At most so many, newest first.
    pub limit: u32,
}

impl Store {
    /// Returns the updates that wait for the writer of these environments' branch, in the order in which they were
    /// taken: each is newer than those of its place before it, whichever was announced first.
    ///
    /// Those of a request of which others are just being confirmed are left out, so that a promotion of many
    /// repositories is one commit. A registry that could not answer holds up its own images only.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn pending_updates(&self, environments: &[String], limit: u32) -> Result<Vec<Update>, StoreError> {
        let names = serde_json::to_string(environments).unwrap_or_default();
        let updates = sqlx::query_as(
            "SELECT * FROM updates INDEXED BY updates_pending
             WHERE state = 'pending' AND environment IN (SELECT value FROM json_each(?))
                AND NOT EXISTS (
                    SELECT 1 FROM updates AS other WHERE other.cause_id = updates.cause_id
                        AND other.state = 'unverified' AND other.attempts = 0)
             ORDER BY id LIMIT ?",
        )
        .bind(names)
        .bind(limit)
        .fetch_all(&self.reads)
        .await?;
        Ok(updates)
    }

    /// Returns whether something that somebody asked for waits for the writer of these environments' branch.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn is_request_pending(&self, environments: &[String]) -> Result<bool, StoreError> {
        let is_there = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM updates INDEXED BY updates_pending WHERE state = 'pending'
                AND cause NOT IN ('push', 'catch-up') AND environment IN (SELECT value FROM json_each(?)))",
        )
        .bind(json_text(environments)?)
        .fetch_one(&self.reads)
        .await?;
        Ok(is_there)
    }

    /// Returns updates that have not come to an end, of environments other than these.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn open_updates_elsewhere(&self, known: &[String], limit: u32) -> Result<Vec<Update>, StoreError> {
        let names = serde_json::to_string(known).unwrap_or_default();
        let updates = sqlx::query_as(
            // One look for each state, because a list of them would not use the index.
            "SELECT * FROM updates WHERE id IN (
                SELECT id FROM updates WHERE state = 'unverified'
                UNION ALL SELECT id FROM updates WHERE state = 'pending'
                UNION ALL SELECT id FROM updates WHERE state = 'waiting')
                AND environment NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
        )
        .bind(names)
        .bind(limit)
        .fetch_all(&self.reads)
        .await?;
        Ok(updates)
    }

    /// Returns the updates of an event or a request, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn updates_of(&self, cause_id: &str) -> Result<Vec<Update>, StoreError> {
        let updates = sqlx::query_as("SELECT * FROM updates WHERE cause_id = ? ORDER BY id")
            .bind(cause_id)
            .fetch_all(&self.reads)
            .await?;
        Ok(updates)
    }

    /// Returns the updates of these events and requests by their ids, those of each in the order in which they were made.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn updates_of_all(&self, cause_ids: &[&str]) -> Result<HashMap<String, Vec<Update>>, StoreError> {
        let updates: Vec<Update> =
            sqlx::query_as("SELECT * FROM updates WHERE cause_id IN (SELECT value FROM json_each(?)) ORDER BY id")
                .bind(serde_json::json!(cause_ids).to_string())
                .fetch_all(&self.reads)
                .await?;
        let mut by_cause: HashMap<String, Vec<Update>> = HashMap::new();
        for update in updates {
            by_cause.entry(update.cause_id.clone()).or_default().push(update);
        }
        Ok(by_cause)
    }

    /// Returns the refused updates of these events and requests, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn refused_updates_of(&self, cause_ids: &[&str]) -> Result<Vec<Update>, StoreError> {
        let updates = sqlx::query_as(
            "SELECT * FROM updates INDEXED BY updates_refused WHERE state = 'refused'
                AND cause_id IN (SELECT value FROM json_each(?)) ORDER BY id",
        )
        .bind(serde_json::json!(cause_ids).to_string())
        .fetch_all(&self.reads)
        .await?;
        Ok(updates)
    }

    /// Returns committed updates, newest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn history(&self, filter: &HistoryFilter) -> Result<Vec<Update>, StoreError> {
        let updates = sqlx::query_as(
            "SELECT * FROM updates WHERE state = 'committed' AND (?1 IS NULL OR environment = ?1)
                AND (?2 IS NULL OR repository = ?2)
             ORDER BY finished_at DESC, id DESC LIMIT ?3",
        )
        .bind(&filter.environment)
        .bind(filter.repository.as_ref().map(Repository::as_str))
        .bind(filter.limit)
        .fetch_all(&self.reads)
        .await?;
        Ok(updates)
    }

    /// Returns the last committed update of every environment and repository.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn last_changes(&self) -> Result<Vec<Update>, StoreError> {
        let updates = sqlx::query_as(
            "SELECT * FROM (
                SELECT *, row_number() OVER (PARTITION BY environment, repository ORDER BY finished_at DESC, id DESC)
                    AS place FROM updates WHERE state = 'committed'
             ) WHERE place = 1",
        )
        .fetch_all(&self.reads)
        .await?;
        Ok(updates)
    }

    /// Returns the updates that wait for a hold or freeze to end, in the order in which they were taken.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn waiting_updates(&self) -> Result<Vec<Update>, StoreError> {
        let updates =
            sqlx::query_as("SELECT * FROM updates INDEXED BY updates_waiting WHERE state = 'waiting' ORDER BY id")
                .fetch_all(&self.reads)
                .await?;
        Ok(updates)
    }

    /// Returns those updates of these environments that wait for a hold or freeze to end and may be on the branch already,
    /// because the answer to their push was lost before they had to wait.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn waiting_in_doubt(&self, environments: &[String]) -> Result<Vec<Update>, StoreError> {
        let names = serde_json::to_string(environments).unwrap_or_default();
        let updates = sqlx::query_as(
            "SELECT * FROM updates INDEXED BY updates_waiting WHERE state = 'waiting' AND commit_id IS NOT NULL
                AND environment IN (SELECT value FROM json_each(?)) ORDER BY id",
        )
        .bind(names)
        .fetch_all(&self.reads)
        .await?;
        Ok(updates)
    }

    /// Records that the registry confirmed an update of a request: its writer may take it, or it waits for a freeze to end.
    /// Returns its state then; `None` where nobody waited for the confirmation any more.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn verify_update(
        &self,
        id: &str,
        digest: Option<&Digest>,
        note: Option<String>,
    ) -> Result<Option<UpdateState>, StoreError> {
        self.writes.run(Verified { id: id.to_owned(), digest: digest.cloned(), note }).await
    }

    /// Records what an update met and, for one that waits for the registry, when it is tried again.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn postpone_updates(
        &self,
        ids: Vec<String>,
        until: Option<Timestamp>,
        reason: String,
    ) -> Result<(), StoreError> {
        self.writes.run(PostponeUpdates { ids, until, reason }).await
    }
}

/// Inserts updates, in this order. Returns their ids.
pub(super) async fn insert(tx: &mut Transaction<'_>, updates: &[NewUpdate<'_>]) -> Result<Vec<String>, sqlx::Error> {
    if updates.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = updates.iter().map(|_| tx.next_id()).collect();
    let now = tx.now_milliseconds();
    let row = |(id, update): (&String, &NewUpdate<'_>)| {
        let is_open = matches!(update.state, UpdateState::Unverified | UpdateState::Pending | UpdateState::Waiting);
        let asked = || update.compared.map(|compared| (None, None, compared));
        let decided = update
            .decided
            .map(|planned| (Some(planned.decided_by), Some(&planned.decided_because), planned.compared.as_slice()));
        let decided = decided.or_else(asked);
        serde_json::json!([
            id,
            update.place.environment,
            update.place.repository.registry(),
            update.place.repository.as_str(),
            update.version.tag().map(Tag::as_str),
            update.version.digest().map(Digest::as_str),
            update.cause.as_str(),
            update.cause_id,
            update.actor,
            update.state.as_str(),
            update.reason,
            update.pushed_at.map(Timestamp::as_millisecond),
            update.received_at.as_millisecond(),
            (!is_open).then_some(now),
            update.trace.to_string(),
            update.override_reason,
            decided,
        ])
    };
    sqlx::query(
        "INSERT INTO updates (id, environment, registry, repository, tag, digest, cause, cause_id, actor, state, reason,
            pushed_at, received_at, finished_at, trace_parent, override_reason, decided_by, decided_because, compared)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
            value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14,
            value ->> 15, value ->> '$[16][0]', value ->> '$[16][1]', value -> '$[16][2]'
         FROM json_each(?)",
    )
    .bind(json_text(ids.iter().zip(updates).map(row).collect::<Vec<_>>())?)
    .execute(&mut *tx.connection)
    .await?;
    Ok(ids)
}

/// The version of an update of the same place as `this` that was taken later and counts: it is on the branch or on its
/// way there. A promotion that waits for the registry does not count yet; a rollback does from the beginning.
///
/// A push was compared when it was taken, so that one that is taken later is newer, whichever was announced first. For
/// what somebody asked for, only what was also announced later counts, and what waits does not: a push that waits for
/// the hold of a rollback must not end that rollback.
macro_rules! NEWER {
    () => {
        crate::store::updates::NEWER!("")
    };
    ($and:literal) => {
        concat!(
            "SELECT coalesce(tag, digest) FROM updates AS newer
             WHERE environment = this.environment AND repository = this.repository AND id > this.id
                AND (this.cause IN ('push', 'catch-up') OR cause_id > this.cause_id)
                AND (state IN ('pending', 'committed', 'unchanged')
                    OR (state = 'waiting' AND this.cause IN ('push', 'catch-up'))
                    OR (state = 'unverified' AND cause = 'rollback'))",
            $and,
            " ORDER BY id DESC LIMIT 1"
        )
    };
}
pub(super) use NEWER;

/// Returns the version that is `NEWER` than an update.
async fn newer_than(tx: &mut Transaction<'_>, update: &Update) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(concat!("SELECT (", NEWER!(), ") FROM updates AS this WHERE id = ?"))
        .bind(&update.id)
        .fetch_optional(&mut *tx.connection)
        .await
        .map(Option::flatten)
}

/// Returns whether a push of another update of the place is under way, so that what runs there is about to change.
pub(super) async fn is_being_pushed(tx: &mut Transaction<'_>, place: &Place<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM updates WHERE environment = ? AND repository = ? AND state = 'pending'
            AND commit_id IS NOT NULL)",
    )
    .bind(place.environment)
    .bind(place.repository.as_str())
    .fetch_one(&mut *tx.connection)
    .await
}

/// Makes the pending push updates of a place wait.
pub(super) async fn park_pending(tx: &mut Transaction<'_>, place: &Place<'_>, reason: &str) -> Result<(), sqlx::Error> {
    let events: Vec<String> = sqlx::query_scalar(
        "UPDATE updates SET state = 'waiting', reason = ? WHERE environment = ? AND repository = ?
            AND state = 'pending' AND cause IN ('push', 'catch-up') AND commit_id IS NULL RETURNING cause_id",
    )
    .bind(reason)
    .bind(place.environment)
    .bind(place.repository.as_str())
    .fetch_all(&mut *tx.connection)
    .await?;
    settle_events(tx, &events).await
}

/// Makes what is pending in an environment wait for a freeze, but for rollbacks and what overrides it.
pub(super) async fn park_frozen(tx: &mut Transaction<'_>, environment: &str, reason: &str) -> Result<(), sqlx::Error> {
    let causes: Vec<String> = sqlx::query_scalar(
        "UPDATE updates INDEXED BY updates_pending SET state = 'waiting', reason = ?
         WHERE environment = ? AND state = 'pending' AND cause <> 'rollback' AND override_reason IS NULL AND commit_id IS NULL RETURNING cause_id",
    )
    .bind(reason)
    .bind(environment)
    .fetch_all(&mut *tx.connection)
    .await?;
    settle_events(tx, &causes).await
}

/// Says what the waiting updates of a place wait for, where that is something else than before.
pub(super) async fn wait_for(tx: &mut Transaction<'_>, place: &Place<'_>, reason: &str) -> Result<(), sqlx::Error> {
    let causes: Vec<String> = sqlx::query_scalar(
        "UPDATE updates INDEXED BY updates_waiting SET reason = ?1
         WHERE environment = ?2 AND repository = ?3 AND state = 'waiting' AND reason IS NOT ?1 RETURNING cause_id",
    )
    .bind(reason)
    .bind(place.environment)
    .bind(place.repository.as_str())
    .fetch_all(&mut *tx.connection)
    .await?;
    settle_events(tx, &causes).await
}

/// Ends the updates of a place that are not written yet, because a rollback came after them.
pub(super) async fn supersede_open(
    tx: &mut Transaction<'_>,
    place: &Place<'_>,
    request_id: &str,
) -> Result<(), sqlx::Error> {
    let causes: Vec<String> = sqlx::query_scalar(
        "UPDATE updates SET state = 'superseded', reason = ?, finished_at = ? WHERE environment = ? AND repository = ?
            AND state IN ('unverified', 'pending', 'waiting') AND cause_id <> ? AND commit_id IS NULL RETURNING cause_id",
    )
    .bind(format!("rollback {request_id} came later"))
    .bind(tx.now_milliseconds())
    .bind(place.environment)
    .bind(place.repository.as_str())
    .bind(request_id)
    .fetch_all(&mut *tx.connection)
    .await?;
    let causes: Vec<(&String, UpdateState)> = causes.iter().map(|cause| (cause, UpdateState::Superseded)).collect();
    settle_causes(tx, &causes).await
}

/// Ends what waits and is older than one of these updates, which their places run now: it could not be written any more.
pub(super) async fn supersede_waiting(tx: &mut Transaction<'_>, ids: &[&String]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let causes: Vec<String> = sqlx::query_scalar(
        // In the words of `overtaken`.
        "UPDATE updates AS older INDEXED BY updates_waiting SET state = 'superseded', finished_at = ?2,
            reason = 'older: ' || newer.version || ' was taken later for ' || older.environment
         FROM (
            SELECT id AS newer_id, cause_id AS newer_cause, environment AS place, repository AS image,
                coalesce(tag, digest) AS version
            FROM updates WHERE id IN (SELECT value FROM json_each(?1))
         ) AS newer
         WHERE older.state = 'waiting' AND older.environment = newer.place AND older.repository = newer.image
            AND older.commit_id IS NULL AND older.id < newer.newer_id
            AND (older.cause IN ('push', 'catch-up') OR older.cause_id < newer.newer_cause)
         RETURNING cause_id",
    )
    .bind(json_text(ids)?)
    .bind(tx.now_milliseconds())
    .fetch_all(&mut *tx.connection)
    .await?;
    let causes: Vec<(&String, UpdateState)> = causes.iter().map(|cause| (cause, UpdateState::Superseded)).collect();
    settle_causes(tx, &causes).await
}

/// Draws the conclusions of the ends of updates for what they are of: an event gets its state, and a rollback that did
/// not happen loses its hold.
pub(super) async fn settle_causes(
    tx: &mut Transaction<'_>,
    causes: &[(&String, UpdateState)],
) -> Result<(), sqlx::Error> {
    let failed = |(_, state): &&(&String, UpdateState)| matches!(state, UpdateState::Refused | UpdateState::Superseded);
    let failed: Vec<&String> = causes.iter().filter(failed).map(|(cause, _)| *cause).collect();
    if !failed.is_empty() {
        holds::end_of_requests(tx, &failed).await?;
    }
    settle_events(tx, &causes.iter().map(|(cause, _)| *cause).collect::<Vec<_>>()).await
}

/// Lets the newest waiting update of a place go, and supersedes the others. What may be on the branch already, because the
/// answer to its push was lost, goes, too: its writer looks there first.
pub(super) async fn let_go(tx: &mut Transaction<'_>, place: &Place<'_>) -> Result<(), sqlx::Error> {
    let waiting: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT id, cause_id, commit_id IS NOT NULL FROM updates WHERE environment = ? AND repository = ? AND state = 'waiting'
         ORDER BY id DESC",
    )
    .bind(place.environment)
    .bind(place.repository.as_str())
    .fetch_all(&mut *tx.connection)
    .await?;
    for (index, (id, _, may_be_there)) in waiting.iter().enumerate() {
        if index == 0 || *may_be_there {
            sqlx::query("UPDATE updates SET state = 'pending', reason = NULL, released_at = ? WHERE id = ?")
                .bind(tx.now_milliseconds())
                .bind(id)
                .execute(&mut *tx.connection)
                .await?;
        } else {
            sqlx::query("UPDATE updates SET state = 'superseded', reason = ?, finished_at = ? WHERE id = ?")
                .bind(format!("{} is newer and waited, too", waiting[0].1))
                .bind(tx.now_milliseconds())
                .bind(id)
                .execute(&mut *tx.connection)
                .await?;
        }
    }
    settle_events(tx, &waiting.iter().map(|(_, cause_id, _)| cause_id).collect::<Vec<_>>()).await
}

/// Gives events the states that their updates add up to: what is open first, then the best that came of it, and of
/// several of a kind the latest. Does nothing for ids that are no event's, and leaves those that are queued: what is still to
/// be decided of them is not among their updates.
pub(super) async fn settle_events<S: AsRef<str>>(tx: &mut Transaction<'_>, ids: &[S]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: BTreeSet<&str> = ids.iter().map(AsRef::as_ref).collect();
    sqlx::query(
        "UPDATE events SET state = best.state, reason = best.reason,
            finished_at = CASE WHEN best.state IN ('pending', 'waiting') THEN NULL ELSE ?2 END
         FROM (
            SELECT event_id, reason, CASE state WHEN 'unverified' THEN 'pending' ELSE coalesce(state, 'unchanged') END
                AS state
            FROM (
                SELECT wanted.value AS event_id, updates.state, updates.reason, row_number() OVER (
                    PARTITION BY wanted.value ORDER BY CASE updates.state
                        WHEN 'unverified' THEN 0 WHEN 'pending' THEN 1 WHEN 'waiting' THEN 2 WHEN 'committed' THEN 3
                        WHEN 'unchanged' THEN 4 WHEN 'refused' THEN 5 ELSE 6 END, updates.id DESC) AS place
                FROM json_each(?1) AS wanted LEFT JOIN updates ON updates.cause_id = wanted.value)
            WHERE place = 1
         ) AS best WHERE events.id = best.event_id AND events.state <> 'queued'",
    )
    .bind(json_text(&ids)?)
    .bind(tx.now_milliseconds())
    .execute(&mut *tx.connection)
    .await
    .map(|_| ())
}

struct Verified {
    id: String,
    digest: Option<Digest>,
    note: Option<String>,
}

impl Write for Verified {
    type Output = Option<UpdateState>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Option<UpdateState>, sqlx::Error> {
        let update: Option<Update> = sqlx::query_as("SELECT * FROM updates WHERE id = ? AND state = 'unverified'")
            .bind(&self.id)
            .fetch_optional(&mut *tx.connection)
            .await?;
        let Some(update) = update else { return Ok(None) };
        let (state, reason) = if let Some(newer) = newer_than(tx, &update).await? {
            // The registry was asked for so long that something newer has taken the place.
            (UpdateState::Superseded, Some(overtaken(&newer, &update.environment)))
        } else if let Some(frozen) = frozen_for(tx, &update).await? {
            (UpdateState::Waiting, Some(frozen))
        } else {
            (UpdateState::Pending, self.note.clone())
        };
        sqlx::query(
            "UPDATE updates SET state = ?, digest = coalesce(?, digest), reason = ?, next_attempt_at = NULL,
                finished_at = ? WHERE id = ?",
        )
        .bind(state.as_str())
        .bind(self.digest.as_ref().map(Digest::as_str))
        .bind(reason)
        .bind((state == UpdateState::Superseded).then(|| tx.now_milliseconds()))
        .bind(&self.id)
        .execute(&mut *tx.connection)
        .await?;
        settle_causes(tx, &[(&update.cause_id, state)]).await?;
        Ok(Some(state))
    }
}

/// Returns why an update has to wait for a freeze to end; `None`: nothing is frozen, or it passes.
async fn frozen_for(tx: &mut Transaction<'_>, update: &Update) -> Result<Option<String>, sqlx::Error> {
    if passes_freezes(update) {
        return Ok(None);
    }
    Ok(freezes::frozen_in(tx, &update.environment).await?.map(|frozen| frozen.explanation()))
}

/// Returns whether freezes do not keep an update back.
pub(super) fn passes_freezes(update: &Update) -> bool {
    update.cause == Cause::Rollback || update.override_reason.is_some()
}

/// Returns why something is not written although it was asked for.
pub(super) fn overtaken(newer: &str, environment: &str) -> String {
    format!("older: {newer} was taken later for {environment}")
}

struct PostponeUpdates {
    ids: Vec<String>,
    until: Option<Timestamp>,
    reason: String,
}

impl Write for PostponeUpdates {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for id in &self.ids {
            sqlx::query(
                "UPDATE updates SET attempts = attempts + 1, next_attempt_at = ?, reason = ?
                 WHERE id = ? AND state IN ('unverified', 'pending')",
            )
            .bind(self.until.map(Timestamp::as_millisecond))
            .bind(&self.reason)
            .bind(id)
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
    }
}
