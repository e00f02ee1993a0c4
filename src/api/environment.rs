use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Direction, FrozenView, HealthState, HoldView, RegistryView, RolloutView, UpdateView, VersionView, Word};
use crate::domain::Cause;

/// `GET /api/v1/environments`: environments × repositories.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Matrix {
    pub environments: Vec<EnvironmentView>,
    /// The registries whose tags catch-up lists.
    pub registries: Vec<RegistryView>,
}

/// One environment with the versions that it runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    pub name: String,
    pub config_repository: String,
    /// The address of the config repository, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_repository_url: Option<String>,
    pub branch: String,
    /// `automatic` or `manual`.
    pub update: String,
    pub promote_from: Vec<String>,
    /// `healthy` if promotions into the environment need a healthy source.
    pub promote_when: Option<String>,
    /// How long the source must have been healthy, in seconds.
    pub soak_seconds: Option<u64>,
    /// The health of the environment's applications in Argo CD at the last check; `null`: not checked yet.
    pub health: Option<HealthView>,
    /// The commit from which the versions were read; `null` until the branch has been read.
    pub tip: Option<String>,
    /// Why the branch could not be read.
    pub unread_because: Option<String>,
    /// The active freezes; `null`: not frozen.
    pub freeze: Option<FrozenView>,
    pub repositories: Vec<CellView>,
    /// Files that could not be read.
    pub problems: Vec<ProblemView>,
}

/// The health of an environment in Argo CD.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    #[schema(value_type = HealthState)]
    pub state: Word<HealthState>,
    /// The time since which every application has been Synced and Healthy.
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    pub applications: Vec<ApplicationView>,
}

/// An application of Argo CD at the last check.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ApplicationView {
    pub name: String,
    /// `Synced`, `OutOfSync` or `Unknown`.
    pub sync: String,
    /// `Healthy`, `Progressing`, `Degraded`, `Suspended`, `Missing` or `Unknown`.
    pub health: String,
    pub message: Option<String>,
    #[schema(value_type = Option<String>)]
    pub healthy_since: Option<Timestamp>,
    #[schema(value_type = String)]
    pub observed_at: Timestamp,
}

/// A place: one repository in one environment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CellView {
    pub repository: String,
    /// `null` if the sites name different versions.
    pub version: Option<VersionView>,
    /// More than one if the sites name different versions.
    pub versions: Vec<VersionView>,
    /// Our commit that wrote the version; `null` if it was written by other means.
    pub commit: Option<String>,
    /// When that commit was made.
    #[schema(value_type = Option<String>)]
    pub when: Option<Timestamp>,
    #[schema(value_type = Option<Cause>)]
    pub cause: Option<Word<Cause>>,
    pub actor: Option<String>,
    /// The reason given for the promotion or rollback.
    #[serde(default)]
    pub reason: Option<String>,
    /// The environments that promotions come from, if they run another version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drifts: Vec<DriftView>,
    /// The rollout of that commit in Argo CD; `null` if Argo CD is not configured.
    pub rollout: Option<RolloutView>,
    pub holds: Vec<HoldView>,
    /// Waiting updates, for example because of a hold or freeze. Without wait causes, the last one would be written.
    pub waiting: Vec<UpdateView>,
    /// Left out with `sites=false`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteView>,
}

/// An environment that promotions come from and that runs another version.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DriftView {
    pub environment: String,
    pub version: VersionView,
    /// Whether that version is newer or older than the running one.
    #[schema(value_type = Direction)]
    pub direction: Word<Direction>,
}

/// A site: one position in a manifest that names a version.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SiteView {
    pub path: String,
    pub line: u32,
    pub version: VersionView,
}

/// A file that could not be read.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    pub path: String,
    pub reason: String,
}
