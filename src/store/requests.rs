use jiff::Timestamp;

use super::apply::{NewUpdate, Step, apply, insert};
use super::claims::OPEN_STATES;
use super::rows::request_columns;
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError, block_rows, pushes};
use crate::domain::{
    Block, Blocks, Change, NewBlock, Party, Request, RequestKind, RequestState, Update, UpdateGate, UpdateInput,
    UpdateState, first_state,
};
use crate::telemetry::TraceContext;
use tagrelay_image::{Repository, Version};

statements! {
    BY_ID = ("SELECT ", request_columns!(), " FROM requests WHERE id IN {list} ORDER BY id");
    BY_KEY = ("SELECT ", request_columns!(), " FROM requests WHERE actor = $1 AND idempotency_key = $2");
    LIST = ("SELECT ", request_columns!(), " FROM requests WHERE (CAST($1 AS TEXT) IS NULL OR environment = $1)
        AND (CAST($2 AS TEXT) IS NULL OR kind = $2) AND (CAST($3 AS TEXT) IS NULL OR id < $3)
        AND (CAST($4 AS BIGINT) IS NULL OR created_at >= $4)
        AND (CAST($5 AS TEXT) IS NULL OR id IN (SELECT cause_id FROM updates WHERE repository = $5))
        ORDER BY id DESC LIMIT $6");
    LIST_WITH_STATE = ("SELECT ", request_columns!(), " FROM requests WHERE (CAST($1 AS TEXT) IS NULL OR environment = $1)
        AND (CAST($2 AS TEXT) IS NULL OR kind = $2) AND (CAST($3 AS TEXT) IS NULL OR id < $3)
        AND (CAST($4 AS BIGINT) IS NULL OR created_at >= $4)
        AND id IN (SELECT cause_id FROM updates WHERE (CAST($5 AS TEXT) IS NULL OR repository = $5)
            AND state IN ($7, $8))
        ORDER BY id DESC LIMIT $6");
    OPEN_OF = ("SELECT id FROM updates WHERE cause_id = $1 AND state IN ($2, $3, $4) ORDER BY id");
    INSERT = ("INSERT INTO requests (id, kind, environment, source, actor, reason, idempotency_key, fingerprint, created_at,
        trace_parent, overridden) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
}

/// A request that has passed every check that needs no network.
#[derive(Debug, Clone)]
pub struct NewRequest {
    pub kind: RequestKind,
    /// The environment that changes.
    pub environment: String,
    /// The environment that a promotion takes the versions from.
    pub source: Option<String>,
    /// The name of the API token.
    pub actor: String,
    pub reason: Option<String>,
    /// A second request of the same actor with the same key is not made.
    pub idempotency_key: Option<String>,
    /// A hash of the request.
    pub fingerprint: String,
    /// When the running versions of the environment were read.
    pub planned_at: Timestamp,
    /// One update for each repository.
    pub updates: Vec<NewRequestedUpdate>,
    /// The hold that a rollback makes.
    pub hold: Option<NewBlock>,
    /// The parent of all further spans.
    pub trace: TraceContext,
    /// The closed gate that a promotion passes for its `reason`.
    pub overridden: Option<String>,
    /// Whether a promotion passes freezes for its `reason`. A rollback always does.
    pub overrides: bool,
    /// The gate that its updates wait for; `None`: none, or it is open.
    pub gate: Option<UpdateGate>,
}

/// A filter of requests.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    pub environment: Option<String>,
    pub repository: Option<Repository>,
    pub kind: Option<RequestKind>,
    pub state: Option<RequestState>,
    /// Only requests with a refused update.
    pub failed: bool,
    /// Only requests that arrived before this one.
    pub before: Option<String>,
    /// Only requests that arrived at this time or later.
    pub since: Option<Timestamp>,
    /// At most so many, newest first.
    pub limit: u32,
}

impl RequestFilter {
    /// Returns two states: each request that matches has an update in one of them. `None`: the filter has no state.
    fn witnesses(&self) -> Option<[UpdateState; 2]> {
        use UpdateState::{Cancelled, Committed, Pending, Refused, Superseded, Unchanged, Unverified, Waiting};
        let refused = self.failed.then_some([Refused; 2]);
        refused.or_else(|| {
            self.state.map(|state| match state {
                RequestState::Pending => [Unverified, Pending],
                RequestState::Waiting => [Waiting; 2],
                RequestState::Committed => [Committed, Unchanged],
                RequestState::Refused => [Refused; 2],
                RequestState::Superseded => [Superseded; 2],
                RequestState::Cancelled => [Cancelled; 2],
            })
        })
    }
}

/// The answer to a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Open updates were cancelled. The others had ended before.
    Now,
    /// An update is being pushed, so it may be on the branch already.
    UnderWay,
    /// Every update has ended.
    Ended,
}

