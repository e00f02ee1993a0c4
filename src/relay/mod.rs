//! The pipeline: it joins the rooms, and is the only one that knows them all.
//!
//! - `intake` asks the registry whether an event or a request is true, and makes updates of it;
//! - `ordering` says whether a build is newer than what runs;
//! - `catch_up` finds what no webhook told of;
//! - `writer` takes everything that is pending for a branch, and commits and pushes it;
//! - `requests` turns promotions and rollbacks into updates;
//! - `freezes` lets what waits go when a freeze ends;
//! - `follow_up` tells Argo CD of what was committed, and finds out what became of it;
//! - `matrix` says what every environment runs.
//!
//! All of it can be stopped at any instant and started again: what is to be done is in the store, and doing it
//! a second time changes nothing.

mod arrivals;
mod branch;
mod catch_up;
mod coalesce;
mod endings;
mod follow_up;
mod freezes;
mod intake;
mod left_behind;
mod lineage;
mod matrix;
mod message;
mod notice;
mod ordering;
mod quiet;
mod requests;
mod retention;
mod setback;
mod settings;
mod template;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;

pub use branch::{Branch, BranchNews};
pub use catch_up::RegistryNews;
pub use follow_up::Following;
pub use freezes::FreezeOrder;
use lineage::Lineage;
pub use matrix::{EnvironmentRow, MatrixCell};
pub use notice::{Notice, Subject};
pub use requests::{Fate, HoldOrder, Order, Preview, PreviewedUpdate, PromotionOrder, RequestError, RollbackOrder};
pub use settings::{CatchUpSettings, Environment, MessageSettings, UpdateMode, WritingSettings};
pub use template::{InvalidTemplate, MessageTemplate};

use arrivals::Arrivals;

use crate::image::{Repository, Tag};
use crate::policy::{ImageRule, rule_for};
use crate::registry::Registries;
use crate::source_repo::Sources;
use crate::store::{
    EventFilter, Hold, NewEvent, NewHold, Received, ReceivedState, Replayed, Retention, Store, StoreError, Update,
};
use crate::telemetry::{Metrics, Span, TraceContext, Traces};
use crate::webhook::PushEvent;

/// How long an event that tells nothing but repository and tag is taken for a repetition: as long as a CI job repeats
/// a request. Later, the tag may have been built again.
const BARE_DUPLICATES: Duration = Duration::from_secs(600);

/// How many events are queued again in one transaction.
const REPLAYED_AT_ONCE: usize = 100;

/// What the pipeline is made of.
pub struct Parts {
    /// Where everything is kept.
    pub store: Store,
    /// Whom to ask about images.
    pub registries: Arc<Registries>,
    /// Which images are managed.
    pub images: Vec<ImageRule>,
    /// The source repositories that the rules of images name by their place in it.
    pub sources: Arc<Sources>,
    /// The branches, with the environments on them.
    pub branches: Vec<Branch>,
    /// The Argo CD that rolls out what is committed, where there is one.
    pub following: Option<Following>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where spans go.
    pub traces: Traces,
    /// How long what has ended is kept.
    pub retention: Retention,
    /// How registries are asked for what no webhook told of.
    pub catch_up: CatchUpSettings,
}

/// The pipeline. Cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    store: Store,
    registries: Arc<Registries>,
    images: Vec<ImageRule>,
    sources: Arc<Sources>,
    branches: Vec<Branch>,
    /// Environment name to the index of its branch.
    branch_of: HashMap<String, usize>,
    following: Option<Following>,
    metrics: Metrics,
    traces: Traces,
    retention: Retention,
    catch_up: CatchUpSettings,
    notices: broadcast::Sender<Notice>,
    arrivals: Arc<Arrivals>,
    /// How much the intake has in its hands.
    in_hand: watch::Sender<usize>,
    /// Rung when a freeze was switched on or off.
    freezes_changed: Notify,
    turns: ordering::Turns,
    lineage: Arc<Lineage>,
}

/// The running tasks of the pipeline.
pub struct Running {
    relay: Relay,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Asks the tasks to stop where it is safe, and waits until they have.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.relay.tell_rest();
    }
}

impl Relay {
    /// Joins the parts and starts the tasks. What was pending when the process ended is resumed.
    pub fn start(parts: Parts) -> (Self, Running) {
        Self::start_in(Lineage::new(parts.store.endings()), parts)
    }

    /// Starts a pipeline that takes the place of this one, on the same store. Its tasks begin when those of this one that
    /// work on the same have ended, which they do once they are told to [stop](Running::stop).
    pub fn start_next(&self, parts: Parts) -> (Self, Running) {
        Self::start_in(Arc::clone(&self.0.lineage), parts)
    }

