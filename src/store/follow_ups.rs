use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Row as _};

use super::database::{Connection, Row, Value};
use super::rows::{json_of, json_text, parsed, time, time_option, update_columns};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Change, Update, UpdateState, words};

/// The columns of a [`Rollout`].
macro_rules! follow_up_columns {
    () => {
        "update_id, follow_ups.environment, follow_ups.commit_id, follow_ups.state, follow_ups.reason, started_at, ended_at, \
         applications"
    };
}

statements! {
    OPEN = ("SELECT ", follow_up_columns!(), " FROM follow_ups WHERE ended_at IS NULL ORDER BY update_id LIMIT $1");
    OPEN_IN = ("SELECT ", follow_up_columns!(), " FROM follow_ups WHERE environment = $1 AND ended_at IS NULL
        ORDER BY update_id LIMIT $2");
    /// Follow-ups in a state after which nothing else was committed at the place.
    LAST_IN_STATE = ("SELECT ", follow_up_columns!(), " FROM follow_ups JOIN updates ON updates.id = update_id
        WHERE follow_ups.environment = $1 AND follow_ups.state = $2 AND NOT EXISTS (
            SELECT 1 FROM updates AS later WHERE later.state = $3 AND later.environment = updates.environment
                AND later.repository = updates.repository AND (later.finished_at > updates.finished_at
                    OR (later.finished_at = updates.finished_at AND later.id > updates.id)))
        ORDER BY update_id LIMIT $4");
    OPEN_OF = ("SELECT ", follow_up_columns!(), " FROM follow_ups WHERE ended_at IS NULL AND update_id IN {list}
        ORDER BY update_id");
    OF = ("SELECT ", follow_up_columns!(), " FROM follow_ups WHERE update_id IN {list}");
    UPDATES = ("SELECT ", update_columns!(), " FROM updates WHERE id IN {list}");
    BEGIN = ("INSERT INTO follow_ups (update_id, environment, commit_id, state, started_at)
        SELECT id, environment, commit_id, CAST($1 AS TEXT), CAST($2 AS BIGINT) FROM updates
        WHERE commit_id IS NOT NULL AND id IN {list} ON CONFLICT DO NOTHING");
    WRITE = ("UPDATE follow_ups SET state = v.column2, reason = v.column3, ended_at = v.column4, applications = v.column5
        FROM (VALUES {rows:TTTIT}) AS v WHERE follow_ups.update_id = v.column1");
    HEALTH = ("SELECT environment, application, sync, health, message, healthy_since, observed_at, named
        FROM application_health ORDER BY environment, application");
    FORGET_OTHERS = ("DELETE FROM application_health WHERE environment = $1 AND application NOT IN {list}");
    WRITE_HEALTH = ("INSERT INTO application_health
            (environment, application, sync, health, message, healthy_since, observed_at, named)
        SELECT column1, column2, column3, column4, column5, column6, column7, column8
        FROM (VALUES {rows:TTTTTIIT}) AS v WHERE column1 IS NOT NULL
        ON CONFLICT (environment, application) DO UPDATE SET sync = excluded.sync, health = excluded.health,
            message = excluded.message, healthy_since = excluded.healthy_since, observed_at = excluded.observed_at,
            named = excluded.named");
    COMMITS = ("SELECT commit_id, min(finished_at) FROM (
            SELECT commit_id, environment, finished_at, id FROM updates WHERE state = $1 AND finished_at IS NOT NULL
            ORDER BY finished_at DESC, id DESC LIMIT $2) AS newest
        WHERE commit_id IS NOT NULL AND environment IN {list} GROUP BY commit_id");
}

words! {
    /// The state of a rollout.
    RolloutState {
        /// Argo CD was not notified yet; `reason` is the last failure.
        Waiting = "waiting",
        /// Its applications were refreshed, and have not all ended.
        Following = "following",
        /// Argo CD's webhook was called. Without a token nothing else is known.
        Notified = "told",
        /// The applications run the version, Synced and Healthy.
        Healthy = "healthy",
        /// An application runs the commit and is Degraded.
        Degraded = "degraded",
        /// Another version was written before the cluster ran this one.
        Superseded = "superseded",
        /// An application did not reach the commit within the time of the settings.
        TimedOut = "timed_out",
        /// No application of Argo CD uses the changed files, or runs the repository as a workload.
        Untracked = "untracked",
    }
}

impl RolloutState {
    /// Whether the rollout has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Following)
    }
}

/// The rollout of a committed update in Argo CD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub update_id: String,
    pub environment: String,
    pub commit: String,
    /// The least advanced or the worst state of its applications.
    pub state: RolloutState,
    /// Why it has not ended, or what failed.
    pub reason: Option<String>,
    /// When the update was committed.
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// The applications that use the changed files.
    pub applications: Vec<FollowedApplication>,
}

/// The rollout in one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedApplication {
    /// The namespace of the `Application`.
    pub namespace: Option<String>,
    pub name: String,
    pub state: RolloutState,
    /// Whether its images show the rollout, not its commit: a child application, or one of an ApplicationSet.
    #[serde(default)]
    pub by_image: bool,
    /// Argo CD's sync status; `None` until it was read.
    pub sync: Option<String>,
    /// Argo CD's health status.
    pub health: Option<String>,
    /// The commit that it is at.
    pub revision: Option<String>,
    /// Why it has not ended, or what failed.
    pub reason: Option<String>,
    /// When the first refresh was requested.
    pub refreshed_at: Option<Timestamp>,
    /// When it was first seen at our commit or a later one.
    pub reached_at: Option<Timestamp>,
    /// When it was first seen Synced there.
    pub synced_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

impl FromRow<'_, Row> for Rollout {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let applications: String = row.try_get("applications")?;
        Ok(Self {
            update_id: row.try_get("update_id")?,
            environment: row.try_get("environment")?,
            commit: row.try_get("commit_id")?,
            state: parsed(row, "state")?,
            reason: row.try_get("reason")?,
            started_at: time(row, "started_at")?,
            ended_at: time_option(row, "ended_at")?,
            applications: json_of(&applications, "applications")?,
        })
    }
}

/// The last observed health of an application of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationHealth {
    pub environment: String,
    /// `namespace/name`.
    pub application: String,
    /// Argo CD's sync status.
    pub sync: String,
    /// Argo CD's health status.
    pub health: String,
    /// Argo CD's message.
    pub message: Option<String>,
    /// Since when it has been Synced and Healthy without a break; `None`: it is not.
    pub healthy_since: Option<Timestamp>,
    pub observed_at: Timestamp,
    /// A digest of the versions that its manifests named; `None`: not known.
    pub named: Option<String>,
}

impl FromRow<'_, Row> for ApplicationHealth {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
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
    /// Returns the open follow-ups, oldest first, with their updates; at most `limit`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn open_follow_ups(&self, limit: u32) -> Result<Vec<(Rollout, Update)>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let rows = OPEN.all(connection, values![limit]).await?;
        Ok(with_updates(connection, rows).await?)
    }

    /// Returns the open follow-ups of an environment, as [`Self::open_follow_ups`] does.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn open_follow_ups_in(
        &self,
        environment: &str,
        limit: u32,
    ) -> Result<Vec<(Rollout, Update)>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let rows = OPEN_IN.all(connection, values![environment, limit]).await?;
        Ok(with_updates(connection, rows).await?)
    }

    /// Returns the follow-ups of an environment that timed out and after which nothing else was committed at the place, oldest
    /// first, with their updates; at most `limit`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn timed_out_follow_ups(
        &self,
        environment: &str,
        limit: u32,
    ) -> Result<Vec<(Rollout, Update)>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let (state, committed) = (RolloutState::TimedOut.as_str(), UpdateState::Committed.as_str());
        let rows = LAST_IN_STATE.all(connection, values![environment, state, committed, limit]).await?;
        Ok(with_updates(connection, rows).await?)
    }

    /// Returns the open follow-ups of these updates, oldest first, with their updates.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn open_follow_ups_of(&self, update_ids: &[String]) -> Result<Vec<(Rollout, Update)>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let rows = OPEN_OF.all_of(connection, values![], update_ids).await?;
        Ok(with_updates(connection, rows).await?)
    }

    /// Returns the follow-ups of these updates, by the ids of the updates; not all are followed.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn follow_ups_of(
        &self,
        updates: impl IntoIterator<Item = &Update>,
    ) -> Result<HashMap<String, Rollout>, StoreError> {
        let ids: Vec<String> =
            updates.into_iter().filter(|update| update.commit.is_some()).map(|update| update.id.clone()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<Rollout> = OF.all_of(&mut *self.reads.acquire().await?, values![], ids).await?;
        Ok(rows.into_iter().map(|row| (row.update_id.clone(), row)).collect())
    }

    /// Records the progress of follow-ups, and writes `changes` to the outbox.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
    pub async fn record_follow_ups(&self, rows: Vec<Rollout>, changes: Vec<Change>) -> Result<(), StoreError> {
        if rows.is_empty() && changes.is_empty() {
            return Ok(());
        }
        self.writes.run(RecordFollowUps { rows, changes }).await
    }

    /// Returns the last observed health of the applications of the environments.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn application_health(&self) -> Result<Vec<ApplicationHealth>, StoreError> {
        Ok(HEALTH.all(&mut *self.reads.acquire().await?, values![]).await?)
    }

    /// Records the health of applications. With `whole`, the other applications of that environment are forgotten.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
    pub async fn record_application_health(
        &self,
        rows: Vec<ApplicationHealth>,
        whole: Option<String>,
    ) -> Result<(), StoreError> {
        self.writes.run(RecordHealth { rows, whole }).await
    }

    /// Returns our commits on the branch of these environments, with the times at which they landed: those of the last `limit`
    /// updates of all environments.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn commits_on(
        &self,
        environments: &[String],
        limit: u32,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let values = values![UpdateState::Committed.as_str(), limit];
        let commits: Vec<(String, i64)> = COMMITS.all_of_whole(connection, values, environments).await?;
        let time = |at: i64| Timestamp::from_millisecond(at).ok();
        Ok(commits.into_iter().filter_map(|(commit, at)| Some((commit, time(at)?))).collect())
    }
}

