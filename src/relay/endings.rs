//! Tells how events and updates ended: a line in the log, a count, a notice for whoever watches.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Relay, Subject};
use crate::store::{Ending, Event, Update, UpdateState};

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let mut endings = relay.0.lineage.endings.lock().await;
    loop {
        tokio::select! {
            Some(ending) = endings.recv() => relay.tell(&ending),
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

impl Relay {
    /// Tells what is left when all tasks have ended, unless those of a later pipeline do.
    pub(super) fn tell_rest(&self) {
        let Ok(mut endings) = self.0.lineage.endings.try_lock() else { return };
        while let Ok(ending) = endings.try_recv() {
            self.tell(&ending);
        }
    }

    fn tell(&self, ending: &Ending) {
        match ending {
            Ending::Event(event) => self.tell_event(event),
            Ending::Update(update) => self.tell_update(update),
        }
    }

    /// The log has a line for each update, and for what was refused before there were any.
    fn tell_event(&self, event: &Event) {
        // The number of repositories that no rule manages has no bound.
        let repository = event.matched_rule.as_ref().map(|_| event.repository.as_str());
        self.0.metrics.event(repository, event.state.as_str());
        self.notify_event(&event.id, &event.repository, &event.tag, event.state.as_str(), event.reason.as_deref());
    }

    fn tell_update(&self, update: &Update) {
        let state = update.state;
        let commit = update.commit.clone().filter(|_| state == UpdateState::Committed);
        let reason = update.reason.clone();
        // Levels of events are constants, so that a level that depends on something needs two of them.
        macro_rules! tell {
            ($level:expr) => {
                tracing::event!(
                    $level, update = %update.id, cause = %update.cause, cause_id = %update.cause_id,
                    environment = %update.environment, repository = %update.repository,
                    version = %update.version.short(), %state, commit, reason, trace_id = %update.trace.trace_id(),
                    "update finished"
                )
            };
        }
        match state {
            UpdateState::Refused => tell!(tracing::Level::WARN),
            _ => tell!(tracing::Level::INFO),
        }
        self.0.metrics.update(&update.environment, state.as_str());
        // How long somebody held it back says nothing about us.
        if state == UpdateState::Committed && update.released_at.is_none() {
            let now = update.finished_at.unwrap_or_else(Timestamp::now);
            let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
            self.0.metrics.committed(update.pushed_at.map(since), since(update.received_at));
        }
        self.notify(Subject::Update {
            id: update.id.clone(),
            cause_id: update.cause_id.clone(),
            environment: update.environment.clone(),
            repository: update.repository.to_string(),
            version: update.version.to_string(),
            state: state.as_str().to_owned(),
            commit,
            reason,
        });
    }
}
