//! Deletes old rows, because the file would grow without limit.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::claims::{LANDED_STATES, OPEN_STATES};
use super::statements::{Statement, statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError, failures};
use crate::domain::{EventState, UpdateState};

/// How long ended rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, requests, blocks, push attempts, and updates that were not committed.
    pub ended: Duration,
    /// Committed updates.
    pub history: Duration,
}

/// The maximum number of rows of a table in one transaction. Limits the time that a webhook waits for the transaction.
const BATCH: u32 = 200;

/// How long entries of the outbox are kept.
const OUTBOX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How many entries of the outbox are kept, however old they are.
const OUTBOX_LENGTH: u64 = 10_000;

statements! {
    /// Updates in state $1 that ended before $2.
    OLD_UPDATES = ("SELECT id FROM updates WHERE state = $1 AND finished_at < $2 ORDER BY id LIMIT $3");
    /// Unchanged updates that are older than another landed update of the place.
    OLD_UNCHANGED = ("SELECT id FROM updates AS old WHERE state = $1 AND finished_at < $2 AND EXISTS (
            SELECT 1 FROM updates AS newer WHERE newer.environment = old.environment AND newer.repository = old.repository
                AND newer.state IN ($3, $1) AND newer.cause_id > old.cause_id)
        ORDER BY id LIMIT $4");
    /// Committed updates that are not among the ten newest of the place.
    OLD_COMMITTED = ("SELECT id FROM updates AS old WHERE state = $1 AND finished_at < $2 AND cause_id < (
            SELECT newer.cause_id FROM updates AS newer WHERE newer.environment = old.environment
                AND newer.repository = old.repository AND newer.state = $1 ORDER BY newer.cause_id DESC LIMIT 1 OFFSET 9)
        ORDER BY id LIMIT $3");
    OLD_EVENTS = ("SELECT id FROM events WHERE finished_at < $1 AND state NOT IN ($2, $3, $4) AND NOT EXISTS (
            SELECT 1 FROM updates WHERE cause_id = events.id AND state IN ($5, $3, $4))
        ORDER BY id LIMIT $6");
    OLD_REQUESTS = ("SELECT id FROM requests WHERE created_at < $1 AND NOT EXISTS (
            SELECT 1 FROM updates WHERE cause_id = requests.id)
        AND NOT EXISTS (SELECT 1 FROM blocks WHERE request_id = requests.id AND ended_at IS NULL)
        ORDER BY id LIMIT $2");
    OLD_BLOCKS = ("SELECT id FROM blocks WHERE ended_at < $1 LIMIT $2");
    OLD_PUSHES = ("SELECT id FROM push_attempts WHERE ended_at < $1 LIMIT $2");
    OLD_ENTRIES = ("SELECT count(*) FROM (SELECT 1 FROM outbox WHERE at < $1 AND sequence <= $2 LIMIT 1) AS found");
    STILL_ENDED_EVENTS = ("SELECT id FROM events WHERE state NOT IN ($1, $2, $3) AND id IN {list}");
    STILL_ENDED_UPDATES = ("SELECT id FROM updates WHERE state NOT IN ($1, $2, $3) AND id IN {list}");
    FORGET_UPDATES = ("DELETE FROM updates WHERE id IN {list}");
    FORGET_FOLLOW_UPS = ("DELETE FROM follow_ups WHERE update_id IN {list}");
    FORGET_EVENTS = ("DELETE FROM events WHERE id IN {list}");
    FORGET_REQUESTS = ("DELETE FROM requests WHERE id IN {list}");
    FORGET_BLOCKS = ("DELETE FROM blocks WHERE ended_at IS NOT NULL AND id IN {list}");
    FORGET_PUSHES = ("DELETE FROM push_attempts WHERE ended_at IS NOT NULL AND id IN {list}");
    FORGET_ENTRIES = ("DELETE FROM outbox WHERE sequence IN (
        SELECT sequence FROM outbox WHERE at < $1 AND sequence <= $2 ORDER BY sequence LIMIT $3)");
}

impl Store {
    /// Deletes some rows that are older than `retention` allows. Returns whether more rows may be left.
    ///
    /// Never deleted are open rows, the ten newest commits of a place, an unchanged update that nothing landed after (comparing
    /// builds and rolling back need them), active blocks, and the requests that made active blocks.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written to.
    pub async fn forget(&self, retention: &Retention, now: Timestamp) -> Result<bool, StoreError> {
        // If the span reaches further back than time can be represented, everything is kept.
        let before = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
        let (ended, history) = (before(retention.ended), before(retention.history));
        let entries = (before(OUTBOX_AGE), self.last_sequence().saturating_sub(OUTBOX_LENGTH));
        // The rows are found with reads, which delay no webhook, and are checked again in the transaction that deletes them.
        let old = self.old(ended, history, entries).await?;
        let found = old.largest();
        let has_entries = old.entries.is_some();
        if found > 0 || has_entries {
            self.writes.run(old).await?;
        }
        Ok(found >= BATCH as usize)
    }

