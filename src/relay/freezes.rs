//! Freezes that begin and end: what they keep back waits, and goes when nothing keeps it back any more.
//!
//! Whether something is frozen is decided in the store's transactions. The task here only looks at the right time, so that
//! what waits does not wait until something else happens. When that is, it works out anew each time it looks, by the clock as
//! it is then: a clock that is set, and settings that change, need nothing else.

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{Relay, RequestError, Subject};
use crate::policy::FreezeCalendar;
use crate::store::{Freeze, FreezeReview, Frozen, NewFreeze, StoreError, Update, UpdateState};

/// How long to wait when the store does not answer.
const STORE_PAUSE: SignedDuration = SignedDuration::from_secs(1);

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let mut known = Vec::new();
    // What ended while nobody looked has to go: at the beginning, and when somebody says so.
    let mut is_due = true;
    while !*stopped.borrow() {
        let clock = relay.0.store.clock();
        let seen = clock.now();
        let next = match look(&relay, &mut known, is_due, seen).await {
            Ok(next) => {
                is_due = false;
                next
            }
            Err(error) => {
                tracing::error!(%error, "freezes cannot be looked at; trying again");
                is_due = true;
                seen.checked_add(STORE_PAUSE).ok()
            }
        };
        let doze = async {
            match next {
                Some(at) => clock.doze_until(at, seen).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = relay.0.freezes_changed.notified() => is_due = true,
            () = doze => {}
        }
    }
}

/// Reviews what waits where something has changed since the last look. Returns when something will change by itself.
///
/// Both are about the same moment, and read before the review: what ends meanwhile is still ahead then.
async fn look(
    relay: &Relay,
    known: &mut Vec<Frozen>,
    is_due: bool,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let frozen = relay.0.store.frozen_at(now).await?;
    let next = relay.0.store.next_freeze_change(now).await?;
    if is_due || frozen != *known {
        relay.review_freezes().await?;
        relay.tell_freezes(known, &frozen);
        *known = frozen;
    }
    Ok(next)
}

/// "Nothing automatic in this environment."
#[derive(Debug, Clone)]
pub struct FreezeOrder {
    /// The environment.
    pub environment: String,
    /// Why.
    pub reason: String,
    /// The name of the API token.
    pub actor: String,
    /// When it ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Relay {
    /// Freezes an environment until it is thawed.
    ///
    /// # Errors
    ///
    /// When there is no such environment, or it could not be stored.
    pub async fn freeze(&self, order: FreezeOrder) -> Result<Freeze, RequestError> {
        self.branch(&order.environment)?;
        let FreezeOrder { environment, reason, actor, expires_at } = order;
        let made = self.0.store.freeze(NewFreeze { environment, reason, actor, expires_at }).await?;
        tracing::info!(freeze = %made.id, environment = %made.environment, actor = %made.actor, reason = %made.reason, "freeze made");
        self.freezes_changed();
        Ok(made)
    }

