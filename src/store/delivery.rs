//! Events that have just come in.
//!
//! Under a flood most of the time of a transaction would go into handing single statements to SQLite, so all events of
//! a transaction, whoever delivered them, are written by two statements.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::events::{NewEvent, Received, ReceivedState, requeue};
use super::writer::Transaction;
use super::{Store, StoreError};
use crate::image::Digest;

/// The events of one request, and whoever waits for the answer.
pub(super) struct Delivery {
    receiver: String,
    events: Vec<NewEvent>,
    /// Filled inside the transaction; told when it is on disk.
    received: Vec<Received>,
    reply: oneshot::Sender<Result<Vec<Received>, StoreError>>,
}

impl Store {
    /// Stores the events of one request. Returns when they are on disk, one answer for each, in order.
    ///
    /// # Errors
    ///
    /// When nothing of it could be stored.
    pub async fn receive(&self, receiver: &str, events: Vec<NewEvent>) -> Result<Vec<Received>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let delivery = Delivery { receiver: receiver.to_owned(), events, received: Vec::new(), reply };
        self.writes.deliver(delivery).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Delivery {
    /// Tells that it is on disk.
    pub(super) fn committed(self) {
        // Nobody waits any more when the caller was cancelled; what is written stays written.
        let _ = self.reply.send(Ok(self.received));
    }

    /// Tells that nothing of it has been kept.
    pub(super) fn failed(self, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

/// Writes deliveries. May run more than once; only the last run is committed.
pub(super) async fn write(tx: &mut Transaction<'_>, deliveries: &mut [&mut Delivery]) -> Result<(), sqlx::Error> {
    let mut known = delivered_before(tx, deliveries).await?;
    let now = tx.now_milliseconds();
    // What this transaction has queued itself, which the question above could not see.
    let mut queued: HashMap<String, String> = HashMap::new();
    let mut rows = Vec::new();
    let mut index = 0;
    for delivery in deliveries.iter_mut() {
        delivery.received.clear();
        for event in &delivery.events {
            let before = known.remove(&index);
            index += 1;
            let received = if let Some(id) = queued.get(&event.duplicate_key)
                && event.duplicates_since.as_millisecond() <= now
            {
                Received { id: id.clone(), state: ReceivedState::Duplicate }
            } else if let Some(Known { id, runs_again: false }) = before {
                Received { id, state: ReceivedState::Duplicate }
            } else {
                // One that runs again keeps its id, and so its place in the order of arrival.
                let id = if let Some(Known { id, .. }) = before {
                    requeue(tx, &id).await?;
                    id
                } else {
                    let id = tx.next_id();
                    rows.push(row(&id, &delivery.receiver, event));
                    id
                };
                queued.insert(event.duplicate_key.clone(), id.clone());
                Received { id, state: ReceivedState::Queued }
            };
            delivery.received.push(received);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO events (id, receiver, registry, repository, tag, announced_digest, pushed_at, received_at,
            duplicate_key, trace_parent, state)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, ?2,
            value ->> 7, value ->> 8, 'queued' FROM json_each(?1)",
    )
    .bind(serde_json::Value::Array(rows).to_string())
    .bind(now)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}

fn row(id: &str, receiver: &str, event: &NewEvent) -> serde_json::Value {
    serde_json::json!([
        id,
        receiver,
        event.repository.registry(),
        event.repository.as_str(),
        event.tag.as_str(),
        event.digest.as_ref().map(Digest::as_str),
        event.pushed_at.map(jiff::Timestamp::as_millisecond),
        event.duplicate_key,
        event.trace.to_string(),
    ])
}

/// An event that is there already.
struct Known {
    id: String,
    /// It was refused for something that passes.
    runs_again: bool,
}

/// Returns which events have been delivered before, by their number over all deliveries.
async fn delivered_before(
    tx: &mut Transaction<'_>,
    deliveries: &[&mut Delivery],
) -> Result<HashMap<i64, Known>, sqlx::Error> {
    let keys: Vec<serde_json::Value> = deliveries
        .iter()
        .flat_map(|delivery| &delivery.events)
        .map(|event| serde_json::json!([event.duplicate_key, event.duplicates_since.as_millisecond()]))
        .collect();
    let known: Vec<(i64, String, bool)> = sqlx::query_as(
        "SELECT wanted.key, events.id, events.state = 'refused' AND events.redeliverable
         FROM json_each(?) AS wanted CROSS JOIN events ON events.id = (
            SELECT id FROM events WHERE duplicate_key = wanted.value ->> 0 AND received_at >= wanted.value ->> 1
            ORDER BY id DESC LIMIT 1)",
    )
    .bind(serde_json::Value::Array(keys).to_string())
    .fetch_all(&mut *tx.connection)
    .await?;
    Ok(known.into_iter().map(|(index, id, runs_again)| (index, Known { id, runs_again })).collect())
}
