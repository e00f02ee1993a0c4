use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::writer::{Transaction, Write};
use super::{Event, EventState, Party, Store, StoreError};
use crate::image::{Digest, Repository, Tag};
use crate::telemetry::TraceContext;

/// A push event that has just been authenticated.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What was pushed.
    pub repository: Repository,
    /// Under which tag.
    pub tag: Tag,
    /// The digest that the payload names.
    pub digest: Option<Digest>,
    /// When the registry says it was pushed.
    pub pushed_at: Option<Timestamp>,
    /// Equal for two deliveries of the same event.
    pub duplicate_key: String,
    /// What was delivered before this time is too old for this to be a duplicate of it.
    pub duplicates_since: Timestamp,
    /// The span that everything that becomes of it is a child of. A duplicate keeps that of the first delivery.
    pub trace: TraceContext,
}

/// What became of a delivered event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The id of the event, which for a duplicate is that of the first delivery.
    pub id: String,
    /// Whether it is new.
    pub state: ReceivedState,
}

/// Whether an event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedState {
    /// Stored, and waiting for the registry's confirmation.
    Queued,
    /// Delivered before.
    Duplicate,
}

/// What a list of events is narrowed down to.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only this repository.
    pub repository: Option<Repository>,
    /// Only this state.
    pub state: Option<EventState>,
    /// Only those that failed for good: refused, or with a refused update in some environment.
    pub failed: bool,
    /// At most so many, newest first.
    pub limit: u32,
}

/// What became of a request to run an event again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It is queued again.
    Queued,
    /// It was to be asked about again at this time, and is at once. How long the answer wants it to wait counts again then.
    Hastened(Timestamp),
    /// It is in a state from which there is nothing to run again.
    NotFinal(EventState),
    /// No such event.
    Unknown,
}

impl Store {
    /// Returns an event, or `None` when there is none of that id.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn event(&self, id: &str) -> Result<Option<Event>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM events WHERE id = ?").bind(id).fetch_optional(&self.reads).await?)
    }

    /// Returns events, newest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let events = sqlx::query_as(
            "SELECT * FROM events WHERE (?1 IS NULL OR repository = ?1) AND (?2 IS NULL OR state = ?2)
                AND (NOT ?4 OR id IN (
                    SELECT id FROM events WHERE state = 'refused'
                    UNION SELECT cause_id FROM updates WHERE state = 'refused'))
             ORDER BY id DESC LIMIT ?3",
        )
        .bind(filter.repository.as_ref().map(Repository::as_str))
        .bind(filter.state.map(EventState::as_str))
        .bind(filter.limit)
        .bind(filter.failed)
        .fetch_all(&self.reads)
        .await?;
        Ok(events)
    }

    /// Records a final no for an event. A later delivery of it runs anew when `redeliverable`.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn refuse_event(&self, refusal: EventRefusal) -> Result<(), StoreError> {
        self.writes.run(refusal).await
    }

    /// Records that somebody who was asked could not answer for an event, and when it is tried again.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn postpone_event(
        &self,
        id: &str,
        until: Timestamp,
        asked: Party,
        reason: String,
    ) -> Result<(), StoreError> {
        self.writes.run(Postpone { id: id.to_owned(), until, asked, reason }).await
    }

    /// Queues an event again that has failed for good, itself or in an environment.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn replay(&self, id: &str) -> Result<Replayed, StoreError> {
        let replayed = self.replay_all(vec![id.to_owned()]).await?;
        Ok(replayed.into_iter().next().unwrap_or(Replayed::Unknown))
    }

    /// Does what [`Store::replay`] does for several events, and returns as many answers.
    ///
    /// # Errors
    ///
    /// When none could be stored.
    pub async fn replay_all(&self, ids: Vec<String>) -> Result<Vec<Replayed>, StoreError> {
        self.writes.run(Replay { ids }).await
    }
}

/// A final no for an event.
#[derive(Debug, Clone)]
pub struct EventRefusal {
    /// The event.
    pub event_id: String,
    /// Why, for people.
    pub reason: String,
    /// The pattern of the image rule that would take it, where one matched.
    pub matched_rule: Option<String>,
    /// Whether the same delivery may run again, because what was missing may have come by then.
    pub redeliverable: bool,
    /// Who said it.
    pub asked: Party,
}

