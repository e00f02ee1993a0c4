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
    async fn end_left_behind(&self) -> Result<(), StoreError> {
        let known: Vec<String> = self.0.branches.iter().flat_map(Branch::environment_names).collect();
        if known.is_empty() {
            // No settings have none: nobody has told which there are.
            return Ok(());
        }
        for freeze in self.0.store.end_freezes_elsewhere(&known).await? {
            let (environment, reason) = (&freeze.environment, &freeze.reason);
            tracing::warn!(freeze = %freeze.id, environment, actor = %freeze.actor, reason, "freeze ended: the settings have no such environment any more");
        }
        let found = self.0.store.open_updates_elsewhere(&known, AT_ONCE).await?;
        let gone: BTreeSet<&str> = found.iter().map(|update| update.environment.as_str()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        // A writer of the settings before may be in the middle of a push of them.
        let _turns = self.0.lineage.turns(gone.into_iter().map(turn_of).collect()).await;
        let left = self.0.store.open_updates_elsewhere(&known, AT_ONCE).await?;
        let refused = left.into_iter().map(|update| {
            let reason = format!("there is no environment `{}` in the settings any more", update.environment);
            (update, Outcome::Refused { reason })
        });
        self.finish_as(refused.collect(), Some(Party::Rules)).await
    }
}
