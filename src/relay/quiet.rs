//! Waiting for calm before a push: for people who want fewer commits, and in a burst, where fewer pushes are sooner done.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Relay;
use super::branch::Branch;
use super::writer::MAX_BATCH;
use crate::store::{StoreError, Update};

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

/// Returns what is pending once the intake has nothing in its hands, or has let nothing go for a moment.
///
/// The first update of a burst goes at once. What comes while that is pushed would leave with the next push however
/// little it is, and each costs the server the same: so the next one waits while the intake is busy, and never longer
/// than the last one took. Promotions and rollbacks wait for nobody.
pub(super) async fn gather(
    relay: &Relay,
    branch: &Branch,
    environments: &[String],
    pending: Vec<Update>,
    last: Option<LastPush>,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Vec<Update>, StoreError> {
    let mut in_hand = relay.0.in_hand.subscribe();
    let Some(LastPush { ended, took }) = last else { return Ok(pending) };
    let (end, look) = (ended + took.min(MOST_GATHERING), took.min(MOST_GATHERING) / GATHERING_LOOKS);
    if end <= Instant::now() || *in_hand.borrow() == 0 || !may_wait(&pending) {
        return Ok(pending);
    }
    while Instant::now() < end && !*stopped.borrow() {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep_until(end) => break,
            is_calm = calm(&mut in_hand, &branch.wake, look) => if is_calm { break },
        }
        // A burst rings the bell for each update, and looking is not free.
        tokio::time::sleep(look / GATHERING_LOOKS).await;
        if relay.0.store.is_request_pending(environments).await? {
            break;
        }
    }
    relay.0.store.pending_updates(environments, MAX_BATCH).await
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
    use super::*;

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
