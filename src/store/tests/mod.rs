use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::domain::{
    AttemptedUpdate, Block, BlockKind, Cause, Decided, Decision, Entry, EventState, Missing, NewBlock, Party,
    PushInput, Request, RequestKind, RequestState, SiteChange, Update, UpdateInput, UpdateState, Wait, WaitCause,
    may_go,
};
use crate::policy::Criterion;
use crate::telemetry::TraceContext;
use tagrelay_image::{Digest, Repository, Version};

mod blocks;
mod events;
mod outbox;
mod pushes;
mod requests;
mod starts;
mod statements;
mod upgrade;
mod version_runs;
mod writer;

struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Clock::system()).await
    }

    async fn with(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Self::open_with(&folder, clock).await;
        Self { folder, store }
    }

    async fn open_with(folder: &tempfile::TempDir, clock: Clock) -> Store {
        let settings = StoreSettings { path: folder.path().join("state/tagrelay.db") };
        Store::open_with(&settings, clock).await.unwrap()
    }

    /// Closes the store and opens it again, as a restart does.
    async fn restart(self, clock: Clock) -> Self {
        let Self { folder, store } = self;
        drop(store);
        // The writing task ends a moment later and then releases the lock.
        let store = Self::open_with(&folder, clock).await;
        Self { folder, store }
    }

    async fn receive(&self, tag: &str) -> String {
        self.store.receive("hub", vec![event(tag)]).await.unwrap().remove(0).id
    }

    async fn confirm(&self, event_id: &str, tag: &str, environments: &[&str]) -> Vec<(String, UpdateState)> {
        self.store.record_facts(facts(event_id, tag, environments)).await.unwrap()
    }

    /// Delivers and confirms an event for `staging`. Returns its id.
    async fn pushed(&self, tag: &str) -> String {
        let id = self.receive(tag).await;
        self.confirm(&id, tag, &["staging"]).await;
        id
    }

    async fn pushed_to(&self, repository: &str, tag: &str) -> String {
        let repository: Repository = repository.parse().unwrap();
        let new = NewEvent { repository, duplicate_key: format!("{tag} other"), ..event(tag) };
        let id = self.store.receive("hub", vec![new]).await.unwrap().remove(0).id;
        self.confirm(&id, tag, &["staging"]).await;
        id
    }

    async fn update_of(&self, cause_id: &str) -> Update {
        self.store.updates_of(cause_id).await.unwrap().remove(0)
    }

    async fn event_state(&self, id: &str) -> EventState {
        self.store.event(id).await.unwrap().unwrap().state
    }

    async fn states(&self, causes: &[&str]) -> Vec<UpdateState> {
        let mut states = Vec::new();
        for cause in causes {
            states.push(self.update_of(cause).await.state);
        }
        states
    }

    async fn claim(&self) -> Claim {
        self.store.claim(&["staging".to_owned(), "qa".to_owned()], 1000).await.unwrap()
    }

    async fn fence(&self) -> u64 {
        let mut connection = self.store.reads.acquire().await.unwrap();
        let (fence,): (i64,) =
            sqlx::query_as("SELECT fence FROM turn WHERE id = 1").fetch_one(&mut *connection).await.unwrap();
        fence.unsigned_abs()
    }

    /// Decides like the branch writer, but only by blocks: makes blocked updates wait.
    async fn decide(&self) {
        let claim = self.claim().await;
        let now = self.store.clock().now();
        let decide = |update: &Update| {
            let waits = may_go(update, &claim.blocks, now);
            let decision = if waits.is_empty() { Decision::Write } else { Decision::Wait(waits) };
            (update.id.clone(), Decided { decision, basis: None })
        };
        let decisions = claim.updates.iter().map(decide).collect();
        assert!(self.store.record_decisions(decisions, claim.fence).await.unwrap());
    }

    /// Begins a push of the updates of these causes.
    async fn begin_push(&self, causes: &[&str]) -> Option<String> {
        let mut updates = Vec::new();
        for cause in causes {
            updates.push(attempted(&self.update_of(cause).await.id));
        }
        self.store.begin_push(push(updates), self.fence().await).await.unwrap()
    }

    /// Pushes the updates of these causes.
    async fn land(&self, causes: &[&str]) {
        let push = self.begin_push(causes).await.unwrap();
        self.store.end_push(&push, PushInput::FindLanded, false).await.unwrap();
    }

    async fn end(&self, cause_id: &str, input: UpdateInput, reason: &str) {
        let id = self.update_of(cause_id).await.id;
        let ended = EndedUpdate { id, input, reason: Some(reason.to_owned()), party: None };
        self.store.end_updates(vec![ended]).await.unwrap();
    }

    async fn hold(&self) -> Block {
        self.store.block(hold(None)).await.unwrap().block
    }

    async fn release(&self, hold: &Block) -> Option<Block> {
        self.store.end_block(&hold.id, BlockKind::Hold, "oncall").await.unwrap()
    }

    async fn freeze(&self, expires_at: Option<Timestamp>) -> Block {
        self.store.block(freeze(expires_at)).await.unwrap().block
    }

    async fn thaw(&self, freeze: &Block) -> Option<Block> {
        self.store.end_block(&freeze.id, BlockKind::Freeze, "oncall").await.unwrap()
    }

    async fn requested(&self, request: NewRequest) -> Request {
        match self.store.make_request(request).await.unwrap() {
            RequestMade::New { request, .. } => request,
            RequestMade::Repeated(_) => panic!("without a key every request is new"),
        }
    }

    /// Makes a request that the registry confirms.
    async fn confirmed(&self, request: NewRequest) -> Request {
        let request = self.requested(request).await;
        let update = self.update_of(&request.id).await;
        assert_eq!(self.store.verify_update(&update.id, None, None).await.unwrap(), Some(UpdateState::Pending));
        request
    }

    async fn holds(&self) -> Vec<Block> {
        self.store.blocks_of(BlockKind::Hold).await.unwrap()
    }

    /// Returns the entries of the outbox after a sequence number.
    async fn entries_after(&self, sequence: u64) -> Vec<Entry> {
        self.store.outbox_after(sequence, 1000).await.unwrap()
    }
}

