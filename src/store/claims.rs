use std::collections::{HashMap, HashSet};

use sqlx::{FromRow, Row as _};

use super::block_rows;
use super::database::{Connection, Row};
use super::rows::{parse, request_columns, update_columns};
use super::statements::{statements, values};
use super::{Store, StoreError};
use crate::domain::{Blocks, Cause, Request, Update, UpdateState};
use tagrelay_image::{Repository, Version};

statements! {
    PENDING = ("SELECT ", update_columns!(), ", (SELECT fence FROM turn WHERE id = 1) AS fence FROM updates
        WHERE state = $1 AND NOT EXISTS (
            SELECT 1 FROM updates AS other WHERE other.cause_id = updates.cause_id AND other.state = $2 AND other.failures = 0)
        AND environment IN {list} ORDER BY id LIMIT $3");
    LANDED = ("SELECT ", update_columns!(), " FROM
        (VALUES (CAST($1 AS TEXT)), (CAST($2 AS TEXT))) AS s CROSS JOIN (VALUES {rows:TT}) AS v CROSS JOIN updates
        WHERE updates.id = (SELECT newest.id FROM updates AS newest WHERE newest.environment = v.column1
            AND newest.repository = v.column2 AND newest.state = s.column1 AND newest.finished_at IS NOT NULL
            ORDER BY newest.finished_at DESC, newest.id DESC LIMIT 1)");
    REQUESTS = ("SELECT ", request_columns!(), " FROM requests WHERE id IN {list}");
    PENDING_CAUSES = ("SELECT cause, count(*) FROM updates WHERE state = $1 AND environment IN {list} GROUP BY cause");
    BROUGHT = ("SELECT ", update_columns!(), " FROM updates WHERE environment = $1 AND repository = $2 AND state = $3 AND finished_at IS NOT NULL
        AND (CAST($4 AS TEXT) IS NULL OR tag = $4) AND (CAST($5 AS TEXT) IS NULL OR digest IS NULL OR digest = $5)
        ORDER BY finished_at DESC, id DESC LIMIT 1");
    OPEN_AT = ("SELECT ", update_columns!(), " FROM updates WHERE state IN ($1, $2, $3) AND environment = $4 AND repository = $5
        ORDER BY id DESC LIMIT $6");
}

/// The candidates of one round of a branch writer, and the rows that their decisions need.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Moves when a block is made or ends, and when a request is made. Decisions from before the move are repeated.
    pub fence: u64,
    /// The pending updates, in the order in which they were made.
    ///
    /// A request's updates are left out while one of them is unverified and has no failed try, so that a promotion of many
    /// repositories becomes one commit.
    pub updates: Vec<Update>,
    /// The newest landed update of each place of `updates`.
    pub landed: HashMap<(String, Repository), Update>,
    pub blocks: Blocks,
    /// The requests of `updates`, by their ids.
    pub requests: HashMap<String, Request>,
}

/// How many updates are pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingCount {
    pub all: u64,
    /// Pending updates of promotions and rollbacks.
    pub requested: u64,
}

/// A pending update, with the fence that was read in the same statement.
struct Pending {
    update: Update,
    fence: u64,
}

impl FromRow<'_, Row> for Pending {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let fence: i64 = row.try_get("fence")?;
        Ok(Self { update: Update::from_row(row)?, fence: fence.unsigned_abs() })
    }
}

