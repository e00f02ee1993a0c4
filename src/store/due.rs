//! Events and updates that are due for a request to the registry.
//!
//! The cost of reading them depends on the number of due rows, not on the number of waiting rows.

use jiff::Timestamp;

use super::database::Connection;
use super::rows::{event_columns, update_columns};
use super::statements::{statements, values};
use super::{Store, StoreError};
use crate::domain::{Event, EventState, Update, UpdateState, WaitCause};

/// The registries that rows in state $1 wait for. Each registry costs one index lookup, however many rows it has.
macro_rules! registries {
    ($table:literal) => {
        concat!(
            "WITH RECURSIVE registries (name) AS (SELECT min(registry) FROM ",
            $table,
            " WHERE state = $1 AND finished_at IS NULL UNION ALL SELECT (SELECT min(registry) FROM ",
            $table,
            " WHERE state = $1 AND finished_at IS NULL AND registry > name) FROM registries WHERE name IS NOT NULL) SELECT name FROM registries
             WHERE name IS NOT NULL"
        )
    };
}

/// The due rows of a registry: of registry $2, in state $1, due at $3, at most $4.
///
/// If more are due, rows with a failed try are preferred.
/// Suspects are left out, because they run alone.
macro_rules! due {
    ($columns:ident, $table:literal) => {
        concat!(
            "SELECT ",
            $columns!(),
            " FROM ",
            $table,
            " WHERE id IN (SELECT id FROM (
            SELECT * FROM (SELECT id FROM ",
            $table,
            " WHERE state = $1 AND finished_at IS NULL AND registry = $2 AND next_attempt_at <= $3 AND started_attempts < 2
                ORDER BY next_attempt_at, id LIMIT $4) AS again
            UNION ALL SELECT * FROM (SELECT id FROM ",
            $table,
            " WHERE state = $1 AND finished_at IS NULL AND registry = $2
                AND next_attempt_at IS NULL AND started_attempts < 2 ORDER BY id LIMIT $4) AS new) AS both_kinds LIMIT $4) ORDER BY id"
        )
    };
}

/// The time at which the next row of registry $2 in state $1 is due, after $3.
macro_rules! next {
    ($table:literal) => {
        concat!(
            "SELECT min(next_attempt_at) FROM ",
            $table,
            " WHERE state = $1 AND finished_at IS NULL AND registry = $2 AND next_attempt_at > $3"
        )
    };
}

statements! {
    EVENT_REGISTRIES = (registries!("events"));
    UPDATE_REGISTRIES = (registries!("updates"));
    DUE_EVENTS = (due!(event_columns, "events"));
    DUE_UPDATES = (due!(update_columns, "updates"));
    NEXT_EVENT = (next!("events"));
    NEXT_UPDATE = (next!("updates"));
    NEXT_MISSING_FACT = ("SELECT min(until) FROM waits WHERE active = 1 AND cause = $1 AND until > $2");
}

impl Store {
    /// Returns queued events that are due, in the order of arrival.
    ///
    /// At most `per_registry` of each registry, so that a slow registry does not hide the others. Registries in `but` are left out.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn due_events(&self, now: Timestamp, per_registry: u32, but: &[&str]) -> Result<Vec<Event>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let state = EventState::Queued.as_str();
        let mut events: Vec<Event> = Vec::new();
        for registry in event_registries(connection).await?.iter().filter(|name| !but.contains(&name.as_str())) {
            events.append(&mut DUE_EVENTS.all(connection, values![state, registry, now, per_registry]).await?);
        }
        events.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(events)
    }

    /// Returns unverified updates that are due. The parameters are those of [`Store::due_events`].
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn due_updates(
        &self,
        now: Timestamp,
        per_registry: u32,
        but: &[&str],
    ) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let state = UpdateState::Unverified.as_str();
        let mut updates: Vec<Update> = Vec::new();
        for registry in update_registries(connection).await?.iter().filter(|name| !but.contains(&name.as_str())) {
            updates.append(&mut DUE_UPDATES.all(connection, values![state, registry, now, per_registry]).await?);
        }
        updates.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(updates)
    }

    /// Returns when the next postponed event, unverified update or missing fact is due.
    ///
    /// Only times after `now` count; `None`: nothing is postponed.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn next_attempt(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut times: Vec<Option<i64>> = Vec::new();
        for registry in event_registries(connection).await? {
            let values = values![EventState::Queued.as_str(), registry, now];
            times.push(NEXT_EVENT.one::<(Option<i64>,)>(connection, values).await?.0);
        }
        for registry in update_registries(connection).await? {
            let values = values![UpdateState::Unverified.as_str(), registry, now];
            times.push(NEXT_UPDATE.one::<(Option<i64>,)>(connection, values).await?.0);
        }
        let values = values![WaitCause::MissingFact.as_str(), now];
        times.push(NEXT_MISSING_FACT.one::<(Option<i64>,)>(connection, values).await?.0);
        Ok(times.into_iter().flatten().min().and_then(|at| Timestamp::from_millisecond(at).ok()))
    }
}

async fn event_registries(connection: &mut Connection) -> Result<Vec<String>, sqlx::Error> {
    let names: Vec<(String,)> = EVENT_REGISTRIES.all(connection, values![EventState::Queued.as_str()]).await?;
    Ok(names.into_iter().map(|(name,)| name).collect())
}

async fn update_registries(connection: &mut Connection) -> Result<Vec<String>, sqlx::Error> {
    let names: Vec<(String,)> = UPDATE_REGISTRIES.all(connection, values![UpdateState::Unverified.as_str()]).await?;
    Ok(names.into_iter().map(|(name,)| name).collect())
}
