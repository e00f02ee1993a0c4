//! Forgetting what is over: otherwise the file only grows.

use std::time::Duration;

use jiff::Timestamp;

use super::writer::{Transaction, Write};
use super::{Store, StoreError};

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events and requests, and updates that were not committed.
    pub ended: Duration,
    /// Committed updates.
    pub history: Duration,
}

/// The most rows of a table in one transaction: bounds how long a webhook waits for it.
const BATCH: u32 = 200;

impl Store {
    /// Deletes some of what ended before the time that `retention` reaches back to. Returns whether there may be more.
    ///
    /// Never deleted are what is open, the ten newest commits of a place and the newest update that found its version
    /// there (the order of builds and rollbacks need them), active holds and freezes, and requests that made them.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written to.
    pub async fn forget(&self, retention: &Retention, now: Timestamp) -> Result<bool, StoreError> {
        // A span that reaches behind the calendar's beginning keeps everything.
        let before = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH).as_millisecond();
        let (ended, history) = (before(retention.ended), before(retention.history));
        // Looked for on the side of reads, which holds up no webhook, and looked at once more when they are deleted.
        let updates: Vec<String> =
            sqlx::query_scalar(OLD_UPDATES).bind(ended).bind(history).bind(BATCH).fetch_all(&self.reads).await?;
        let events: Vec<String> = sqlx::query_scalar(OLD_EVENTS).bind(ended).bind(BATCH).fetch_all(&self.reads).await?;
        let requests: Vec<String> =
            sqlx::query_scalar(OLD_REQUESTS).bind(ended).bind(BATCH).fetch_all(&self.reads).await?;
        let holds: Vec<String> = sqlx::query_scalar("SELECT id FROM holds WHERE released_at < ? LIMIT ?")
            .bind(ended)
            .bind(BATCH)
            .fetch_all(&self.reads)
            .await?;
        let freezes: Vec<String> = sqlx::query_scalar("SELECT id FROM freezes WHERE ended_at < ? LIMIT ?")
            .bind(ended)
            .bind(BATCH)
            .fetch_all(&self.reads)
            .await?;
        let found =
            [&updates, &events, &requests, &holds, &freezes].iter().map(|ids| ids.len()).max().unwrap_or_default();
        if found > 0 {
            self.writes.run(Forget { updates, events, requests, holds, freezes }).await?;
        }
        Ok(found >= BATCH as usize)
    }
}

const OLD_UPDATES: &str = "
    SELECT id FROM updates AS old WHERE finished_at < max(?1, ?2) AND CASE state
        WHEN 'superseded' THEN finished_at < ?1
        WHEN 'refused' THEN finished_at < ?1
        WHEN 'unchanged' THEN finished_at < ?1 AND EXISTS (
            SELECT 1 FROM updates WHERE environment = old.environment AND repository = old.repository
                AND cause_id > old.cause_id AND state IN ('committed', 'unchanged'))
        WHEN 'committed' THEN finished_at < ?2 AND old.cause_id < (
            SELECT cause_id FROM updates WHERE environment = old.environment AND repository = old.repository
                AND state = 'committed' ORDER BY cause_id DESC LIMIT 1 OFFSET 9)
        ELSE 0 END
    ORDER BY id LIMIT ?3";

const OLD_EVENTS: &str = "
    SELECT id FROM events WHERE finished_at < ?1 AND state NOT IN ('queued', 'pending', 'waiting') AND NOT EXISTS (
        SELECT 1 FROM updates WHERE cause_id = events.id AND state IN ('unverified', 'pending', 'waiting'))
    ORDER BY id LIMIT ?2";

const OLD_REQUESTS: &str = "
    SELECT id FROM requests WHERE created_at < ?1 AND NOT EXISTS (
        SELECT 1 FROM updates WHERE cause_id = requests.id AND (finished_at IS NULL OR finished_at >= ?1))
        AND NOT EXISTS (SELECT 1 FROM holds WHERE request_id = requests.id AND released_at IS NULL)
    ORDER BY id LIMIT ?2";