async fn with_updates(connection: &mut Connection, rows: Vec<Rollout>) -> Result<Vec<(Rollout, Update)>, sqlx::Error> {
    let updates: Vec<Update> = UPDATES.all_of(connection, values![], rows.iter().map(|row| &row.update_id)).await?;
    let mut updates: HashMap<String, Update> = updates.into_iter().map(|update| (update.id.clone(), update)).collect();
    let pair = |row: Rollout| updates.remove(&row.update_id).map(|update| (row, update));
    Ok(rows.into_iter().filter_map(pair).collect())
}

/// Begins the follow-ups of updates that were committed in this transaction.
pub(super) async fn begin(tx: &mut Transaction<'_>, update_ids: &[String]) -> Result<(), sqlx::Error> {
    let values = values![RolloutState::Waiting.as_str(), tx.now];
    BEGIN.execute_of(tx.connection, values, update_ids).await.map(|_| ())
}

struct RecordFollowUps {
    rows: Vec<Rollout>,
    changes: Vec<Change>,
}

impl Write for RecordFollowUps {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let mut rows: Vec<Vec<Value>> = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let applications = json_text(&row.applications)?;
            rows.push(values![&row.update_id, row.state.as_str(), &row.reason, row.ended_at, applications]);
        }
        WRITE.execute_rows(tx.connection, values![], rows).await?;
        self.changes.iter().for_each(|change| tx.record(change.clone()));
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
            let names = self.rows.iter().map(|row| &row.application);
            FORGET_OTHERS.execute_of_whole(tx.connection, values![environment], names).await?;
        }
        let row = |row: &ApplicationHealth| {
            values![
                &row.environment,
                &row.application,
                &row.sync,
                &row.health,
                &row.message,
                row.healthy_since,
                row.observed_at,
                &row.named,
            ]
        };
        WRITE_HEALTH.execute_rows(tx.connection, values![], self.rows.iter().map(row).collect()).await
    }
}
