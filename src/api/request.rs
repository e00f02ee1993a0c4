use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ChangeView, Direction, PreviewState, UpdateView, VersionView, Word};
use crate::domain::{RequestKind, RequestState};
use crate::store::RolloutState;

/// The body of `POST /api/v1/promotions`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionBody {
    /// The environment that changes.
    pub to: String,
    /// The environment that the versions come from; may be left out if `promote_from` has only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The repositories to promote, each by its whole name or its last component if that is unambiguous.
    ///
    /// Default: every repository that both environments run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Vec<String>>,
    /// A tag to promote instead of the version that `from` runs. Needs `repositories`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The tag that `to` runs according to the caller, by repository. A mismatch is 409.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<String, String>,
    /// Show the effect and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Promote even if the source is not healthy (for long enough), or `to` is frozen.
    ///
    /// Needs a `reason`, which becomes part of the commit, and the permission `override:NAME`.
    #[serde(default, rename = "override", skip_serializing_if = "std::ops::Not::not")]
    pub overrides: bool,
    /// Accept the promotion while the gate of `from` is closed. It goes through when the gate opens, or ends with a reason.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
}

/// The body of `POST /api/v1/rollbacks`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    pub environment: String,
    /// The whole name, or the last component if that is unambiguous.
    pub repository: String,
    /// The tag to go back to; default: the previous version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the hold lasts, as in `30m`, `4h` or `2d`; default: until it is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_for: Option<String>,
    /// Show the effect and change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A promotion or rollback.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    pub id: String,
    #[schema(value_type = RequestKind)]
    pub kind: Word<RequestKind>,
    #[schema(value_type = RequestState)]
    pub state: Word<RequestState>,
    /// The environment that changes.
    pub to: String,
    /// The environment that the versions come from.
    pub from: Option<String>,
    /// The name of the API token that made the request.
    pub actor: String,
    /// The reason given with the request.
    pub requested_because: Option<String>,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// The last commit with an update of the request.
    pub commit: Option<String>,
    /// The edited sites.
    pub changes: Vec<ChangeView>,
    /// Why the request was refused or waits, or why there was nothing to do.
    pub reason: Option<String>,
    /// One update for each repository.
    pub updates: Vec<UpdateView>,
    /// The rollout of the request's commits in Argo CD; `null` if Argo CD is not configured.
    pub rollout: Option<RolloutSummary>,
    /// The closed gate or the freeze that was overridden, or the freeze that a rollback passed.
    pub overridden: Option<String>,
    /// The id that log lines, spans and the commit share: 32 hexadecimal digits.
    pub trace_id: String,
    /// Repositories that the source runs and the target does not name. Only in the answer to the promotion itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// `GET /api/v1/promotions`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Promotions {
    /// Promotions and rollbacks, newest first.
    pub promotions: Vec<RequestView>,
    /// The value of `before` for the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The rollout of all commits of a promotion or rollback.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutSummary {
    /// The state of the rollout that is least advanced, or that failed.
    #[schema(value_type = RolloutState)]
    pub state: Word<RolloutState>,
    pub reason: Option<String>,
    #[schema(value_type = Option<String>)]
    pub ended_at: Option<Timestamp>,
}

/// The answer to a dry run: the effect of a promotion or rollback.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PreviewView {
    pub dry_run: bool,
    /// The commit to which the change would be applied.
    pub parent: String,
    /// A unified diff; `null` if the token lacks the permission `read`, because a diff shows manifests.
    pub diff: Option<String>,
    pub updates: Vec<PreviewedView>,
    /// Repositories that the source runs and the target does not name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// The effect of a promotion or rollback on one repository.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PreviewedView {
    pub repository: String,
    /// The versions that the environment runs.
    #[serde(default)]
    pub old: Vec<VersionView>,
    /// Whether the version is newer or older than the running one.
    #[serde(default = "unknown")]
    #[schema(value_type = Direction)]
    pub direction: Word<Direction>,
    pub tag: Option<String>,
    pub digest: Option<String>,
    #[schema(value_type = PreviewState)]
    pub state: Word<PreviewState>,
    pub reason: Option<String>,
}

/// The default for servers of 0.1.0, which do not send the direction.
fn unknown() -> Word<Direction> {
    Direction::Unknown.into()
}
