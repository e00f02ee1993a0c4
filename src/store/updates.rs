use std::collections::HashSet;

use jiff::Timestamp;

use super::rows::SiteChange;
use super::writer::{Transaction, Write};
use super::{Cause, Event, EventState, Party, Store, StoreError, Update, UpdateState, follow_ups, freezes, holds};
use crate::image::{Digest, Repository, Tag, Version};
use crate::telemetry::TraceContext;

/// Where an update goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) environment: &'a str,
    pub(super) repository: &'a Repository,
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
    /// What the place ran when somebody asked for it; `None` where that is noted with the decision.
    pub(super) compared: Option<&'a [Version]>,
}

/// What is about to be pushed for an update.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The update.
    pub update_id: String,
    /// The commit that shall carry it.
    pub commit: String,
    /// What the environment runs before it.
    pub old: Version,
    /// The edited sites.
    pub changes: Vec<SiteChange>,
}

/// The end of an update.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The update.
    pub update_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether Argo CD is followed when it is committed.
    pub follow: bool,
    /// Who refused it, where that is not the registry of what it has not confirmed, or else the branch.
    pub asked: Option<Party>,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The commit of its last attempt is on the branch.
    Committed,
    /// The environment runs the version already.
    Unchanged,
    /// A newer update took its place.
    Superseded {
        /// Which.
        reason: String,
    },
    /// A final no.
    Refused {
        /// Why.
        reason: String,
    },
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
            "SELECT * FROM updates WHERE state = 'pending' AND environment IN (SELECT value FROM json_each(?))
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
            sqlx::query_as("SELECT * FROM updates WHERE state = 'waiting' ORDER BY id").fetch_all(&self.reads).await?;
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

    /// Records what is about to be pushed, so that a restart in the middle of it knows what may be there.
    ///
    /// Returns the updates that must not be pushed after all, because a hold, a freeze or something newer came while they
    /// were prepared, with the states that they have now.
    ///
    /// # Errors
    ///
    /// When it could not be stored: then nothing must be pushed.
    pub async fn record_attempts(&self, attempts: Vec<Attempt>) -> Result<Vec<(String, UpdateState)>, StoreError> {
        self.record_attempts_in_doubt(attempts, HashSet::new()).await
    }

    /// As [`record_attempts`](Self::record_attempts), but of the updates in `in_doubt` an earlier attempt may still land:
    /// where something newer came, they are returned and stay pending, so that they end as what they come to be.
    ///
    /// # Errors
    ///
    /// When it could not be stored: then nothing must be pushed.
    pub async fn record_attempts_in_doubt(
        &self,
        attempts: Vec<Attempt>,
        in_doubt: HashSet<String>,
    ) -> Result<Vec<(String, UpdateState)>, StoreError> {
        self.writes.run(RecordAttempts { attempts, in_doubt }).await
    }

    /// Records which attempt of several it was that reached the branch.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn record_landed(&self, attempts: Vec<Attempt>) -> Result<(), StoreError> {
        self.writes.run(RecordLanded(attempts)).await
    }

    /// Takes back the attempts of updates whose push certainly changed nothing.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn forget_attempts(&self, ids: Vec<String>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.writes.run(ForgetAttempts(ids)).await
    }

    /// Records how updates ended, and what that means for their events and holds.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn finish(&self, finished: Vec<Finish>) -> Result<(), StoreError> {
        if finished.is_empty() {
            return Ok(());
        }
        self.writes.run(FinishUpdates(finished)).await
    }
}