struct Forget {
    updates: Vec<String>,
    events: Vec<String>,
    requests: Vec<String>,
    holds: Vec<String>,
    freezes: Vec<String>,
}

impl Write for Forget {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        // What was replayed meanwhile is open again.
        for (statement, ids) in [
            (
                "DELETE FROM updates WHERE id IN (SELECT value FROM json_each(?))
                    AND state NOT IN ('unverified', 'pending', 'waiting')",
                &self.updates,
            ),
            (
                "DELETE FROM follow_ups WHERE update_id IN (SELECT value FROM json_each(?1))
                    AND update_id NOT IN (SELECT id FROM updates WHERE id IN (SELECT value FROM json_each(?1)))",
                &self.updates,
            ),
            (
                "DELETE FROM attempts WHERE cause_id IN (SELECT value FROM json_each(?1))
                    AND cause_id NOT IN (SELECT id FROM events WHERE state IN ('queued', 'pending', 'waiting')
                        AND id IN (SELECT value FROM json_each(?1)))",
                &self.events,
            ),
            (
                "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))
                    AND state NOT IN ('queued', 'pending', 'waiting')",
                &self.events,
            ),
            ("DELETE FROM attempts WHERE cause_id IN (SELECT value FROM json_each(?))", &self.requests),
            ("DELETE FROM requests WHERE id IN (SELECT value FROM json_each(?))", &self.requests),
            ("DELETE FROM holds WHERE id IN (SELECT value FROM json_each(?)) AND released_at IS NOT NULL", &self.holds),
            (
                "DELETE FROM freezes WHERE id IN (SELECT value FROM json_each(?)) AND ended_at IS NOT NULL",
                &self.freezes,
            ),
        ] {
            if !ids.is_empty() {
                let ids = serde_json::json!(ids).to_string();
                sqlx::query(statement).bind(ids).execute(&mut *tx.connection).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;
    use crate::store::StoreSettings;

    const DAY: i64 = 86_400_000;
    const NOW: i64 = 1_000 * DAY;

    struct Fixture {
        store: Store,
        connection: SqliteConnection,
        _folder: tempfile::TempDir,
    }

    impl Fixture {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tagrelay.db");
            let store = Store::open(&StoreSettings { path: path.clone() }).await.unwrap();
            let connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
            Self { store, connection, _folder: folder }
        }

        async fn event(&mut self, id: &str, state: &str, ended_days_ago: Option<i64>) {
            let trace = crate::telemetry::TraceContext::random().to_string();
            sqlx::query(
                "INSERT INTO events (id, receiver, registry, repository, tag, received_at, duplicate_key, trace_parent, state,
                    finished_at) VALUES (?1, 'hub', 'docker.io', 'docker.io/uyou/a', 't', 0, ?1, ?2, ?3, ?4)",
            )
            .bind(id)
            .bind(trace)
            .bind(state)
            .bind(ended_days_ago.map(|days| NOW - days * DAY))
            .execute(&mut self.connection)
            .await
            .unwrap();
        }

        async fn update(&mut self, id: &str, place: &str, state: &str, ended_days_ago: Option<i64>) {
            let trace = crate::telemetry::TraceContext::random().to_string();
            sqlx::query(
                "INSERT INTO updates (id, environment, registry, repository, tag, cause, cause_id, actor, state, received_at,
                    finished_at, trace_parent)
                 VALUES (?1, ?2, 'docker.io', 'docker.io/uyou/a', 't', 'push', ?1, 'hub', ?3, 0, ?4, ?5)",
            )
            .bind(id)
            .bind(place)
            .bind(state)
            .bind(ended_days_ago.map(|days| NOW - days * DAY))
            .bind(trace)
            .execute(&mut self.connection)
            .await
            .unwrap();
        }

        async fn forget(&self) -> bool {
            let days = |count: u64| Duration::from_secs(count * 86_400);
            let retention = Retention { ended: days(90), history: days(365) };
            self.store.forget(&retention, Timestamp::from_millisecond(NOW).unwrap()).await.unwrap()
        }

