//! A push event with its whole way.

use jiff::Timestamp;
use serde::Serialize;
use ulid::Ulid;
use utoipa::ToSchema;

use super::{FollowUps, UpdateView, commit, time};
use crate::image::Digest;
use crate::store::{Cause, Event, FailedAttempt, Update, UpdateState};

/// A push event.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http::api) struct EventView {
    id: String,
    /// `push`, or `catch-up`: no webhook told of it, and the registry was asked.
    cause: String,
    /// The receiver that took it; `catch-up` where none did.
    receiver: String,
    repository: String,
    tag: String,
    /// The digest that the registry gave, or until it has been asked the one that the payload names.
    digest: Option<String>,
    /// The digest that the payload names.
    announced_digest: Option<String>,
    /// `queued`, `pending`, `waiting`, `committed`, `unchanged`, `superseded` or `refused`.
    state: String,
    /// Why it is refused or waits, or what the last attempt met.
    reason: Option<String>,
    /// What else there is to say.
    note: Option<String>,
    /// The image rule that takes it.
    matched_rule: Option<String>,
    /// When the registry says it was pushed.
    pushed_at: Option<String>,
    received_at: String,
    verified_at: Option<String>,
    finished_at: Option<String>,
    /// How often the registry was asked in vain.
    attempts: u32,
    /// When it will be asked again.
    next_attempt_at: Option<String>,
    /// What its log lines, its spans and the commit have in common: 32 hexadecimal digits.
    trace_id: String,
    /// The environments that have refused it, whatever became of it in the others.
    refused_in: Vec<RefusedIn>,
}

/// An environment that has refused an event.
#[derive(Debug, Serialize, ToSchema)]
struct RefusedIn {
    environment: String,
    reason: Option<String>,
}

impl EventView {
    /// `updates` are those of the event, all or the refused ones.
    pub(in crate::http::api) fn new<'a>(event: &Event, updates: impl IntoIterator<Item = &'a Update>) -> Self {
        let refused = updates.into_iter().filter(|update| update.state == UpdateState::Refused);
        let refused_in = refused
            .map(|update| RefusedIn { environment: update.environment.clone(), reason: update.reason.clone() })
            .collect();
        let digest = event.verified_digest.as_ref().or(event.announced_digest.as_ref());
        Self {
            id: event.id.clone(),
            cause: event.cause.to_string(),
            receiver: event.receiver.clone(),
            repository: event.repository.to_string(),
            tag: event.tag.to_string(),
            digest: digest.map(ToString::to_string),
            announced_digest: event.announced_digest.as_ref().map(ToString::to_string),
            state: event.state.to_string(),
            reason: event.reason.clone(),
            note: event.note.clone(),
            matched_rule: event.matched_rule.clone(),
            pushed_at: time(event.pushed_at),
            received_at: event.received_at.to_string(),
            verified_at: time(event.verified_at),
            finished_at: time(event.finished_at),
            attempts: event.attempts,
            next_attempt_at: time(event.next_attempt_at),
            trace_id: event.trace.trace_id().to_string(),
            refused_in,
        }
    }
}

/// A push event with everything that became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http::api) struct EventDetailView {
    #[serde(flatten)]
    event: EventView,
    /// One for each environment that takes it.
    updates: Vec<UpdateView>,
    /// The way of the event, step by step, for people.
    explanation: Vec<StepView>,
    /// What was tried in vain, oldest first, at most the last 50.
    attempt_log: Vec<AttemptView>,
}

/// Something that was tried and failed, or was begun anew.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http::api) struct AttemptView {
    at: String,
    /// `null`: it is about the event itself.
    environment: Option<String>,
    /// Who was asked: `registry`, `source` (the source repository), `rules` (image rules, order, manifests), `branch` (the push,
    /// or what runs), or `replay` when somebody had it run again.
    asked: String,
    /// What the answer was.
    answered: String,
}

