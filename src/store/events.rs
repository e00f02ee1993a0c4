use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::apply::{EventStep, apply_events};
use super::explain;
use super::failures::{self, NewFailure};
use super::rows::{event_columns, parse};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Cause, Change, Event, EventState, Party, UpdateState};
use tagrelay_image::{Digest, Repository, Tag};

statements! {
    BY_ID = ("SELECT ", event_columns!(), " FROM events WHERE id IN {list} ORDER BY id");
    LIST = ("SELECT ", event_columns!(), " FROM events WHERE (CAST($1 AS TEXT) IS NULL OR repository = $1)
        AND (CAST($2 AS TEXT) IS NULL OR state = $2) AND (CAST($4 AS TEXT) IS NULL OR cause = $4)
        AND (CAST($5 AS BIGINT) IS NULL OR received_at >= $5)
        AND (CAST($6 AS TEXT) IS NULL OR EXISTS (
            SELECT 1 FROM updates WHERE cause_id = events.id AND environment = $6))
        ORDER BY id DESC LIMIT $3");
    FAILED = ("SELECT ", event_columns!(), " FROM events WHERE (CAST($1 AS TEXT) IS NULL OR repository = $1)
        AND (CAST($2 AS TEXT) IS NULL OR state = $2)
        AND (CAST($6 AS TEXT) IS NULL OR cause = $6) AND (CAST($7 AS BIGINT) IS NULL OR received_at >= $7)
        AND (CAST($8 AS TEXT) IS NULL OR EXISTS (
            SELECT 1 FROM updates WHERE cause_id = events.id AND environment = $8))
        AND id IN (SELECT id FROM events WHERE state = $3 AND finished_at IS NOT NULL
            UNION SELECT cause_id FROM updates WHERE state = $4)
        ORDER BY id DESC LIMIT $5");
    ANNOUNCED_BEFORE = ("SELECT count(*) FROM (SELECT 1 FROM events WHERE verified_digest = $1 AND repository = $2 AND id < $3
        AND tag <> $4 LIMIT 1) AS found");
    TO_REPLAY = ("SELECT id, state, next_attempt_at, repository, tag FROM events WHERE id IN {list}");
    WITH_REFUSED_UPDATES = ("SELECT DISTINCT cause_id FROM updates WHERE state = $1 AND cause_id IN {list}");
    HASTEN = ("UPDATE events SET next_attempt_at = NULL WHERE id = $1");
}

/// A filter of events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub repository: Option<Repository>,
    pub state: Option<EventState>,
    /// Only events that were refused, or that have a refused update.
    pub failed: bool,
    pub cause: Option<Cause>,
    /// Only events with an update of this environment.
    pub environment: Option<String>,
    /// Only events that were received at this time or later.
    pub since: Option<Timestamp>,
    /// At most so many, newest first.
    pub limit: u32,
}

/// The answer to a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The event is queued again.
    Queued,
    /// The event was due at this time and is due now. Its count of failures is kept.
    Hastened(Timestamp),
    /// The event is in this state, and cannot run again.
    NotFinal(EventState),
    /// No event has this id.
    Unknown,
}

/// The refusal of an event.
#[derive(Debug, Clone)]
pub struct EventRefusal {
    pub event_id: String,
    pub reason: String,
    /// The pattern of the image rule that matches; `None`: no rule matches.
    pub matched_rule: Option<String>,
    /// Whether another delivery of the event runs it again. True if the reason may pass.
    pub redeliverable: bool,
    /// The party that answered.
    pub asked: Party,
}

