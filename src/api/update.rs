use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Word;
use crate::domain::UpdateState;
use crate::store::RolloutState;

/// A version: tag, digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// One edited site.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    pub environment: String,
    pub repository: String,
    /// The file, from the root of the config repository.
    pub path: String,
    /// The line, counted from 1.
    pub line: u32,
    pub old: VersionView,
    pub new: VersionView,
}

/// An update: an environment is to run a version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateView {
    pub id: String,
    pub environment: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
    #[schema(value_type = UpdateState)]
    pub state: Word<UpdateState>,
    pub reason: Option<String>,
    /// The criterion that decided whether the version is newer than the running one.
    ///
    /// `ancestry`, `number`, `time`, `version`, `build_time` or `arrival`. `null` for promotions and rollbacks.
    pub decided_by: Option<String>,
    /// The version with which the update was compared, and the result, in words.
    pub decided_because: Option<String>,
    pub commit: Option<String>,
    pub changes: Vec<ChangeView>,
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Timestamp>,
    /// The rollout of the commit in Argo CD; `null` if Argo CD is not configured.
    pub rollout: Option<RolloutView>,
}

/// The rollout of a commit in Argo CD.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// `waiting`: Argo CD has not been notified yet. `untracked`: no application uses the changed files, or
    /// runs the repository. `superseded`: another version was written before the cluster ran this one. `told`: Argo CD's webhook was
    /// notified; without a token nothing more is known.
    #[schema(value_type = RolloutState)]
    pub state: Word<RolloutState>,
    pub reason: Option<String>,
    /// When the commit was on the branch.
    #[schema(value_type = String)]
    pub started_at: Timestamp,
    #[schema(value_type = Option<String>)]
    pub ended_at: Option<Timestamp>,
    /// The applications that use the changed files.
    pub applications: Vec<RolledView>,
}

/// The rollout of a commit in one application.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolledView {
    pub namespace: Option<String>,
    pub name: String,
    /// `following`, `healthy`, `degraded` or `timed_out`.
    pub state: String,
    /// The sync status that Argo CD last reported: `Synced`, `OutOfSync` or `Unknown`.
    pub sync: Option<String>,
    /// The health that Argo CD last reported.
    ///
    /// `Healthy`, `Progressing`, `Degraded`, `Suspended`, `Missing` or `Unknown`.
    pub health: Option<String>,
    /// The commit that Argo CD last reported.
    pub revision: Option<String>,
    pub reason: Option<String>,
    /// When Tagrelay requested the refresh of the application.
    #[schema(value_type = Option<String>)]
    pub refreshed_at: Option<Timestamp>,
    /// When the application was first seen at this commit or a later one.
    #[schema(value_type = Option<String>)]
    pub reached_at: Option<Timestamp>,
    /// When the application was first seen Synced at this commit or a later one.
    #[schema(value_type = Option<String>)]
    pub synced_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub ended_at: Option<Timestamp>,
}
