//! Processes events and requests: fetches facts from registries and source repositories, and decides
//! nothing.
//!
//! In: queued events, unverified updates of requests, updates with a missing fact. Out: candidates for the branch
//! writers. Each is processed in its own task, a bounded number per registry, so that a slow registry delays only its
//! own images. After a temporary failure the work goes back to the store with the time of the next attempt.
//!
//! Work that ends the process is found by its starts, which the store counts (`suspects`).
//!
//! Files: `event` and `request` process one event or update, `gather` fetches facts, `facts` caches
//! them.

mod event;
mod facts;
mod gather;
mod request;
mod suspects;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Relay;
use super::runtime::Arrived;
use crate::store::{IntakeWork, StoreError};
pub(super) use event::ImageCheck;
pub(super) use facts::FactBase;
use suspects::Suspects;

/// The most events and updates of one registry that are processed concurrently.
const PER_REGISTRY: u32 = 64;

/// Below this number of running tasks of a registry, the next ones are read from the store.
const LOW_WATER: usize = 16;

/// How long a stop waits for answers of registries.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The pause if the store does not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The work under way.
struct InFlight {
    tasks: JoinSet<Done>,
    ids: HashSet<String>,
    per_registry: HashMap<String, usize>,
    /// Registries with more work in the store than was read.
    more: HashSet<String>,
    suspects: Suspects,
}

/// A finished task, and when its work is due again if it was postponed.
struct Done {
    id: String,
    registry: String,
    due_again: Option<Timestamp>,
    /// Whether its result was stored. If not, it is tried again as the same start.
    stored: bool,
}

impl InFlight {
    fn new(suspects: Suspects) -> Self {
        Self {
            tasks: JoinSet::new(),
            ids: HashSet::new(),
            per_registry: HashMap::new(),
            more: HashSet::new(),
            suspects,
        }
    }

    /// Starts work, unless it is under way.
    fn start(&mut self, relay: &Relay, work: IntakeWork) {
        if self.ids.insert(work.id().to_owned()) {
            *self.per_registry.entry(work.registry().to_owned()).or_default() += 1;
            self.tasks.spawn(relay.clone().work(work));
        }
    }

    fn finished(&mut self, done: &Done) {
        self.ids.remove(&done.id);
        self.suspects.ended(&done.id, done.stored);
        if let Some(count) = self.per_registry.get_mut(&done.registry) {
            *count = count.saturating_sub(1);
        }
    }

    fn busy_registries(&self) -> Vec<String> {
        self.per_registry.keys().filter(|registry| self.is_busy(registry)).cloned().collect()
    }

    fn is_busy(&self, registry: &str) -> bool {
        self.per_registry.get(registry).is_some_and(|count| *count >= PER_REGISTRY as usize)
    }

    /// Records new work. Returns whether all of it belongs to busy registries: it is then read later, so that a burst
    /// does not cost a read of the store per event.
    fn can_wait(&mut self, arrived: Arrived) -> bool {
        if arrived.other || !arrived.registries.iter().all(|registry| self.is_busy(registry)) {
            return false;
        }
        self.more.extend(arrived.registries);
        true
    }

    fn wants_more(&self) -> bool {
        if self.suspects.remain() && self.tasks.is_empty() {
            return true;
        }
        self.more.iter().any(|registry| self.per_registry.get(registry).copied().unwrap_or_default() < LOW_WATER)
    }
}

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let mut in_flight = InFlight::new(Suspects::begin(relay.now()));
    loop {
        let seen = relay.now();
        let next = match fetch(&relay, &mut in_flight, seen).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "the intake cannot read the store; retrying");
                Some(seen + STORE_PAUSE)
            }
        };
        if wait(&relay, &mut in_flight, (next, seen), &mut stopped).await.is_break() {
            break;
        }
    }
    // First: the wait below may be cut off by `stop_timeout`.
    forget_starts(&relay).await;
    // Cancelled requests are repeated by the next generation or process: nothing is lost.
    let ended = async { while in_flight.tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, ended).await;
    in_flight.tasks.shutdown().await;
    relay.0.in_hand.send_replace(0);
}

async fn forget_starts(relay: &Relay) {
    if let Err(error) = relay.0.store.forget_starts().await {
        tracing::warn!(%error, "starts of the intake stay counted");
    }
}

