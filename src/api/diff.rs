use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DiffState, Direction, VersionView, Word};

/// `GET /api/v1/diff`: the effect of a promotion on each repository.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    pub from: String,
    pub to: String,
    /// Whether `promote_from` of `to` allows this promotion.
    pub allowed: bool,
    /// Sorted by repository.
    pub repositories: Vec<DiffedView>,
}

/// One repository of a diff.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DiffedView {
    pub repository: String,
    #[schema(value_type = DiffState)]
    pub state: Word<DiffState>,
    /// The versions that `to` runs.
    pub old: Vec<VersionView>,
    /// The versions that `from` runs.
    pub new: Vec<VersionView>,
    /// Whether the new version is newer or older than the old one; only for `moves`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Direction>)]
    pub direction: Option<Word<Direction>>,
    /// The criterion that decided the direction: `ancestry`, `number`, `time`, `version` or `build_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// The number of commits of the source repository between the two versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<u64>,
    /// The URL of the source repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why the repository is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
