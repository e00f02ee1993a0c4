use jiff::Timestamp;
use sqlx::{FromRow, Row as _};

use super::writer::{Transaction, Write};
use super::{Store, StoreError, time, time_option};

/// What a receiver last heard from its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverHeard {
    /// The receiver.
    pub receiver: String,
    /// When the last request came.
    pub heard_at: Timestamp,
    /// How it ended, in the words of the metrics: `accepted`, `ignored`, `unauthorized`, ….
    pub outcome: String,
    /// When a request last held an event that was stored.
    pub accepted_at: Option<Timestamp>,
}

impl FromRow<'_, sqlx::sqlite::SqliteRow> for ReceiverHeard {
    fn from_row(row: &sqlx::sqlite::SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            receiver: row.try_get("name")?,
            heard_at: time(row, "heard_at")?,
            outcome: row.try_get("outcome")?,
            accepted_at: time_option(row, "accepted_at")?,
        })
    }
}

impl Store {
    /// Keeps what receivers have heard last.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn keep_heard(&self, heard: Vec<ReceiverHeard>) -> Result<(), StoreError> {
        self.writes.run(KeepHeard(heard)).await
    }

    /// Returns what each receiver that was ever heard of has heard last.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn heard(&self) -> Result<Vec<ReceiverHeard>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM receivers").fetch_all(&self.reads).await?)
    }
}

struct KeepHeard(Vec<ReceiverHeard>);

impl Write for KeepHeard {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for heard in &self.0 {
            sqlx::query(
                "INSERT INTO receivers (name, heard_at, outcome, accepted_at) VALUES (?, ?, ?, ?)
                 ON CONFLICT (name) DO UPDATE SET heard_at = excluded.heard_at, outcome = excluded.outcome,
                    accepted_at = coalesce(excluded.accepted_at, accepted_at)",
            )
            .bind(&heard.receiver)
            .bind(heard.heard_at.as_millisecond())
            .bind(&heard.outcome)
            .bind(heard.accepted_at.map(Timestamp::as_millisecond))
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
    }
}
