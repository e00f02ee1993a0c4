//! What one generation of the pipeline has in common with the next.
//!
//! Changed settings make a new pipeline beside the old one: on the same store and with the same listeners, but with
//! rules, registries and branches of its own. The old one ends what it has begun; what both would work on is handed over
//! by turns.

use jiff::Timestamp;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedMutexGuard, broadcast, mpsc, watch};

use super::arrivals::Arrivals;
use super::catch_up::Board;
use super::{Inner, Notice, Relay};
use crate::store::Ending;

/// What lives as long as the process, whichever settings are in force.
pub(super) struct Lineage {
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) arrivals: Arc<Arrivals>,
    /// What comes to its end, for whoever has the turn to tell it.
    pub(super) endings: tokio::sync::Mutex<mpsc::UnboundedReceiver<Ending>>,
    /// When the process began.
    pub(super) begun: Timestamp,
    /// How catching up goes.
    pub(super) board: Board,
    /// Rung when somebody wants to be caught up with now.
    pub(super) catch_up: Notify,
    turns: Turns,
    /// The pipeline that works: whoever still holds an older one wakes its tasks all the same.
    current: RwLock<Weak<Inner>>,
    /// Why a task has ended that should not have.
    failure: watch::Sender<Option<String>>,
}

impl Lineage {
    pub(super) fn new(endings: mpsc::UnboundedReceiver<Ending>) -> Arc<Self> {
        // A slow reader of the stream loses notices, never the pipeline.
        let (notices, _) = broadcast::channel(1024);
        Arc::new(Self {
            notices,
            arrivals: Arc::default(),
            endings: tokio::sync::Mutex::new(endings),
            begun: Timestamp::now(),
            board: Board::default(),
            catch_up: Notify::new(),
            turns: Turns::default(),
            current: RwLock::default(),
            failure: watch::Sender::new(None),
        })
    }

    pub(super) fn begin(&self, inner: &Arc<Inner>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(inner);
    }

    /// Returns the pipeline that works now.
    pub(super) fn current(&self) -> Option<Relay> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).upgrade().map(Relay)
    }

    /// Returns why a task ended that should not have, as soon as one does.
    pub(super) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(reason) = failure.borrow_and_update().clone() {
                return reason;
            }
            if failure.changed().await.is_err() {
                // Its sender is in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until nobody works on any of these, and has the turn until what is returned is dropped.
    pub(super) async fn turns(&self, names: Vec<String>) -> Vec<OwnedMutexGuard<()>> {
        self.turns.take(names).await
    }

    /// Runs a task of the pipeline once it has its turns, unless it is told to stop before.
    ///
    /// A task that ends by itself, or panics, ends the process: it would be missed by nobody, and what it had to do would
    /// wait for ever. A new process goes on from the store, and what starts processes knows how to wait between attempts
    /// and whom to tell.
    pub(super) async fn supervise(
        self: Arc<Self>,
        name: String,
        turns: Vec<String>,
        mut stopped: watch::Receiver<bool>,
        task: impl Future<Output = ()>,
    ) {
        let _turns = tokio::select! {
            turns = self.turns.take(turns) => turns,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
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

/// Rights to work on something, each of which one task has at a time.
#[derive(Default)]
struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until all of these are free, and takes them.
    async fn take(&self, mut names: Vec<String>) -> Vec<OwnedMutexGuard<()>> {
        // Everybody takes them in the same order, so that no two wait for each other.
        names.sort();
        names.dedup();
        let mut taken = Vec::with_capacity(names.len());
        for name in names {
            let turn = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
            taken.push(turn.lock_owned().await);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage() -> Arc<Lineage> {
        Lineage::new(mpsc::unbounded_channel().1)
    }

    fn turns(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn a_panic_of_a_task_is_told() {
        let lineage = lineage();
        let (_stop, stopped) = watch::channel(false);
        let task = async { panic!("the index is {}", "gone") };
        lineage.clone().supervise("writer".to_owned(), Vec::new(), stopped, task).await;
        assert_eq!(lineage.failed().await, "the task `writer` failed: the index is gone");
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_told_and_one_that_was_stopped_is_not() {
        let lineage = lineage();
        let (stop, stopped) = watch::channel(true);
        lineage.clone().supervise("intake".to_owned(), Vec::new(), stopped.clone(), async {}).await;
        assert!(lineage.failed().now_or_never().is_none());
        stop.send_replace(false);
        lineage.clone().supervise("intake".to_owned(), Vec::new(), stopped, async {}).await;
        assert_eq!(lineage.failed().await, "the task `intake` failed: it ended by itself");
    }

    #[tokio::test]
    async fn what_two_tasks_share_is_handed_over() {
        let lineage = lineage();
        let working = Arc::new(Mutex::new(Vec::new()));
        let work = |name: &'static str| {
            let working = Arc::clone(&working);
            async move {
                working.lock().unwrap().push(format!("{name} begins"));
                // Long enough for everybody else to begin.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                working.lock().unwrap().push(format!("{name} ends"));
            }
        };
        let (_stop, stopped) = watch::channel(false);
        let run = |name: &'static str, names: &[&str]| {
            lineage.clone().supervise(name.to_owned(), turns(names), stopped.clone(), work(name))
        };
        tokio::join!(
            run("old", &["staging", "qa"]),
            run("new", &["production", "qa", "staging"]),
            run("other", &["dev"])
        );
        let said = working.lock().unwrap().clone();
        let at = |text: &str| said.iter().position(|line| line == text).unwrap();
        assert!(at("old ends") < at("new begins"), "{said:?}");
        assert!(at("other begins") < at("old ends"), "{said:?}");
    }
}
