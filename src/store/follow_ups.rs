use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::rows::words;
use super::writer::{Transaction, Write};
use super::{Store, StoreError, Update, parsed, time, time_option};

words! {
    /// How far Argo CD has come with a committed update.
    FollowState {
        /// Argo CD has not heard of it yet; `reason` says why, where it was asked in vain.
        Waiting = "waiting",
        /// Its applications have been refreshed, and are on their way.
        Following = "following",
        /// Argo CD's webhook has heard of it. Without a token no more is known.
        Told = "told",
        /// Every application runs it, Synced and Healthy.
        Healthy = "healthy",
        /// An application runs it and is Degraded.
        Degraded = "degraded",
        /// An application did not get there within the time that the settings give.
        TimedOut = "timed_out",
        /// No application of Argo CD is made of the files that it changed.
        Untracked = "untracked",
    }
}

impl FollowState {
    /// Returns whether nothing more comes of it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Following)
    }
}

/// What becomes of a committed update in Argo CD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The update.
    pub update_id: String,
    /// Its environment.
    pub environment: String,
    /// Its commit.
    pub commit: String,
    /// How far it has come: as far as the application that has come least far, or fared worst.
    pub state: FollowState,
    /// Why it is not further, or what went wrong.
    pub reason: Option<String>,
    /// When the update was committed.
    pub started_at: Timestamp,
    /// When it came to its end.
    pub ended_at: Option<Timestamp>,
    /// The applications that it touches.
    pub applications: Vec<FollowedApplication>,
}

/// What an application has come to with an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedApplication {
    /// The namespace of the `Application`.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub state: FollowState,
    /// Whether it is Synced, in Argo CD's word; `None` until it has been asked.
    pub sync: Option<String>,
    /// Its health, in Argo CD's word.
    pub health: Option<String>,
    /// The commit that it is at.
    pub revision: Option<String>,
    /// Why it is not further, or what went wrong.
    pub reason: Option<String>,
    /// When Argo CD was first asked to look at the repository.
    pub refreshed_at: Option<Timestamp>,
    /// When it was first seen at our commit or a later one.
    pub reached_at: Option<Timestamp>,
    /// When it was first seen Synced there.
    pub synced_at: Option<Timestamp>,
    /// When it came to its end.
    pub ended_at: Option<Timestamp>,
}

impl FromRow<'_, SqliteRow> for FollowUp {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let applications: String = row.try_get("applications")?;
        Ok(Self {
            update_id: row.try_get("update_id")?,
            environment: row.try_get("environment")?,
            commit: row.try_get("commit_id")?,
            state: parsed(row, "state")?,
            reason: row.try_get("reason")?,
            started_at: time(row, "started_at")?,
            ended_at: time_option(row, "ended_at")?,
            applications: serde_json::from_str(&applications)
                .map_err(|error| super::decode_error("applications", error))?,
        })
    }
}

/// How an application of an environment fared when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationHealth {
    /// The environment.
    pub environment: String,
    /// The application, as `namespace/name`.
    pub application: String,
    /// Argo CD's word for whether it is synced.
    pub sync: String,
    /// Argo CD's word for its health.
    pub health: String,
    /// What Argo CD says about it.
    pub message: Option<String>,
    /// Since when it has been Synced and Healthy without a break; `None`: it is not.
    pub healthy_since: Option<Timestamp>,
    /// When that was.
    pub observed_at: Timestamp,
    /// A digest of what the manifests named then that it is made of; `None`: not known.
    pub named: Option<String>,
}

impl FromRow<'_, SqliteRow> for ApplicationHealth {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            environment: row.try_get("environment")?,
            application: row.try_get("application")?,
            sync: row.try_get("sync")?,
            health: row.try_get("health")?,
            message: row.try_get("message")?,
            healthy_since: time_option(row, "healthy_since")?,
            observed_at: time(row, "observed_at")?,
            named: row.try_get("named")?,
        })
    }
}

