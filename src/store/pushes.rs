//! Push attempts.
//!
//! A row is written before each push, so that after a restart in the middle of a push, it is known which commits may be on the
//! branch.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use sqlx::{FromRow, Row as _};

use super::apply::{Step, apply};
use super::block_rows::is_fence_at;
use super::database::{Row, Value};
use super::decisions;
use super::rows::{json_changes, parse};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{
    AttemptedUpdate, Decided, PushAttempt, PushInput, PushState, UpdateInput, UpdateState, push_transition,
};

statements! {
    STATES = ("SELECT id, state FROM updates WHERE id IN {list}");
    INSERT = ("INSERT INTO push_attempts (id, config_repository, branch, parent, tip, state, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)");
    INSERT_UPDATES = ("INSERT INTO push_attempt_updates (push_id, update_id, commit_id, old_tag, old_digest, changes, decided_by,
            decided_because)
        SELECT CAST($1 AS TEXT), column1, column2, column3, column4, column5, column6, column7
        FROM (VALUES {rows:TTTTTTT}) AS v
        WHERE column1 IS NOT NULL");
    STATE = ("SELECT state FROM push_attempts WHERE id = $1");
    CARRIED = ("SELECT push_id, update_id, commit_id, old_tag, old_digest, changes, decided_by, decided_because
        FROM push_attempt_updates
        WHERE push_id IN {list} ORDER BY update_id");
    END = ("UPDATE push_attempts SET state = $1, ended_at = $2 WHERE id = $3");
    FORGET_CARRIED = ("DELETE FROM push_attempt_updates WHERE push_id = $1");
    FORGET_UPDATES = ("DELETE FROM push_attempt_updates WHERE update_id IN {list}");
    WITHOUT_UPDATES = ("SELECT id FROM push_attempts WHERE state = $1 AND NOT EXISTS (
        SELECT 1 FROM push_attempt_updates WHERE push_id = push_attempts.id)");
    UNCONFIRMED = ("SELECT update_id FROM push_attempt_updates WHERE push_id IN (
        SELECT id FROM push_attempts WHERE state = $1 AND created_at > $2)");
    UNDER_WAY = ("SELECT updates.repository FROM push_attempt_updates CROSS JOIN updates
        WHERE updates.id = update_id AND updates.environment = $1");
    CARRIED_OF = ("SELECT update_id FROM push_attempt_updates WHERE update_id IN {list}");
    OPEN_OF_BRANCH = ("SELECT id, config_repository, branch, parent, tip, state, created_at FROM push_attempts
        WHERE state = $1 AND config_repository = $2 AND branch = $3 ORDER BY id");
    OPEN_ELSEWHERE = ("SELECT id, config_repository, branch, parent, tip, state, created_at FROM push_attempts
        WHERE state = $1 AND config_repository = $2 AND branch = $3 AND id IN (
            SELECT push_id FROM push_attempt_updates CROSS JOIN updates WHERE updates.id = update_id AND environment IN {list})
        ORDER BY id");
}

/// A push that is about to be sent.
#[derive(Debug, Clone)]
pub struct NewPush {
    pub config_repository: String,
    pub branch: String,
    /// The commit at which the branch must be.
    pub parent: String,
    /// The last commit of the push.
    pub tip: String,
    pub updates: Vec<AttemptedUpdate>,
}

/// A pending update that ends when another update of its place lands.
///
/// Until then it stays pending, because the push of the other update may be rejected.
#[derive(Debug, Clone)]
pub struct Outdone {
    pub update_id: String,
    /// The id of the other update.
    pub by: String,
    pub decided: Decided,
}

impl Store {
    /// Returns the ids of the updates in open push attempts that were begun after `since`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn unconfirmed(&self, since: Timestamp) -> Result<HashSet<String>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let ids: Vec<(String,)> = UNCONFIRMED.all(connection, values![PushState::Open.as_str(), since]).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }

    /// Records a push that is about to be sent. Returns the id of the push attempt.
    ///
    /// `None`, and nothing is stored, if the fence has moved or an update is no longer pending. The updates are then decided again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to. The push must not be sent then.
    pub async fn begin_push(&self, push: NewPush, fence: u64) -> Result<Option<String>, StoreError> {
        self.writes.run(Begin { push, fence }).await
    }

    /// Ends a push attempt. If the push landed, its updates landed, too.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_push(&self, push_id: &str, input: PushInput, follow: bool) -> Result<(), StoreError> {
        self.end_push_and_outdone(push_id, input, follow, Vec::new()).await
    }

    /// Ends a push attempt as [`Store::end_push`] does. If the push landed, also ends the updates that its updates replace.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_push_and_outdone(
        &self,
        push_id: &str,
        input: PushInput,
        follow: bool,
        outdone: Vec<Outdone>,
    ) -> Result<(), StoreError> {
        self.writes.run(End { push_id: push_id.to_owned(), input, follow, outdone }).await
    }

    /// Records that updates were found on the branch, regardless of the push attempt that brought them.
    ///
    /// Open push attempts without other updates end as landed.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn land(&self, updates: Vec<AttemptedUpdate>, follow: bool) -> Result<(), StoreError> {
        if updates.is_empty() { Ok(()) } else { self.writes.run(Landing { updates, follow }).await }
    }

    /// Returns the open push attempts of a branch, oldest first.
    ///
    /// Push attempts of 0.1.0 have no branch: they are returned for every branch with one of their environments.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn open_pushes(
        &self,
        config_repository: &str,
        branch: &str,
        environments: &[String],
    ) -> Result<Vec<PushAttempt>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let open = PushState::Open.as_str();
        let mut attempts: Vec<PushAttempt> =
            OPEN_OF_BRANCH.all(connection, values![open, config_repository, branch]).await?;
        attempts.append(&mut OPEN_ELSEWHERE.all_of_whole(connection, values![open, "", ""], environments).await?);
        let carried: Vec<Carried> =
            CARRIED.all_of(connection, values![], attempts.iter().map(|attempt| &attempt.id)).await?;
        let mut by_push: HashMap<String, Vec<AttemptedUpdate>> = HashMap::new();
        for carried in carried {
            by_push.entry(carried.push_id).or_default().push(carried.update);
        }
        for attempt in &mut attempts {
            attempt.updates = by_push.remove(&attempt.id).unwrap_or_default();
        }
        attempts.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(attempts)
    }
}

