use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{App, Caller, Problem, Query, limit, parse_option};
use crate::api::{FileView, History, HistoryView};
use crate::domain::{SiteChange, Update};
use crate::relay::{Branch, Relay, RequestError};
use crate::store::{FollowUp, HistoryFilter};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this environment.
    environment: Option<String>,
    /// Only this repository.
    repository: Option<String>,
    /// At most this many, newest first; default: 100, maximum: 1000.
    limit: Option<u32>,
}

/// Every written version with commit, cause, actor and times, newest first.
#[utoipa::path(get, path = "/history", params(Filter), responses(
    (status = 200, body = History),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(filter): Query<Filter>,
) -> Result<Json<History>, Problem> {
    caller.must_read()?;
    known_environment(&app.0.relay, filter.environment.as_deref())?;
    let filter = HistoryFilter {
        environment: filter.environment,
        repository: parse_option("repository", filter.repository.as_deref())?,
        limit: limit(filter.limit)?,
    };
    let changes = app.0.relay.store().history(&filter).await?;
    let follow_ups = app.0.relay.store().follow_ups_of(&changes).await?;
    let causes: Vec<&str> = changes.iter().map(|update| update.cause_id.as_str()).collect();
    let requests = app.0.relay.store().requests_by_id(&causes).await?;
    let reason = |id: &str| requests.iter().find(|request| request.id == id).and_then(|request| request.reason.clone());
    let view = |update: &Update| history_view(update, follow_ups.get(&update.id), reason(&update.cause_id));
    Ok(Json(History { changes: changes.iter().map(view).collect() }))
}

/// Rejects an unknown environment: an empty list would suggest that it exists and has no history.
fn known_environment(relay: &Relay, name: Option<&str>) -> Result<(), Problem> {
    match name.filter(|name| relay.environment(name).is_none()) {
        None => Ok(()),
        Some(name) => {
            let known = relay.branches().iter().flat_map(Branch::environments);
            let known: Vec<&str> = known.map(|environment| environment.name.as_str()).collect();
            Err(RequestError::UnknownEnvironment { name: name.to_owned(), known: known.join(", ") }.into())
        }
    }
}

fn history_view(update: &Update, follow_up: Option<&FollowUp>, reason: Option<String>) -> HistoryView {
    let file = |change: &SiteChange| FileView { path: change.path.clone(), line: change.line };
    HistoryView {
        environment: update.environment.clone(),
        repository: update.repository.to_string(),
        from: update.old.as_ref().map(Into::into),
        to: (&update.version).into(),
        commit: update.commit.clone(),
        cause: update.cause.into(),
        cause_id: update.cause_id.clone(),
        actor: update.actor.clone(),
        reason,
        pushed_at: update.pushed_at,
        received_at: update.received_at,
        committed_at: update.finished_at,
        rollout: follow_up.map(Into::into),
        files: update.changes.iter().map(file).collect(),
    }
}