pub(super) async fn insert(tx: &mut Transaction<'_>, update: &NewUpdate<'_>) -> Result<String, sqlx::Error> {
    let id = tx.next_id();
    let compared = update.compared.map(serde_json::to_string).transpose();
    let compared = compared.map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let is_open = matches!(update.state, UpdateState::Unverified | UpdateState::Pending | UpdateState::Waiting);
    sqlx::query(
        "INSERT INTO updates (id, environment, registry, repository, tag, digest, cause, cause_id, actor, state, reason,
            pushed_at, received_at, finished_at, trace_parent, override_reason, compared)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&id)
    .bind(update.place.environment)
    .bind(update.place.repository.registry())
    .bind(update.place.repository.as_str())
    .bind(update.version.tag().map(Tag::as_str))
    .bind(update.version.digest().map(Digest::as_str))
    .bind(update.cause.as_str())
    .bind(update.cause_id)
    .bind(update.actor)
    .bind(update.state.as_str())
    .bind(&update.reason)
    .bind(update.pushed_at.map(Timestamp::as_millisecond))
    .bind(update.received_at.as_millisecond())
    .bind((!is_open).then(|| tx.now_milliseconds()))
    .bind(update.trace.to_string())
    .bind(update.override_reason)
    .bind(compared)
    .execute(&mut *tx.connection)
    .await?;
    Ok(id)
}

/// Returns the version of an update of the same place that was taken later and counts: it is on the branch or on its
/// way there. A promotion that waits for the registry does not count yet; a rollback does from the beginning.
///
/// A push was compared when it was taken, so that one that is taken later is newer, whichever was announced first. For
/// what somebody asked for, only what was also announced later counts, and what waits does not: a push that waits for
/// the hold of a rollback must not end that rollback.
pub(super) async fn newer_than(tx: &mut Transaction<'_>, update: &Update) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce(tag, digest) FROM updates WHERE environment = ?1 AND repository = ?2 AND id > ?3
            AND (?4 OR cause_id > ?5)
            AND (state IN ('pending', 'committed', 'unchanged') OR (state = 'waiting' AND ?4)
                OR (state = 'unverified' AND cause = 'rollback'))
         ORDER BY id DESC LIMIT 1",
    )
    .bind(&update.environment)
    .bind(update.repository.as_str())
    .bind(&update.id)
    .bind(update.cause.is_event())
    .bind(&update.cause_id)
    .fetch_optional(&mut *tx.connection)
    .await
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
    for event in events {
        settle_event(tx, &event).await?;
    }
    Ok(())
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
    for cause in causes {
        settle_event(tx, &cause).await?;
    }
    Ok(())
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
    for cause in causes {
        settle_event(tx, &cause).await?;
    }
    Ok(())
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
    for cause in causes {
        settle_cause(tx, &cause, UpdateState::Superseded).await?;
    }
    Ok(())
}

/// Ends the updates of a place that wait and that this one, which the place runs now, is newer than: they could not be
/// written any more.
pub(super) async fn supersede_waiting(
    tx: &mut Transaction<'_>,
    place: &Place<'_>,
    (id, cause_id, version): (&str, &str, &str),
) -> Result<(), sqlx::Error> {
    let causes: Vec<String> = sqlx::query_scalar(
        "UPDATE updates INDEXED BY updates_waiting SET state = 'superseded', reason = ?1, finished_at = ?2
         WHERE environment = ?3 AND repository = ?4 AND state = 'waiting' AND commit_id IS NULL AND id < ?5
            AND (cause IN ('push', 'catch-up') OR cause_id < ?6) RETURNING cause_id",
    )
    .bind(overtaken(version, place.environment))
    .bind(tx.now_milliseconds())
    .bind(place.environment)
    .bind(place.repository.as_str())
    .bind(id)
    .bind(cause_id)
    .fetch_all(&mut *tx.connection)
    .await?;
    for cause in causes {
        settle_cause(tx, &cause, UpdateState::Superseded).await?;
    }
    Ok(())
}

/// Draws the conclusions of the end of an update for what it is of: an event gets its state, and a rollback that did
/// not happen loses its hold.
async fn settle_cause(tx: &mut Transaction<'_>, cause_id: &str, state: UpdateState) -> Result<(), sqlx::Error> {
    if matches!(state, UpdateState::Refused | UpdateState::Superseded) {
        holds::end_of_request(tx, cause_id).await?;
    }
    settle_event(tx, cause_id).await
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
    for (index, (id, cause_id, may_be_there)) in waiting.iter().enumerate() {
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
        settle_event(tx, cause_id).await?;
    }
    Ok(())
}

