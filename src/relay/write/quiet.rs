//! Waits for calm before a push: because the settings ask for fewer commits, and in a burst, where fewer pushes end sooner.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::{MAX_UPDATES, Writer};
use crate::domain::Update;
use crate::store::StoreError;

/// A stream of updates that never ends delays a push by this many quiet periods at the most.
const MOST_PERIODS: u32 = 10;

/// How often in a quiet period the store is read at the most.
const LOOKS: u32 = 10;

/// The longest that a push waits for what the intake has in hand.
const MOST_GATHERING: Duration = Duration::from_millis(250);

/// The part of the last push's time in which something new has to arrive for the wait to go on.
const GATHERING_LOOKS: u32 = 4;

/// The push before.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastPush {
    pub(super) ended: Instant,
    pub(super) took: Duration,
}

impl Writer<'_> {
    /// Waits for calm, unless a promotion or rollback is pending. Returns whether more may be pending now.
    pub(super) async fn wait_for_calm(
        &self,
        pending: &[Update],
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<bool, StoreError> {
        let is_full = pending.len() >= MAX_UPDATES as usize;
        if is_full || pending.iter().any(|update| !update.cause.is_event()) {
            return Ok(false);
        }
        let gathered = self.gather(stopped).await?;
        let waited = self.wait_for_quiet_period(pending.len(), stopped).await?;
        Ok(gathered || waited)
    }

    /// Waits until the intake has nothing in hand, or lets nothing go for a moment.
    ///
    /// The first update of a burst goes at once. What arrives during that push would leave with the next one however little it
    /// is, and each push costs the server the same. So the next one waits while the intake is busy, but not longer than the last
    /// push took.
    async fn gather(&self, stopped: &mut watch::Receiver<bool>) -> Result<bool, StoreError> {
        let Some(LastPush { ended, took }) = self.last_push else { return Ok(false) };
        let most = took.min(MOST_GATHERING);
        let (end, look) = (ended + most, most / GATHERING_LOOKS);
        let mut in_hand = self.relay.0.in_hand.subscribe();
        if end <= Instant::now() || *in_hand.borrow() == 0 {
            return Ok(false);
        }
        while Instant::now() < end && !*stopped.borrow() {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep_until(end.into()) => break,
                is_calm = calm(&mut in_hand, &self.branch.wake, look) => if is_calm { break },
            }
            // A burst wakes the writer for each update, and reading the store is not free.
            tokio::time::sleep(look / GATHERING_LOOKS).await;
            if self.relay.0.store.is_request_pending(&self.environments).await? {
                break;
            }
        }
        Ok(true)
    }

    /// Waits until nothing new has arrived for the quiet period of the branch.
    async fn wait_for_quiet_period(
        &self,
        pending: usize,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<bool, StoreError> {
        let period = self.branch.writing().quiet_period;
        if period.is_zero() {
            return Ok(false);
        }
        let mut known = u64::try_from(pending).unwrap_or(u64::MAX);
        let end = Instant::now() + period.saturating_mul(MOST_PERIODS);
        let mut quiet_at = Instant::now() + period;
        while !*stopped.borrow() {
            tokio::select! {
                () = tokio::time::sleep_until(quiet_at.min(end).into()) => break,
                _ = stopped.wait_for(|stop| *stop) => break,
                () = self.branch.wake.notified() => {}
            }
            tokio::time::sleep((period / LOOKS).min(Duration::from_millis(100))).await;
            let store = &self.relay.0.store;
            let count = store.pending_count(&self.environments).await?;
            if count >= u64::from(MAX_UPDATES) || store.is_request_pending(&self.environments).await? {
                break;
            }
            if count != known {
                (known, quiet_at) = (count, Instant::now() + period);
            }
        }
        Ok(true)
    }
}

/// Returns whether the intake has nothing in hand any more, or has let nothing go for `look`; `false` once something arrives.
async fn calm(in_hand: &mut watch::Receiver<usize>, wake: &Notify, look: Duration) -> bool {
    tokio::select! {
        _ = in_hand.wait_for(|count| *count == 0) => true,
        woken = tokio::time::timeout(look, wake.notified()) => woken.is_err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calm_comes_when_the_intake_is_done_or_lets_nothing_go() {
        let (in_hand, wake) = (watch::Sender::new(2usize), Notify::new());
        let look = Duration::from_millis(25);
        assert!(calm(&mut in_hand.subscribe(), &wake, look).await, "nothing arrived for a look");
        wake.notify_one();
        assert!(!calm(&mut in_hand.subscribe(), &wake, Duration::from_secs(60)).await, "something arrived");
        let mut hands = in_hand.subscribe();
        let (is_calm, _) =
            tokio::join!(calm(&mut hands, &wake, Duration::from_secs(60)), async { in_hand.send_replace(0) });
        assert!(is_calm, "the intake is done");
    }
}