impl Store {
    /// Returns an event; `None`: no event has this id.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn event(&self, id: &str) -> Result<Option<Event>, StoreError> {
        Ok(self.events_by_id(&[id]).await?.pop())
    }

    /// Returns events by their ids, in the order of arrival.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn events_by_id(&self, ids: &[&str]) -> Result<Vec<Event>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut events: Vec<Event> = BY_ID.all_of(connection, values![], ids).await?;
        explain::events(connection, &mut events, self.calendar(), self.clock.now()).await?;
        Ok(events)
    }

    /// Returns events, newest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let (repository, state) = (filter.repository.as_ref(), filter.state.map(EventState::as_str));
        let (cause, environment) = (filter.cause.map(Cause::as_str), filter.environment.as_deref());
        let mut events: Vec<Event> = if filter.failed {
            let (event, update) = (EventState::Refused.as_str(), UpdateState::Refused.as_str());
            FAILED
                .all(
                    connection,
                    values![repository, state, event, update, filter.limit, cause, filter.since, environment],
                )
                .await?
        } else {
            LIST.all(connection, values![repository, state, filter.limit, cause, filter.since, environment]).await?
        };
        explain::events(connection, &mut events, self.calendar(), self.clock.now()).await?;
        Ok(events)
    }

    /// Whether an earlier event than `event_id` has this verified digest under another tag.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn announced_before(
        &self,
        repository: &Repository,
        digest: &Digest,
        tag: &Tag,
        event_id: &str,
    ) -> Result<bool, StoreError> {
        let values = values![digest, repository, event_id, tag.as_str()];
        let (found,): (i64,) = ANNOUNCED_BEFORE.one(&mut *self.reads.acquire().await?, values).await?;
        Ok(found > 0)
    }

    /// Refuses a queued event.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn refuse_event(&self, refusal: EventRefusal) -> Result<(), StoreError> {
        let EventRefusal { event_id, reason, matched_rule, redeliverable, asked } = refusal;
        self.writes.run(Input(event_id, EventStep::Refuse { reason, matched_rule, redeliverable, asked })).await
    }

    /// Records a failed try of a queued event, and when the next try is due.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn postpone_event(
        &self,
        id: &str,
        until: Timestamp,
        asked: Party,
        reason: String,
    ) -> Result<(), StoreError> {
        self.writes.run(Input(id.to_owned(), EventStep::Postpone { until, asked, reason })).await
    }

    /// Queues an event again that was refused, or that has a refused update.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn replay(&self, id: &str) -> Result<Replayed, StoreError> {
        let replayed = self.replay_all(vec![id.to_owned()]).await?;
        Ok(replayed.into_iter().next().unwrap_or(Replayed::Unknown))
    }

    /// Replays several events, as [`Store::replay`] does. Returns one answer for each event.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn replay_all(&self, ids: Vec<String>) -> Result<Vec<Replayed>, StoreError> {
        self.writes.run(Replay { ids }).await
    }
}

/// An input to one event.
struct Input(String, EventStep);

impl Write for Input {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        apply_events(tx, &BTreeMap::from([(self.0.clone(), self.1.clone())])).await.map(|_| ())
    }
}

struct Replay {
    ids: Vec<String>,
}

impl Write for Replay {
    type Output = Vec<Replayed>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<Replayed>, sqlx::Error> {
        let rows: Vec<(String, String, Option<i64>, String, String)> =
            TO_REPLAY.all_of(tx.connection, values![], &self.ids).await?;
        let (mut known, mut images) = (BTreeMap::new(), BTreeMap::new());
        for (id, state, next, repository, tag) in rows {
            let state: EventState = parse(&state, "state")?;
            images.insert(id.clone(), (repository, tag));
            known.insert(id, (state, next.and_then(|at| Timestamp::from_millisecond(at).ok())));
        }
        let refused: Vec<(String,)> = {
            let state = values![UpdateState::Refused.as_str()];
            WITH_REFUSED_UPDATES.all_of(tx.connection, state, &self.ids).await?
        };
        let refused: HashSet<String> = refused.into_iter().map(|(id,)| id).collect();
        let mut steps = BTreeMap::new();
        let mut answers = Vec::with_capacity(self.ids.len());
        for id in &self.ids {
            let Some((state, next)) = known.get_mut(id) else {
                answers.push(Replayed::Unknown);
                continue;
            };
            let until = next.take().filter(|at| *state == EventState::Queued && *at > tx.now);
            answers.push(if let Some(until) = until {
                make_due(tx, id, until).await?;
                // Wakes the intake.
                let (repository, tag) = images.remove(id).unwrap_or_default();
                tx.record(Change::Event { id: id.clone(), repository, tag, state: state.to_string(), reason: None });
                Replayed::Hastened(until)
            } else if state.is_open() || !(*state == EventState::Refused || refused.contains(id)) {
                Replayed::NotFinal(*state)
            } else {
                steps.insert(id.clone(), EventStep::Replay);
                // The same id may be given twice. The event is queued then.
                *state = EventState::Queued;
                Replayed::Queued
            });
        }
        apply_events(tx, &steps).await?;
        Ok(answers)
    }
}

/// Makes an event due that waits for its next try.
///
/// The event keeps its reason until the next answer, and its count of failures, which determines the next pause.
async fn make_due(tx: &mut Transaction<'_>, id: &str, until: Timestamp) -> Result<(), sqlx::Error> {
    HASTEN.execute(tx.connection, values![id]).await?;
    let answered = format!("retried at once instead of at {until:.0}");
    let failure = NewFailure { cause_id: id.to_owned(), environment: None, asked: "replay", answered };
    failures::record(tx, &[failure]).await
}
