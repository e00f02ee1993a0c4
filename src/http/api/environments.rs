use std::collections::HashMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::views::environment_view;
use super::{App, Caller, Problem, Query, registries};
use crate::api::Matrix;
use crate::relay::{EnvironmentRow, MatrixFilter, Names, Relay};
use tagrelay_image::Digest;

/// How long the answer waits for a branch that has never been read.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only these environments: names or globs, separated by commas.
    environment: Option<String>,
    /// Only these repositories: whole names, last components or globs, separated by commas.
    repository: Option<String>,
    /// Only repositories that run another version than the environment that they are promoted from.
    differs: Option<bool>,
    /// Only repositories with a hold.
    held: Option<bool>,
    /// Only repositories with a waiting update.
    waiting: Option<bool>,
    /// `false` leaves out the sites, which are most of a large answer.
    sites: Option<bool>,
}

/// The versions that every environment runs.
#[utoipa::path(get, path = "/environments",
    params(Filter, ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer")),
    responses(
        (status = 200, body = Matrix),
        (status = 304, description = "As the answer with this ETag"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> Result<Response, Problem> {
    caller.must_read()?;
    let with_sites = filter.sites.unwrap_or(true);
    let filter = MatrixFilter {
        environments: Names::read(filter.environment.as_deref())?,
        repositories: Names::read(filter.repository.as_deref())?,
        differs: filter.differs.unwrap_or_default(),
        held: filter.held.unwrap_or_default(),
        waiting: filter.waiting.unwrap_or_default(),
    };
    let mut unread = unread(&app.0.relay).await;
    let rows = app.0.relay.matrix(&filter).await?;
    // Takes the rows, so that not all of them are in memory twice.
    let view = |mut row: EnvironmentRow| {
        let reason = unread.remove(&row.environment.name).filter(|_| row.tip.is_none());
        if !with_sites {
            row.cells.iter_mut().for_each(|cell| cell.places = Vec::new());
        }
        environment_view(&row, reason)
    };
    let registries = registries::views(&app.0.relay);
    let matrix = Matrix { environments: rows.into_iter().map(view).collect(), registries };
    Ok(tagged(&headers, &matrix))
}

/// Answers with an ETag, or with 304 if the caller has this answer.
fn tagged(headers: &HeaderMap, matrix: &Matrix) -> Response {
    // Strings and numbers: serialisation cannot fail.
    let body = serde_json::to_vec(matrix).unwrap_or_default();
    let etag = format!("\"{}\"", Digest::of(&body));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let is_known = known.any(|tag| tag == etag || tag == "*");
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
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