/// An update of a push attempt.
struct Carried {
    push_id: String,
    update: AttemptedUpdate,
}

impl FromRow<'_, Row> for Carried {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self { push_id: row.try_get("push_id")?, update: AttemptedUpdate::from_row(row)? })
    }
}

struct Begin {
    push: NewPush,
    fence: u64,
}

impl Write for Begin {
    type Output = Option<String>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Option<String>, sqlx::Error> {
        if !is_fence_at(tx, self.fence).await? {
            return Ok(None);
        }
        let push = &self.push;
        let ids = push.updates.iter().map(|update| &update.update_id);
        let states: Vec<(String, String)> = STATES.all_of(tx.connection, values![], ids).await?;
        let states: BTreeMap<String, String> = states.into_iter().collect();
        let is_pending = |update: &AttemptedUpdate| {
            states.get(&update.update_id).is_some_and(|state| state == UpdateState::Pending.as_str())
        };
        if !push.updates.iter().all(is_pending) {
            return Ok(None);
        }
        let id = tx.next_id();
        let (repository, branch) = (push.config_repository.as_str(), push.branch.as_str());
        let open = PushState::Open.as_str();
        let values = values![&id, repository, branch, &push.parent, &push.tip, open, tx.now];
        INSERT.execute(tx.connection, values).await?;
        let mut rows: Vec<Vec<Value>> = Vec::with_capacity(push.updates.len());
        for update in &push.updates {
            let (tag, digest) = (update.old.tag(), update.old.digest());
            let (by, because) = update.basis.clone().unzip();
            let changes = json_changes(&update.changes)?;
            rows.push(values![&update.update_id, &update.commit, tag, digest, changes, by, because]);
        }
        INSERT_UPDATES.execute_rows(tx.connection, values![&id], rows).await?;
        Ok(Some(id))
    }
}

struct End {
    push_id: String,
    input: PushInput,
    follow: bool,
    outdone: Vec<Outdone>,
}

impl Write for End {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let state: Option<(String,)> = STATE.optional(tx.connection, values![&self.push_id]).await?;
        let Some((state,)) = state else { return Ok(()) };
        let Some(state) = push_transition(parse(&state, "state")?, self.input) else { return Ok(()) };
        END.execute(tx.connection, values![state.as_str(), tx.now, &self.push_id]).await?;
        let carried: Vec<Carried> = CARRIED.all_of(tx.connection, values![], [&self.push_id]).await?;
        FORGET_CARRIED.execute(tx.connection, values![&self.push_id]).await?;
        if state == PushState::Landed {
            let landed: HashSet<&str> = carried.iter().map(|carried| carried.update.update_id.as_str()).collect();
            let outdone = self.outdone.iter().filter(|one| landed.contains(one.by.as_str()));
            let outdone: Vec<Step> = outdone.filter_map(|one| decisions::step(&one.update_id, &one.decided)).collect();
            land(tx, carried.iter().map(|carried| carried.update.clone()), self.follow).await?;
            apply(tx, outdone).await?;
        }
        Ok(())
    }
}

struct Landing {
    updates: Vec<AttemptedUpdate>,
    follow: bool,
}

impl Write for Landing {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let ids = self.updates.iter().map(|update| &update.update_id);
        FORGET_UPDATES.execute_of(tx.connection, values![], ids).await?;
        let empty: Vec<(String,)> = WITHOUT_UPDATES.all(tx.connection, values![PushState::Open.as_str()]).await?;
        for (id,) in empty {
            if let Some(state) = push_transition(PushState::Open, PushInput::FindLanded) {
                END.execute(tx.connection, values![state.as_str(), tx.now, id]).await?;
            }
        }
        land(tx, self.updates.iter().cloned(), self.follow).await
    }
}

async fn land(
    tx: &mut Transaction<'_>,
    updates: impl Iterator<Item = AttemptedUpdate>,
    follow: bool,
) -> Result<(), sqlx::Error> {
    let step = |update: AttemptedUpdate| {
        let id = update.update_id.clone();
        Step { landed: Some(update), follow, ..Step::new(id, UpdateInput::Land) }
    };
    apply(tx, updates.map(step).collect()).await.map(|_| ())
}

/// Whether an open push attempt carries one of the updates.
pub(super) async fn carries_any(tx: &mut Transaction<'_>, ids: &[&str]) -> Result<bool, sqlx::Error> {
    let rows: Vec<(String,)> = CARRIED_OF.all_of(tx.connection, values![], ids).await?;
    Ok(!rows.is_empty())
}

/// Returns the repositories of an environment that have an update in an open push attempt.
pub(super) async fn under_way(tx: &mut Transaction<'_>, environment: &str) -> Result<HashSet<String>, sqlx::Error> {
    let rows: Vec<(String,)> = UNDER_WAY.all(tx.connection, values![environment]).await?;
    Ok(rows.into_iter().map(|(repository,)| repository).collect())
}