    async fn old(&self, ended: Timestamp, history: Timestamp, entries: (Timestamp, u64)) -> Result<Old, sqlx::Error> {
        let connection = &mut *self.reads.acquire().await?;
        let ids = |rows: Vec<(String,)>| rows.into_iter().map(|(id,)| id).collect::<Vec<String>>();
        let [committed, unchanged] = LANDED_STATES.map(UpdateState::as_str);
        let mut updates: BTreeSet<String> = BTreeSet::new();
        for state in [UpdateState::Superseded, UpdateState::Refused, UpdateState::Cancelled] {
            updates.extend(ids(OLD_UPDATES.all(connection, values![state.as_str(), ended, BATCH]).await?));
        }
        updates.extend(ids(OLD_UNCHANGED.all(connection, values![unchanged, ended, committed, BATCH]).await?));
        updates.extend(ids(OLD_COMMITTED.all(connection, values![committed, history, BATCH]).await?));
        let [queued, pending, waiting] = OPEN_EVENTS.map(EventState::as_str);
        let unverified = UpdateState::Unverified.as_str();
        let values = values![ended, queued, pending, waiting, unverified, BATCH];
        let events = ids(OLD_EVENTS.all(connection, values).await?);
        let (before, up_to) = (entries.0, i64::try_from(entries.1).unwrap_or(i64::MAX));
        let (has_entries,): (i64,) = OLD_ENTRIES.one(connection, values![before, up_to]).await?;
        Ok(Old {
            updates: updates.into_iter().take(BATCH as usize).collect(),
            events,
            requests: ids(OLD_REQUESTS.all(connection, values![ended, BATCH]).await?),
            blocks: ids(OLD_BLOCKS.all(connection, values![ended, BATCH]).await?),
            pushes: ids(OLD_PUSHES.all(connection, values![ended, BATCH]).await?),
            entries: (has_entries > 0).then_some((before, up_to)),
        })
    }
}

/// The open states of events, for statements. A test compares them with the enum.
const OPEN_EVENTS: [EventState; 3] = [EventState::Queued, EventState::Pending, EventState::Waiting];

/// Rows to delete.
struct Old {
    updates: Vec<String>,
    events: Vec<String>,
    requests: Vec<String>,
    blocks: Vec<String>,
    pushes: Vec<String>,
    /// Entries of the outbox before this time, up to this sequence number.
    entries: Option<(Timestamp, i64)>,
}

impl Old {
    fn largest(&self) -> usize {
        let lengths = [&self.updates, &self.events, &self.requests, &self.blocks, &self.pushes].map(Vec::len);
        lengths.into_iter().max().unwrap_or_default()
    }
}

impl Write for Old {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        // A row that was replayed since it was found is open again.
        let open = OPEN_STATES.map(UpdateState::as_str);
        let updates = still_ended(tx, &STILL_ENDED_UPDATES, open, &self.updates).await?;
        let events = still_ended(tx, &STILL_ENDED_EVENTS, OPEN_EVENTS.map(EventState::as_str), &self.events).await?;
        FORGET_UPDATES.execute_of(tx.connection, values![], &updates).await?;
        FORGET_FOLLOW_UPS.execute_of(tx.connection, values![], &updates).await?;
        failures::delete(tx, &events).await?;
        FORGET_EVENTS.execute_of(tx.connection, values![], &events).await?;
        failures::delete(tx, &self.requests).await?;
        FORGET_REQUESTS.execute_of(tx.connection, values![], &self.requests).await?;
        FORGET_BLOCKS.execute_of(tx.connection, values![], &self.blocks).await?;
        FORGET_PUSHES.execute_of(tx.connection, values![], &self.pushes).await?;
        if let Some((before, up_to)) = self.entries {
            FORGET_ENTRIES.execute(tx.connection, values![before, up_to, BATCH]).await?;
        }
        Ok(())
    }
}