        async fn ids(&mut self, table: &str) -> Vec<String> {
            let statement = format!("SELECT CAST(id AS TEXT) FROM {table} ORDER BY id");
            sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(&mut self.connection).await.unwrap()
        }
    }

    #[tokio::test]
    async fn what_is_over_goes_and_what_is_open_or_known_last_stays() {
        let mut fixture = Fixture::new().await;
        fixture.event("1-open", "waiting", None).await;
        fixture.event("2-old", "superseded", Some(91)).await;
        fixture.event("3-young", "refused", Some(89)).await;
        // Its update waits in another environment.
        fixture.event("4-old", "committed", Some(91)).await;
        fixture.update("4-old", "qa", "waiting", None).await;
        fixture.update("5-old", "qa", "refused", Some(91)).await;
        fixture.update("6-only", "dev", "unchanged", Some(900)).await;
        fixture.update("7-older", "test", "unchanged", Some(900)).await;
        fixture.update("8-newer", "test", "unchanged", Some(900)).await;
        // Twelve commits of a place, of which ten stay however old they are; and a young one of the last year.
        for number in 10..22 {
            fixture.update(&number.to_string(), "staging", "committed", Some(900 - number)).await;
        }
        fixture.update("22", "production", "committed", Some(364)).await;
        for update in ["10", "22"] {
            sqlx::query(
                "INSERT INTO follow_ups (update_id, environment, commit_id, state, started_at, ended_at)
                 VALUES (?, 'staging', 'c', 'healthy', 0, 1)",
            )
            .bind(update)
            .execute(&mut fixture.connection)
            .await
            .unwrap();
        }
        assert!(!fixture.forget().await);
        assert_eq!(fixture.ids("events").await, ["1-open", "3-young", "4-old"]);
        let kept: Vec<String> = (12..=22).map(|number| number.to_string()).collect();
        let others = ["4-old", "6-only", "8-newer"].map(str::to_owned);
        assert_eq!(fixture.ids("updates").await, [kept.as_slice(), &others].concat());
        let followed: Vec<String> =
            sqlx::query_scalar("SELECT update_id FROM follow_ups").fetch_all(&mut fixture.connection).await.unwrap();
        assert_eq!(followed, ["22"], "what is told of a rollout goes with its update");
        assert!(!fixture.forget().await);
    }

    #[tokio::test]
    async fn much_goes_in_steps_and_takes_its_attempts_along() {
        let mut fixture = Fixture::new().await;
        for number in 0..BATCH + 1 {
            let id = format!("{number:04}");
            fixture.event(&id, "queued", None).await;
            fixture.update(&id, "staging", "refused", Some(100)).await;
        }
        sqlx::query("UPDATE events SET state = 'refused', finished_at = ?")
            .bind(NOW - 100 * DAY)
            .execute(&mut fixture.connection)
            .await
            .unwrap();
        assert_eq!(fixture.ids("attempts").await.len(), BATCH as usize + 1);
        assert!(fixture.forget().await);
        assert_eq!((fixture.ids("events").await.len(), fixture.ids("updates").await.len()), (1, 1));
        assert!(!fixture.forget().await);
        for table in ["events", "updates", "attempts"] {
            assert_eq!(fixture.ids(table).await, Vec::<String>::new(), "{table}");
        }
    }

    #[tokio::test]
    async fn attempts_are_bounded() {
        let mut fixture = Fixture::new().await;
        fixture.event("1", "queued", None).await;
        for number in 0..60 {
            sqlx::query("UPDATE events SET attempts = attempts + 1, reason = ?")
                .bind(format!("no answer {number}"))
                .execute(&mut fixture.connection)
                .await
                .unwrap();
        }
        let attempts = fixture.store.failed_attempts("1").await.unwrap();
        assert_eq!(attempts.len(), 50);
        assert_eq!((attempts[0].answered.as_str(), attempts[49].answered.as_str()), ("no answer 10", "no answer 59"));
    }
}
