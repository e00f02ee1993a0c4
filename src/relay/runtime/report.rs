//! Writes the log line and counts the metric of each event and update that ends. A subscriber of the outbox.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::domain::{Change, Entry, Event, EventState, Update, UpdateState};
use crate::relay::Relay;
use crate::store::StoreError;

pub(in crate::relay) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    // Listeners also write entries between two generations.
    let mut outbox = relay.0.store.subscribe_after(relay.0.process.logged());
    loop {
        let entries = tokio::select! {
            entries = outbox.next() => entries,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        relay.report_all(&entries).await;
    }
    // The last changes of the other tasks before they stopped.
    loop {
        match outbox.next_if_any().await {
            Ok(Some(entries)) => relay.report_all(&entries).await,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the last changes of state cannot be read for the log and the metrics");
                break;
            }
        }
    }
}

impl Relay {
    async fn report_all(&self, entries: &[Entry]) {
        if let Err(error) = self.try_report(entries).await {
            tracing::error!(%error, entries = entries.len(), "changes of state cannot be read for the log and the metrics");
        }
        if let Some(last) = entries.last() {
            self.0.process.set_logged(last.sequence);
            self.0.wakes.reported.send_replace(last.sequence);
        }
    }

    async fn try_report(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let (mut events, mut updates) = (Vec::new(), Vec::new());
        for entry in entries {
            match &entry.change {
                Change::Event { id, state, .. } if is_end_of_event(state) => events.push(id.as_str()),
                Change::Update { id, state, .. } if is_reported_update(state) => updates.push(id.as_str()),
                _ => {}
            }
        }
        let events = self.0.store.events_by_id(&events).await?;
        let updates = self.0.store.updates_by_id(&updates).await?;
        let events: HashMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
        let updates: HashMap<&str, &Update> = updates.iter().map(|update| (update.id.as_str(), update)).collect();
        for entry in entries {
            match &entry.change {
                Change::Event { id, state, .. } if is_end_of_event(state) => {
                    // Only managed repositories become labels: the number of others is unbounded.
                    let repository = events.get(id.as_str()).filter(|event| event.matched_rule.is_some());
                    self.0.metrics.event(repository.map(|event| event.repository.as_str()), state);
                }
                Change::Update { id, state, commit, reason, .. } if is_reported_update(state) => {
                    if let (Some(update), Ok(state)) = (updates.get(id.as_str()), state.parse()) {
                        self.report_update(update, (state, commit.as_deref(), reason.as_deref()), entry.at);
                    }
                }
                Change::Freeze { environment, state, reason } => {
                    let reason = reason.as_deref();
                    match state.as_str() {
                        "frozen" => tracing::info!(environment, reason, "environment frozen"),
                        _ => tracing::info!(environment, "environment thawed"),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Logs an update with the state in the outbox entry: the row may have changed since.
    fn report_update(
        &self,
        update: &Update,
        (state, commit, reason): (UpdateState, Option<&str>, Option<&str>),
        at: Timestamp,
    ) {
        // The level of a log event is a constant, so each level needs its own event.
        macro_rules! log {
            ($level:expr, $message:literal) => {
                tracing::event!(
                    $level, update = %update.id, cause = %update.cause, cause_id = %update.cause_id,
                    environment = %update.environment, repository = %update.repository,
                    version = %update.version.short(), %state, commit, reason, trace_id = %update.trace.trace_id(),
                    $message
                )
            };
        }
        match state {
            UpdateState::Waiting => return log!(tracing::Level::INFO, "update waits"),
            UpdateState::Refused => log!(tracing::Level::WARN, "update finished"),
            _ => log!(tracing::Level::INFO, "update finished"),
        }
        self.0.metrics.update(&update.environment, state.as_str());
        // A latency that includes a wait cause would not measure the pipeline.
        if state == UpdateState::Committed && update.released_at.is_none() {
            let since = |from: Timestamp| Duration::try_from(at.duration_since(from)).unwrap_or_default();
            self.0.metrics.committed(update.pushed_at.map(since), since(update.received_at));
        }
    }
}

fn is_end_of_event(state: &str) -> bool {
    state.parse().is_ok_and(|state: EventState| !state.is_open())
}

fn is_reported_update(state: &str) -> bool {
    state.parse().is_ok_and(|state: UpdateState| !state.is_open() || state == UpdateState::Waiting)
}
