use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::rows::words;
use super::updates::{NewUpdate, Place, insert, is_being_pushed, supersede_waiting};
use super::writer::{Transaction, Write};
use super::{Cause, Hold, NewHold, Store, StoreError, Update, UpdateState, freezes, holds, parsed, time};
use crate::image::{Repository, Version};
use crate::telemetry::TraceContext;

words! {
    /// What somebody asked for.
    RequestKind {
        /// The versions of another environment, or a named one.
        Promotion = "promotion",
        /// An older version, and a hold.
        Rollback = "rollback",
    }
}

words! {
    /// How far a request has come, which follows from its updates.
    RequestState {
        /// An update waits for the registry or for the writer.
        Pending = "pending",
        /// An update waits for a hold or a freeze to end.
        Waiting = "waiting",
        /// What there was to commit is on the branch.
        Committed = "committed",
        /// Nothing of it happened, for the reasons given.
        Refused = "refused",
        /// Nothing of it happened, and nobody said no: something else took its place on the branch or before it.
        Superseded = "superseded",
    }
}

/// A promotion or rollback as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A ULID.
    pub id: String,
    /// What was asked for.
    pub kind: RequestKind,
    /// The environment that changes.
    pub environment: String,
    /// The environment whose versions it takes.
    pub source: Option<String>,
    /// The name of the API token.
    pub actor: String,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Tells whether a repeated `Idempotency-Key` came with the same request.
    pub fingerprint: String,
    /// The span that everything that becomes of it is a child of.
    pub trace: TraceContext,
    /// What stood in the way of a promotion or rollback that was made all the same.
    pub overridden: Option<String>,
}

impl FromRow<'_, SqliteRow> for Request {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            kind: parsed(row, "kind")?,
            environment: row.try_get("environment")?,
            source: row.try_get("source")?,
            actor: row.try_get("actor")?,
            reason: row.try_get("reason")?,
            created_at: time(row, "created_at")?,
            fingerprint: row.try_get("fingerprint")?,
            trace: parsed(row, "trace_parent")?,
            overridden: row.try_get("overridden")?,
        })
    }
}

/// A request that has passed every check that can be answered at once.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// What is asked for.
    pub kind: RequestKind,
    /// The environment that changes.
    pub environment: String,
    /// The environment whose versions it takes.
    pub source: Option<String>,
    /// The name of the API token.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// The caller's key: the same key of the same actor makes one request.
    pub idempotency_key: Option<String>,
    /// A hash of what is asked for.
    pub fingerprint: String,
    /// One for each repository.
    pub updates: Vec<NewRequestedUpdate>,
    /// The hold that a rollback makes.
    pub hold: Option<NewHold>,
    /// The span that everything that becomes of it is a child of.
    pub trace: TraceContext,
    /// What stands in the way of a promotion that `reason` makes all the same.
    pub overridden: Option<String>,
    /// Whether a promotion passes a freeze, for its `reason`. A rollback does in any case.
    pub overrides: bool,
}

/// One repository of a request.
#[derive(Debug, Clone)]
pub struct NewRequestedUpdate {
    /// The repository.
    pub repository: Repository,
    /// The version it shall run.
    pub version: Version,
    /// Where it begins: `Unverified`, or a final state that is known already.
    pub state: UpdateState,
    /// Why, for a final state.
    pub reason: Option<String>,
    /// What the environment runs of it.
    pub running: Vec<Version>,
}

/// What became of a new request.
#[derive(Debug, Clone)]
pub enum RequestMade {
    /// It is stored.
    New {
        /// The request.
        request: Request,
        /// The hold of a rollback.
        hold: Option<Hold>,
    },
    /// The same actor used the key before; the request that was made then.
    Repeated(Request),
}

impl Request {
    /// Returns how far the request has come.
    ///
    /// A request without updates had nothing to do, which is as good as done.
    pub fn state(updates: &[Update]) -> RequestState {
        state_of(&updates.iter().map(|update| update.state).collect::<Vec<_>>())
    }
}

