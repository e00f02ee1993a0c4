//! Waiting for calm before a push, for people who want fewer commits.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Relay;
use super::branch::Branch;
use super::writer::MAX_BATCH;
use crate::store::{StoreError, Update};

/// A stream of updates that never ends holds them up for so many quiet periods at the most.
const MOST_PERIODS: u32 = 10;

/// How many times in a quiet period the store is asked what there is, at the most.
const LOOKS: u32 = 10;

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
