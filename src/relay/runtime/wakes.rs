//! Wakes the stages when a change in the outbox means work for them. A subscriber of the outbox.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::domain::{Change, Entry, EventState, UpdateState};
use crate::relay::Relay;
use crate::store::Subscriber;

/// The wake-ups of the stages that exist once in a generation. Branch writers and rollouts have their own.
pub(in crate::relay) struct Wakes {
    intake: Notify,
    arrived: Mutex<Arrived>,
    /// A block, a wait cause or a window changed.
    pub(in crate::relay) waits: Notify,
    /// The last entry of the outbox that was logged and counted.
    pub(in crate::relay) reported: watch::Sender<u64>,
}

/// New work since the last read of the intake.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::relay) struct Arrived {
    /// Registries of new events.
    pub(in crate::relay) registries: HashSet<String>,
    /// Anything else.
    pub(in crate::relay) other: bool,
}

impl Default for Wakes {
    fn default() -> Self {
        let (intake, arrived, waits) = Default::default();
        Self { intake, arrived, waits, reported: watch::Sender::new(0) }
    }
}

impl Wakes {
    /// Waits for new work. The result may be empty if the previous call already returned it.
    pub(in crate::relay) async fn arrived(&self) -> Arrived {
        self.intake.notified().await;
        std::mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wake_intake(&self, registry: Option<&str>) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        match registry {
            Some(registry) if arrived.registries.contains(registry) => {}
            Some(registry) => drop(arrived.registries.insert(registry.to_owned())),
            None => arrived.other = true,
        }
        drop(arrived);
        self.intake.notify_one();
    }
}

pub(in crate::relay) async fn run(relay: Relay, mut outbox: Subscriber, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            entries = outbox.next() => entries.iter().for_each(|entry| relay.wake_for(entry)),
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

impl Relay {
    fn wake_for(&self, entry: &Entry) {
        match &entry.change {
            Change::Event { repository, state, .. } => {
                if state == EventState::Queued.as_str() {
                    // A repository's name begins with its registry.
                    self.0.wakes.wake_intake(repository.split('/').next());
                }
            }
            Change::Update { environment, state, .. } => match state.parse() {
                Ok(UpdateState::Unverified) => self.0.wakes.wake_intake(None),
                Ok(UpdateState::Waiting) => {
                    // The cause may be a missing fact, or have an end time.
                    self.0.wakes.wake_intake(None);
                    self.0.wakes.waits.notify_one();
                    // Or a gate.
                    if let Some(following) = &self.0.following {
                        following.wake();
                    }
                }
                Ok(state) => {
                    // Other updates of its request may have waited until this one was verified.
                    if let Some(branch) = self.branch_of(environment) {
                        branch.wake.notify_one();
                    }
                    if state == UpdateState::Committed
                        && let Some(following) = &self.0.following
                    {
                        following.wake();
                    }
                }
                Err(_) => {}
            },
            Change::Hold { .. } | Change::Freeze { .. } => self.0.wakes.waits.notify_one(),
            Change::Request { .. } | Change::Rollout { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn arrivals_are_handed_over_once_and_together() {
        let wakes = Wakes::default();
        wakes.wake_intake(Some("a.test"));
        wakes.wake_intake(Some("b.test"));
        wakes.wake_intake(Some("a.test"));
        let registries: HashSet<String> = ["a.test".to_owned(), "b.test".to_owned()].into();
        assert_eq!(wakes.arrived().await, Arrived { registries, other: false });
        wakes.wake_intake(None);
        assert_eq!(wakes.arrived().await, Arrived { registries: HashSet::new(), other: true });
    }
}