impl Store {
    /// Returns the pending updates of these environments, and the rows that their decisions need.
    ///
    /// At most `limit` updates. Empty if no update is pending.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn claim(&self, environments: &[String], limit: u32) -> Result<Claim, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let values = values![UpdateState::Pending.as_str(), UpdateState::Unverified.as_str(), limit];
        let pending: Vec<Pending> = PENDING.all_of_whole(connection, values, environments).await?;
        // The fence is read before the blocks: if a block is made in between, the decision is repeated.
        let Some(fence) = pending.first().map(|pending| pending.fence) else { return Ok(Claim::default()) };
        let updates: Vec<Update> = pending.into_iter().map(|pending| pending.update).collect();
        let landed = landed_at(connection, &updates).await?;
        let blocks = block_rows::active(connection, self.calendar(), self.clock.now()).await?;
        let asked_for = updates.iter().filter(|update| !update.cause.is_event()).map(|update| &update.cause_id);
        let asked_for: HashSet<&String> = asked_for.collect();
        let requests: Vec<Request> = REQUESTS.all_of(connection, values![], asked_for).await?;
        let requests = requests.into_iter().map(|request| (request.id.clone(), request)).collect();
        Ok(Claim { fence, updates, landed, blocks, requests })
    }

    /// Counts the pending updates of these environments.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn pending(&self, environments: &[String]) -> Result<PendingCount, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let values = values![UpdateState::Pending.as_str()];
        let causes: Vec<(String, i64)> = PENDING_CAUSES.all_of_whole(connection, values, environments).await?;
        let mut counts = PendingCount::default();
        for (cause, count) in causes {
            let cause: Cause = parse(&cause, "cause")?;
            counts.all += count.unsigned_abs();
            counts.requested += if cause.is_event() { 0 } else { count.unsigned_abs() };
        }
        Ok(counts)
    }

    /// Returns the last update that landed this version at a place. A version without a digest is found by its tag.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn brought(
        &self,
        environment: &str,
        repository: &Repository,
        version: &Version,
    ) -> Result<Option<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut newest: Option<Update> = None;
        // One statement for each state: the index has the rows of a state in order, so the first match is enough.
        for state in LANDED_STATES {
            let values = values![environment, repository, state.as_str(), version.tag(), version.digest()];
            let found: Option<Update> = BROUGHT.optional(connection, values).await?;
            newest = newest.into_iter().chain(found).max_by(|a, b| (a.finished_at, &a.id).cmp(&(b.finished_at, &b.id)));
        }
        Ok(newest)
    }

    /// Returns the open updates of a place, newest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn open_updates_at(
        &self,
        environment: &str,
        repository: &Repository,
        limit: u32,
    ) -> Result<Vec<Update>, StoreError> {
        let [unverified, pending, waiting] = OPEN_STATES.map(UpdateState::as_str);
        let values = values![unverified, pending, waiting, environment, repository, limit];
        Ok(OPEN_AT.all(&mut *self.reads.acquire().await?, values).await?)
    }
}

/// The states of landed updates, for statements. A test compares them with the enum.
pub(super) const LANDED_STATES: [UpdateState; 2] = [UpdateState::Committed, UpdateState::Unchanged];

/// The open states, for statements. A test compares them with the enum.
pub(super) const OPEN_STATES: [UpdateState; 3] = [UpdateState::Unverified, UpdateState::Pending, UpdateState::Waiting];

async fn landed_at(
    connection: &mut Connection,
    updates: &[Update],
) -> Result<HashMap<(String, Repository), Update>, sqlx::Error> {
    let places: HashSet<(&str, &Repository)> =
        updates.iter().map(|update| (update.environment.as_str(), &update.repository)).collect();
    let rows = places.into_iter().map(|(environment, repository)| values![environment, repository]).collect();
    let [committed, unchanged] = LANDED_STATES.map(UpdateState::as_str);
    let found: Vec<Update> = LANDED.all_rows(connection, values![committed, unchanged], rows).await?;
    let mut landed: HashMap<(String, Repository), Update> = HashMap::new();
    for update in found {
        let place = (update.environment.clone(), update.repository.clone());
        let is_newer = |known: &Update| (known.finished_at, &known.id) < (update.finished_at, &update.id);
        if landed.get(&place).is_none_or(is_newer) {
            landed.insert(place, update);
        }
    }
    Ok(landed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_in_statements_are_those_of_the_enum() {
        assert_eq!(OPEN_STATES.to_vec(), UpdateState::open().collect::<Vec<_>>());
        let landed: Vec<UpdateState> = UpdateState::ALL.iter().copied().filter(|state| state.has_landed()).collect();
        assert_eq!(LANDED_STATES.to_vec(), landed);
    }
}
