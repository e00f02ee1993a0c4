use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FreezeKind, Word};

/// `GET /api/v1/holds`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Holds {
    pub holds: Vec<HoldView>,
}

/// The body of `POST /api/v1/holds`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    pub environment: String,
    /// The whole name, or the last component if that is unambiguous.
    pub repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The duration of the hold, as in `30m`, `4h` or `2d`; default: until it is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_for: Option<String>,
}

/// A hold.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    pub id: String,
    pub environment: String,
    pub repository: String,
    pub reason: Option<String>,
    pub actor: String,
    /// The id of the rollback that made the hold.
    pub rollback: Option<String>,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When the hold expires; `null`: only when it is released.
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    /// Repositories with a push that was sent before the hold and may still land.
    ///
    /// Only in the answer to the request that made the hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<String>,
}

/// `GET /api/v1/freezes`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Freezes {
    /// Freezes made through the API.
    pub freezes: Vec<FreezeView>,
    /// Freezes of the settings that are active or still to come.
    pub windows: Vec<WindowView>,
}

/// The body of `POST /api/v1/freezes`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeBody {
    pub environment: String,
    pub reason: String,
    /// When the freeze ends, as in `2027-01-04T08:00:00+01:00`.
    ///
    /// Without `until` and `freeze_for`, the freeze ends when it is thawed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The duration of the freeze, as in `30m`, `4h` or `2d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_for: Option<String>,
}

/// A freeze made through the API.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FreezeView {
    pub id: String,
    pub environment: String,
    pub reason: String,
    pub actor: String,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When the freeze ends; `null`: only when it is thawed.
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    /// Repositories with a push that was sent before the freeze and may still land.
    ///
    /// Only in the answer to the request that made the freeze.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<String>,
}

/// A freeze of the settings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WindowView {
    pub environment: String,
    /// As in `Fri 16:00 to Mon 08:00 Europe/Berlin`.
    pub window: String,
    pub reason: Option<String>,
    /// The beginning of the active occurrence, or else of the next one.
    #[schema(value_type = String)]
    pub from: Timestamp,
    /// The end of the same occurrence.
    #[schema(value_type = String)]
    pub until: Timestamp,
    /// Whether the window freezes the environment now.
    pub active: bool,
}

/// The active freezes of an environment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FrozenView {
    /// When the last of these freezes ends; `null`: the environment stays frozen until it is thawed.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// The causes and the end in one sentence.
    pub reason: String,
    pub by: Vec<FrozenByView>,
}

/// One freeze of an environment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FrozenByView {
    #[schema(value_type = FreezeKind)]
    pub kind: Word<FreezeKind>,
    /// The id with which the freeze can be thawed; `null` for a window.
    pub id: Option<String>,
    /// For a window: as in `Fri 16:00 to Mon 08:00 Europe/Berlin`.
    pub window: Option<String>,
    pub reason: Option<String>,
    /// The name of the API token that made the freeze; `null` for a window.
    pub actor: Option<String>,
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
}
