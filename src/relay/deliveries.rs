//! Stores the deliveries of receivers: push events, and announcements of Git hosts that a branch
//! moved.

use std::time::Duration;

use jiff::Timestamp;

use super::{BranchAnnouncement, Relay};
use crate::store::{EventFilter, NewEvent, Received, ReceivedState, Replayed, StoreError};
use crate::telemetry::TraceContext;
use tagrelay_webhook::PushEvent;

/// How long an event with only repository and tag counts as a duplicate: as long as a CI job repeats a request. Later,
/// the tag may have been built again.
const BARE_DUPLICATES: Duration = Duration::from_secs(600);

/// How many events are queued again in one transaction.
const REPLAYED_AT_ONCE: usize = 100;

impl Relay {
    /// Stores the push events of one authenticated request. Returns when they are on disk. `trace` is the span of the request.
    ///
    /// An event that was delivered within the last `duplicate_window` is a duplicate.
    ///
    /// # Errors
    ///
    /// If the events could not be stored. The sender must retry.
    pub async fn receive(
        &self,
        receiver: &str,
        events: &[PushEvent],
        duplicate_window: Duration,
        trace: &TraceContext,
    ) -> Result<Vec<Received>, StoreError> {
        let now = self.now();
        // A window that begins before the first representable time is unbounded.
        let since = now.checked_sub(duplicate_window).unwrap_or(Timestamp::UNIX_EPOCH);
        let row = |event: &PushEvent| {
            let moves = self.0.rules.shared(&event.repository).is_some_and(|rule| rule.tag.moves());
            new_event((receiver, event), moves, since, now, *trace)
        };
        let received = self.0.store.receive(receiver, events.iter().map(row).collect()).await?;
        for (event, row) in events.iter().zip(&received) {
            let state = match row.state {
                ReceivedState::Queued => "queued",
                ReceivedState::Duplicate => "duplicate",
            };
            tracing::info!(event = %row.id, receiver, repository = %event.repository, tag = %event.tag, state, trace_id = %trace.trace_id(), "event received");
        }
        Ok(received)
    }

    /// Receives the announcement of a Git host that a branch moved to a commit (`None`: the branch was deleted).
    /// Starts a read of the branch.
    pub fn branch_moved(&self, config_repository: &str, branch: &str, commit: Option<&str>) -> BranchAnnouncement {
        let mut branches = self.0.branches.iter();
        let known =
            branches.find(|known| known.repository_name() == config_repository && known.branch_name() == branch);
        let Some(known) = known else { return BranchAnnouncement::Foreign };
        // Git hosts also announce our own commits.
        if known.snapshot().is_some_and(|snapshot| commit == Some(snapshot.tip.to_string().as_str())) {
            return BranchAnnouncement::Known;
        }
        known.moved.notify_one();
        BranchAnnouncement::Reading
    }

    /// Queues a refused event again. A queued event that waits for its next attempt is due at once.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
    pub async fn replay(&self, event_id: &str) -> Result<Replayed, StoreError> {
        let replayed = self.0.store.replay(event_id).await?;
        if matches!(replayed, Replayed::Queued | Replayed::Hastened(_)) {
            let event = self.0.store.event(event_id).await?;
            let trace_id = event.map(|event| event.trace.trace_id().to_string());
            tracing::info!(event = event_id, trace_id, "event replayed");
        }
        Ok(replayed)
    }

    /// Queues all refused events of a filter again. Returns their ids, newest first.
    ///
    /// # Errors
    ///
    /// If the store fails. Some events may already be queued again.
    pub async fn replay_all(&self, filter: &EventFilter) -> Result<Vec<String>, StoreError> {
        let events = self.0.store.events(&EventFilter { failed: true, ..filter.clone() }).await?;
        let mut replayed = Vec::new();
        for chunk in events.chunks(REPLAYED_AT_ONCE) {
            let ids: Vec<String> = chunk.iter().map(|event| event.id.clone()).collect();
            let answers = self.0.store.replay_all(ids).await?;
            for (event, _) in chunk.iter().zip(answers).filter(|(_, answer)| *answer == Replayed::Queued) {
                tracing::info!(event = %event.id, trace_id = %event.trace.trace_id(), "event replayed");
                replayed.push(event.id.clone());
            }
        }
        Ok(replayed)
    }
}

/// Returns the row of a push event.
///
/// Two deliveries are one event if the sender's own id is equal or, without such an id, if all their fields are. For a
/// tag that `moves`, deliveries without id and time are never equal: the tag may have moved in between and back.
fn new_event(
    (receiver, event): (&str, &PushEvent),
    moves: bool,
    duplicates_since: Timestamp,
    now: Timestamp,
    trace: TraceContext,
) -> NewEvent {
    let digest = event.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    let occasion = match (&event.delivery, event.pushed_at) {
        (Some(delivery), _) => delivery.clone(),
        (None, Some(pushed_at)) => pushed_at.to_string(),
        (None, None) => String::new(),
    };
    let parts = [receiver, event.repository.as_str(), event.tag.as_str(), &digest, &occasion];
    let is_bare = digest.is_empty() && occasion.is_empty();
    let bare_since = match moves && occasion.is_empty() {
        // No delivery arrives that late.
        true => Timestamp::MAX,
        false if is_bare => now.checked_sub(BARE_DUPLICATES).unwrap_or(Timestamp::UNIX_EPOCH),
        false => duplicates_since,
    };
    NewEvent {
        repository: event.repository.clone(),
        tag: event.tag.clone(),
        digest: event.digest.clone(),
        pushed_at: event.pushed_at,
        // Only the delivery id can contain a line feed, and it comes last.
        duplicate_key: tagrelay_image::Digest::of(parts.join("\n").as_bytes()).to_string(),
        duplicates_since: duplicates_since.max(bare_since),
        trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_event_is_a_duplicate_for_a_short_time_only() {
        let bare = PushEvent {
            repository: "uyou/user-service".parse().unwrap(),
            tag: "1234567".parse().unwrap(),
            digest: None,
            pushed_at: None,
            delivery: None,
        };
        let week = Timestamp::now() - Duration::from_secs(7 * 24 * 3600);
        let named = PushEvent { delivery: Some("1".into()), ..bare.clone() };
        let pinned = PushEvent { digest: Some(tagrelay_image::Digest::of(b"")), ..bare.clone() };
        let now = Timestamp::now();
        let event = |pushed: &PushEvent| new_event(("ci", pushed), false, week, now, TraceContext::random());
        assert!(event(&bare).duplicates_since > Timestamp::now() - Duration::from_secs(660));
        assert_eq!(event(&named).duplicates_since, week);
        assert_eq!(event(&pinned).duplicates_since, week);
        // A tag that moves may have been built again, unless the sender gives each push an id.
        let moving =
            |pushed: &PushEvent| new_event(("ci", pushed), true, week, now, TraceContext::random()).duplicates_since;
        assert_eq!([&bare, &named, &pinned].map(moving), [Timestamp::MAX, week, Timestamp::MAX]);
        let keys = [&bare, &named, &pinned].map(|pushed| event(pushed).duplicate_key);
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }
}