fn state_of(updates: &[UpdateState]) -> RequestState {
    let any = |states: &[UpdateState]| updates.iter().any(|state| states.contains(state));
    if any(&[UpdateState::Unverified, UpdateState::Pending]) {
        RequestState::Pending
    } else if any(&[UpdateState::Waiting]) {
        RequestState::Waiting
    } else if updates.is_empty() || any(&[UpdateState::Committed, UpdateState::Unchanged]) {
        RequestState::Committed
    } else if any(&[UpdateState::Refused]) {
        RequestState::Refused
    } else {
        RequestState::Superseded
    }
}

impl Store {
    /// Stores a promotion or rollback. Returns when it is on disk.
    ///
    /// # Errors
    ///
    /// When nothing of it could be stored.
    pub async fn make_request(&self, request: NewRequest) -> Result<RequestMade, StoreError> {
        self.writes.run(request).await
    }

    /// Returns a request, or `None` when there is none of that id.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn request(&self, id: &str) -> Result<Option<Request>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM requests WHERE id = ?").bind(id).fetch_optional(&self.reads).await?)
    }

    /// Returns the promotions and rollbacks that failed for good, in whole or in part, newest first; of a repository, those in
    /// which it did.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn failed_requests(
        &self,
        repository: Option<&Repository>,
        limit: u32,
    ) -> Result<Vec<Request>, StoreError> {
        let requests = sqlx::query_as(
            "SELECT * FROM requests WHERE id IN (
                SELECT cause_id FROM updates WHERE state = 'refused' AND (?1 IS NULL OR repository = ?1))
             ORDER BY id DESC LIMIT ?2",
        )
        .bind(repository.map(Repository::as_str))
        .bind(limit)
        .fetch_all(&self.reads)
        .await?;
        Ok(requests)
    }

    /// Returns the request that an actor made with a key before.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn request_by_key(&self, actor: &str, key: &str) -> Result<Option<Request>, StoreError> {
        let request = sqlx::query_as("SELECT * FROM requests WHERE actor = ? AND idempotency_key = ?")
            .bind(actor)
            .bind(key)
            .fetch_optional(&self.reads)
            .await?;
        Ok(request)
    }
}

impl Write for NewRequest {
    type Output = RequestMade;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<RequestMade, sqlx::Error> {
        if let Some(key) = &self.idempotency_key {
            let earlier: Option<Request> =
                sqlx::query_as("SELECT * FROM requests WHERE actor = ? AND idempotency_key = ?")
                    .bind(&self.actor)
                    .bind(key)
                    .fetch_optional(&mut *tx.connection)
                    .await?;
            if let Some(earlier) = earlier {
                return Ok(RequestMade::Repeated(earlier));
            }
        }
        let request = self.insert(tx).await?;
        let unchanged = self.insert_updates(tx, &request).await?;
        let hold = match &self.hold {
            Some(hold) => {
                let made = holds::make(tx, hold, Some(&request.id)).await?;
                holds::replace_earlier(tx, &unchanged.iter().collect::<Vec<_>>()).await?;
                Some(made)
            }
            None => None,
        };
        Ok(RequestMade::New { request, hold })
    }
}

/// What the commit says of a rollback during a freeze for which nobody gave a reason.
pub(super) const UNEXPLAINED: &str = "a rollback passes a freeze";

impl NewRequest {
    /// Returns what stands in the way and does not count. Freezes are looked at here, so that one that was made a moment ago
    /// is told.
    async fn overridden_in(&self, tx: &mut Transaction<'_>) -> Result<Option<String>, sqlx::Error> {
        let passes = self.overrides || self.kind == RequestKind::Rollback;
        let frozen = if passes { freezes::frozen_in(tx, &self.environment).await? } else { None };
        let frozen = frozen.map(|frozen| match self.kind {
            RequestKind::Promotion => frozen.explanation(),
            RequestKind::Rollback => format!("{}; a rollback passes", frozen.explanation()),
        });
        let all: Vec<String> = self.overridden.clone().into_iter().chain(frozen).collect();
        Ok((!all.is_empty()).then(|| all.join("; and ")))
    }

