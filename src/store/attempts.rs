//! What was tried in vain. The tables' triggers write it (`0008_attempts.sql`, `0009_trust.sql`).

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

use super::rows::words;
use super::{Store, StoreError, time};

words! {
    /// Who was asked in vain.
    Party {
        /// The registry of the image.
        Registry = "registry",
        /// The source repository of the image.
        Source = "source",
        /// What the settings, the manifests and the order of builds say.
        Rules = "rules",
        /// The branch: it was read, or pushed to.
        Branch = "branch",
    }
}

/// Something that was tried for an event or a request, and failed or was begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The environment; `None` when it is about the event itself.
    pub environment: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Who was asked, as [`Party`] calls them, or `replay` when somebody had it run again.
    pub asked: String,
    /// What the answer was.
    pub answered: String,
}

impl FromRow<'_, SqliteRow> for FailedAttempt {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            environment: row.try_get("environment")?,
            at: time(row, "at")?,
            asked: row.try_get("asked")?,
            answered: row.try_get("answered")?,
        })
    }
}

impl Store {
    /// Returns what was tried in vain for an event or a request, oldest first, at most the last 50.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn failed_attempts(&self, cause_id: &str) -> Result<Vec<FailedAttempt>, StoreError> {
        let attempts = sqlx::query_as("SELECT * FROM attempts WHERE cause_id = ? ORDER BY id")
            .bind(cause_id)
            .fetch_all(&self.reads)
            .await?;
        Ok(attempts)
    }
}