impl Write for EventRefusal {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE events SET state = 'refused', reason = ?, matched_rule = ?, redeliverable = ?, asked = ?,
                next_attempt_at = NULL, finished_at = ? WHERE id = ? AND state = 'queued'",
        )
        .bind(&self.reason)
        .bind(&self.matched_rule)
        .bind(self.redeliverable)
        .bind(self.asked.as_str())
        .bind(tx.now_milliseconds())
        .bind(&self.event_id)
        .execute(&mut *tx.connection)
        .await?;
        Ok(())
    }
}

struct Postpone {
    id: String,
    until: Timestamp,
    asked: Party,
    reason: String,
}

impl Write for Postpone {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE events SET attempts = attempts + 1, next_attempt_at = ?, asked = ?, reason = ?
             WHERE id = ? AND state = 'queued'",
        )
        .bind(self.until.as_millisecond())
        .bind(self.asked.as_str())
        .bind(&self.reason)
        .bind(&self.id)
        .execute(&mut *tx.connection)
        .await?;
        Ok(())
    }
}

struct Replay {
    ids: Vec<String>,
}

impl Write for Replay {
    type Output = Vec<Replayed>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<Replayed>, sqlx::Error> {
        let mut replayed = Vec::with_capacity(self.ids.len());
        for id in &self.ids {
            replayed.push(replay(tx, id).await?);
        }
        Ok(replayed)
    }
}

async fn replay(tx: &mut Transaction<'_>, id: &str) -> Result<Replayed, sqlx::Error> {
    let Some(state) = state_of(tx.connection, id).await? else {
        return Ok(Replayed::Unknown);
    };
    if state == EventState::Queued
        && let Some(until) = hasten(tx, id).await?
    {
        return Ok(Replayed::Hastened(until));
    }
    let is_open = matches!(state, EventState::Queued | EventState::Pending | EventState::Waiting);
    let has_failed = state == EventState::Refused
        || sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM updates WHERE cause_id = ? AND state = 'refused')")
            .bind(id)
            .fetch_one(&mut *tx.connection)
            .await?;
    if is_open || !has_failed {
        return Ok(Replayed::NotFinal(state));
    }
    requeue(tx, id).await?;
    Ok(Replayed::Queued)
}

/// Makes an event due that waits for its next attempt. Returns when that would have been; `None`: it is due already.
async fn hasten(tx: &mut Transaction<'_>, id: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let now = tx.now_milliseconds();
    let next: Option<i64> = sqlx::query_scalar("SELECT next_attempt_at FROM events WHERE id = ?")
        .bind(id)
        .fetch_one(&mut *tx.connection)
        .await?;
    let Some(until) = next.filter(|at| *at > now).and_then(|at| Timestamp::from_millisecond(at).ok()) else {
        return Ok(None);
    };
    // What it waited for stays its reason until there is another answer, and how often it has waited decides the next pause.
    sqlx::query("UPDATE events SET next_attempt_at = NULL WHERE id = ?").bind(id).execute(&mut *tx.connection).await?;
    sqlx::query("INSERT INTO attempts (cause_id, at, asked, answered) VALUES (?, ?, 'replay', ?)")
        .bind(id)
        .bind(now)
        .bind(format!("asked now, and not at {until:.0}"))
        .execute(&mut *tx.connection)
        .await?;
    Ok(Some(until))
}

/// Lets an event run again from the beginning.
pub(super) async fn requeue(tx: &mut Transaction<'_>, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE events SET state = 'queued', reason = NULL, attempts = 0, next_attempt_at = NULL, finished_at = NULL
         WHERE id = ?",
    )
    .bind(id)
    .execute(&mut *tx.connection)
    .await?;
    // What it was refused for stays in its history, and does not count any more.
    sqlx::query(
        "UPDATE updates SET state = 'superseded', reason = 'replayed; before: ' || coalesce(reason, '')
         WHERE cause_id = ? AND state = 'refused'",
    )
    .bind(id)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}

async fn state_of(connection: &mut SqliteConnection, id: &str) -> Result<Option<EventState>, sqlx::Error> {
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM events WHERE id = ?").bind(id).fetch_optional(connection).await?;
    state.map(|word| word.parse().map_err(|error: super::UnknownWord| super::decode_error("state", error))).transpose()
}