    /// Ends a freeze. What waited for it goes. Returns `None` when there is no active freeze of that id.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn thaw(&self, id: &str, actor: &str) -> Result<Option<Freeze>, StoreError> {
        let thawed = self.0.store.thaw(id, actor).await?;
        if let Some(freeze) = &thawed {
            tracing::info!(freeze = %freeze.id, environment = %freeze.environment, actor, "freeze ended");
            self.wake_writer(&freeze.environment);
            self.freezes_changed();
        }
        Ok(thawed)
    }

    fn freezes_changed(&self) {
        // Other settings may have come into force since the request did.
        if let Some(current) = self.0.lineage.current() {
            current.0.freezes_changed.notify_one();
        }
    }

    /// Lets go what nothing keeps back any more, and parks what is frozen.
    pub(super) async fn review_freezes(&self) -> Result<(), StoreError> {
        let FreezeReview { released, parked } = self.0.store.review_freezes().await?;
        for environment in &released {
            tracing::info!(environment, "what waited goes");
            self.wake_writer(environment);
        }
        for environment in &parked {
            tracing::info!(environment, "what was pending waits");
        }
        Ok(())
    }

    /// Tells that an update waits, for those who wait for its end.
    pub(super) fn tell_waiting(&self, update: &Update) {
        let Update { id, cause_id, environment, repository, version, trace, .. } = update;
        tracing::info!(update = id, environment, %repository, %version, trace_id = %trace.trace_id(), "update waits");
        self.notify(Subject::Update {
            id: id.clone(),
            cause_id: cause_id.clone(),
            environment: environment.clone(),
            repository: repository.to_string(),
            version: version.short(),
            state: UpdateState::Waiting.to_string(),
            commit: None,
            reason: None,
        });
    }

    fn tell_freezes(&self, before: &[Frozen], now: &[Frozen]) {
        let is_in = |list: &[Frozen], environment: &str| list.iter().any(|frozen| frozen.environment == environment);
        for frozen in now.iter().filter(|frozen| !is_in(before, &frozen.environment)) {
            let reason = frozen.explanation();
            tracing::info!(environment = %frozen.environment, reason, "environment frozen");
            self.notify_freeze(&frozen.environment, "frozen", Some(reason));
        }
        for frozen in before.iter().filter(|frozen| !is_in(now, &frozen.environment)) {
            tracing::info!(environment = %frozen.environment, "environment thawed");
            self.notify_freeze(&frozen.environment, "thawed", None);
        }
    }

    fn notify_freeze(&self, environment: &str, state: &str, reason: Option<String>) {
        self.notify(Subject::Freeze { environment: environment.to_owned(), state: state.to_owned(), reason });
    }

    /// Returns the windows of the settings.
    pub(super) fn freeze_calendar(&self) -> FreezeCalendar {
        let environments = self.0.branches.iter().flat_map(super::Branch::environments);
        FreezeCalendar::new(environments.map(|environment| (environment.name.clone(), environment.freezes.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::policy::{FreezeCalendar, FreezeSchedule, FreezeSpan, FreezeWindow};
    use crate::relay::{CatchUpSettings, Notice, Parts};
    use crate::store::{Decision, NewEvent, PlannedUpdate, Retention, Store, StoreSettings, Verdict};
    use crate::telemetry::{Metrics, TraceContext, Traces};

    fn at(hour: u8) -> Timestamp {
        format!("2026-11-23T{hour:02}:00:00Z").parse().unwrap()
    }

    fn window(from: u8, until: u8) -> FreezeCalendar {
        let span = FreezeSpan::Once { from: at(from), until: at(until) };
        let schedule = FreezeSchedule::new(vec![FreezeWindow { span, reason: None }]);
        FreezeCalendar::new([("staging".to_owned(), schedule)])
    }

    /// Decides an event, and returns its id.
    async fn decided(store: &Store) -> String {
        let version = crate::image::Version::tagged("a".parse().unwrap(), None);
        let event = NewEvent {
            repository: "uyou/user-service".parse().unwrap(),
            tag: "a".parse().unwrap(),
            digest: None,
            pushed_at: None,
            duplicate_key: String::new(),
            duplicates_since: Timestamp::UNIX_EPOCH,
            trace: TraceContext::random(),
        };
        let event_id = store.receive("hub", vec![event]).await.unwrap().remove(0).id;
        let planned = PlannedUpdate {
            environment: "staging".to_owned(),
            mark: None,
            verdict: Verdict::Go,
            decided_by: "arrival",
            decided_because: String::new(),
            compared: Vec::new(),
        };
        let matched_rule = "uyou/*".to_owned();
        let updates = vec![planned];
        store
            .decide(Decision { event_id: event_id.clone(), matched_rule, version, note: None, updates })
            .await
            .unwrap();
        event_id
    }

    async fn heard(notices: &mut tokio::sync::broadcast::Receiver<Notice>, expected: &str) {
        let heard = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                if let Subject::Freeze { state, .. } = notices.recv().await.unwrap().subject {
                    return state;
                }
            }
        });
        assert_eq!(heard.await.unwrap(), expected);
    }

    fn start(store: &Store) -> (Relay, crate::relay::Running) {
        crate::registry::install_tls_provider();
        let day = Duration::from_secs(24 * 3600);
        Relay::start(Parts {
            store: store.clone(),
            registries: Arc::new(crate::registry::Registries::new(Vec::new()).unwrap()),
            images: Vec::new(),
            sources: Arc::new(crate::source_repo::Sources::new(Vec::new())),
            branches: Vec::new(),
            following: None,
            metrics: Metrics::new(),
            traces: Traces::off(),
            retention: Retention { ended: day, history: day },
            catch_up: CatchUpSettings { every: None, ..CatchUpSettings::default() },
        })
    }

    #[tokio::test]
    async fn a_hold_ends_by_the_clock_alone() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::stopped_at(at(8));
        let settings = StoreSettings { path: folder.path().join("tagrelay.db") };
        let store = Store::open_with(&settings, clock.clone()).await.unwrap();
        let event = decided(&store).await;
        let hold = crate::store::NewHold {
            environment: "staging".to_owned(),
            repository: "uyou/user-service".parse().unwrap(),
            reason: None,
            actor: "ops".to_owned(),
            expires_at: Some(at(10)),
        };
        store.hold(hold).await.unwrap();
        let state = async || store.updates_of(&event).await.unwrap()[0].state;
        assert_eq!(state().await, UpdateState::Waiting);
        let (_relay, running) = start(&store);
        clock.set(at(9));
        // By the time that the intake looks again it has seen nine o'clock.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(state().await, UpdateState::Waiting);
        clock.set(at(10));
        let goes = async {
            while state().await != UpdateState::Pending {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Less than what the intake would look after in any case.
        tokio::time::timeout(Duration::from_secs(10), goes).await.unwrap();
        running.stop().await;
    }

    #[tokio::test]
    async fn windows_that_begin_and_end_are_noticed_by_the_clock_alone() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::stopped_at(at(8));
        let settings = StoreSettings { path: folder.path().join("tagrelay.db") };
        let store = Store::open_with(&settings, clock.clone()).await.unwrap();
        let event = decided(&store).await;
        let (relay, running) = start(&store);
        let mut notices = relay.notices();
        let state = async || store.updates_of(&event).await.unwrap()[0].state;
        // As new settings do it.
        store.set_freeze_calendar(window(10, 14));
        relay.freezes_changed();
        clock.set(at(10));
        heard(&mut notices, "frozen").await;
        assert_eq!(state().await, UpdateState::Waiting);
        // Somebody corrects the clock of the machine.
        clock.set(at(9));
        heard(&mut notices, "thawed").await;
        assert_eq!(state().await, UpdateState::Pending);
        clock.set(at(13));
        heard(&mut notices, "frozen").await;
        assert_eq!(state().await, UpdateState::Waiting);
        clock.set(at(14));
        heard(&mut notices, "thawed").await;
        assert_eq!(state().await, UpdateState::Pending);

        let order = FreezeOrder {
            environment: "staging".to_owned(),
            reason: "audit".to_owned(),
            actor: "ops".to_owned(),
            expires_at: None,
        };
        assert!(matches!(relay.freeze(order).await, Err(RequestError::UnknownEnvironment { .. })));
        running.stop().await;
    }
}
