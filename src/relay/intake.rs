//! Asks the registry whether events and requests are true, and makes pending updates of them.
//!
//! Each runs in a task of its own, a bounded number for each registry, so that a registry that is slow or away
//! holds up nobody else's images. A registry's "not now" goes back to the store with a time.

mod taking;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Relay;
use super::arrivals::News;
use crate::store::{Event, StoreError, Update};
pub(super) use taking::Asked;

/// How many events of one registry are looked at together.
const PER_REGISTRY: u32 = 64;

/// When fewer than this many of a registry are left, the next ones are fetched from the store.
const LOW_WATER: usize = 16;

/// How long registries may take for what they have been asked when the intake is to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How long to wait when the store does not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

enum Work {
    Event(Event),
    Update(Update),
}

impl Work {
    fn id(&self) -> &str {
        match self {
            Self::Event(event) => &event.id,
            Self::Update(update) => &update.id,
        }
    }

    fn registry(&self) -> &str {
        match self {
            Self::Event(event) => event.repository.registry(),
            Self::Update(update) => update.repository.registry(),
        }
    }
}

/// What is being worked on.
#[derive(Default)]
struct InFlight {
    tasks: JoinSet<Done>,
    ids: HashSet<String>,
    per_registry: HashMap<String, usize>,
    /// Registries of which the store may have more than was fetched.
    more: HashSet<String>,
    /// When the next hold ends, as of the last fetch. Whoever makes a hold wakes the intake.
    hold_expiry: Option<Timestamp>,
}

/// What a task was about, and when that is due again if it was put off.
struct Done {
    id: String,
    registry: String,
    due_again: Option<Timestamp>,
}

impl InFlight {
    fn finished(&mut self, done: &Done) {
        self.ids.remove(&done.id);
        if let Some(count) = self.per_registry.get_mut(&done.registry) {
            *count = count.saturating_sub(1);
        }
    }

    /// Returns the registries that have enough to do.
    fn busy_registries(&self) -> Vec<String> {
        self.per_registry.keys().filter(|registry| self.is_busy(registry)).cloned().collect()
    }

    fn is_busy(&self, registry: &str) -> bool {
        self.per_registry.get(registry).is_some_and(|count| *count >= PER_REGISTRY as usize)
    }

    /// Takes note of news. Returns whether they can wait until what is in flight has become less, so that a flood of
    /// events costs no look into the store for each.
    fn expects(&mut self, news: News) -> bool {
        if news.other || !news.registries.iter().all(|registry| self.is_busy(registry)) {
            return false;
        }
        self.more.extend(news.registries);
        true
    }

    fn wants_more(&self) -> bool {
        self.more.iter().any(|registry| self.per_registry.get(registry).copied().unwrap_or_default() < LOW_WATER)
    }
}

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let mut in_flight = InFlight::default();
    loop {
        let seen = relay.now();
        let next = match fetch(&relay, &mut in_flight, seen).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "the intake cannot read the store; trying again");
                Some(seen + STORE_PAUSE)
            }
        };
        if wait(&relay, &mut in_flight, (next, seen), &mut stopped).await.is_break() {
            break;
        }
    }
    // What a registry does not answer soon is asked again by whoever comes next: nothing is lost by not waiting.
    let ended = async { while in_flight.tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, ended).await;
    in_flight.tasks.shutdown().await;
    relay.0.in_hand.send_replace(0);
}

/// How long what is in the store may go unseen when nobody rings: clocks are set while holds wait for their end.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Waits until there is something to fetch: when `next` is there, or something has happened. The clock showed `seen` when it
/// was worked out.
async fn wait(
    relay: &Relay,
    in_flight: &mut InFlight,
    (mut next, seen): (Option<Timestamp>, Timestamp),
    stopped: &mut watch::Receiver<bool>,
) -> std::ops::ControlFlow<()> {
    use std::ops::ControlFlow::{Break, Continue};
    let look_again = tokio::time::Instant::now() + LOOK_AGAIN;
    loop {
        let due = async {
            match next {
                Some(at) => relay.0.store.clock().doze_until(at, seen).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return Break(()),
            news = relay.0.arrivals.wait() => {
                if !in_flight.expects(news) {
                    return Continue(());
                }
            }
            () = tokio::time::sleep_until(look_again) => return Continue(()),
            () = due => return Continue(()),
            Some(done) = in_flight.tasks.join_next() => {
                match done {
                    Ok(done) => {
                        in_flight.finished(&done);
                        relay.0.in_hand.send_replace(in_flight.ids.len());
                        // What was put off since the store was read.
                        next = next.into_iter().chain(done.due_again).min();
                    }
                    // Panics are caught where they happen, so that this says only that the runtime ends.
                    Err(error) => tracing::error!(%error, "a task of the intake failed"),
                }
                if in_flight.wants_more() {
                    return Continue(());
                }
            }
        }
    }
}

/// Starts what is due at `now`. Returns when something else will be.
async fn fetch(relay: &Relay, in_flight: &mut InFlight, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let store = &relay.0.store;
    if in_flight.hold_expiry.is_some_and(|at| at <= now) && store.expire_holds().await? > 0 {
        relay.0.branches.iter().for_each(|branch| branch.wake.notify_one());
    }
    // A registry that is busy gets nothing more, and what waits for it is not read again and again meanwhile.
    let busy = in_flight.busy_registries();
    let but: Vec<&str> = busy.iter().map(String::as_str).collect();
    let events = store.due_events(now, PER_REGISTRY, &but).await?.into_iter().map(Work::Event);
    let updates = store.due_updates(now, PER_REGISTRY, &but).await?.into_iter().map(Work::Update);
    in_flight.more.clear();
    in_flight.more.extend(busy);
    let mut fetched: HashMap<String, u32> = HashMap::new();
    for work in updates.chain(events) {
        let (id, registry) = (work.id().to_owned(), work.registry().to_owned());
        let count = fetched.entry(registry.clone()).or_default();
        *count += 1;
        if *count >= PER_REGISTRY {
            in_flight.more.insert(registry.clone());
        }
        if in_flight.ids.insert(id.clone()) {
            *in_flight.per_registry.entry(registry.clone()).or_default() += 1;
            let relay = relay.clone();
            in_flight.tasks.spawn(async move {
                let taken = AssertUnwindSafe(relay.take(&work)).catch_unwind().await;
                let result = match taken {
                    Ok(result) => result,
                    Err(panic) => relay.give_up(&work, crate::telemetry::panic_text(&*panic)).await.map(|()| None),
                };
                let due_again = result.unwrap_or_else(|error| {
                    tracing::error!(%error, id, "the store did not take what became of it; trying again");
                    Some(relay.now() + STORE_PAUSE)
                });
                Done { id, registry, due_again }
            });
        }
    }
    relay.0.in_hand.send_replace(in_flight.ids.len());
    let outlook = store.outlook(now).await?;
    in_flight.hold_expiry = outlook.next_hold_expiry;
    let next = [outlook.next_attempt, outlook.next_hold_expiry];
    Ok(next.into_iter().flatten().min())
}