/// Gives an event the state that its updates add up to. Does nothing for ids that are no event's.
pub(super) async fn settle_event(tx: &mut Transaction<'_>, event_id: &str) -> Result<(), sqlx::Error> {
    let event: Option<Event> =
        sqlx::query_as("SELECT * FROM events WHERE id = ?").bind(event_id).fetch_optional(&mut *tx.connection).await?;
    if event.is_none() {
        return Ok(());
    }
    let updates: Vec<Update> = sqlx::query_as("SELECT * FROM updates WHERE cause_id = ? ORDER BY id")
        .bind(event_id)
        .fetch_all(&mut *tx.connection)
        .await?;
    let (state, reason) = event_state(&updates);
    let is_final = !matches!(state, EventState::Queued | EventState::Pending | EventState::Waiting);
    sqlx::query("UPDATE events SET state = ?, reason = ?, finished_at = ? WHERE id = ?")
        .bind(state.as_str())
        .bind(reason)
        .bind(is_final.then(|| tx.now_milliseconds()))
        .bind(event_id)
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}

/// Returns what the updates of an event add up to: what is open first, then the best that came of it.
fn event_state(updates: &[Update]) -> (EventState, Option<String>) {
    let order = [
        (UpdateState::Unverified, EventState::Pending),
        (UpdateState::Pending, EventState::Pending),
        (UpdateState::Waiting, EventState::Waiting),
        (UpdateState::Committed, EventState::Committed),
        (UpdateState::Unchanged, EventState::Unchanged),
        (UpdateState::Refused, EventState::Refused),
        (UpdateState::Superseded, EventState::Superseded),
    ];
    for (update_state, event_state) in order {
        if let Some(update) = updates.iter().rev().find(|update| update.state == update_state) {
            return (event_state, update.reason.clone());
        }
    }
    (EventState::Unchanged, None)
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
        settle_cause(tx, &update.cause_id, state).await?;
        Ok(Some(state))
    }
}

/// Returns why an update has to wait for a freeze to end; `None`: nothing is frozen, or it passes.
async fn frozen_for(tx: &mut Transaction<'_>, update: &Update) -> Result<Option<String>, sqlx::Error> {
    if update.cause == Cause::Rollback || update.override_reason.is_some() {
        return Ok(None);
    }
    Ok(freezes::frozen_in(tx, &update.environment).await?.map(|frozen| frozen.explanation()))
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

struct RecordAttempts {
    attempts: Vec<Attempt>,
    in_doubt: HashSet<String>,
}

impl Write for RecordAttempts {
    type Output = Vec<(String, UpdateState)>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<(String, UpdateState)>, sqlx::Error> {
        let mut dropped = Vec::new();
        for attempt in &self.attempts {
            let may_land = self.in_doubt.contains(&attempt.update_id);
            match why_not_written(tx, &attempt.update_id, may_land).await? {
                None => record(tx, attempt).await?,
                Some(state) => dropped.push((attempt.update_id.clone(), state)),
            }
        }
        Ok(dropped)
    }
}

struct RecordLanded(Vec<Attempt>);

impl Write for RecordLanded {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for attempt in &self.0 {
            record(tx, attempt).await?;
        }
        Ok(())
    }
}