    fn start_in(lineage: Arc<Lineage>, parts: Parts) -> (Self, Running) {
        let Parts { store, registries, images, sources, branches, following, metrics, traces, retention, catch_up } =
            parts;
        let branch_of = branches
            .iter()
            .enumerate()
            .flat_map(|(index, branch)| branch.environments().iter().map(move |found| (found.name.clone(), index)))
            .collect();
        let inner = Inner {
            store,
            registries,
            images,
            sources,
            branches,
            branch_of,
            following,
            metrics,
            traces,
            retention,
            catch_up,
            notices: lineage.notices.clone(),
            arrivals: Arc::clone(&lineage.arrivals),
            in_hand: watch::Sender::new(0),
            freezes_changed: Notify::new(),
            turns: ordering::Turns::new(),
            lineage,
        };
        let relay = Self(Arc::new(inner));
        // Before any task can look: what these settings freeze waits from now on, whoever is just deciding about it.
        relay.0.store.set_freeze_calendar(relay.freeze_calendar());
        relay.0.lineage.begin(&relay.0);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut spawn = |name: String, turns: Vec<String>, task: BoxFuture<'static, ()>| {
            tasks.spawn(Arc::clone(&relay.0.lineage).supervise(name, turns, stopped.clone(), task));
        };
        let mut spawn_alone = |name: &str, task| spawn(name.to_owned(), vec![name.to_owned()], task);
        spawn_alone("intake", Box::pin(intake::run(relay.clone(), stopped.clone())));
        spawn_alone("endings", Box::pin(endings::run(relay.clone(), stopped.clone())));
        spawn_alone("left behind", Box::pin(left_behind::run(relay.clone(), stopped.clone())));
        spawn_alone("retention", Box::pin(retention::run(relay.clone(), stopped.clone())));
        spawn_alone("freezes", Box::pin(freezes::run(relay.clone(), stopped.clone())));
        spawn_alone("catch-up", Box::pin(catch_up::run(relay.clone(), stopped.clone())));
        spawn_alone("follow-up", Box::pin(follow_up::run(relay.clone(), stopped.clone())));
        for (index, branch) in relay.0.branches.iter().enumerate() {
            let task = writer::run(relay.clone(), index, stopped.clone());
            spawn(format!("writer of {}", branch.title()), branch.turns(), Box::pin(task));
        }
        let running = Running { relay: relay.clone(), stop, tasks };
        (relay, running)
    }

    /// Returns the store, for reading.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Returns whom it asks about images.
    pub fn registries(&self) -> &Arc<Registries> {
        &self.0.registries
    }

    /// Returns the source repositories that it asks about commits.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.0.sources
    }

    /// Returns what is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Returns where spans go.
    pub fn traces(&self) -> &Traces {
        &self.0.traces
    }

    /// Brings the metrics that are states, not events, up to date. Where the store cannot be read they stay as they
    /// were.
    pub async fn measure(&self) {
        let backlog = match self.0.store.backlog().await {
            Ok(backlog) => backlog,
            Err(error) => {
                tracing::warn!(%error, "the backlog cannot be read from the store");
                return;
            }
        };
        let now = self.now();
        let age = |at: Option<Timestamp>| {
            at.and_then(|at| Duration::try_from(now.duration_since(at)).ok()).unwrap_or_default()
        };
        self.0.metrics.pending_updates(backlog.open_updates);
        self.0.metrics.oldest_open(age(backlog.oldest_update), age(backlog.oldest_event));
    }

    /// Returns why a task of the pipeline ended that should not have, as soon as one does. Then the process is to end.
    pub async fn failed(&self) -> String {
        self.0.lineage.failed().await
    }

    /// Returns what time it is, by the clock by which the store decides.
    fn now(&self) -> Timestamp {
        self.0.store.clock().now()
    }

    /// Returns the branches with their environments.
    pub fn branches(&self) -> &[Branch] {
        &self.0.branches
    }

    /// Returns a receiver of everything that happens from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.0.notices.subscribe()
    }

    /// Stores the push events of one authenticated request and wakes the intake. Returns when they are on disk.
    /// `trace` is the span of the request.
    ///
    /// What was delivered within the last `duplicate_window` already is a duplicate.
    ///
    /// # Errors
    ///
    /// When nothing of it could be stored: the sender should try again.
    pub async fn receive(
        &self,
        receiver: &str,
        events: &[PushEvent],
        duplicate_window: Duration,
        trace: &TraceContext,
    ) -> Result<Vec<Received>, StoreError> {
        // A window that reaches behind the calendar's beginning has no beginning.
        let now = self.now();
        let since = now.checked_sub(duplicate_window).unwrap_or(Timestamp::UNIX_EPOCH);
        let row = |event: &PushEvent| {
            let moves = rule_for(&self.0.images, &event.repository).is_some_and(|rule| rule.tag.moves());
            new_event((receiver, event), moves, since, now, *trace)
        };
        let rows = events.iter().map(row).collect();
        let received = self.0.store.receive(receiver, rows).await?;
        for (event, row) in events.iter().zip(&received) {
            let state = match row.state {
                ReceivedState::Queued => "queued",
                ReceivedState::Duplicate => "duplicate",
            };
            tracing::info!(event = %row.id, receiver, repository = %event.repository, tag = %event.tag, state, trace_id = %trace.trace_id(), "event received");
            self.notify_event(&row.id, &event.repository, &event.tag, state, None);
        }
        self.0.arrivals.of(events.iter().map(|event| event.repository.registry()));
        Ok(received)
    }

    /// Takes the word of a Git host that a branch has moved to a commit, or is gone: it is read soon.
    pub fn branch_moved(&self, config_repository: &str, branch: &str, commit: Option<&str>) -> BranchNews {
        let is_it = |known: &&Branch| known.repository_name() == config_repository && known.branch_name() == branch;
        // Other settings may have come into force since the request did.
        let current = self.0.lineage.current();
        let branches = &current.as_ref().unwrap_or(self).0.branches;
        let Some(known) = branches.iter().find(is_it) else { return BranchNews::Foreign };
        // Our own commits come back like everybody's.
        if known.snapshot().is_some_and(|snapshot| commit == Some(snapshot.tip.to_string().as_str())) {
            return BranchNews::Known;
        }
        known.moved.notify_one();
        BranchNews::Reading
    }

    /// Runs an event again that has failed for good, and has one asked about at once that waits to be asked about again.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn replay(&self, event_id: &str) -> Result<Replayed, StoreError> {
        let replayed = self.0.store.replay(event_id).await?;
        if matches!(replayed, Replayed::Queued | Replayed::Hastened(_)) {
            let event = self.0.store.event(event_id).await?;
            let trace_id = event.map(|event| event.trace.trace_id().to_string());
            tracing::info!(event = event_id, trace_id, "event replayed");
        }
        self.0.arrivals.other();
        Ok(replayed)
    }

    /// Runs all events of a filter again that have failed for good. Returns their ids, newest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be used. Some may have been stored by then.
    pub async fn replay_all(&self, filter: &EventFilter) -> Result<Vec<String>, StoreError> {
        let events = self.0.store.events(&EventFilter { failed: true, ..filter.clone() }).await?;
        let mut replayed = Vec::new();
        for chunk in events.chunks(REPLAYED_AT_ONCE) {
            let ids: Vec<String> = chunk.iter().map(|event| event.id.clone()).collect();
            let answers = self.0.store.replay_all(ids).await?;
            for (event, _) in chunk.iter().zip(answers).filter(|(_, answer)| *answer == Replayed::Queued) {
                tracing::info!(event = %event.id, trace_id = %event.trace.trace_id(), "event replayed");
                replayed.push(event.id.clone());
            }
            self.0.arrivals.other();
        }
        Ok(replayed)
    }

    /// Makes a hold.
    ///
    /// # Errors
    ///
    /// When the environment runs no such repository, or it could not be stored.
    pub async fn hold(&self, order: HoldOrder) -> Result<Hold, RequestError> {
        let repository = self.repository_in(&order.environment, &order.repository)?;
        let HoldOrder { environment, reason, actor, expires_at, .. } = order;
        let hold = NewHold { environment, repository, reason, actor, expires_at };
        let made = self.0.store.hold(hold).await?;
        tracing::info!(hold = %made.id, environment = %made.environment, repository = %made.repository, "hold made");
        self.notify_hold(&made, "made");
        // The intake sleeps until the next expiry, which may be this one's.
        self.0.arrivals.other();
        Ok(made)
    }

    /// Releases a hold. What waited for it goes. Returns `None` when there is no active hold of that id.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn release_hold(&self, id: &str, actor: &str) -> Result<Option<Hold>, StoreError> {
        let released = self.0.store.release_hold(id, actor).await?;
        if let Some(hold) = &released {
            tracing::info!(hold = %hold.id, environment = %hold.environment, repository = %hold.repository, "hold released");
            self.notify_hold(hold, "released");
            self.wake_writer(&hold.environment);
        }
        Ok(released)
    }

    /// Returns the environment of a name.
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.branch_of(name)?.environments().iter().find(|environment| environment.name == name)
    }

    fn branch_of(&self, environment: &str) -> Option<&Branch> {
        self.0.branch_of.get(environment).and_then(|index| self.0.branches.get(*index))
    }

    fn wake_writer(&self, environment: &str) {
        // Whoever began under older settings has work for the writer that there is now.
        if let Some(current) = self.0.lineage.current()
            && let Some(branch) = current.branch_of(environment)
        {
            branch.wake.notify_one();
        }
    }

    fn notify(&self, subject: Subject) {
        // Fails when nobody listens.
        let _ = self.0.notices.send(Notice { at: Timestamp::now(), subject });
    }

    fn notify_event(&self, id: &str, repository: &Repository, tag: &Tag, state: &str, reason: Option<&str>) {
        self.notify(Subject::Event {
            id: id.to_owned(),
            repository: repository.to_string(),
            tag: tag.to_string(),
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
        });
    }

    fn notify_hold(&self, hold: &Hold, state: &str) {
        self.notify(Subject::Hold {
            id: hold.id.clone(),
            environment: hold.environment.clone(),
            repository: hold.repository.to_string(),
            state: state.to_owned(),
        });
    }
}

