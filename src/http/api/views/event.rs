//! Push events: the list entry, and the detail with its explanation.

use jiff::Timestamp;
use ulid::Ulid;

use super::row::{FollowUps, update_view};
use crate::api::{AttemptView, EventDetailView, EventView, RefusedIn, StepView};
use crate::domain::{Cause, Event, Update, UpdateState};
use crate::store::FailedAttempt;
use tagrelay_image::Digest;

/// `updates` are those of the event: all of them, or at least the refused ones.
pub(in crate::http::api) fn event_view<'a>(event: &Event, updates: impl IntoIterator<Item = &'a Update>) -> EventView {
    let refused = updates.into_iter().filter(|update| update.state == UpdateState::Refused);
    let refused_in = refused
        .map(|update| RefusedIn { environment: update.environment.clone(), reason: update.reason.clone() })
        .collect();
    let digest = event.verified_digest.as_ref().or(event.announced_digest.as_ref());
    EventView {
        id: event.id.clone(),
        cause: event.cause.into(),
        receiver: event.receiver.clone(),
        repository: event.repository.to_string(),
        tag: event.tag.to_string(),
        digest: digest.map(ToString::to_string),
        announced_digest: event.announced_digest.as_ref().map(ToString::to_string),
        state: event.state.into(),
        reason: event.reason.clone(),
        note: event.note.clone(),
        matched_rule: event.matched_rule.clone(),
        pushed_at: event.pushed_at,
        received_at: event.received_at,
        verified_at: event.verified_at,
        finished_at: event.finished_at,
        attempts: event.failures,
        next_attempt_at: event.next_attempt_at,
        trace_id: event.trace.trace_id().to_string(),
        refused_in,
    }
}

pub(in crate::http::api) fn event_detail(
    event: &Event,
    updates: &[Update],
    follow_ups: &FollowUps,
    attempts: &[FailedAttempt],
) -> EventDetailView {
    EventDetailView {
        attempt_log: attempts.iter().map(Into::into).collect(),
        explanation: explain(event, updates, follow_ups),
        updates: updates.iter().map(|update| update_view(update, follow_ups)).collect(),
        event: event_view(event, updates),
    }
}

impl From<&FailedAttempt> for AttemptView {
    fn from(attempt: &FailedAttempt) -> Self {
        Self {
            at: attempt.at,
            environment: attempt.environment.clone(),
            asked: attempt.asked.clone(),
            answered: attempt.answered.clone(),
        }
    }
}

/// Lists the steps of an event in words, from its row and the rows of its updates.
fn explain(event: &Event, updates: &[Update], follow_ups: &FollowUps) -> Vec<StepView> {
    let mut steps = Vec::new();
    let mut add = |step: &str, at: Option<Timestamp>, text: String| {
        steps.push(StepView { step: step.to_owned(), at, text });
    };
    let digest = event.announced_digest.as_ref().map(Digest::short);
    let digest = digest.map(|digest| format!(" with {digest}")).unwrap_or_default();
    let (repository, tag) = (&event.repository, &event.tag);
    let by = match event.cause {
        Cause::CatchUp => "found in the registry, not announced by a webhook".to_owned(),
        _ => format!("receiver `{}`", event.receiver),
    };
    add("received", Some(event.received_at), format!("{by}: {repository}:{tag}{digest}"));
    if let Some(rule) = &event.matched_rule {
        add("matched", None, format!("the [[image]] rule of `{rule}`"));
    }
    if let Some(at) = event.verified_at {
        let note = event.note.as_deref();
        let text = match &event.verified_digest {
            Some(digest) => format!("{} has the image: {}", repository.registry(), digest.short()),
            // The image rule has `exists = false`.
            None => "the registry was not asked".to_owned(),
        };
        add("verified", Some(at), [Some(text.as_str()), note].into_iter().flatten().collect::<Vec<_>>().join("; "));
    } else if event.failures > 0 {
        let reason = event.reason.as_deref().unwrap_or_default();
        add("verified", None, format!("not yet, after {} attempts: {reason}", event.failures));
    }
    for update in updates {
        let because = update.decided_because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        let by = update.decided_by.as_ref().map(|by| format!(" (decided by {by})")).unwrap_or_default();
        // Each with its own time: a replayed event keeps its earlier decisions.
        add("decided", made_at(&update.id), format!("for {}{because}{by}", update.environment));
        let text = match (&update.reason, &update.commit) {
            (_, Some(commit)) => format!("{}: commit {commit}", update.environment),
            (Some(reason), None) => format!("{}: {reason}", update.environment),
            (None, None) => update.environment.clone(),
        };
        add(update.state.as_str(), update.finished_at, text);
        if let Some(row) = follow_ups.get(&update.id) {
            let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            add("rollout", row.ended_at, format!("{}: {}{reason}", update.environment, row.state));
        }
    }
    if updates.is_empty() && event.finished_at.is_some() {
        add(event.state.as_str(), event.finished_at, event.reason.clone().unwrap_or_default());
    }
    steps
}

/// Returns the time in a row's id, a ULID.
fn made_at(id: &str) -> Option<Timestamp> {
    let milliseconds = Ulid::from_string(id).ok()?.timestamp_ms();
    Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
}
