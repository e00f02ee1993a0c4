//! What waits for a registry. However much that is, reading what is due costs what is read.

use jiff::Timestamp;

use super::{Event, Store, StoreError, Update};

/// The names of the registries that something waits for: one step down the index for each. SQLite has no better word
/// for that, and by itself takes an index that holds every row.
macro_rules! with_registries {
    ($table:literal, $state:literal) => {
        concat!(
            "WITH RECURSIVE registries (name) AS (
                SELECT min(registry) FROM ",
            $table,
            " INDEXED BY ",
            $table,
            "_due WHERE state = '",
            $state,
            "'
                UNION ALL
                SELECT (SELECT min(registry) FROM ",
            $table,
            " INDEXED BY ",
            $table,
            "_due WHERE state = '",
            $state,
            "' AND registry > name) FROM registries WHERE name IS NOT NULL) "
        )
    };
}

/// What is due at ?1, at most ?2 of each registry that is not in ?3: those that come back before those that are new.
macro_rules! due {
    ($table:literal, $state:literal) => {
        concat!(
            with_registries!($table, $state),
            "SELECT t.* FROM registries CROSS JOIN ",
            $table,
            " AS t ON t.id IN (SELECT id FROM (
                SELECT * FROM (
                    SELECT id FROM ",
            $table,
            " WHERE state = '",
            $state,
            "' AND registry = name AND next_attempt_at <= ?1
                    ORDER BY next_attempt_at, id LIMIT ?2)
                UNION ALL
                SELECT * FROM (
                    SELECT id FROM ",
            $table,
            " WHERE state = '",
            $state,
            "' AND registry = name AND next_attempt_at IS NULL ORDER BY id LIMIT ?2)
                ) LIMIT ?2)
             WHERE name NOT IN (SELECT value FROM json_each(?3)) ORDER BY t.id"
        )
    };
}

/// When the next of what is postponed beyond ?1 is due.
macro_rules! next_attempt {
    ($table:literal, $state:literal) => {
        concat!(
            with_registries!($table, $state),
            "SELECT min((
                SELECT next_attempt_at FROM ",
            $table,
            " WHERE state = '",
            $state,
            "' AND registry = name AND next_attempt_at > ?1
                ORDER BY next_attempt_at LIMIT 1)) FROM registries"
        )
    };
}

impl Store {
    /// Returns events that wait for the registry and are due, in the order of arrival, at most `per_registry` of each
    /// registry, so that one that is slow does not hide the others. Registries in `but` are left out.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn due_events(&self, now: Timestamp, per_registry: u32, but: &[&str]) -> Result<Vec<Event>, StoreError> {
        let events = sqlx::query_as(due!("events", "queued"))
            .bind(now.as_millisecond())
            .bind(per_registry)
            .bind(serde_json::json!(but).to_string())
            .fetch_all(&self.reads)
            .await?;
        Ok(events)
    }

    /// Returns updates of requests that wait for the registry and are due, as [`Store::due_events`] does.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn due_updates(
        &self,
        now: Timestamp,
        per_registry: u32,
        but: &[&str],
    ) -> Result<Vec<Update>, StoreError> {
        let updates = sqlx::query_as(due!("updates", "unverified"))
            .bind(now.as_millisecond())
            .bind(per_registry)
            .bind(serde_json::json!(but).to_string())
            .fetch_all(&self.reads)
            .await?;
        Ok(updates)
    }

    /// Returns what lies ahead of `now`, in one read.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn outlook(&self, now: Timestamp) -> Result<Outlook, StoreError> {
        let (event, update, hold): (Option<i64>, Option<i64>, Option<i64>) = sqlx::query_as(concat!(
            "SELECT (",
            next_attempt!("events", "queued"),
            "), (",
            next_attempt!("updates", "unverified"),
            "), (SELECT min(expires_at) FROM holds WHERE released_at IS NULL)"
        ))
        .bind(now.as_millisecond())
        .fetch_one(&self.reads)
        .await?;
        let time = |at: i64| Timestamp::from_millisecond(at).ok();
        Ok(Outlook {
            next_attempt: event.into_iter().chain(update).min().and_then(time),
            next_hold_expiry: hold.and_then(time),
        })
    }
}

/// What lies ahead, seen from some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When the next postponed event or update is due that is not due yet.
    pub next_attempt: Option<Timestamp>,
    /// When the next hold expires, or has expired.
    pub next_hold_expiry: Option<Timestamp>,
}
