use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RequestView, UpdateView, Word};
use crate::domain::{Cause, EventState};

/// `GET /api/v1/events`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Events {
    pub events: Vec<EventView>,
    /// Promotions and rollbacks that were refused, in whole or in part, newest first.
    ///
    /// Only with `state=failed`. Requests cannot be replayed, but can be made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Vec<RequestView>>,
}

/// A push event.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    pub id: String,
    /// `push`, or `catch-up` if the registry has the tag and no webhook announced it.
    #[schema(value_type = Cause)]
    pub cause: Word<Cause>,
    /// The receiver that accepted the event, or `catch-up`.
    pub receiver: String,
    pub repository: String,
    pub tag: String,
    /// The digest that the registry reported; before its answer, the digest that the payload names.
    pub digest: Option<String>,
    /// The digest that the payload names.
    pub announced_digest: Option<String>,
    #[schema(value_type = EventState)]
    pub state: Word<EventState>,
    /// Why the event is refused or waits, or why the last attempt failed.
    pub reason: Option<String>,
    /// Further remarks, such as a digest that differs from the announced one.
    pub note: Option<String>,
    /// The pattern of the image rule that allows the repository.
    pub matched_rule: Option<String>,
    /// When the image was pushed, according to the registry.
    #[schema(value_type = Option<String>)]
    pub pushed_at: Option<Timestamp>,
    #[schema(value_type = String)]
    pub received_at: Timestamp,
    #[schema(value_type = Option<String>)]
    pub verified_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Timestamp>,
    /// How many requests to the registry have failed.
    pub attempts: u32,
    /// When the next attempt begins.
    #[schema(value_type = Option<String>)]
    pub next_attempt_at: Option<Timestamp>,
    /// The id that log lines, spans and the commit share: 32 hexadecimal digits.
    pub trace_id: String,
    /// The environments that refused the event, whatever its state is in others.
    pub refused_in: Vec<RefusedIn>,
}

/// An environment that refused an event.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RefusedIn {
    pub environment: String,
    pub reason: Option<String>,
}

/// `GET /api/v1/events/{id}`: a push event with its updates and its explanation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventDetailView {
    #[serde(flatten)]
    pub event: EventView,
    /// One update for each environment that the event concerns.
    pub updates: Vec<UpdateView>,
    /// The steps of the event in words, in order of time.
    pub explanation: Vec<StepView>,
    /// Failed attempts and replays, oldest first, at most the last 50.
    pub attempt_log: Vec<AttemptView>,
}

/// A failed attempt, or a replay.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// `null` if the attempt concerns the event as a whole.
    pub environment: Option<String>,
    /// The party that was asked, or `replay` if the event was replayed.
    ///
    /// `registry`, `source` (the source repository), `rules` (image rules, order, manifests) or `branch` (the push, or the running
    /// version).
    pub asked: String,
    pub answered: String,
}

/// One step of an event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// `received`, `matched`, `verified`, `decided`, `rollout`, or the state of an update.
    pub step: String,
    #[schema(value_type = Option<String>)]
    pub at: Option<Timestamp>,
    pub text: String,
}

/// `POST /api/v1/events/{id}/replay`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplayedEvent {
    /// The id of the event.
    #[serde(default)]
    pub replayed: String,
    /// Only for tokens with the permission `read`.
    #[serde(flatten)]
    pub event: Option<EventDetailView>,
    /// The time for which the next attempt was planned, and the reason; only for a queued event.
    ///
    /// The attempt is made now. If it fails, the event waits again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hastened: Option<String>,
}

/// The body of `POST /api/v1/events/replay`: a filter of events.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayFilter {
    /// Only this repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// `failed` or `refused`; default: `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// At most this many, the newest first; default and maximum: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The answer to `POST /api/v1/events/replay`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplayedEvents {
    /// The ids of the replayed events, newest first.
    pub replayed: Vec<String>,
}
