use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde::Serialize;

use super::App;
use crate::telemetry::METRICS_CONTENT_TYPE;

/// The page for browsers.
const FRONT_PAGE: &str = include_str!("front_page.html");

/// Says what this is and where to go. The same for every server: it needs no token.
pub(super) async fn front_page() -> Html<&'static str> {
    Html(FRONT_PAGE)
}

pub(super) fn health_routes() -> Router<App> {
    Router::new().route("/healthz", get(live)).route("/readyz", get(ready))
}

/// Live: the process runs and answers.
async fn live() -> &'static str {
    "ok\n"
}

/// The answer of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    problems: Vec<String>,
}

/// Ready: the store can be written, and every config repository has been read once.
///
/// Afterwards, an unreachable registry or config repository, even one that a reload added, does not make the service unready,
/// because webhooks are still accepted.
async fn ready(State(app): State<App>) -> Response {
    let mut problems = Vec::new();
    let mut blocking = 0;
    if let Err(error) = app.0.relay.store().check().await {
        tracing::error!(%error, "not ready: the store cannot be written");
        problems.push("the store cannot be written".to_owned());
        blocking += 1;
    }
    let has_been_ready = app.0.has_been_ready.load(Ordering::Relaxed);
    for branch in app.0.relay.branches() {
        if branch.snapshot().is_none() {
            let (name, branch) = (branch.repository_name(), branch.branch_name());
            problems.push(format!("branch `{branch}` of config repository `{name}` has not been read yet"));
            blocking += usize::from(!has_been_ready);
        }
    }
    // A rejected push is listed, but does not make the service unready: webhooks are still accepted.
    match app.0.relay.store().rejections().await {
        Ok(rejections) => problems.extend(
            rejections
                .into_iter()
                .map(|(environment, reason)| format!("pushes to environment `{environment}` are rejected: {reason}")),
        ),
        Err(error) => tracing::error!(%error, "rejected pushes cannot be read from the store"),
    }
    let ready = blocking == 0;
    app.0.has_been_ready.fetch_or(ready, Ordering::Relaxed);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, problems })).into_response()
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let relay = &app.0.relay;
    relay.measure().await;
    let metrics = relay.metrics().clone();
    // Reads the free space of the store's disk, which may block.
    match tokio::task::spawn_blocking(move || metrics.encode()).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encoding the metrics failed: please report this");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