/// Looks once more, in the transaction that comes before the push, whether an update may be written: a hold, a
/// freeze or a rollback may have been answered while it was prepared. Returns the state that it has where it may not.
async fn why_not_written(
    tx: &mut Transaction<'_>,
    id: &str,
    may_land: bool,
) -> Result<Option<UpdateState>, sqlx::Error> {
    let update: Option<Update> =
        sqlx::query_as("SELECT * FROM updates WHERE id = ?").bind(id).fetch_optional(&mut *tx.connection).await?;
    // Decided again, and therefore deleted: as good as superseded by itself.
    let Some(update) = update else { return Ok(Some(UpdateState::Superseded)) };
    if update.state != UpdateState::Pending {
        return Ok(Some(update.state));
    }
    let place = Place { environment: &update.environment, repository: &update.repository };
    let (state, reason) = if let Some(newer) = newer_than(tx, &update).await? {
        if may_land {
            return Ok(Some(UpdateState::Pending));
        }
        (UpdateState::Superseded, overtaken(&newer, &update.environment))
    } else if let (true, Some(hold)) = (update.cause.is_event(), holds::active_for(tx, &place).await?) {
        (UpdateState::Waiting, hold.explanation())
    } else if let Some(frozen) = frozen_for(tx, &update).await? {
        (UpdateState::Waiting, frozen)
    } else {
        return Ok(None);
    };
    sqlx::query("UPDATE updates SET state = ?, reason = ?, finished_at = ? WHERE id = ?")
        .bind(state.as_str())
        .bind(reason)
        .bind((state == UpdateState::Superseded).then(|| tx.now_milliseconds()))
        .bind(id)
        .execute(&mut *tx.connection)
        .await?;
    settle_cause(tx, &update.cause_id, state).await?;
    Ok(Some(state))
}

async fn record(tx: &mut Transaction<'_>, attempt: &Attempt) -> Result<(), sqlx::Error> {
    let changes = serde_json::to_string(&attempt.changes).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query("UPDATE updates SET commit_id = ?, old_tag = ?, old_digest = ?, changes = ? WHERE id = ?")
        .bind(&attempt.commit)
        .bind(attempt.old.tag().map(Tag::as_str))
        .bind(attempt.old.digest().map(Digest::as_str))
        .bind(changes)
        .bind(&attempt.update_id)
        .execute(&mut *tx.connection)
        .await
        .map(|_| ())
}

struct ForgetAttempts(Vec<String>);

impl Write for ForgetAttempts {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for id in &self.0 {
            sqlx::query(
                "UPDATE updates SET commit_id = NULL, old_tag = NULL, old_digest = NULL, changes = NULL
                 WHERE id = ? AND state IN ('pending', 'waiting')",
            )
            .bind(id)
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
    }
}

struct FinishUpdates(Vec<Finish>);

impl Write for FinishUpdates {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for finish in &self.0 {
            let (state, reason) = match &finish.outcome {
                Outcome::Committed => (UpdateState::Committed, None),
                Outcome::Unchanged => (UpdateState::Unchanged, None),
                Outcome::Superseded { reason } => (UpdateState::Superseded, Some(reason)),
                Outcome::Refused { reason } => (UpdateState::Refused, Some(reason)),
            };
            let keeps_commit = state == UpdateState::Committed;
            let ended: Option<Update> = sqlx::query_as(
                "UPDATE updates SET state = ?1, reason = ?2, finished_at = ?3, next_attempt_at = NULL,
                    commit_id = CASE WHEN ?4 THEN commit_id END, changes = CASE WHEN ?4 THEN changes END,
                    old_tag = CASE WHEN ?4 THEN old_tag END, old_digest = CASE WHEN ?4 THEN old_digest END, asked = ?6
                 WHERE id = ?5 AND state IN ('unverified', 'pending', 'waiting') RETURNING *",
            )
            .bind(state.as_str())
            .bind(reason)
            .bind(tx.now_milliseconds())
            .bind(keeps_commit)
            .bind(&finish.update_id)
            .bind(finish.asked.map(Party::as_str))
            .fetch_optional(&mut *tx.connection)
            .await?;
            let Some(ended) = ended else { continue };
            if keeps_commit && finish.follow {
                follow_ups::begin(tx, &finish.update_id).await?;
            }
            settle_cause(tx, &ended.cause_id, state).await?;
            if matches!(state, UpdateState::Committed | UpdateState::Unchanged) {
                let place = Place { environment: &ended.environment, repository: &ended.repository };
                let newer = (ended.id.as_str(), ended.cause_id.as_str(), &*ended.version.short());
                supersede_waiting(tx, &place, newer).await?;
                if ended.cause == Cause::Rollback {
                    holds::replace_earlier(tx, &place, &ended.cause_id).await?;
                }
            }
        }
        Ok(())
    }
}
