//! What the writer of a branch records: what is about to be pushed, and how it ended.
//!
//! A push carries up to a thousand updates, so that each step is a handful of statements whatever their number: handing
//! a statement to SQLite costs more than what most of them do.

use std::collections::{HashMap, HashSet};

use super::rows::SiteChange;
use super::updates::{NEWER, Place, overtaken, passes_freezes, settle_causes, supersede_waiting};
use super::writer::{Transaction, Write};
use super::{Cause, Party, Store, StoreError, Update, UpdateState, follow_ups, freezes, holds, json_text};
use crate::image::{Digest, Tag, Version};

/// What is about to be pushed for an update.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The update.
    pub update_id: String,
    /// The commit that shall carry it.
    pub commit: String,
    /// What the environment runs before it.
    pub old: Version,
    /// The edited sites.
    pub changes: Vec<SiteChange>,
}

/// What is about to be pushed, and what may be pushed although something has come between.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// For each update, what is about to be pushed.
    pub attempts: Vec<Attempt>,
    /// The updates of which an earlier attempt may still land: where something newer came, they are returned and stay
    /// pending, so that they end as what they come to be.
    pub in_doubt: HashSet<String>,
    /// Whether an event's update goes although a newer event's is pending, which then goes with the next push. Else a stream
    /// of events for one place could keep everything from the branch.
    pub overtaken_may_go: bool,
}

/// The end of an update.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The update.
    pub update_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether Argo CD is followed when it is committed.
    pub follow: bool,
    /// Who refused it, where that is not the registry of what it has not confirmed, or else the branch.
    pub asked: Option<Party>,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The commit of its last attempt is on the branch.
    Committed,
    /// The environment runs the version already.
    Unchanged,
    /// A newer update took its place.
    Superseded {
        /// Which.
        reason: String,
    },
    /// A final no.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Store {
    /// Records what is about to be pushed, so that a restart in the middle of it knows what may be there.
    ///
    /// Returns the updates that must not be pushed after all, because a hold, a freeze or something newer came while they
    /// were prepared, with the states that they have now.
    ///
    /// # Errors
    ///
    /// When it could not be stored: then nothing must be pushed.
    pub async fn record(&self, recording: Recording) -> Result<Vec<(String, UpdateState)>, StoreError> {
        self.writes.run(recording).await
    }

    /// Records which attempt of several it was that reached the branch.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn record_landed(&self, attempts: Vec<Attempt>) -> Result<(), StoreError> {
        self.writes.run(RecordLanded(attempts)).await
    }

    /// Takes back the attempts of updates whose push certainly changed nothing.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn forget_attempts(&self, ids: Vec<String>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.writes.run(ForgetAttempts(ids)).await
    }

    /// Records how updates ended, and what that means for their events and holds.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn finish(&self, finished: Vec<Finish>) -> Result<(), StoreError> {
        if finished.is_empty() {
            return Ok(());
        }
        self.writes.run(FinishUpdates(finished)).await
    }
}

impl Write for Recording {
    type Output = Vec<(String, UpdateState)>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<(String, UpdateState)>, sqlx::Error> {
        let mut kept_back = why_not_written(tx, self).await?;
        let mut written = Vec::with_capacity(self.attempts.len());
        let mut dropped = Vec::new();
        for attempt in &self.attempts {
            match kept_back.remove(&attempt.update_id) {
                None => written.push(attempt),
                Some(state) => dropped.push((attempt.update_id.clone(), state)),
            }
        }
        record(tx, &written).await?;
        Ok(dropped)
    }
}

struct RecordLanded(Vec<Attempt>);

impl Write for RecordLanded {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        record(tx, &self.0.iter().collect::<Vec<_>>()).await
    }
}

/// The statement that finds what is newer than each of some pending updates.
macro_rules! newer_of {
    ($and:literal) => {
        concat!(
            "SELECT id, (",
            NEWER!($and),
            ") FROM updates AS this WHERE id IN (SELECT value FROM json_each(?)) AND state = 'pending'"
        )
    };
}

/// Looks once more, in the transaction that comes before the push, which updates may not be written: a hold, a freeze or
/// a rollback may have been answered while they were prepared. Returns those with the states that they have now.
async fn why_not_written(
    tx: &mut Transaction<'_>,
    recorded: &Recording,
) -> Result<HashMap<String, UpdateState>, sqlx::Error> {
    let ids = json_text(recorded.attempts.iter().map(|attempt| &attempt.update_id).collect::<Vec<_>>())?;
    let updates: Vec<Update> = sqlx::query_as("SELECT * FROM updates WHERE id IN (SELECT value FROM json_each(?))")
        .bind(&ids)
        .fetch_all(&mut *tx.connection)
        .await?;
    let newer = if recorded.overtaken_may_go {
        // What is on the branch is no longer on its way there.
        newer_of!(
            " AND NOT (state = 'pending' AND cause IN ('push', 'catch-up') AND this.cause IN ('push', 'catch-up'))"
        )
    } else {
        newer_of!("")
    };
    let newer: Vec<(String, Option<String>)> = sqlx::query_as(newer).bind(&ids).fetch_all(&mut *tx.connection).await?;
    let newer: HashMap<String, String> = newer.into_iter().filter_map(|(id, newer)| Some((id, newer?))).collect();
    let places: Vec<Place<'_>> = updates.iter().map(Place::of).collect();
    let holds = holds::active_at(tx, &places).await?;
    let frozen = freezes::frozen_now(tx, places.iter().map(|place| place.environment)).await?;

    // Decided again, and therefore deleted: as good as superseded by itself.
    let mut kept: HashMap<String, UpdateState> =
        recorded.attempts.iter().map(|attempt| (attempt.update_id.clone(), UpdateState::Superseded)).collect();
    for update in &updates {
        let why = if update.state != UpdateState::Pending {
            kept.insert(update.id.clone(), update.state);
            continue;
        } else if let Some(newer) = newer.get(&update.id) {
            if recorded.in_doubt.contains(&update.id) {
                kept.insert(update.id.clone(), UpdateState::Pending);
                continue;
            }
            Some((UpdateState::Superseded, overtaken(newer, &update.environment)))
        } else if let Some(hold) = holds.get(&Place::of(update)).filter(|_| update.cause.is_event()) {
            Some((UpdateState::Waiting, hold.explanation()))
        } else {
            let frozen = frozen.get(update.environment.as_str()).filter(|_| !passes_freezes(update));
            frozen.map(|frozen| (UpdateState::Waiting, frozen.explanation()))
        };
        match why {
            None => drop(kept.remove(&update.id)),
            Some((state, reason)) => {
                keep_back(tx, update, state, reason).await?;
                kept.insert(update.id.clone(), state);
            }
        }
    }
    Ok(kept)
}