fn facts(event_id: &str, tag: &str, environments: &[&str]) -> EventFacts {
    EventFacts {
        event_id: event_id.to_owned(),
        matched_rule: "docker.io/uyou/*".to_owned(),
        version: version(tag),
        note: None,
        environments: environments.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn repository() -> Repository {
    "uyou/user-service".parse().unwrap()
}

fn version(tag: &str) -> Version {
    Version::tagged(tag.parse().unwrap(), None)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn event(tag: &str) -> NewEvent {
    NewEvent {
        repository: repository(),
        tag: tag.parse().unwrap(),
        digest: None,
        pushed_at: None,
        duplicate_key: tag.to_owned(),
        duplicates_since: Timestamp::UNIX_EPOCH,
        trace: TraceContext::random(),
    }
}

fn refusal(event_id: &str, redeliverable: bool) -> EventRefusal {
    EventRefusal {
        event_id: event_id.to_owned(),
        reason: "not found".to_owned(),
        matched_rule: None,
        redeliverable,
        asked: Party::Registry,
    }
}

fn hold(expires_at: Option<Timestamp>) -> NewBlock {
    NewBlock {
        kind: BlockKind::Hold,
        environment: "staging".to_owned(),
        repository: Some(repository()),
        reason: Some("investigating".to_owned()),
        actor: "oncall".to_owned(),
        expires_at,
    }
}

fn freeze(expires_at: Option<Timestamp>) -> NewBlock {
    NewBlock { kind: BlockKind::Freeze, repository: None, reason: Some("incident".to_owned()), ..hold(expires_at) }
}

fn promotion(to: &str) -> NewRequest {
    NewRequest {
        kind: RequestKind::Promotion,
        environment: "staging".to_owned(),
        source: None,
        actor: "oncall".to_owned(),
        reason: None,
        idempotency_key: None,
        fingerprint: to.to_owned(),
        // Later than every transaction, so that the transaction's time counts.
        planned_at: Timestamp::MAX,
        updates: vec![requested(to)],
        hold: None,
        trace: TraceContext::random(),
        overridden: None,
        overrides: false,
        gate: None,
    }
}

fn rollback(to: &str) -> NewRequest {
    NewRequest { kind: RequestKind::Rollback, hold: Some(hold(None)), ..promotion(to) }
}

fn requested(to: &str) -> NewRequestedUpdate {
    NewRequestedUpdate {
        repository: repository(),
        version: version(to),
        state: UpdateState::Unverified,
        reason: None,
        running: vec![version("0")],
    }
}

fn attempted(update_id: &str) -> AttemptedUpdate {
    let change = SiteChange { path: "a.yaml".to_owned(), line: 3, old: version("0"), new: version("b") };
    let (update_id, commit) = (update_id.to_owned(), "c0ffee".to_owned());
    AttemptedUpdate { update_id, commit, old: version("0"), changes: vec![change], basis: None }
}

fn push(updates: Vec<AttemptedUpdate>) -> NewPush {
    NewPush {
        config_repository: "platform".to_owned(),
        branch: "main".to_owned(),
        parent: "aaaa".to_owned(),
        tip: "c0ffee".to_owned(),
        updates,
    }
}

impl Store {
    /// Returns the active wait causes of updates, by the ids of the updates.
    pub(super) async fn waits_of(&self, update_ids: &[&str]) -> Result<HashMap<String, Vec<WaitRow>>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let mut rows = wait_rows::of(connection, update_ids).await?;
        for rows in rows.values_mut() {
            rows.retain(|row| row.active);
        }
        rows.retain(|_, rows| !rows.is_empty());
        Ok(rows)
    }
}
