//! Waiting for calm before a push: for people who want fewer commits, and in a burst, where fewer pushes are sooner done.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Relay;
use super::branch::Branch;
use super::writer::MAX_BATCH;
use crate::store::{Store, StoreError, Update};

/// A stream of updates that never ends holds them up for so many quiet periods at the most.
const MOST_PERIODS: u32 = 10;

/// How many times in a quiet period the store is asked what there is, at the most.
const LOOKS: u32 = 10;

/// The longest that a push waits for what the intake is deciding.
const MOST_GATHERING: Duration = Duration::from_millis(250);

/// The part of the time that the last push took in which something new has to come for the next one to wait on.
const GATHERING_LOOKS: u32 = 4;

/// The push before.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastPush {
    pub(super) ended: Instant,
    pub(super) took: Duration,
}

/// What tells that something is coming.
pub(super) struct Bells<'a> {
    /// How many events the intake has in its hands.
    pub(super) in_hand: watch::Receiver<usize>,
    /// Rung for each update.
    pub(super) wake: &'a Notify,
}

/// Returns what is pending once the intake has nothing in its hands, or has let nothing go for a moment.
///
/// The first update of a burst goes at once. What comes while that is pushed would leave with the next push however
/// little it is, and each costs the server the same: so the next one waits while the intake is busy, and never longer
/// than the last one took. Promotions and rollbacks wait for nobody.
pub(super) async fn gather(
    store: &Store,
    Bells { mut in_hand, wake }: Bells<'_>,
    environments: &[String],
    pending: Vec<Update>,
    last: Option<LastPush>,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Vec<Update>, StoreError> {
    let Some(LastPush { ended, took }) = last else { return Ok(pending) };
    let (end, look) = (ended + took.min(MOST_GATHERING), took.min(MOST_GATHERING) / GATHERING_LOOKS);
    if end <= Instant::now() || *in_hand.borrow() == 0 || !may_wait(&pending) {
        return Ok(pending);
    }
    while Instant::now() < end && !*stopped.borrow() {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep_until(end) => break,
            is_calm = calm(&mut in_hand, wake, look) => if is_calm { break },
        }
        // A burst rings the bell for each update, and looking is not free.
        tokio::time::sleep(look / GATHERING_LOOKS).await;
        if store.is_request_pending(environments).await? {
            break;
        }
    }
    store.pending_updates(environments, MAX_BATCH).await
}

/// Returns whether nothing is in hand any more, or nothing has rung for so long; else once it rings.
async fn calm(in_hand: &mut watch::Receiver<usize>, wake: &Notify, look: Duration) -> bool {
    tokio::select! {
        _ = in_hand.wait_for(|count| *count == 0) => true,
        rung = tokio::time::timeout(look, wake.notified()) => rung.is_err(),
    }
}