async fn keep_back(
    tx: &mut Transaction<'_>,
    update: &Update,
    state: UpdateState,
    reason: String,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE updates SET state = ?, reason = ?, finished_at = ? WHERE id = ?")
        .bind(state.as_str())
        .bind(reason)
        .bind((state == UpdateState::Superseded).then(|| tx.now_milliseconds()))
        .bind(&update.id)
        .execute(&mut *tx.connection)
        .await?;
    settle_causes(tx, &[(&update.cause_id, state)]).await
}

async fn record(tx: &mut Transaction<'_>, attempts: &[&Attempt]) -> Result<(), sqlx::Error> {
    let row = |attempt: &&Attempt| {
        let (tag, digest) = (attempt.old.tag().map(Tag::as_str), attempt.old.digest().map(Digest::as_str));
        serde_json::json!([attempt.update_id, attempt.commit, tag, digest, attempt.changes])
    };
    sqlx::query(
        "UPDATE updates SET commit_id = new.value ->> 1, old_tag = new.value ->> 2, old_digest = new.value ->> 3,
            changes = new.value -> 4
         FROM json_each(?) AS new WHERE updates.id = new.value ->> 0",
    )
    .bind(json_text(attempts.iter().map(row).collect::<Vec<_>>())?)
    .execute(&mut *tx.connection)
    .await
    .map(|_| ())
}

struct ForgetAttempts(Vec<String>);

impl Write for ForgetAttempts {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE updates SET commit_id = NULL, old_tag = NULL, old_digest = NULL, changes = NULL
             WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('pending', 'waiting')",
        )
        .bind(json_text(&self.0)?)
        .execute(&mut *tx.connection)
        .await
        .map(|_| ())
    }
}

struct FinishUpdates(Vec<Finish>);

impl Write for FinishUpdates {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let row = |finish: &Finish| {
            let (state, reason) = finish.outcome.parts();
            let asked = finish.asked.map(Party::as_str);
            serde_json::json!([finish.update_id, state.as_str(), reason, state == UpdateState::Committed, asked])
        };
        let ended: Vec<(String, String, String, String)> = sqlx::query_as(
            "UPDATE updates SET state = new.value ->> 1, reason = new.value ->> 2, finished_at = ?2,
                next_attempt_at = NULL, asked = new.value ->> 4,
                commit_id = CASE WHEN new.value ->> 3 THEN commit_id END,
                changes = CASE WHEN new.value ->> 3 THEN changes END,
                old_tag = CASE WHEN new.value ->> 3 THEN old_tag END,
                old_digest = CASE WHEN new.value ->> 3 THEN old_digest END
             FROM json_each(?1) AS new
             WHERE updates.id = new.value ->> 0 AND state IN ('unverified', 'pending', 'waiting')
             RETURNING id, cause_id, state, cause",
        )
        .bind(json_text(self.0.iter().map(row).collect::<Vec<_>>())?)
        .bind(tx.now_milliseconds())
        .fetch_all(&mut *tx.connection)
        .await?;
        let followed: HashSet<&String> =
            self.0.iter().filter(|finish| finish.follow).map(|finish| &finish.update_id).collect();
        let (mut committed, mut runs, mut gone_back) = (Vec::new(), Vec::new(), Vec::new());
        let mut causes: Vec<(&String, UpdateState)> = Vec::with_capacity(ended.len());
        for (id, cause_id, state, cause) in &ended {
            let state = state.parse().map_err(|error| super::decode_error("state", error))?;
            causes.push((cause_id, state));
            if state == UpdateState::Committed && followed.contains(id) {
                committed.push(id);
            }
            if matches!(state, UpdateState::Committed | UpdateState::Unchanged) {
                runs.push(id);
                gone_back.extend((cause == Cause::Rollback.as_str()).then_some(id));
            }
        }
        follow_ups::begin(tx, &committed).await?;
        settle_causes(tx, &causes).await?;
        supersede_waiting(tx, &runs).await?;
        holds::replace_earlier(tx, &gone_back).await
    }
}

impl Outcome {
    /// Returns the state that stands for it, and why.
    fn parts(&self) -> (UpdateState, Option<&str>) {
        match self {
            Self::Committed => (UpdateState::Committed, None),
            Self::Unchanged => (UpdateState::Unchanged, None),
            Self::Superseded { reason } => (UpdateState::Superseded, Some(reason)),
            Self::Refused { reason } => (UpdateState::Refused, Some(reason)),
        }
    }
}
