//! Ends wait causes at their time: holds and freezes that expire, windows that close, rejected pushes that are due.
//!
//! Whether an update may go is decided in the store's transactions and by the branch writer. This task only triggers
//! the review at the right time. It computes the next time after each review, so changes of the clock or the settings
//! need no special handling.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::domain::{Blocks, FrozenBy};
use crate::relay::Relay;
use crate::store::StoreError;

/// The pause if the store does not answer.
const STORE_PAUSE: SignedDuration = SignedDuration::from_secs(1);

pub(in crate::relay) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let mut open_windows = HashMap::new();
    // Wait causes may have ended while no process ran, or because the settings changed.
    let mut review = true;
    while !*stopped.borrow() {
        let clock = relay.0.store.clock();
        let seen = clock.now();
        let next = match look(&relay, &mut open_windows, seen, review).await {
            Ok(next) => {
                review = false;
                next
            }
            Err(error) => {
                tracing::error!(%error, "wait causes cannot be read; retrying");
                seen.checked_add(STORE_PAUSE).ok()
            }
        };
        let due = async {
            match next {
                Some(at) => clock.sleep_until_or_less(at, seen).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = relay.0.wakes.waits.notified() => {}
            () = due => {}
        }
    }
}

/// Ends the wait causes that are over at `now`, and records freeze windows that opened or closed.
///
/// Returns the time of the next change; `None`: there is none.
async fn look(
    relay: &Relay,
    open_windows: &mut HashMap<String, String>,
    now: Timestamp,
    review: bool,
) -> Result<Option<Timestamp>, StoreError> {
    let store = &relay.0.store;
    // Read before the review, so that a change during the review is not missed.
    let next = store.next_wait_change(now).await?;
    if next.due || review {
        store.review_waits().await?;
    }
    let blocks = store.blocks().await?;
    let open = windows(&blocks, now);
    for (environment, reason) in open.iter().filter(|(name, _)| !open_windows.contains_key(*name)) {
        store.record_freeze_change(environment, "frozen", Some(reason.clone())).await?;
    }
    for environment in open_windows.keys().filter(|name| !open.contains_key(*name)) {
        if blocks.frozen(environment, now).is_none() {
            store.record_freeze_change(environment, "thawed", None).await?;
        }
    }
    *open_windows = open;
    Ok(next.at)
}

/// Returns the environments with an open freeze window, each with its explanation.
fn windows(blocks: &Blocks, now: Timestamp) -> HashMap<String, String> {
    let is_window = |by: &FrozenBy| matches!(by, FrozenBy::Window { .. });
    let frozen = blocks.all_frozen(now).into_iter().filter(|frozen| frozen.by.iter().any(is_window));
    frozen.map(|frozen| (frozen.environment.clone(), frozen.explanation())).collect()
}
