use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::relay::catch_up::RegistryStates;

/// The state that all generations share.
pub(in crate::relay) struct Process {
    /// When the process began to receive webhooks.
    pub(in crate::relay) begun: Timestamp,
    /// The state of the registries in catch-up.
    pub(in crate::relay) registry_states: RegistryStates,
    /// Notified by a request to catch up now.
    pub(in crate::relay) catch_up: Notify,
    /// The last entry of the outbox that was logged and counted.
    logged: AtomicU64,
    failure: watch::Sender<Option<String>>,
}

impl Process {
    /// `logged`: the last entry of the outbox at the start.
    pub(in crate::relay) fn new(begun: Timestamp, logged: u64) -> Arc<Self> {
        let (registry_states, catch_up, logged) = (RegistryStates::default(), Notify::new(), AtomicU64::new(logged));
        Arc::new(Self { begun, registry_states, catch_up, logged, failure: watch::Sender::new(None) })
    }

    pub(in crate::relay) fn logged(&self) -> u64 {
        self.logged.load(Ordering::Acquire)
    }

    pub(super) fn set_logged(&self, sequence: u64) {
        self.logged.store(sequence, Ordering::Release);
    }

    /// Waits until a task ends by itself, and returns the reason.
    pub(in crate::relay) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(reason) = failure.borrow_and_update().clone() {
                return reason;
            }
            if failure.changed().await.is_err() {
                // Cannot happen: the sender is in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs a task. A panic, or an end before it was stopped, is reported to [`Self::failed`].
    pub(super) async fn supervise(
        self: Arc<Self>,
        name: String,
        stopped: watch::Receiver<bool>,
        task: impl Future<Output = ()>,
    ) {
        let ended = AssertUnwindSafe(task).catch_unwind().await;
        let reason = match ended {
            Ok(()) if *stopped.borrow() => return,
            Ok(()) => "it ended by itself".to_owned(),
            Err(panic) => crate::telemetry::panic_text(&*panic).to_owned(),
        };
        tracing::error!(task = name, reason, "a task of the pipeline failed: please report this");
        self.failure.send_replace(Some(format!("the task `{name}` failed: {reason}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_a_task_is_reported() {
        let process = Process::new(Timestamp::UNIX_EPOCH, 0);
        let (_stop, stopped) = watch::channel(false);
        process.clone().supervise("writer".to_owned(), stopped, async { panic!("the index is {}", "gone") }).await;
        assert_eq!(process.failed().await, "the task `writer` failed: the index is gone");
    }

    #[tokio::test]
    async fn task_that_ends_by_itself_is_reported_and_a_stopped_one_is_not() {
        let process = Process::new(Timestamp::UNIX_EPOCH, 0);
        let (stop, stopped) = watch::channel(true);
        process.clone().supervise("intake".to_owned(), stopped.clone(), async {}).await;
        assert!(process.failed().now_or_never().is_none());
        stop.send_replace(false);
        process.clone().supervise("intake".to_owned(), stopped, async {}).await;
        assert_eq!(process.failed().await, "the task `intake` failed: it ended by itself");
    }
}
