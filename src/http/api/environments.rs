use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::views::environment_view;
use super::{App, Caller, Problem, registries};
use crate::api::Matrix;
use crate::relay::{EnvironmentRow, Relay};

/// How long the answer waits for a branch that has never been read.
const PATIENCE: Duration = Duration::from_secs(3);

/// The versions that every environment runs.
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
        environment_view(row, reason)
    };
    let registries = registries::views(&app.0.relay);
    Ok(Json(Matrix { environments: rows.iter().map(view).collect(), registries }))
}

/// Reads the branches that have never been read. Returns the errors by environment.
async fn unread(relay: &Relay) -> HashMap<String, String> {
    let branches = relay.branches().iter().enumerate().filter(|(_, branch)| branch.snapshot().is_none());
    let asking = branches.map(|(index, branch)| async move {
        let relay = relay.clone();
        // In a task of its own, which finishes the reading after the time is over.
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
