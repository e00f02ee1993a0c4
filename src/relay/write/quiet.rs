//! Waits for calm before a push: because the settings ask for fewer commits, and in a burst, where fewer pushes end sooner.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::{MAX_UPDATES, Writer};
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
    /// Waits for calm, unless a promotion or rollback is pending.
    pub(super) async fn wait_for_calm(&self, stopped: &mut watch::Receiver<bool>) -> Result<(), StoreError> {
        let gathering = self.gathering();
        let period = self.branch.writing().quiet_period;
        if gathering.is_none() && period.is_zero() {
            return Ok(());
        }
        let pending = self.relay.0.store.pending(&self.environments).await?;
        if pending.all == 0 || pending.all >= u64::from(MAX_UPDATES) || pending.requested > 0 {
            return Ok(());
        }
        if let Some(longest) = gathering {
            self.gather(longest, stopped).await?;
        }
        if period.is_zero() { Ok(()) } else { self.wait_for_quiet_period(period, pending.all, stopped).await }
    }

    /// Returns until when, and for how long without news, the writer waits for the intake; `None`: it does not.
    fn gathering(&self) -> Option<(Instant, Duration)> {
        let LastPush { ended, took } = self.last_push?;
        let longest = took.min(MOST_GATHERING);
        let end = ended + longest;
        (end > Instant::now() && *self.relay.0.in_hand.borrow() > 0).then_some((end, longest / GATHERING_LOOKS))
    }

    /// Waits until the intake has nothing in hand, or lets nothing go for a moment.
    ///
    /// The first update of a burst goes at once. What arrives during that push would leave with the next one however little it
    /// is, and each push costs the server the same. So the next one waits while the intake is busy, but not longer than the last
    /// push took.
    async fn gather(
        &self,
        (end, look): (Instant, Duration),
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let mut in_hand = self.relay.0.in_hand.subscribe();
        while Instant::now() < end && !*stopped.borrow() {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep_until(end.into()) => break,
                is_calm = calm(&mut in_hand, &self.branch.wake, look) => if is_calm { break },
            }
            // A burst wakes the writer for each update, and reading the store is not free.
            tokio::time::sleep(look / GATHERING_LOOKS).await;
            if self.relay.0.store.pending(&self.environments).await?.requested > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Waits until nothing new has arrived for the quiet period of the branch.
    async fn wait_for_quiet_period(
        &self,
        period: Duration,
        mut known: u64,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let end = Instant::now() + period.saturating_mul(MOST_PERIODS);
        let mut quiet_at = Instant::now() + period;
        while !*stopped.borrow() {
            tokio::select! {
                () = tokio::time::sleep_until(quiet_at.min(end).into()) => break,
                _ = stopped.wait_for(|stop| *stop) => break,
                () = self.branch.wake.notified() => {}
            }
            tokio::time::sleep((period / LOOKS).min(Duration::from_millis(100))).await;
            let pending = self.relay.0.store.pending(&self.environments).await?;
            if pending.all >= u64::from(MAX_UPDATES) || pending.requested > 0 {
                break;
            }
            if pending.all != known {
                (known, quiet_at) = (pending.all, Instant::now() + period);
            }
        }
        Ok(())
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
    async fn wait_ends_when_the_intake_is_idle_or_adds_nothing() {
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
