use jiff::Timestamp;
use sqlx::{FromRow, Row as _};

use super::database::Row;
use super::rows::{time, time_option};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};

statements! {
    ALL = ("SELECT name, heard_at, outcome, accepted_at FROM receivers");
    WRITE = ("INSERT INTO receivers (name, heard_at, outcome, accepted_at)
        SELECT column1, column2, column3, column4 FROM (VALUES {rows:TITI}) AS v WHERE column1 IS NOT NULL
        ON CONFLICT (name) DO UPDATE SET heard_at = excluded.heard_at, outcome = excluded.outcome,
            accepted_at = coalesce(excluded.accepted_at, receivers.accepted_at)");
}

/// The last request to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverHeard {
    pub receiver: String,
    /// When the last request arrived.
    pub heard_at: Timestamp,
    /// The result of the request, in the words of the metrics: `accepted`, `ignored`, `unauthorized`, ….
    pub outcome: String,
    /// When the receiver last got a request with an event that was stored.
    pub accepted_at: Option<Timestamp>,
}

impl FromRow<'_, Row> for ReceiverHeard {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            receiver: row.try_get("name")?,
            heard_at: time(row, "heard_at")?,
            outcome: row.try_get("outcome")?,
            accepted_at: time_option(row, "accepted_at")?,
        })
    }
}

impl Store {
    /// Stores the last request of each of these receivers.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn keep_heard(&self, heard: Vec<ReceiverHeard>) -> Result<(), StoreError> {
        self.writes.run(KeepHeard(heard)).await
    }

    /// Returns the last request of each receiver that has ever received one.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn heard(&self) -> Result<Vec<ReceiverHeard>, StoreError> {
        Ok(ALL.all(&mut *self.reads.acquire().await?, values![]).await?)
    }
}

struct KeepHeard(Vec<ReceiverHeard>);

impl Write for KeepHeard {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let row = |heard: &ReceiverHeard| values![&heard.receiver, heard.heard_at, &heard.outcome, heard.accepted_at];
        WRITE.execute_rows(tx.connection, values![], self.0.iter().map(row).collect()).await
    }
}