/// Waits until there is work to read: at `next`, or when new work arrived. `seen`: the time from which `next` was
/// computed.
async fn wait(
    relay: &Relay,
    in_flight: &mut InFlight,
    (mut next, seen): (Option<Timestamp>, Timestamp),
    stopped: &mut watch::Receiver<bool>,
) -> std::ops::ControlFlow<()> {
    use std::ops::ControlFlow::{Break, Continue};
    loop {
        let due = async {
            match next {
                Some(at) => relay.0.store.clock().sleep_until_or_less(at, seen).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return Break(()),
            arrived = relay.0.wakes.arrived() => {
                if !in_flight.can_wait(arrived) {
                    return Continue(());
                }
            }
            () = due => return Continue(()),
            Some(done) = in_flight.tasks.join_next() => {
                match done {
                    Ok(done) => {
                        in_flight.finished(&done);
                        relay.0.in_hand.send_replace(in_flight.ids.len());
                        next = next.into_iter().chain(done.due_again).min();
                    }
                    // Panics are caught in the task, so this error means that the runtime is
                    // shutting down.
                    Err(error) => tracing::error!(%error, "a task of the intake failed"),
                }
                if in_flight.wants_more() {
                    return Continue(());
                }
            }
        }
    }
}

/// Starts the work that is due at `now`. Returns when the next work is due.
async fn fetch(relay: &Relay, in_flight: &mut InFlight, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    if in_flight.suspects.keep_others_back(now, in_flight.tasks.len()) {
        if !in_flight.tasks.is_empty() {
            return Ok(None);
        }
        if let Some(suspect) = in_flight.suspects.next(relay, now).await? {
            in_flight.start(relay, suspect);
            return Ok(None);
        }
    }
    let store = &relay.0.store;
    // Work of busy registries is not read, because it could not start.
    let busy = in_flight.busy_registries();
    let but: Vec<&str> = busy.iter().map(String::as_str).collect();
    let missing = store.missing_facts(now, PER_REGISTRY, &but).await?.into_iter().map(IntakeWork::MissingFact);
    let updates = store.due_updates(now, PER_REGISTRY, &but).await?.into_iter().map(IntakeWork::Update);
    let events = store.due_events(now, PER_REGISTRY, &but).await?.into_iter().map(IntakeWork::Event);
    in_flight.more.clear();
    in_flight.more.extend(busy);
    let mut fetched: HashMap<String, u32> = HashMap::new();
    let mut new = Vec::new();
    for work in missing.chain(updates).chain(events) {
        let count = fetched.entry(work.registry().to_owned()).or_default();
        *count += 1;
        if *count >= PER_REGISTRY {
            in_flight.more.insert(work.registry().to_owned());
        }
        if !in_flight.ids.contains(work.id()) {
            new.push(work);
        }
    }
    in_flight.suspects.count(relay, &new).await?;
    new.into_iter().for_each(|work| in_flight.start(relay, work));
    if in_flight.tasks.is_empty()
        && let Some(suspect) = in_flight.suspects.next(relay, now).await?
    {
        in_flight.start(relay, suspect);
    }
    relay.0.in_hand.send_replace(in_flight.ids.len());
    let next = store.next_attempt(now).await?;
    Ok(next.into_iter().chain(in_flight.suspects.patience()).min())
}

impl Relay {
    async fn work(self, work: IntakeWork) -> Done {
        let (id, registry) = (work.id().to_owned(), work.registry().to_owned());
        let processed = async {
            match &work {
                IntakeWork::Event(event) => self.process_event(event).await,
                IntakeWork::Update(update) => self.process_update(update).await,
                IntakeWork::MissingFact(update) => self.fetch_missing_facts(update).await,
            }
        };
        let result = match AssertUnwindSafe(processed).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => {
                let panic = crate::telemetry::panic_text(&*panic);
                tracing::error!(id, panic, "a task of the intake failed: please report this");
                let reason = format!("a defect in Tagrelay, please report it: {panic}");
                self.give_up(&work, reason, true).await.map(|()| None)
            }
        };
        let (due_again, stored) = match result {
            Ok(due_again) => (due_again, true),
            Err(error) => {
                tracing::error!(%error, id, "facts cannot be stored; retrying");
                tokio::time::sleep(STORE_PAUSE).await;
                (Some(self.now()), false)
            }
        };
        Done { id, registry, due_again, stored }
    }
}
