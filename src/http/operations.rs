use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde::Serialize;

use super::App;
use crate::telemetry::METRICS_CONTENT_TYPE;

pub(super) fn health_routes() -> Router<App> {
    Router::new().route("/healthz", get(live)).route("/readyz", get(ready))
}

/// The process runs and its threads answer.
async fn live() -> &'static str {
    "ok\n"
}

/// Whether Tagrelay can do its work, and what hinders it.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    problems: Vec<String>,
}

/// The store can be written to, and every config repository has been read at least once.
///
/// A registry or config repository that is away later, or that comes with later settings, does not make it unready:
/// webhooks are still taken, and taking them is what readiness is about.
async fn ready(State(app): State<App>) -> Response {
    let mut problems = Vec::new();
    let mut hindrances = 0;
    if let Err(error) = app.0.relay.store().check().await {
        tracing::error!(%error, "not ready: the store fails");
        problems.push("the store cannot be written to".to_owned());
        hindrances += 1;
    }
    let has_been_ready = app.0.has_been_ready.load(Ordering::Relaxed);
    for branch in app.0.relay.branches() {
        if branch.snapshot().is_none() {
            let (name, branch) = (branch.repository_name(), branch.branch_name());
            problems.push(format!("branch `{branch}` of config repository `{name}` has not been read yet"));
            hindrances += usize::from(!has_been_ready);
        }
    }
    // Webhooks must still come in, so a rejected push is a problem but no hindrance.
    match app.0.relay.store().rejections().await {
        Ok(rejections) => problems.extend(
            rejections
                .into_iter()
                .map(|(environment, reason)| format!("pushes to environment `{environment}` are rejected: {reason}")),
        ),
        Err(error) => tracing::error!(%error, "rejected pushes cannot be read from the store"),
    }
    let ready = hindrances == 0;
    app.0.has_been_ready.fetch_or(ready, Ordering::Relaxed);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, problems })).into_response()
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let relay = &app.0.relay;
    relay.measure().await;
    let metrics = relay.metrics().clone();
    // It looks at the store's disk, which may be a slow one.
    match tokio::task::spawn_blocking(move || metrics.encode()).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written down: please report this");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