/// One repository of a request.
#[derive(Debug, Clone)]
pub struct NewRequestedUpdate {
    pub repository: Repository,
    pub version: Version,
    /// `Unverified`, or a final state that is already known.
    pub state: UpdateState,
    /// The reason of a final state.
    pub reason: Option<String>,
    /// The running versions of the environment.
    pub running: Vec<Version>,
}

/// The answer to a new request.
#[derive(Debug, Clone)]
pub enum RequestMade {
    /// The request is stored.
    New {
        request: Request,
        /// The hold of a rollback.
        hold: Option<Block>,
    },
    /// The actor has used the key before. This is the earlier request.
    Repeated(Request),
}

impl Store {
    /// Stores a promotion or rollback. Returns when the request is on disk.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn make_request(&self, request: NewRequest) -> Result<RequestMade, StoreError> {
        self.writes.run(request).await
    }

    /// Returns a request; `None`: no request has this id.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn request(&self, id: &str) -> Result<Option<Request>, StoreError> {
        Ok(self.requests_by_id(&[id]).await?.pop())
    }

    /// Returns requests by their ids, in the order of arrival.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn requests_by_id(&self, ids: &[&str]) -> Result<Vec<Request>, StoreError> {
        Ok(BY_ID.all_of(&mut *self.reads.acquire().await?, values![], ids).await?)
    }

    /// Returns requests with their updates, newest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn requests(&self, filter: &RequestFilter) -> Result<Vec<(Request, Vec<Update>)>, StoreError> {
        let mut found = Vec::new();
        let mut before = filter.before.clone();
        loop {
            let page = self.request_page(filter, before.as_deref()).await?;
            let is_last = page.len() < filter.limit as usize;
            before = page.last().map(|request| request.id.clone());
            let ids: Vec<&str> = page.iter().map(|request| request.id.as_str()).collect();
            let mut updates = self.updates_of_all(&ids).await?;
            for request in page {
                let updates = updates.remove(&request.id).unwrap_or_default();
                // The state follows from all updates, so the statement cannot select it.
                let state = RequestState::of(updates.iter().map(|update| update.state));
                if filter.state.is_none_or(|wanted| wanted == state) {
                    found.push((request, updates));
                }
            }
            found.truncate(filter.limit as usize);
            if is_last || found.len() == filter.limit as usize {
                return Ok(found);
            }
        }
    }

    async fn request_page(&self, filter: &RequestFilter, before: Option<&str>) -> Result<Vec<Request>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut values = values![
            filter.environment.as_deref(),
            filter.kind.map(RequestKind::as_str),
            before,
            filter.since,
            filter.repository.as_ref(),
            filter.limit,
        ];
        Ok(match filter.witnesses() {
            Some([one, other]) => {
                values.extend(values![one.as_str(), other.as_str()]);
                LIST_WITH_STATE.all(connection, values).await?
            }
            None => LIST.all(connection, values).await?,
        })
    }

    /// Cancels the open updates of a request.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn cancel_request(&self, id: &str, reason: String) -> Result<Cancelled, StoreError> {
        self.writes.run(Cancel { id: id.to_owned(), reason }).await
    }

    /// Returns the earlier request of an actor with this idempotency key; `None`: the key is new.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn request_by_key(&self, actor: &str, key: &str) -> Result<Option<Request>, StoreError> {
        Ok(BY_KEY.optional(&mut *self.reads.acquire().await?, values![actor, key]).await?)
    }
}

struct Cancel {
    id: String,
    reason: String,
}

impl Write for Cancel {
    type Output = Cancelled;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Cancelled, sqlx::Error> {
        let [unverified, pending, waiting] = OPEN_STATES.map(UpdateState::as_str);
        let open: Vec<(String,)> = OPEN_OF.all(tx.connection, values![&self.id, unverified, pending, waiting]).await?;
        if open.is_empty() {
            return Ok(Cancelled::Ended);
        }
        let ids: Vec<&str> = open.iter().map(|(id,)| id.as_str()).collect();
        if pushes::carries_any(tx, &ids).await? {
            return Ok(Cancelled::UnderWay);
        }
        // Moving the fence repeats the decision of a push that is not recorded yet.
        block_rows::move_fence(tx).await?;
        let step = |id: &str| Step {
            party: Some(Party::Rules),
            ..Step::new(id, UpdateInput::Cancel).because(self.reason.clone())
        };
        apply(tx, ids.into_iter().map(step).collect()).await?;
        Ok(Cancelled::Now)
    }
}

impl Write for NewRequest {
    type Output = RequestMade;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<RequestMade, sqlx::Error> {
        if let Some(key) = &self.idempotency_key {
            let earlier: Option<Request> = BY_KEY.optional(tx.connection, values![&self.actor, key]).await?;
            if let Some(earlier) = earlier {
                return Ok(RequestMade::Repeated(earlier));
            }
        }
        let blocks = block_rows::current(tx).await?;
        let request = self.insert(tx, &blocks).await?;
        block_rows::move_fence(tx).await?;
        let hold = match &self.hold {
            Some(hold) => Some(block_rows::insert(tx, hold, Some(&request.id)).await?),
            None => None,
        };
        self.insert_updates(tx, &request, &blocks).await?;
        Ok(RequestMade::New { request, hold })
    }
}

