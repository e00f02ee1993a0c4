//! Deletes old ended rows from the store, in small steps.

use std::time::Duration;

use tokio::sync::watch;

use crate::relay::Relay;

/// The time from the start to the first round, and between rounds.
const TIMES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// The pause between two steps, for other writers of the store.
const PAUSE: Duration = Duration::from_millis(50);

pub(in crate::relay) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let mut pause = TIMES.0;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match relay.0.store.forget(&relay.0.retention, relay.now()).await {
            Ok(true) => PAUSE,
            Ok(false) => TIMES.1,
            Err(error) => {
                tracing::warn!(%error, "old rows cannot be deleted from the store");
                TIMES.1
            }
        };
    }
}