/// Returns what is pending once nothing new has come for the quiet period of the branch. Promotions and rollbacks wait
/// for nobody, and take along what is there.
pub(super) async fn wait(
    relay: &Relay,
    branch: &Branch,
    environments: &[String],
    mut pending: Vec<Update>,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Vec<Update>, StoreError> {
    let period = branch.writing().quiet_period;
    let end = Instant::now() + period.saturating_mul(MOST_PERIODS);
    let mut quiet_at = Instant::now() + period;
    while may_wait(&pending) && !period.is_zero() && !*stopped.borrow() {
        tokio::select! {
            () = tokio::time::sleep_until(quiet_at.min(end)) => break,
            _ = stopped.wait_for(|stop| *stop) => break,
            () = branch.wake.notified() => {}
        }
        // A burst rings the bell for each update, and looking is not free.
        tokio::time::sleep((period / LOOKS).min(Duration::from_millis(100))).await;
        let known = pending.len();
        pending = relay.0.store.pending_updates(environments, MAX_BATCH).await?;
        if pending.len() != known {
            quiet_at = Instant::now() + period;
        }
    }
    Ok(pending)
}

fn may_wait(pending: &[Update]) -> bool {
    let is_full = pending.len() >= MAX_BATCH as usize;
    !is_full && pending.iter().all(|update| update.cause.is_event())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::store::{
        Decision, NewEvent, NewRequest, NewRequestedUpdate, PlannedUpdate, RequestKind, StoreSettings, UpdateState,
        Verdict,
    };
    use crate::telemetry::TraceContext;

    /// What gathers, and what it hears.
    struct Room {
        _folder: tempfile::TempDir,
        store: Store,
        in_hand: watch::Sender<usize>,
        wake: Arc<Notify>,
        stop: watch::Sender<bool>,
    }

    impl Room {
        /// An update is pending, and two events are in hand.
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&StoreSettings { path: folder.path().join("tagrelay.db") }).await.unwrap();
            let (in_hand, stop) = (watch::Sender::new(2), watch::Sender::new(false));
            let room = Self { _folder: folder, store, in_hand, wake: Arc::default(), stop };
            room.decide("one").await;
            room
        }

        /// Makes a pending update of a push event, and rings.
        async fn decide(&self, name: &str) {
            let event = NewEvent {
                repository: name.parse().unwrap(),
                tag: "v1".parse().unwrap(),
                digest: None,
                pushed_at: None,
                duplicate_key: name.to_owned(),
                duplicates_since: Timestamp::UNIX_EPOCH,
                trace: TraceContext::random(),
            };
            let event_id = self.store.receive("hub", vec![event]).await.unwrap().remove(0).id;
            let planned = PlannedUpdate {
                environment: "staging".to_owned(),
                mark: None,
                verdict: Verdict::Go,
                decided_by: "arrival",
                decided_because: String::new(),
                compared: Vec::new(),
            };
            let version = crate::image::Version::tagged("v1".parse().unwrap(), None);
            let (matched_rule, updates) = ("**".to_owned(), vec![planned]);
            self.store.decide(Decision { event_id, matched_rule, version, note: None, updates }).await.unwrap();
            self.wake.notify_one();
        }

        /// Asks for a promotion of an image that is confirmed already.
        async fn promote(&self, name: &str) {
            let update = NewRequestedUpdate {
                repository: name.parse().unwrap(),
                version: crate::image::Version::tagged("v1".parse().unwrap(), None),
                state: UpdateState::Pending,
                reason: None,
                running: Vec::new(),
            };
            let request = NewRequest {
                kind: RequestKind::Promotion,
                environment: "staging".to_owned(),
                source: None,
                actor: "ops".to_owned(),
                reason: None,
                idempotency_key: None,
                fingerprint: name.to_owned(),
                updates: vec![update],
                hold: None,
                trace: TraceContext::random(),
                overridden: None,
                overrides: false,
            };
            self.store.make_request(request).await.unwrap();
            self.wake.notify_one();
        }

        async fn pending(&self) -> Vec<Update> {
            self.store.pending_updates(&["staging".to_owned()], MAX_BATCH).await.unwrap()
        }

        /// Gathers after a push that took so long: the images, and how long that took.
        async fn gather(&self, took: Option<Duration>) -> (Vec<String>, Duration) {
            let begun = Instant::now();
            let bells = Bells { in_hand: self.in_hand.subscribe(), wake: &self.wake };
            let last = took.map(|took| LastPush { ended: begun, took });
            let (pending, mut stopped) = (self.pending().await, self.stop.subscribe());
            let environments = ["staging".to_owned()];
            let gathered = gather(&self.store, bells, &environments, pending, last, &mut stopped).await.unwrap();
            let names = gathered.iter().map(|update| update.repository.name().to_owned());
            (names.collect(), begun.elapsed())
        }
    }

    /// Longer than any push is waited for.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn nothing_is_gathered_where_nothing_is_to_come_or_somebody_waits() {
        let room = Room::new().await;
        // The bell of the first is still ringing, and nothing was pushed yet, or what was pushed took no time.
        for took in [None, Some(Duration::ZERO)] {
            let (names, _) = room.gather(took).await;
            assert_eq!(names, ["one"]);
        }
        room.in_hand.send_replace(0);
        let (names, took) = room.gather(Some(LONG)).await;
        assert!(names == ["one"] && took < MOST_GATHERING, "{names:?} {took:?}");
        // A promotion is pending: it goes with what is there, though more is to come.
        room.in_hand.send_replace(2);
        room.promote("asked").await;
        let (names, took) = room.gather(Some(LONG)).await;
        assert!(names == ["one", "asked"] && took < MOST_GATHERING, "{names:?} {took:?}");
    }

    #[tokio::test]
    async fn what_the_intake_has_in_hand_leaves_with_the_next_push() {
        let room = Room::new().await;
        let comes = async {
            room.decide("two").await;
            room.decide("three").await;
            room.in_hand.send_replace(0);
        };
        let ((names, took), ()) = tokio::join!(room.gather(Some(LONG)), comes);
        assert_eq!(names, ["one", "two", "three"], "{took:?}");
    }

    #[tokio::test]
    async fn a_push_waits_no_longer_than_the_last_one_took_and_not_for_a_stop() {
        // It rings and rings.
        let room = Room::new().await;
        let wake = Arc::clone(&room.wake);
        let ringing = tokio::spawn(async move {
            loop {
                wake.notify_one();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let (_, took) = room.gather(Some(LONG)).await;
        // The last look at the store comes on top, on a machine that is busy.
        assert!(took >= MOST_GATHERING && took < MOST_GATHERING * 20, "{took:?}");
        let (_, took) = room.gather(Some(Duration::from_millis(40))).await;
        assert!(took >= Duration::from_millis(40), "{took:?}");
        room.stop.send_replace(true);
        let (names, took) = room.gather(Some(LONG)).await;
        assert!(names == ["one"] && took < MOST_GATHERING, "{took:?}");
        ringing.abort();
    }

    #[tokio::test]
    async fn a_promotion_that_comes_meanwhile_ends_the_gathering() {
        let room = Room::new().await;
        let ((names, _), ()) = tokio::join!(room.gather(Some(LONG)), room.promote("asked"));
        assert_eq!(names, ["one", "asked"]);
        // It did not wait for what is in hand.
        assert_eq!(*room.in_hand.borrow(), 2);
    }

    #[tokio::test]
    async fn calm_is_when_nothing_is_in_hand_or_nothing_rings() {
        let (in_hand, wake) = (watch::Sender::new(3), Notify::new());
        // A registry hangs: nobody waits for it.
        let (begun, look) = (Instant::now(), Duration::from_millis(25));
        assert!(calm(&mut in_hand.subscribe(), &wake, look).await);
        assert!(begun.elapsed() >= look);

        // It rings, or the last is decided: nobody waits for the rest of the minute.
        let look = Duration::from_secs(60);
        wake.notify_one();
        assert!(!calm(&mut in_hand.subscribe(), &wake, look).await);
        let mut hands = in_hand.subscribe();
        let (is_calm, _) = tokio::join!(calm(&mut hands, &wake, look), async { in_hand.send_replace(0) });
        assert!(is_calm && begun.elapsed() < look);
    }
}
