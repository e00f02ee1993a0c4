use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeliveryState, Word};

/// `GET /api/v1/receivers`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Receivers {
    pub receivers: Vec<ReceiverView>,
}

/// A receiver: how to configure its sender, and its last request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReceiverView {
    pub name: String,
    /// The kind, as in the settings: `docker-hub`, `harbor`, ….
    pub kind: String,
    /// The usual name of the sender.
    pub sender: String,
    /// The path of the webhook's URL. `SECRET` stands for the secret.
    pub url_path: String,
    /// The events to select at the sender.
    pub events: String,
    /// The credential that every request must carry.
    pub credential: String,
    /// The registry of every image; `null`: the payload names it.
    pub registry: Option<String>,
    /// The rate limit, as in `50/s`; `null`: no limit.
    pub rate_limit: Option<String>,
    /// How long a repeated delivery counts as a duplicate.
    pub duplicate_window_seconds: u64,
    /// The last request, even if it was rejected; `null`: none yet.
    pub last_heard: Option<LastRequest>,
    /// When the last request with an event was stored.
    #[schema(value_type = Option<String>)]
    pub last_accepted_at: Option<Timestamp>,
}

/// The last request to a receiver.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LastRequest {
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The result of the request.
    ///
    /// `accepted`, `ignored`, `unauthorized`, `rate_limited`, `too_large`, `too_slow`, `unavailable` or `failed`.
    pub outcome: String,
}

/// The answer to `POST /webhooks/{receiver}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookAnswer {
    pub events: Vec<AnswerEvent>,
    /// For receivers of a Git host: the branches that moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<AnswerBranch>,
    pub ignored: Vec<AnswerIgnored>,
}

/// A branch that moved, according to a Git host.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AnswerBranch {
    pub branch: String,
    /// The state of the branch.
    ///
    /// `reading`: the branch is being read. `known`: the mirror already has the commit. `foreign`: no environment uses the branch.
    pub state: String,
}

/// A stored push event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AnswerEvent {
    /// For a duplicate: the id of the first delivery.
    pub id: String,
    pub repository: String,
    pub tag: String,
    /// The digest that the payload names.
    pub digest: Option<String>,
    #[schema(value_type = DeliveryState)]
    pub state: Word<DeliveryState>,
}

/// A part of the request that is not a push of a tagged image.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AnswerIgnored {
    pub class: String,
    pub reason: String,
}
