//! Reading updates.

use std::collections::HashMap;

use jiff::Timestamp;

use super::claims::OPEN_STATES;
use super::rows::update_columns;
use super::statements::{statements, values};
use super::{Store, StoreError, explain};
use crate::domain::{Update, UpdateState};
use tagrelay_image::{Repository, Tag};

statements! {
    BY_ID = ("SELECT ", update_columns!(), " FROM updates WHERE id IN {list} ORDER BY id");
    OF_CAUSES = ("SELECT ", update_columns!(), " FROM updates WHERE cause_id IN {list} ORDER BY id");
    OF_CAUSES_IN_STATE = ("SELECT ", update_columns!(), " FROM updates WHERE state = $1 AND cause_id IN {list} ORDER BY id");
    IN_STATE = ("SELECT ", update_columns!(), " FROM updates WHERE state = $1 ORDER BY id");
    OPEN_ELSEWHERE = ("SELECT ", update_columns!(), " FROM updates WHERE state IN ($1, $2, $3) AND environment NOT IN {list}
        ORDER BY id LIMIT $4");
    HISTORY = ("SELECT ", update_columns!(), " FROM updates WHERE state = $1 AND finished_at IS NOT NULL
        AND (CAST($2 AS TEXT) IS NULL OR environment = $2) AND (CAST($3 AS TEXT) IS NULL OR repository = $3)
        AND (CAST($5 AS BIGINT) IS NULL OR finished_at < $5 OR (finished_at = $5 AND id < $6))
        ORDER BY finished_at DESC, id DESC LIMIT $4");
    HISTORY_OF_PLACE = ("SELECT ", update_columns!(), " FROM updates WHERE state = $1 AND environment = $2 AND repository = $3
        AND finished_at IS NOT NULL
        AND (CAST($5 AS BIGINT) IS NULL OR finished_at < $5 OR (finished_at = $5 AND id < $6))
        ORDER BY finished_at DESC, id DESC LIMIT $4");
    HAS_RUN = ("SELECT id FROM updates WHERE environment = $1 AND repository = $2 AND state = $3 AND finished_at IS NOT NULL
        AND (tag = $4 OR old_tag = $4) LIMIT 1");
    LAST_CHANGES = ("SELECT ", update_columns!(), " FROM updates WHERE id IN (
        SELECT id FROM (SELECT id, row_number() OVER (
            PARTITION BY environment, repository ORDER BY finished_at DESC, id DESC) AS place
            FROM updates WHERE state = $1 AND finished_at IS NOT NULL) AS ranked WHERE place = 1)");
}

/// A filter of the history.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    pub environment: Option<String>,
    pub repository: Option<Repository>,
    /// Only changes that are older than this one, given by its commit time and its id.
    pub before: Option<(Timestamp, String)>,
    /// At most so many, newest first.
    pub limit: u32,
}

impl Store {
    /// Returns updates by their ids, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn updates_by_id(&self, ids: &[&str]) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut updates: Vec<Update> = BY_ID.all_of(connection, values![], ids).await?;
        explain::updates(connection, &mut updates, self.calendar(), self.clock.now()).await?;
        Ok(updates)
    }

    /// Returns the updates of an event or a request, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn updates_of(&self, cause_id: &str) -> Result<Vec<Update>, StoreError> {
        Ok(self.updates_of_all(&[cause_id]).await?.remove(cause_id).unwrap_or_default())
    }

    /// Returns the updates of each of these events and requests, by cause id.
    ///
    /// The updates of a cause are in the order in which they were made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn updates_of_all(&self, cause_ids: &[&str]) -> Result<HashMap<String, Vec<Update>>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut updates: Vec<Update> = OF_CAUSES.all_of(connection, values![], cause_ids).await?;
        explain::updates(connection, &mut updates, self.calendar(), self.clock.now()).await?;
        let mut by_cause: HashMap<String, Vec<Update>> = HashMap::new();
        for update in updates {
            by_cause.entry(update.cause_id.clone()).or_default().push(update);
        }
        Ok(by_cause)
    }

    /// Returns the refused updates of these events and requests, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn refused_updates_of(&self, cause_ids: &[&str]) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        Ok(OF_CAUSES_IN_STATE.all_of(connection, values![UpdateState::Refused.as_str()], cause_ids).await?)
    }

    /// Returns committed updates, newest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn history(&self, filter: &HistoryFilter) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let (committed, limit) = (UpdateState::Committed.as_str(), filter.limit);
        let (at, id) = filter.before.clone().unzip();
        Ok(match (&filter.environment, &filter.repository) {
            (Some(environment), Some(repository)) => {
                HISTORY_OF_PLACE.all(connection, values![committed, environment, repository, limit, at, id]).await?
            }
            (environment, repository) => {
                HISTORY.all(connection, values![committed, environment, repository.as_ref(), limit, at, id]).await?
            }
        })
    }

    /// Whether an environment has run a tag of a repository, according to the history.
    ///
    /// True if a committed update wrote or replaced the tag.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn has_run(&self, environment: &str, repository: &Repository, tag: &Tag) -> Result<bool, StoreError> {
        let values = values![environment, repository, UpdateState::Committed.as_str(), Some(tag)];
        let found: Option<(String,)> = HAS_RUN.optional(&mut *self.reads.acquire().await?, values).await?;
        Ok(found.is_some())
    }

    /// Returns the last committed update of every place.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn last_changes(&self) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        Ok(LAST_CHANGES.all(connection, values![UpdateState::Committed.as_str()]).await?)
    }

    /// Returns the waiting updates, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn waiting_updates(&self) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut updates: Vec<Update> = IN_STATE.all(connection, values![UpdateState::Waiting.as_str()]).await?;
        explain::updates(connection, &mut updates, self.calendar(), self.clock.now()).await?;
        Ok(updates)
    }

    /// Returns open updates of all environments except `known`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn open_updates_elsewhere(&self, known: &[String], limit: u32) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let [unverified, pending, waiting] = OPEN_STATES.map(UpdateState::as_str);
        Ok(OPEN_ELSEWHERE.all_of_whole(connection, values![unverified, pending, waiting, limit], known).await?)
    }
}