impl Store {
    /// Returns the follow-ups that have not come to an end, oldest first, with their updates; at most `limit`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn open_follow_ups(&self, limit: u32) -> Result<Vec<(FollowUp, Update)>, StoreError> {
        let rows: Vec<FollowUp> =
            sqlx::query_as("SELECT * FROM follow_ups WHERE ended_at IS NULL ORDER BY update_id LIMIT ?")
                .bind(limit)
                .fetch_all(&self.reads)
                .await?;
        self.with_updates(rows).await
    }

    /// Returns the follow-ups of an environment that have not come to an end, as [`Self::open_follow_ups`] does.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn open_follow_ups_in(
        &self,
        environment: &str,
        limit: u32,
    ) -> Result<Vec<(FollowUp, Update)>, StoreError> {
        let rows: Vec<FollowUp> = sqlx::query_as(
            "SELECT * FROM follow_ups WHERE environment = ? AND ended_at IS NULL ORDER BY update_id LIMIT ?",
        )
        .bind(environment)
        .bind(limit)
        .fetch_all(&self.reads)
        .await?;
        self.with_updates(rows).await
    }

    /// Returns the follow-ups of an environment that ran out of time and after which nothing else was committed for the same
    /// repository, oldest first, with their updates; at most `limit`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn timed_out_follow_ups(
        &self,
        environment: &str,
        limit: u32,
    ) -> Result<Vec<(FollowUp, Update)>, StoreError> {
        let rows: Vec<FollowUp> = sqlx::query_as(
            "SELECT follow_ups.* FROM follow_ups JOIN updates ON updates.id = update_id
             WHERE follow_ups.environment = ? AND follow_ups.state = 'timed_out' AND NOT EXISTS (
                SELECT 1 FROM updates AS later WHERE later.state = 'committed'
                    AND later.environment = updates.environment AND later.repository = updates.repository
                    AND (later.finished_at, later.id) > (updates.finished_at, updates.id))
             ORDER BY update_id LIMIT ?",
        )
        .bind(environment)
        .bind(limit)
        .fetch_all(&self.reads)
        .await?;
        self.with_updates(rows).await
    }

    /// Returns those of the follow-ups of these updates that have not come to an end, oldest first, with their updates.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn open_follow_ups_of(&self, update_ids: &[String]) -> Result<Vec<(FollowUp, Update)>, StoreError> {
        let rows: Vec<FollowUp> = sqlx::query_as(
            "SELECT * FROM follow_ups WHERE ended_at IS NULL AND update_id IN (SELECT value FROM json_each(?))
             ORDER BY update_id",
        )
        .bind(serde_json::json!(update_ids).to_string())
        .fetch_all(&self.reads)
        .await?;
        self.with_updates(rows).await
    }

    async fn with_updates(&self, rows: Vec<FollowUp>) -> Result<Vec<(FollowUp, Update)>, StoreError> {
        let ids: Vec<&str> = rows.iter().map(|row| row.update_id.as_str()).collect();
        let updates: Vec<Update> = sqlx::query_as("SELECT * FROM updates WHERE id IN (SELECT value FROM json_each(?))")
            .bind(serde_json::json!(ids).to_string())
            .fetch_all(&self.reads)
            .await?;
        let mut updates: HashMap<String, Update> =
            updates.into_iter().map(|update| (update.id.clone(), update)).collect();
        let pair = |row: FollowUp| updates.remove(&row.update_id).map(|update| (row, update));
        Ok(rows.into_iter().filter_map(pair).collect())
    }

    /// Returns what becomes of these updates, by their ids; those that nobody follows are left out.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn follow_ups_of(
        &self,
        updates: impl IntoIterator<Item = &Update>,
    ) -> Result<HashMap<String, FollowUp>, StoreError> {
        let ids: Vec<&str> =
            updates.into_iter().filter(|update| update.commit.is_some()).map(|update| update.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<FollowUp> =
            sqlx::query_as("SELECT * FROM follow_ups WHERE update_id IN (SELECT value FROM json_each(?))")
                .bind(serde_json::json!(ids).to_string())
                .fetch_all(&self.reads)
                .await?;
        Ok(rows.into_iter().map(|row| (row.update_id.clone(), row)).collect())
    }

    /// Records how far follow-ups have come.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn record_follow_ups(&self, rows: Vec<FollowUp>) -> Result<(), StoreError> {
        if rows.is_empty() { Ok(()) } else { self.writes.run(RecordFollowUps(rows)).await }
    }

    /// Returns how the applications of the environments fared when they were looked at last.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn application_health(&self) -> Result<Vec<ApplicationHealth>, StoreError> {
        let rows = sqlx::query_as("SELECT * FROM application_health ORDER BY environment, application")
            .fetch_all(&self.reads)
            .await?;
        Ok(rows)
    }

    /// Records how applications fare. With `whole`, others of that environment are forgotten: they are no longer its.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn record_application_health(
        &self,
        rows: Vec<ApplicationHealth>,
        whole: Option<String>,
    ) -> Result<(), StoreError> {
        self.writes.run(RecordHealth { rows, whole }).await
    }

    /// Returns the commits that we have put on the branch of these environments, with the times at which they were there:
    /// those of the last `limit` updates of all environments.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn commits_on(
        &self,
        environments: &[String],
        limit: u32,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let commits: Vec<(String, i64)> = sqlx::query_as(
            "SELECT commit_id, min(finished_at) FROM (
                SELECT commit_id, environment, finished_at, id FROM updates WHERE state = 'committed'
                ORDER BY finished_at DESC, id DESC LIMIT ?1
             ) WHERE commit_id IS NOT NULL AND environment IN (SELECT value FROM json_each(?2))
             GROUP BY commit_id",
        )
        .bind(limit)
        .bind(serde_json::json!(environments).to_string())
        .fetch_all(&self.reads)
        .await?;
        let time = |at: i64| Timestamp::from_millisecond(at).ok();
        Ok(commits.into_iter().filter_map(|(commit, at)| Some((commit, time(at)?))).collect())
    }
}

