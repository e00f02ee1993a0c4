//! Runs the stages: one generation of tasks for each set of settings, one after the other.
//!
//! A reload drains the old generation, then starts the next one on the same store. Listeners stay up meanwhile:
//! webhooks and requests are stored, and the next generation finds them. A drain does not wait for a remote that hangs:
//! the push attempt is a row, and the next generation settles it.
//!
//! Files: `process` is the state that generations share, `wakes` and `report` are subscribers of the outbox, `waits`
//! ends wait causes, `retired` and `retention` clean up, `backoff` computes pauses.

pub(super) mod backoff;
mod process;
mod report;
mod retention;
mod retired;
mod waits;
mod wakes;

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Relay, catch_up, follow_up, intake, write};
pub(super) use process::Process;
pub(super) use wakes::{Arrived, Wakes};

/// The time limit of a drain.
const DRAIN: Duration = Duration::from_secs(10);

/// The tasks of one generation.
pub struct Running {
    stop: watch::Sender<bool>,
    stages: JoinSet<()>,
    /// Stopped last, so that they report the last changes of the stages.
    subscribers: (watch::Sender<bool>, JoinSet<()>),
}

impl Running {
    /// Requests all tasks to stop, and waits until they have. After 10 s the rest is aborted: its work is in the store.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let drained = async { while self.stages.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(
                "tasks of the pipeline did not end in time and are aborted; their work continues from the store"
            );
            self.stages.shutdown().await;
        }
        let (stop, mut tasks) = self.subscribers;
        stop.send_replace(true);
        while tasks.join_next().await.is_some() {}
    }
}

/// Starts the tasks of a generation.
pub(super) fn start(relay: &Relay) -> Running {
    let (stop, stopped) = watch::channel(false);
    let (stop_subscribers, subscribers_stopped) = watch::channel(false);
    let process = &relay.0.process;
    let (mut stages, mut subscribers) = (JoinSet::new(), JoinSet::new());
    let mut subscribe = |name: &str, task: BoxFuture<'static, ()>| {
        subscribers.spawn(process.clone().supervise(name.to_owned(), subscribers_stopped.clone(), task));
    };
    // Before any stage reads the store, so that no change between its read and the subscription is
    // missed.
    let store = &relay.0.store;
    relay.0.wakes.reported.send_replace(process.logged());
    subscribe("wakes", Box::pin(wakes::run(relay.clone(), store.subscribe(), subscribers_stopped.clone())));
    subscribe("log", Box::pin(report::run(relay.clone(), subscribers_stopped.clone())));
    let mut spawn = |name: String, task: BoxFuture<'static, ()>| {
        stages.spawn(process.clone().supervise(name, stopped.clone(), task));
    };
    spawn("intake".to_owned(), Box::pin(intake::run(relay.clone(), stopped.clone())));
    spawn("waits".to_owned(), Box::pin(waits::run(relay.clone(), stopped.clone())));
    spawn("retired environments".to_owned(), Box::pin(retired::run(relay.clone(), stopped.clone())));
    spawn("retention".to_owned(), Box::pin(retention::run(relay.clone(), stopped.clone())));
    spawn("catch-up".to_owned(), Box::pin(catch_up::run(relay.clone(), stopped.clone())));
    spawn("follow-up".to_owned(), Box::pin(follow_up::run(relay.clone(), stopped.clone())));
    for (index, branch) in relay.0.branches.iter().enumerate() {
        let task = write::run(relay.clone(), index, stopped.clone());
        spawn(format!("writer of {}", branch.title()), Box::pin(task));
    }
    Running { stop, stages, subscribers: (stop_subscribers, subscribers) }
}
