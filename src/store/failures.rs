use jiff::Timestamp;
use sqlx::{FromRow, Row as _};

use super::database::Row;
use super::rows::time;
use super::statements::{statements, values};
use super::writer::Transaction;
use super::{Store, StoreError};

statements! {
    OF = ("SELECT environment, at, asked, answered FROM failures WHERE cause_id = $1 ORDER BY id");
    INSERT = ("INSERT INTO failures (cause_id, environment, at, asked, answered)
        SELECT column1, column2, CAST($1 AS BIGINT), column3, column4 FROM (VALUES {rows:TTTT}) AS v
        WHERE column1 IS NOT NULL");
    TRIM = ("DELETE FROM failures WHERE cause_id IN {list} AND id <= (
        SELECT id FROM failures AS own WHERE own.cause_id = failures.cause_id ORDER BY id DESC LIMIT 1 OFFSET 50)");
    DELETE = ("DELETE FROM failures WHERE cause_id IN {list}");
}

/// A failed try of an event or a request, or a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The environment of the failed update; `None`: the event itself failed.
    pub environment: Option<String>,
    pub at: Timestamp,
    /// A [`Party`](crate::domain::Party), or `replay` if the event was replayed.
    pub asked: String,
    pub answered: String,
}

impl FromRow<'_, Row> for FailedAttempt {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            environment: row.try_get("environment")?,
            at: time(row, "at")?,
            asked: row.try_get("asked")?,
            answered: row.try_get("answered")?,
        })
    }
}

/// A failed try before it is stored.
pub(super) struct NewFailure {
    pub(super) cause_id: String,
    pub(super) environment: Option<String>,
    pub(super) asked: &'static str,
    pub(super) answered: String,
}

/// Stores failed tries, and deletes all except the newest 50 of each cause.
pub(super) async fn record(tx: &mut Transaction<'_>, failures: &[NewFailure]) -> Result<(), sqlx::Error> {
    let row = |failure: &NewFailure| values![&failure.cause_id, &failure.environment, failure.asked, &failure.answered];
    INSERT.execute_rows(tx.connection, values![tx.now], failures.iter().map(row).collect()).await?;
    let causes: std::collections::BTreeSet<&String> = failures.iter().map(|failure| &failure.cause_id).collect();
    TRIM.execute_of(tx.connection, values![], causes).await.map(|_| ())
}

/// Deletes the failed tries of causes.
pub(super) async fn delete(tx: &mut Transaction<'_>, cause_ids: &[String]) -> Result<(), sqlx::Error> {
    DELETE.execute_of(tx.connection, values![], cause_ids).await.map(|_| ())
}

impl Store {
    /// Returns the failed tries of an event or a request, oldest first, at most the newest 50.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn failed_attempts(&self, cause_id: &str) -> Result<Vec<FailedAttempt>, StoreError> {
        Ok(OF.all(&mut *self.reads.acquire().await?, values![cause_id]).await?)
    }
}
