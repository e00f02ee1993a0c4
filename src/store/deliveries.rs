//! Events from webhooks, as they arrive.
//!
//! In a flood, most of a transaction's time goes into handing single statements to SQLite. All events of a transaction are
//! therefore written with a few statements.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::apply::{EventStep, apply_events};
use super::database::Value;
use super::rows::parse;
use super::statements::{statements, values};
use super::writer::{Flood, Transaction};
use super::{Store, StoreError};
use crate::domain::{Cause, Change, EventState};
use crate::telemetry::TraceContext;
use tagrelay_image::{Digest, Repository, Tag};

statements! {
    DELIVERED_BEFORE = ("SELECT v.column1, events.id, events.state, events.redeliverable
        FROM (VALUES {rows:ITI}) AS v CROSS JOIN events WHERE events.id = (
            SELECT before.id FROM events AS before WHERE before.duplicate_key = v.column2 AND before.received_at >= v.column3
            ORDER BY before.id DESC LIMIT 1)");
    INSERT = ("INSERT INTO events (id, cause, receiver, registry, repository, tag, announced_digest, pushed_at, received_at,
            duplicate_key, trace_parent, state, started_attempts)
        SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12, 1
        FROM (VALUES {rows:TTTTTTTIITTT}) AS v WHERE column1 IS NOT NULL");
}

/// An authenticated push event.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub repository: Repository,
    pub tag: Tag,
    /// The digest that the payload names.
    pub digest: Option<Digest>,
    /// When the image was pushed, according to the registry.
    pub pushed_at: Option<Timestamp>,
    /// Equal for two deliveries of the same event.
    pub duplicate_key: String,
    /// The beginning of the duplicate window. An event that was delivered earlier does not make this one a duplicate.
    pub duplicates_since: Timestamp,
    /// The parent of all further spans. A duplicate keeps the parent of the first delivery.
    pub trace: TraceContext,
}

/// The answer to a delivered event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The id of the event; for a duplicate, the id of the first delivery.
    pub id: String,
    pub state: ReceivedState,
}

/// Whether an event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedState {
    /// Stored; the registry is asked next.
    Queued,
    /// The event was delivered before.
    Duplicate,
}

impl Store {
    /// Stores the events of one webhook. Returns when they are on disk, with one answer for each event, in order.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn receive(&self, receiver: &str, events: Vec<NewEvent>) -> Result<Vec<Received>, StoreError> {
        self.writes.flood(Delivery { receiver: receiver.to_owned(), events }).await
    }
}

struct Delivery {
    receiver: String,
    events: Vec<NewEvent>,
}

/// An event that is queued by this transaction.
pub(super) struct QueuedEvent<'a> {
    pub(super) id: String,
    pub(super) cause: Cause,
    pub(super) receiver: &'a str,
    pub(super) repository: &'a Repository,
    pub(super) tag: &'a Tag,
    pub(super) announced_digest: Option<&'a Digest>,
    pub(super) pushed_at: Option<Timestamp>,
    pub(super) duplicate_key: &'a str,
    pub(super) trace: &'a TraceContext,
}

/// Inserts new events, and counts their first start. The start follows at once, so counting it needs no write of its own.
pub(super) async fn insert(tx: &mut Transaction<'_>, events: &[QueuedEvent<'_>]) -> Result<(), sqlx::Error> {
    let state = EventState::Queued;
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(events.len());
    for event in events {
        rows.push(values![
            &event.id,
            event.cause.as_str(),
            event.receiver,
            event.repository.registry(),
            event.repository,
            event.tag.as_str(),
            event.announced_digest,
            event.pushed_at,
            tx.now,
            event.duplicate_key,
            event.trace.to_string(),
            state.as_str(),
        ]);
        tx.record(Change::Event {
            id: event.id.clone(),
            repository: event.repository.to_string(),
            tag: event.tag.to_string(),
            state: state.to_string(),
            reason: None,
        });
    }
    INSERT.execute_rows(tx.connection, values![], rows).await
}

impl Flood for Delivery {
    type Output = Vec<Received>;

    async fn run_all(tx: &mut Transaction<'_>, all: &[&Self]) -> Result<Vec<Vec<Received>>, sqlx::Error> {
        let mut known = delivered_before(tx, all).await?;
        // Events that this transaction queues. The query above does not see them.
        let mut queued: HashMap<&str, String> = HashMap::new();
        let mut new = Vec::new();
        let mut again = BTreeMap::new();
        let mut answers = Vec::with_capacity(all.len());
        let mut index = 0;
        for delivery in all {
            let mut received = Vec::with_capacity(delivery.events.len());
            for event in &delivery.events {
                let before = known.remove(&index);
                index += 1;
                received.push(
                    if let Some(id) = queued.get(event.duplicate_key.as_str())
                        && event.duplicates_since <= tx.now
                    {
                        Received { id: id.clone(), state: ReceivedState::Duplicate }
                    } else if let Some(Known { id, runs_again: false }) = before {
                        Received { id, state: ReceivedState::Duplicate }
                    } else {
                        // An event that runs again keeps its id, and with it its position in the order of arrival.
                        let id = if let Some(Known { id, .. }) = before {
                            again.insert(id.clone(), EventStep::Replay);
                            id
                        } else {
                            let id = tx.next_id();
                            new.push(queued_event(id.clone(), &delivery.receiver, event));
                            id
                        };
                        queued.insert(&event.duplicate_key, id.clone());
                        Received { id, state: ReceivedState::Queued }
                    },
                );
            }
            answers.push(received);
        }
        insert(tx, &new).await?;
        apply_events(tx, &again).await?;
        Ok(answers)
    }
}

fn queued_event<'a>(id: String, receiver: &'a str, event: &'a NewEvent) -> QueuedEvent<'a> {
    QueuedEvent {
        id,
        cause: Cause::Push,
        receiver,
        repository: &event.repository,
        tag: &event.tag,
        announced_digest: event.digest.as_ref(),
        pushed_at: event.pushed_at,
        duplicate_key: &event.duplicate_key,
        trace: &event.trace,
    }
}

/// An event that was delivered before.
struct Known {
    id: String,
    /// Whether the event was refused for a passing reason.
    runs_again: bool,
}

/// Returns the events that were delivered before, by the index of the new event among all deliveries.
async fn delivered_before(tx: &mut Transaction<'_>, all: &[&Delivery]) -> Result<HashMap<i64, Known>, sqlx::Error> {
    let events = all.iter().flat_map(|delivery| &delivery.events).zip(0_i64..);
    let rows = events.map(|(event, index)| values![index, &event.duplicate_key, event.duplicates_since]).collect();
    let found: Vec<(i64, String, String, i64)> = DELIVERED_BEFORE.all_rows(tx.connection, values![], rows).await?;
    let known = found.into_iter().map(|(index, id, state, redeliverable)| {
        let state: EventState = parse(&state, "state")?;
        Ok((index, Known { id, runs_again: state == EventState::Refused && redeliverable != 0 }))
    });
    known.collect()
}