/// The override reason in the commit of a rollback that passes a freeze and has no reason.
pub(super) const UNEXPLAINED: &str = "a rollback during a freeze";

impl NewRequest {
    /// Returns the freeze and the closed gate that the request passes.
    ///
    /// Freezes are read in the transaction, so that a new freeze counts.
    fn overridden_by(&self, blocks: &Blocks, now: Timestamp) -> Option<String> {
        let passes = self.overrides || self.kind == RequestKind::Rollback;
        let frozen = if passes { blocks.frozen(&self.environment, now) } else { None };
        let frozen = frozen.map(|frozen| match self.kind {
            RequestKind::Promotion | RequestKind::Follow => frozen.explanation(),
            RequestKind::Rollback => format!("{}; rollbacks ignore freezes", frozen.explanation()),
        });
        let all: Vec<String> = self.overridden.clone().into_iter().chain(frozen).collect();
        (!all.is_empty()).then(|| all.join("; and "))
    }

    async fn insert(&self, tx: &mut Transaction<'_>, blocks: &Blocks) -> Result<Request, sqlx::Error> {
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
            overridden: self.overridden_by(blocks, tx.now),
        };
        let values = values![
            &request.id,
            request.kind.as_str(),
            &request.environment,
            &request.source,
            &request.actor,
            &request.reason,
            &self.idempotency_key,
            &request.fingerprint,
            request.created_at,
            request.trace.to_string(),
            &request.overridden,
        ];
        INSERT.execute(tx.connection, values).await?;
        tx.record(Change::Request {
            id: request.id.clone(),
            request: request.kind.to_string(),
            environment: request.environment.clone(),
            actor: request.actor.clone(),
        });
        Ok(request)
    }

    async fn insert_updates(
        &self,
        tx: &mut Transaction<'_>,
        request: &Request,
        blocks: &Blocks,
    ) -> Result<(), sqlx::Error> {
        let may_change = self.updates.iter().any(|wanted| wanted.state == UpdateState::Unchanged);
        let under_way = if may_change { pushes::under_way(tx, &self.environment).await? } else { Default::default() };
        let unexplained = (self.kind == RequestKind::Rollback).then_some(UNEXPLAINED);
        let override_reason = request.overridden.as_ref().and(request.reason.as_deref().or(unexplained));
        let (mut new, mut ends) = (Vec::with_capacity(self.updates.len()), Vec::new());
        for wanted in &self.updates {
            let end = self.end_at_once(wanted, blocks, tx.now);
            // A push that is under way is about to change the running version.
            let end = end.filter(|(input, _)| {
                *input != UpdateInput::FindUnchanged || !under_way.contains(wanted.repository.as_str())
            });
            new.push(NewUpdate {
                environment: &self.environment,
                repository: &wanted.repository,
                version: &wanted.version,
                cause: self.kind.cause(),
                cause_id: &request.id,
                actor: &self.actor,
                state: UpdateState::Unverified,
                pushed_at: None,
                // Updates that land after the plan was made are ours, so they must not count as foreign.
                received_at: self.planned_at.min(tx.now),
                trace: &request.trace,
                override_reason,
                expected: Some(&wanted.running),
                gate: self.gate,
                announced: end.is_none(),
            });
            ends.push(end);
        }
        let ids = insert(tx, &new).await?;
        let step = |(id, end): (String, Option<(UpdateInput, Option<String>)>)| {
            let (input, reason) = end?;
            Some(Step { party: Some(Party::Rules), ..Step::new(id, input).because(reason) })
        };
        apply(tx, ids.into_iter().zip(ends).filter_map(step).collect()).await.map(|_| ())
    }

    /// Returns the input that ends an update without a request to the registry.
    ///
    /// `None`: the update must be verified.
    fn end_at_once(
        &self,
        wanted: &NewRequestedUpdate,
        blocks: &Blocks,
        now: Timestamp,
    ) -> Option<(UpdateInput, Option<String>)> {
        // A hold that was made a moment ago counts. A rollback makes its own hold.
        let hold = match self.kind {
            RequestKind::Promotion => blocks.hold(&self.environment, &wanted.repository, now),
            // A follow rule waits for the hold.
            RequestKind::Rollback | RequestKind::Follow => None,
        };
        let (state, held) = first_state(wanted.state, hold);
        let input = match state {
            UpdateState::Unchanged => UpdateInput::FindUnchanged,
            UpdateState::Superseded => UpdateInput::Supersede,
            UpdateState::Refused => UpdateInput::Refuse,
            UpdateState::Cancelled => UpdateInput::Cancel,
            UpdateState::Unverified | UpdateState::Pending | UpdateState::Waiting | UpdateState::Committed => {
                return None;
            }
        };
        Some((input, held.or_else(|| wanted.reason.clone())))
    }
}
