use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RolloutView, VersionView, Word};
use crate::domain::Cause;

/// `GET /api/v1/history`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct History {
    pub changes: Vec<HistoryView>,
    /// The value of `before` for the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One version that was written for an environment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// The id of the update.
    #[serde(default)]
    pub id: String,
    pub environment: String,
    pub repository: String,
    pub from: Option<VersionView>,
    pub to: VersionView,
    pub commit: Option<String>,
    #[schema(value_type = Cause)]
    pub cause: Word<Cause>,
    /// The id of the event, promotion or rollback.
    pub cause_id: String,
    /// The receiver, or the name of the API token.
    pub actor: String,
    /// The reason given for the promotion or rollback; left out for events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the image was pushed, according to the registry.
    #[schema(value_type = Option<String>)]
    pub pushed_at: Option<Timestamp>,
    /// When Tagrelay received the event or request.
    #[schema(value_type = String)]
    pub received_at: Timestamp,
    /// When the commit was on the branch.
    #[schema(value_type = Option<String>)]
    pub committed_at: Option<Timestamp>,
    /// The rollout of the commit in Argo CD; `null` if Argo CD is not configured.
    pub rollout: Option<RolloutView>,
    pub files: Vec<FileView>,
    /// Whether the environment can roll back to this version.
    ///
    /// True if the image rule accepts its tag, and the environment runs another version.
    #[serde(default)]
    pub can_roll_back_to: bool,
}

/// An edited line.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    pub path: String,
    pub line: u32,
}