/// Says which update a span is about.
fn describe(span: &mut Span, update: &Update) {
    span.set("tagrelay.update.id", &update.id);
    span.set("tagrelay.cause", update.cause);
    span.set("tagrelay.cause.id", &update.cause_id);
    span.set("tagrelay.environment", &update.environment);
    span.set("tagrelay.repository", &update.repository);
    span.set("tagrelay.version", &update.version);
    span.set_number("tagrelay.attempt", i64::from(update.attempts) + 1);
}

/// Returns the row of a push event.
///
/// Two deliveries are the same event when the sender's own id says so, or, for senders that have none, when
/// everything that they tell is equal. Of a tag that `moves` nothing is equal that tells neither id nor time: it may
/// have moved between the two, and back.
fn new_event(
    (receiver, event): (&str, &PushEvent),
    moves: bool,
    duplicates_since: Timestamp,
    now: Timestamp,
    trace: TraceContext,
) -> NewEvent {
    let digest = event.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    let occasion = match (&event.delivery, event.pushed_at) {
        (Some(delivery), _) => delivery.clone(),
        (None, Some(pushed_at)) => pushed_at.to_string(),
        (None, None) => String::new(),
    };
    let parts = [receiver, event.repository.as_str(), event.tag.as_str(), &digest, &occasion];
    let is_bare = digest.is_empty() && occasion.is_empty();
    let bare_since = match moves && occasion.is_empty() {
        // No delivery is as late as that.
        true => Timestamp::MAX,
        false if is_bare => now.checked_sub(BARE_DUPLICATES).unwrap_or(Timestamp::UNIX_EPOCH),
        false => duplicates_since,
    };
    NewEvent {
        repository: event.repository.clone(),
        tag: event.tag.clone(),
        digest: event.digest.clone(),
        pushed_at: event.pushed_at,
        // No part can hold a line feed but the delivery id, which is the last.
        duplicate_key: crate::image::Digest::of(parts.join("\n").as_bytes()).to_string(),
        duplicates_since: duplicates_since.max(bare_since),
        trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_tells_little_is_a_repetition_for_a_short_time_at_most() {
        let bare = PushEvent {
            repository: "uyou/user-service".parse().unwrap(),
            tag: "1234567".parse().unwrap(),
            digest: None,
            pushed_at: None,
            delivery: None,
        };
        let week = Timestamp::now() - Duration::from_secs(7 * 24 * 3600);
        let named = PushEvent { delivery: Some("1".into()), ..bare.clone() };
        let pinned = PushEvent { digest: Some(crate::image::Digest::of(b"")), ..bare.clone() };
        let now = Timestamp::now();
        let event = |pushed: &PushEvent| new_event(("ci", pushed), false, week, now, TraceContext::random());
        assert!(event(&bare).duplicates_since > Timestamp::now() - Duration::from_secs(660));
        assert_eq!(event(&named).duplicates_since, week);
        assert_eq!(event(&pinned).duplicates_since, week);
        // A tag that moves may have been built again, unless the sender tells its pushes apart.
        let moving =
            |pushed: &PushEvent| new_event(("ci", pushed), true, week, now, TraceContext::random()).duplicates_since;
        assert_eq!([&bare, &named, &pinned].map(moving), [Timestamp::MAX, week, Timestamp::MAX]);
        let keys = [&bare, &named, &pinned].map(|pushed| event(pushed).duplicate_key);
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }
}