    async fn insert(&self, tx: &mut Transaction<'_>) -> Result<Request, sqlx::Error> {
        let request = Request {
            id: tx.next_id(),
            kind: self.kind,
            environment: self.environment.clone(),
            source: self.source.clone(),
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            created_at: tx.now,
            fingerprint: self.fingerprint.clone(),
            trace: self.trace,
            overridden: self.overridden_in(tx).await?,
        };
        sqlx::query(
            "INSERT INTO requests (id, kind, environment, source, actor, reason, idempotency_key, fingerprint, created_at,
                trace_parent, overridden) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&request.id)
        .bind(request.kind.as_str())
        .bind(&request.environment)
        .bind(&request.source)
        .bind(&request.actor)
        .bind(&request.reason)
        .bind(&self.idempotency_key)
        .bind(&request.fingerprint)
        .bind(tx.now_milliseconds())
        .bind(request.trace.to_string())
        .bind(&request.overridden)
        .execute(&mut *tx.connection)
        .await?;
        Ok(request)
    }

    /// Returns the ids of those that change nothing.
    async fn insert_updates(&self, tx: &mut Transaction<'_>, request: &Request) -> Result<Vec<String>, sqlx::Error> {
        let places: Vec<Place<'_>> = self.updates.iter().map(|wanted| self.place(wanted)).collect();
        // Looked at here, so that a hold that was made a moment ago counts. A rollback is what holds are for.
        let holds = match self.kind {
            RequestKind::Promotion => holds::active_at(tx, &places).await?,
            RequestKind::Rollback => HashMap::new(),
        };
        let unexplained = (self.kind == RequestKind::Rollback).then_some(UNEXPLAINED);
        let mut rows = Vec::with_capacity(self.updates.len());
        for (wanted, place) in self.updates.iter().zip(&places) {
            let (mut state, mut reason) = (wanted.state, wanted.reason.clone());
            if matches!(state, UpdateState::Unverified | UpdateState::Pending)
                && let Some(hold) = holds.get(place)
            {
                (state, reason) = (UpdateState::Refused, Some(hold.explanation()));
            }
            if state == UpdateState::Unchanged && is_being_pushed(tx, place).await? {
                state = UpdateState::Unverified;
            }
            rows.push(NewUpdate {
                place: *place,
                version: &wanted.version,
                cause: match self.kind {
                    RequestKind::Promotion => Cause::Promotion,
                    RequestKind::Rollback => Cause::Rollback,
                },
                cause_id: &request.id,
                actor: &self.actor,
                state,
                reason,
                pushed_at: None,
                received_at: tx.now,
                trace: &request.trace,
                override_reason: request.overridden.as_ref().and(request.reason.as_deref().or(unexplained)),
                decided: None,
                compared: Some(&wanted.running),
            });
        }
        let ids = insert(tx, &rows).await?;
        // They run what was asked for last: what was asked for before is not to come over it later.
        let unchanged = |(row, _): &(&NewUpdate<'_>, &String)| row.state == UpdateState::Unchanged;
        let unchanged: Vec<&String> = rows.iter().zip(&ids).filter(unchanged).map(|(_, id)| id).collect();
        supersede_waiting(tx, &unchanged).await?;
        Ok(unchanged.into_iter().cloned().collect())
    }

    fn place<'a>(&'a self, wanted: &'a NewRequestedUpdate) -> Place<'a> {
        Place { environment: &self.environment, repository: &wanted.repository }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_far_as_its_updates() {
        use UpdateState::{Committed, Pending, Refused, Superseded, Unchanged, Unverified, Waiting};
        for (states, expected) in [
            (&[][..], RequestState::Committed),
            (&[Committed, Unverified], RequestState::Pending),
            (&[Pending, Waiting], RequestState::Pending),
            (&[Refused, Waiting], RequestState::Waiting),
            (&[Superseded, Committed], RequestState::Committed),
            (&[Refused, Unchanged], RequestState::Committed),
            (&[Superseded, Refused], RequestState::Refused),
            (&[Superseded], RequestState::Superseded),
            (&[Superseded, Superseded], RequestState::Superseded),
        ] {
            assert_eq!(state_of(states), expected, "{states:?}");
        }
    }
}