impl From<&FailedAttempt> for AttemptView {
    fn from(attempt: &FailedAttempt) -> Self {
        Self {
            at: attempt.at.to_string(),
            environment: attempt.environment.clone(),
            asked: attempt.asked.clone(),
            answered: attempt.answered.clone(),
        }
    }
}

/// One step of the way of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http::api) struct StepView {
    /// `received`, `matched`, `verified`, `decided`, `committed`, `unchanged`, `waiting`, `superseded`, `refused` or
    /// `rollout`.
    step: String,
    at: Option<String>,
    text: String,
}

impl EventDetailView {
    pub(in crate::http::api) fn new(
        event: &Event,
        updates: &[Update],
        follow_ups: &FollowUps,
        attempts: &[FailedAttempt],
    ) -> Self {
        Self {
            attempt_log: attempts.iter().map(Into::into).collect(),
            explanation: explain(event, updates, follow_ups),
            updates: updates.iter().map(|update| UpdateView::new(update, follow_ups)).collect(),
            event: EventView::new(event, updates),
        }
    }
}

/// Tells the way of an event from what the store has of it.
fn explain(event: &Event, updates: &[Update], follow_ups: &FollowUps) -> Vec<StepView> {
    let mut steps = Vec::new();
    let mut tell = |step: &str, at: Option<Timestamp>, text: String| {
        steps.push(StepView { step: step.to_owned(), at: time(at), text });
    };
    let digest = event.announced_digest.as_ref().map(Digest::short);
    let digest = digest.map(|digest| format!(" with {digest}")).unwrap_or_default();
    let (repository, tag) = (&event.repository, &event.tag);
    let by = match event.cause {
        Cause::CatchUp => "found in the registry, no webhook told of it".to_owned(),
        _ => format!("receiver `{}`", event.receiver),
    };
    tell("received", Some(event.received_at), format!("{by}: {repository}:{tag}{digest}"));
    if let Some(rule) = &event.matched_rule {
        tell("matched", None, format!("the [[image]] rule of `{rule}`"));
    }
    if let Some(at) = event.verified_at {
        let note = event.note.as_deref();
        let text = match &event.verified_digest {
            Some(digest) => format!("{} has it: {}", repository.registry(), digest.short()),
            // Only a rule that says `exists = false` takes an image that nobody has asked about.
            None => "the registry was not asked".to_owned(),
        };
        tell("verified", Some(at), [Some(text.as_str()), note].into_iter().flatten().collect::<Vec<_>>().join("; "));
    } else if event.attempts > 0 {
        let reason = event.reason.as_deref().unwrap_or_default();
        tell("verified", None, format!("not yet, after {} attempts: {reason}", event.attempts));
    }
    for update in updates {
        let because = update.decided_because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        let by = update.decided_by.as_ref().map(|by| format!(" (decided by {by})")).unwrap_or_default();
        // Each by its own time: an event that runs again keeps what was decided before.
        tell("decided", made_at(&update.id), format!("for {}{because}{by}", update.environment));
        let text = match (&update.reason, commit(update)) {
            (_, Some(commit)) => format!("{}: commit {commit}", update.environment),
            (Some(reason), None) => format!("{}: {reason}", update.environment),
            (None, None) => update.environment.clone(),
        };
        tell(update.state.as_str(), update.finished_at, text);
        if let Some(row) = follow_ups.get(&update.id) {
            let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            tell("rollout", row.ended_at, format!("{}: {}{reason}", update.environment, row.state));
        }
    }
    if updates.is_empty() && event.finished_at.is_some() {
        tell(event.state.as_str(), event.finished_at, event.reason.clone().unwrap_or_default());
    }
    steps
}

/// Returns when a row was made, which its id tells.
fn made_at(id: &str) -> Option<Timestamp> {
    let milliseconds = Ulid::from_string(id).ok()?.timestamp_ms();
    Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
}
