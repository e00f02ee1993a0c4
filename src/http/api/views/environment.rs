//! The matrix: what every environment runs.

use crate::api::{
    ApplicationView, CellView, DriftView, EnvironmentView, HealthState, HealthView, ProblemView, SiteView,
};
use crate::domain::Update;
use crate::relay::{Direction, Drift, EnvironmentRow, MatrixCell};
use crate::store::ApplicationHealth;

pub(in crate::http::api) fn environment_view(row: &EnvironmentRow, unread_because: Option<String>) -> EnvironmentView {
    EnvironmentView {
        unread_because,
        name: row.environment.name.clone(),
        config_repository: row.config_repository.clone(),
        config_repository_url: row.config_repository_url.clone(),
        branch: row.branch.clone(),
        update: row.environment.mode.as_str().to_owned(),
        promote_from: row.environment.promote_from.clone(),
        promote_when: row.environment.gate.map(|_| HealthState::Healthy.as_str().to_owned()),
        soak_seconds: row.environment.gate.map(|gate| gate.soak.as_secs()).filter(|seconds| *seconds > 0),
        health: health_view(&row.health),
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

fn health_view(applications: &[ApplicationHealth]) -> Option<HealthView> {
    let is_healthy = applications.iter().all(|app| app.healthy_since.is_some());
    let since = applications.iter().filter_map(|app| app.healthy_since).max().filter(|_| is_healthy);
    (!applications.is_empty()).then(|| HealthView {
        state: if is_healthy { HealthState::Healthy } else { HealthState::Unhealthy }.into(),
        since,
        applications: applications.iter().map(Into::into).collect(),
    })
}

impl From<&ApplicationHealth> for ApplicationView {
    fn from(app: &ApplicationHealth) -> Self {
        Self {
            name: app.application.clone(),
            sync: app.sync.clone(),
            health: app.health.clone(),
            message: app.message.clone(),
            healthy_since: app.healthy_since,
            observed_at: app.observed_at,
        }
    }
}

impl From<&Drift> for DriftView {
    fn from(drift: &Drift) -> Self {
        Self {
            environment: drift.environment.clone(),
            version: (&drift.version).into(),
            direction: crate::api::Direction::from(drift.direction).into(),
        }
    }
}

impl From<Direction> for crate::api::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Newer(_) => Self::Newer,
            Direction::Older(_) => Self::Older,
            Direction::Unknown => Self::Unknown,
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
            when: cell.since(),
            cause: last.map(|change| change.cause.into()),
            actor: last.map(|change| change.actor.clone()),
            reason: cell.reason.clone(),
            drifts: cell.drifts.iter().map(Into::into).collect(),
            rollout: cell.follow_up.as_ref().map(Into::into),
            holds: cell.holds.iter().map(Into::into).collect(),
            waiting: cell.waiting.iter().map(Into::into).collect(),
            sites: sites.collect(),
        }
    }
}
