//! Events and updates that come to their end, whichever statement ends them.
//!
//! Some end because somebody said so, others inside the transaction of something else: a hold that is released
//! supersedes all but the newest of what waited. Triggers of the writing connection note each of them, so that it is told
//! and counted once.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use tokio::sync::mpsc;

use super::{Event, EventState, Update, UpdateState, json_text};

/// Something that has come to its end and is on disk.
#[derive(Debug, Clone)]
pub enum Ending {
    /// An event.
    Event(Box<Event>),
    /// An update.
    Update(Box<Update>),
}

/// The table and its triggers belong to the connection, and vanish with it.
const TRIGGERS: &str = "
    PRAGMA temp_store = MEMORY;
    CREATE TEMP TABLE ended (number INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL, is_event INTEGER NOT NULL);
    CREATE TEMP TRIGGER update_ends AFTER UPDATE OF state ON main.updates
    WHEN old.state IN ('unverified', 'pending', 'waiting') AND new.state NOT IN ('unverified', 'pending', 'waiting') BEGIN
        INSERT INTO ended (id, state, is_event) VALUES (new.id, new.state, 0);
    END;
    CREATE TEMP TRIGGER update_begins_ended AFTER INSERT ON main.updates
    WHEN new.state NOT IN ('unverified', 'pending', 'waiting') BEGIN
        INSERT INTO ended (id, state, is_event) VALUES (new.id, new.state, 0);
    END;
    CREATE TEMP TRIGGER event_ends AFTER UPDATE OF state ON main.events
    WHEN old.state IN ('queued', 'pending', 'waiting') AND new.state NOT IN ('queued', 'pending', 'waiting') BEGIN
        INSERT INTO ended (id, state, is_event) VALUES (new.id, new.state, 1);
    END;";

/// Has a connection note what ends.
pub(super) async fn watch(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(TRIGGERS).execute(connection).await.map(|_| ())
}

/// Returns what has ended in the transaction that is open, in that order.
pub(super) async fn take(connection: &mut SqliteConnection) -> Result<Vec<Ending>, sqlx::Error> {
    let mut ended: Vec<(i64, String, String, bool)> =
        sqlx::query_as("DELETE FROM ended RETURNING number, id, state, is_event").fetch_all(&mut *connection).await?;
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    ended.sort();
    let ids = |of_events: bool| {
        let those = ended.iter().filter(|(.., is_event)| *is_event == of_events);
        json_text(those.map(|(_, id, ..)| id).collect::<Vec<_>>())
    };
    let (events, updates) = (ids(true)?, ids(false)?);
    let events: Vec<Event> = sqlx::query_as("SELECT * FROM events WHERE id IN (SELECT value FROM json_each(?))")
        .bind(events)
        .fetch_all(&mut *connection)
        .await?;
    let updates: Vec<Update> = sqlx::query_as("SELECT * FROM updates WHERE id IN (SELECT value FROM json_each(?))")
        .bind(updates)
        .fetch_all(&mut *connection)
        .await?;
    let events: HashMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
    let updates: HashMap<&str, &Update> = updates.iter().map(|update| (update.id.as_str(), update)).collect();
    let mut endings = Vec::with_capacity(ended.len());
    for (_, id, state, is_event) in &ended {
        // The row may have begun anew in the same transaction: what counts is how it ended.
        if *is_event {
            let state: EventState = state.parse().map_err(|error| super::decode_error("state", error))?;
            let event = events.get(id.as_str()).map(|event| Event { state, ..(*event).clone() });
            endings.extend(event.map(|event| Ending::Event(Box::new(event))));
        } else {
            let state: UpdateState = state.parse().map_err(|error| super::decode_error("state", error))?;
            let update = updates.get(id.as_str()).map(|update| Update { state, ..(*update).clone() });
            endings.extend(update.map(|update| Ending::Update(Box::new(update))));
        }
    }
    Ok(endings)
}

/// Where endings go once they are on disk.
pub(super) type Told = mpsc::UnboundedSender<Ending>;