/// Begins the follow-up of an update that has just been committed.
pub(super) async fn begin(tx: &mut Transaction<'_>, update_ids: &[&String]) -> Result<(), sqlx::Error> {
    if update_ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT OR IGNORE INTO follow_ups (update_id, environment, commit_id, state, started_at)
         SELECT id, environment, commit_id, 'waiting', ? FROM updates
         WHERE id IN (SELECT value FROM json_each(?)) AND commit_id IS NOT NULL",
    )
    .bind(tx.now_milliseconds())
    .bind(super::json_text(update_ids)?)
    .execute(&mut *tx.connection)
    .await
    .map(|_| ())
}

struct RecordFollowUps(Vec<FollowUp>);

impl Write for RecordFollowUps {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for row in &self.0 {
            let applications =
                serde_json::to_string(&row.applications).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
            sqlx::query(
                "UPDATE follow_ups SET state = ?, reason = ?, ended_at = ?, applications = ? WHERE update_id = ?",
            )
            .bind(row.state.as_str())
            .bind(&row.reason)
            .bind(row.ended_at.map(Timestamp::as_millisecond))
            .bind(applications)
            .bind(&row.update_id)
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
    }
}

struct RecordHealth {
    rows: Vec<ApplicationHealth>,
    whole: Option<String>,
}

impl Write for RecordHealth {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        if let Some(environment) = &self.whole {
            let names: Vec<&str> = self.rows.iter().map(|row| row.application.as_str()).collect();
            sqlx::query(
                "DELETE FROM application_health
                 WHERE environment = ? AND application NOT IN (SELECT value FROM json_each(?))",
            )
            .bind(environment)
            .bind(serde_json::json!(names).to_string())
            .execute(&mut *tx.connection)
            .await?;
        }
        for row in &self.rows {
            sqlx::query(
                "INSERT OR REPLACE INTO application_health
                    (environment, application, sync, health, message, healthy_since, observed_at, named)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&row.environment)
            .bind(&row.application)
            .bind(&row.sync)
            .bind(&row.health)
            .bind(&row.message)
            .bind(row.healthy_since.map(Timestamp::as_millisecond))
            .bind(row.observed_at.as_millisecond())
            .bind(&row.named)
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
    }
}
