//! Ends what there is of environments that the settings do not have any more: updates, which no writer looks after, and freezes,
//! which would come back with the name.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

use super::branch::turn_of;
use super::{Branch, Relay};
use crate::store::{Outcome, Party, StoreError};

/// How often it is looked. What was taken under the settings before may come a moment after these are in force.
const INTERVAL: Duration = Duration::from_secs(30);

/// How many are ended at once.
const AT_ONCE: u32 = 1000;

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    loop {
        let ended = tokio::select! {
            ended = relay.end_left_behind() => ended,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = ended {
            tracing::error!(%error, "updates of environments that are gone cannot be ended; trying again");
        }
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

impl Relay {
    /// What waited for a freeze of an environment that is gone does not go as at its usual end: there is nowhere to go, so it is
    /// refused. The freeze ends after that, and while nobody has the turn at writing there: a writer of the settings before
    /// would take what it no longer keeps back.
    async fn end_left_behind(&self) -> Result<(), StoreError> {
        let known: Vec<String> = self.0.branches.iter().flat_map(Branch::environment_names).collect();
        if known.is_empty() {
            // No settings have none: nobody has told which there are.
            return Ok(());
        }
        let store = &self.0.store;
        let found = store.open_updates_elsewhere(&known, AT_ONCE).await?;
        let frozen = store.freezes().await?.into_iter().map(|freeze| freeze.environment);
        let mut gone: BTreeSet<String> = frozen.filter(|environment| !known.contains(environment)).collect();
        gone.extend(found.into_iter().map(|update| update.environment));
        if gone.is_empty() {
            return Ok(());
        }
        // A writer of the settings before may be in the middle of a push of them.
        let _turns = self.0.lineage.turns(gone.iter().map(|environment| turn_of(environment)).collect()).await;
        let left = store.open_updates_elsewhere(&known, AT_ONCE).await?;
        let is_all = left.len() < AT_ONCE as usize;
        let refused = left.into_iter().map(|update| {
            let reason = format!("there is no environment `{}` in the settings any more", update.environment);
            (update, Outcome::Refused { reason })
        });
        self.finish_as(refused.collect(), Some(Party::Rules)).await?;
        if !is_all {
            // What they keep back is refused first, the next time.
            return Ok(());
        }
        for freeze in store.end_freezes_elsewhere(&known).await? {
            let (environment, reason) = (&freeze.environment, &freeze.reason);
            tracing::warn!(freeze = %freeze.id, environment, actor = %freeze.actor, reason, "freeze ended: the settings have no such environment any more");
        }
        Ok(())
    }
}
