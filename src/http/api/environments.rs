use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::registries::{self, RegistryView};
use super::views::{FrozenView, HoldView, RolloutView, UpdateView, VersionView, time};
use super::{App, Caller, Problem};
use crate::relay::{EnvironmentRow, MatrixCell, Relay};
use crate::store::{ApplicationHealth, Update};

/// How long whoever looks waits for a branch that has never been read.
const PATIENCE: Duration = Duration::from_secs(3);

/// Environments × repositories.
#[derive(Serialize, ToSchema)]
pub(super) struct Matrix {
    environments: Vec<EnvironmentView>,
    /// The registries that are asked for what no webhook told of.
    registries: Vec<RegistryView>,
}

#[derive(Serialize, ToSchema)]
struct EnvironmentView {
    name: String,
    config_repository: String,
    branch: String,
    /// `automatic` or `manual`.
    update: &'static str,
    promote_from: Vec<String>,
    /// `healthy` where promotions to it want their source to be healthy.
    promote_when: Option<&'static str>,
    /// How long the source must have been healthy, in seconds.
    soak_seconds: Option<u64>,
    /// How its applications in Argo CD fared when they were looked at last; `null`: nobody has looked.
    health: Option<HealthView>,
    /// The commit that this was read from; `null` until the branch has been read.
    tip: Option<String>,
    /// Why the branch has not been read; `null` where it has been.
    unread_because: Option<String>,
    /// What freezes it now; `null`: nothing.
    freeze: Option<FrozenView>,
    repositories: Vec<CellView>,
    /// Files that could not be read.
    problems: Vec<ProblemView>,
}

/// How an environment fares in Argo CD.
#[derive(Serialize, ToSchema)]
struct HealthView {
    /// `healthy` or `unhealthy`.
    state: &'static str,
    /// Since when every application has been Synced and Healthy.
    since: Option<String>,
    applications: Vec<ApplicationView>,
}

/// How an application fared when it was looked at last.
#[derive(Serialize, ToSchema)]
struct ApplicationView {
    name: String,
    /// `Synced`, `OutOfSync` or `Unknown`.
    sync: String,
    /// `Healthy`, `Progressing`, `Degraded`, `Suspended`, `Missing` or `Unknown`.
    health: String,
    message: Option<String>,
    healthy_since: Option<String>,
    observed_at: String,
}

#[derive(Serialize, ToSchema)]
struct CellView {
    repository: String,
    /// `null` where the sites are apart.
    version: Option<VersionView>,
    /// More than one only where the sites are apart.
    versions: Vec<VersionView>,
    /// The commit of ours that wrote it; `null` where somebody else did.
    commit: Option<String>,
    /// When that was.
    when: Option<String>,
    /// `push`, `promotion` or `rollback`.
    cause: Option<String>,
    actor: Option<String>,
    /// What became of that commit in Argo CD; `null` where nobody follows it.
    rollout: Option<RolloutView>,
    holds: Vec<HoldView>,
    /// Updates that wait for a hold or freeze to end.
    waiting: Vec<UpdateView>,
    sites: Vec<SiteView>,
}

#[derive(Serialize, ToSchema)]
struct SiteView {
    path: String,
    line: u32,
    version: VersionView,
}

#[derive(Serialize, ToSchema)]
struct ProblemView {
    path: String,
    reason: String,
}

/// What every environment runs.
#[utoipa::path(get, path = "/environments", responses(
    (status = 200, body = Matrix),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Matrix>, Problem> {
    caller.must_read()?;
    let mut unread = unread(&app.0.relay).await;
    let rows = app.0.relay.matrix().await?;
    let view = |row: &EnvironmentRow| {
        let reason = unread.remove(&row.environment.name).filter(|_| row.tip.is_none());
        EnvironmentView::new(row, reason)
    };
    let registries = registries::views(&app.0.relay);
    Ok(Json(Matrix { environments: rows.iter().map(view).collect(), registries }))
}

/// Asks for the branches that have never been read, and returns why they still are not, by environment.
async fn unread(relay: &Relay) -> HashMap<String, String> {
    let branches = relay.branches().iter().enumerate().filter(|(_, branch)| branch.snapshot().is_none());
    let asking = branches.map(|(index, branch)| async move {
        let relay = relay.clone();
        // In a task, so that a branch that answers late is still read to the end.
        let asking = tokio::spawn(async move { relay.branches().get(index)?.refresh().await.err() });
        let reason = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(error)) => error?.to_string(),
            _ => format!("it has not answered within {} s", PATIENCE.as_secs()),
        };
        Some((branch, reason))
    });
    let failed = futures_util::future::join_all(asking).await.into_iter().flatten();
    failed
        .flat_map(|(branch, reason)| {
            branch.environments().iter().map(move |environment| (environment.name.clone(), reason.clone()))
        })
        .collect()
}

impl EnvironmentView {
    fn new(row: &EnvironmentRow, unread_because: Option<String>) -> Self {
        Self {
            unread_because,
            name: row.environment.name.clone(),
            config_repository: row.config_repository.clone(),
            branch: row.branch.clone(),
            update: row.environment.mode.as_str(),
            promote_from: row.environment.promote_from.clone(),
            promote_when: row.environment.soak.map(|_| "healthy"),
            soak_seconds: row.environment.soak.map(|soak| soak.as_secs()).filter(|seconds| *seconds > 0),
            health: HealthView::new(&row.health),
            tip: row.tip.clone(),
            freeze: row.frozen.as_ref().map(Into::into),
            repositories: row.cells.iter().map(CellView::from).collect(),
            problems: row
                .problems
                .iter()
                .map(|problem| ProblemView { path: problem.path.to_string(), reason: problem.reason.to_string() })
                .collect(),
        }
    }
}

impl HealthView {
    fn new(applications: &[ApplicationHealth]) -> Option<Self> {
        let is_healthy = applications.iter().all(|app| app.healthy_since.is_some());
        let since = applications.iter().filter_map(|app| app.healthy_since).max().filter(|_| is_healthy);
        (!applications.is_empty()).then(|| Self {
            state: if is_healthy { "healthy" } else { "unhealthy" },
            since: time(since),
            applications: applications.iter().map(Into::into).collect(),
        })
    }
}

impl From<&ApplicationHealth> for ApplicationView {
    fn from(app: &ApplicationHealth) -> Self {
        Self {
            name: app.application.clone(),
            sync: app.sync.clone(),
            health: app.health.clone(),
            message: app.message.clone(),
            healthy_since: time(app.healthy_since),
            observed_at: app.observed_at.to_string(),
        }
    }
}

impl From<&MatrixCell> for CellView {
    fn from(cell: &MatrixCell) -> Self {
        let last = cell.last_change.as_ref();
        let sites = cell.places.iter().map(|place| SiteView {
            path: place.path.to_string(),
            line: place.line,
            version: (&place.version).into(),
        });
        Self {
            repository: cell.repository.to_string(),
            version: cell.version().map(Into::into),
            versions: cell.versions.iter().map(Into::into).collect(),
            commit: last.and_then(|change: &Update| change.commit.clone()),
            when: time(cell.since()),
            cause: last.map(|change| change.cause.to_string()),
            actor: last.map(|change| change.actor.clone()),
            rollout: cell.follow_up.as_ref().map(Into::into),
            holds: cell.holds.iter().map(Into::into).collect(),
            waiting: cell.waiting.iter().map(Into::into).collect(),
            sites: sites.collect(),
        }
    }
}
