//! Cleans up after environments that were removed from the settings: refuses their updates, which no branch writer
//! claims, and ends their freezes, which would apply again if the name came back. Holds stay: they protect a rollback
//! if the name comes back.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{BlockKind, Party, UpdateInput};
use crate::relay::{Branch, Relay};
use crate::store::{EndedUpdate, StoreError};

/// The time between two checks. After the first one, updates of removed environments can come only from events
/// that were in progress.
const INTERVAL: Duration = Duration::from_secs(30);

const AT_ONCE: u32 = 1000;

/// How long a push attempt of a removed environment is left to the writer of its branch. If the branch was also
/// removed, no writer settles it.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(600);

pub(in crate::relay) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let known: Vec<String> = relay.0.branches.iter().flat_map(Branch::environment_names).collect();
    // Once for each generation: a name that comes back must not find the soak times of before.
    if !known.is_empty()
        && let Err(error) = relay.0.store.forget_version_runs_elsewhere(&known).await
    {
        tracing::error!(%error, "the versions that removed environments ran stay recorded");
    }
    while !*stopped.borrow() {
        if let Err(error) = relay.end_retired().await {
            tracing::error!(%error, "updates of removed environments cannot be ended; retrying");
        }
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

impl Relay {
    async fn end_retired(&self) -> Result<(), StoreError> {
        let known: Vec<String> = self.0.branches.iter().flat_map(Branch::environment_names).collect();
        if known.is_empty() {
            // Without environments in the settings, none counts as removed.
            return Ok(());
        }
        let store = &self.0.store;
        let left = store.open_updates_elsewhere(&known, AT_ONCE).await?;
        let is_all = left.len() < AT_ONCE as usize;
        // An aborted push of these updates may still land; the writer of the branch settles it.
        let since = self.now().checked_sub(CONFIRMED_WITHIN).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let unconfirmed = store.unconfirmed(since).await?;
        let (unconfirmed, left): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|update| unconfirmed.contains(&update.id));
        let is_all = is_all && unconfirmed.is_empty();
        let ended = left.into_iter().map(|update| EndedUpdate {
            id: update.id,
            input: UpdateInput::Refuse,
            reason: Some(format!("the settings no longer have the environment `{}`", update.environment)),
            party: Some(Party::Rules),
        });
        let ended: Vec<EndedUpdate> = ended.collect();
        if !ended.is_empty() {
            store.end_updates(ended).await?;
        }
        if !is_all {
            // Freezes end after every update that waits for them was refused.
            return Ok(());
        }
        for freeze in store.end_blocks_elsewhere(&known, BlockKind::Freeze).await? {
            let (environment, reason) = (&freeze.environment, freeze.reason.as_deref());
            tracing::warn!(freeze = %freeze.id, environment, actor = %freeze.actor, reason, "freeze ended: the settings no longer have the environment");
        }
        Ok(())
    }
}
