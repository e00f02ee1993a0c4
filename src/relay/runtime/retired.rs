//! Ends what is left of environments that the settings no longer have: their updates, which no branch writer claims, and their
//! freezes, which would come back with the name. Holds stay: they keep a rollback from being undone if the name comes back.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{BlockKind, Party, UpdateInput};
use crate::relay::{Branch, Relay};
use crate::store::{EndedUpdate, StoreError};

/// How often it is looked for. An update of a removed environment can only come from an event that was under way.
const INTERVAL: Duration = Duration::from_secs(30);

const AT_ONCE: u32 = 1000;

/// How long a push attempt of a removed environment is left to the writer of its branch. If the branch is gone from the settings,
/// too, no writer settles it.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(600);

pub(in crate::relay) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        if let Err(error) = relay.end_retired().await {
            tracing::error!(%error, "updates of removed environments cannot be ended; trying again");
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
            // Settings without environments say nothing about which ones exist.
            return Ok(());
        }
        let store = &self.0.store;
        let left = store.open_updates_elsewhere(&known, AT_ONCE).await?;
        let is_all = left.len() < AT_ONCE as usize;
        // A push of theirs that was cut off may land; the writer of the branch settles it.
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
            // Freezes end once every update that they keep back has been refused.
            return Ok(());
        }
        for freeze in store.end_blocks_elsewhere(&known, BlockKind::Freeze).await? {
            let (environment, reason) = (&freeze.environment, freeze.reason.as_deref());
            tracing::warn!(freeze = %freeze.id, environment, actor = %freeze.actor, reason, "freeze ended: the settings no longer have the environment");
        }
        Ok(())
    }
}