async fn still_ended(
    tx: &mut Transaction<'_>,
    statement: &'static Statement,
    open: [&str; 3],
    ids: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    let found: Vec<(String,)> = statement.all_of(tx.connection, values![open[0], open[1], open[2]], ids).await?;
    Ok(found.into_iter().map(|(id,)| id).collect())
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
        folder: tempfile::TempDir,
    }

    impl Fixture {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tagrelay.db");
            let store = Store::open(&StoreSettings { path: path.clone() }).await.unwrap();
            let connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
            Self { store, connection, folder }
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

        async fn failure(&mut self, cause_id: &str) {
            sqlx::query("INSERT INTO failures (cause_id, at, asked, answered) VALUES (?, 0, 'rules', 'refused: no')")
                .bind(cause_id)
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
    async fn old_rows_are_deleted_except_for_open_ones_and_the_newest_of_each_place() {
        let mut fixture = Fixture::new().await;
        fixture.event("1-open", "waiting", None).await;
        fixture.event("2-old", "superseded", Some(91)).await;
        fixture.event("3-young", "refused", Some(89)).await;
        // The update of the event waits in another environment.
        fixture.event("4-old", "committed", Some(91)).await;
        fixture.update("4-old", "qa", "waiting", None).await;
        fixture.update("5-old", "qa", "refused", Some(91)).await;
        fixture.update("6-only", "dev", "unchanged", Some(900)).await;
        fixture.update("7-older", "test", "unchanged", Some(900)).await;
        fixture.update("8-newer", "test", "unchanged", Some(900)).await;
        // Twelve commits of a place: the ten newest stay, whatever their age. And one commit from the last year.
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
        assert_eq!(followed, ["22"], "a follow-up is deleted with its update");
        assert!(!fixture.forget().await);
    }

    #[tokio::test]
    async fn many_rows_are_deleted_in_steps_and_with_their_failures() {
        let mut fixture = Fixture::new().await;
        for number in 0..BATCH + 1 {
            let id = format!("{number:04}");
            fixture.event(&id, "refused", Some(100)).await;
            fixture.update(&id, "staging", "refused", Some(100)).await;
            fixture.failure(&id).await;
        }
        assert!(fixture.forget().await);
        for table in ["events", "updates", "failures"] {
            assert_eq!(fixture.ids(table).await.len(), 1, "{table}");
        }
        assert!(!fixture.forget().await);
        for table in ["events", "updates", "failures"] {
            assert_eq!(fixture.ids(table).await, Vec::<String>::new(), "{table}");
        }
    }

    #[tokio::test]
    async fn old_entries_of_the_outbox_are_deleted_but_not_the_newest_ones() {
        let mut fixture = Fixture::new().await;
        let now = fixture.store.clock().now();
        let (day, retention) = (Duration::from_secs(86_400), Retention { ended: DAYS_90, history: DAYS_90 });
        sqlx::query(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10010)
             INSERT INTO outbox (sequence, first_sequence, at, changes) SELECT n, n, 0, '[]' FROM numbers",
        )
        .execute(&mut fixture.connection)
        .await
        .unwrap();
        // The store continues after the entries in the table.
        let Fixture { store, mut connection, folder } = fixture;
        drop(store);
        let store = Store::open(&StoreSettings { path: folder.path().join("tagrelay.db") }).await.unwrap();
        store.record_freeze_change("staging", "frozen", None).await.unwrap();
        assert_eq!(store.last_sequence(), 10_011);
        store.forget(&retention, now - day).await.unwrap();
        let first = async |connection: &mut SqliteConnection| -> (i64, i64) {
            sqlx::query_as("SELECT min(sequence), count(*) FROM outbox").fetch_one(connection).await.unwrap()
        };
        assert_eq!(first(&mut connection).await, (12, 10_000));
        assert_eq!(store.last_sequence(), 10_011);
    }

    /// The reason of a promotion is part of the history, which is kept longer.
    #[tokio::test]
    async fn request_is_kept_as_long_as_its_updates() {
        let mut fixture = Fixture::new().await;
        sqlx::query(
            "INSERT INTO requests (id, kind, environment, actor, fingerprint, created_at, trace_parent)
             VALUES ('1', 'promotion', 'staging', 'ops', 'f', 0, 't')",
        )
        .execute(&mut fixture.connection)
        .await
        .unwrap();
        fixture.update("1", "staging", "committed", Some(200)).await;
        fixture.forget().await;
        assert_eq!(fixture.ids("requests").await, ["1"]);
        sqlx::query("DELETE FROM updates").execute(&mut fixture.connection).await.unwrap();
        fixture.forget().await;
        assert_eq!(fixture.ids("requests").await, Vec::<String>::new());
    }

    const DAYS_90: Duration = Duration::from_secs(90 * 86_400);

    #[test]
    fn open_states_of_events_in_statements_are_those_of_the_enum() {
        assert_eq!(OPEN_EVENTS.to_vec(), EventState::open().collect::<Vec<_>>());
    }
}
