//! The versions that applications run, and since when.

use sqlx::{FromRow, Row as _};

use super::database::{Row, Value};
use super::rows::{parsed, time, time_option};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::VersionRun;
use tagrelay_image::{ImageReference, Version};

statements! {
    OF_ENVIRONMENT = ("SELECT environment, application, repository, version, first_seen_at, healthy_since, observed_at
        FROM version_runs WHERE environment = $1 ORDER BY application, repository, version");
    WRITE = ("INSERT INTO version_runs
            (environment, application, repository, version, first_seen_at, healthy_since, observed_at)
        SELECT column1, column2, column3, column4, column5, column6, column7 FROM (VALUES {rows:TTTTIII}) AS v
        WHERE column1 IS NOT NULL
        ON CONFLICT (environment, application, repository, version) DO UPDATE SET
            healthy_since = excluded.healthy_since, observed_at = excluded.observed_at");
    FORGET = ("DELETE FROM version_runs WHERE environment = $1 AND application = $2 AND repository = $3 AND version = $4");
    FORGET_OTHER_ENVIRONMENTS = ("DELETE FROM version_runs WHERE environment NOT IN {list}");
}

impl FromRow<'_, Row> for VersionRun {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let version: String = row.try_get("version")?;
        Ok(Self {
            environment: row.try_get("environment")?,
            application: row.try_get("application")?,
            repository: parsed(row, "repository")?,
            version: version_of(&version).ok_or_else(|| sqlx::Error::ColumnNotFound("version".to_owned()))?,
            first_seen_at: time(row, "first_seen_at")?,
            healthy_since: time_option(row, "healthy_since")?,
            observed_at: time(row, "observed_at")?,
        })
    }
}

/// Parses a version that was written with `to_string`.
fn version_of(text: &str) -> Option<Version> {
    let separator = if text.starts_with('@') { "" } else { ":" };
    format!("a{separator}{text}").parse::<ImageReference>().ok()?.version()
}

impl Store {
    /// Returns the versions that the applications of an environment were last seen to run.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn version_runs(&self, environment: &str) -> Result<Vec<VersionRun>, StoreError> {
        Ok(OF_ENVIRONMENT.all(&mut *self.reads.acquire().await?, values![environment]).await?)
    }

    /// Records the versions that applications run, and forgets those that they no longer run.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
    pub async fn record_version_runs(
        &self,
        written: Vec<VersionRun>,
        forgotten: Vec<VersionRun>,
    ) -> Result<(), StoreError> {
        if written.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        self.writes.run(RecordRuns { written, forgotten }).await
    }

    /// Forgets the versions in all other environments.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
    pub async fn forget_version_runs_elsewhere(&self, environments: &[String]) -> Result<(), StoreError> {
        self.writes.run(ForgetElsewhere(environments.to_vec())).await
    }
}

struct RecordRuns {
    written: Vec<VersionRun>,
    forgotten: Vec<VersionRun>,
}

impl Write for RecordRuns {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for run in &self.forgotten {
            let values = values![&run.environment, &run.application, &run.repository, run.version.to_string()];
            FORGET.execute(tx.connection, values).await?;
        }
        let row = |run: &VersionRun| -> Vec<Value> {
            values![
                &run.environment,
                &run.application,
                &run.repository,
                run.version.to_string(),
                run.first_seen_at,
                run.healthy_since,
                run.observed_at,
            ]
        };
        WRITE.execute_rows(tx.connection, values![], self.written.iter().map(row).collect()).await
    }
}

struct ForgetElsewhere(Vec<String>);

impl Write for ForgetElsewhere {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        FORGET_OTHER_ENVIRONMENTS.execute_of_whole(tx.connection, values![], &self.0).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_were_written() {
        let digest = format!("@sha256:{}", "1".repeat(64));
        for text in ["1.2.3".to_owned(), digest.clone(), format!("1.2.3{digest}")] {
            assert_eq!(version_of(&text).unwrap().to_string(), text);
        }
        assert_eq!(version_of(""), None);
    }
}
