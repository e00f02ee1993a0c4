use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{App, Caller, Problem, Query, limit, next_page};
use crate::api::{FileView, History, HistoryView};
use crate::domain::{SiteChange, Update, UpdateState};
use crate::relay::Relay;
use crate::store::{HistoryFilter, Rollout};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this environment.
    environment: Option<String>,
    /// Only this repository: the whole name, or the last component if that is unambiguous.
    repository: Option<String>,
    /// At most this many, newest first; default: 100, maximum: 1000.
    limit: Option<u32>,
    /// Only changes that are older than this one: the `next` of an earlier answer.
    before: Option<String>,
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
    let limit = limit(filter.limit)?;
    let repository = match filter.repository.as_deref() {
        Some(name) => Some(app.0.relay.repository_of(filter.environment.as_deref(), name)?),
        None => None,
    };
    let before = match filter.before.as_deref() {
        Some(id) => Some(position(&app, id).await?),
        None => None,
    };
    // One more, to know whether there is a next page.
    let filter = HistoryFilter { environment: filter.environment, repository, before, limit: limit + 1 };
    let mut changes = app.0.relay.store().history(&filter).await?;
    let next = next_page(&mut changes, limit, |change| change.id.clone());
    let follow_ups = app.0.relay.store().follow_ups_of(&changes).await?;
    let causes: Vec<&str> = changes.iter().map(|update| update.cause_id.as_str()).collect();
    let requests = app.0.relay.store().requests_by_id(&causes).await?;
    let reason = |id: &str| requests.iter().find(|request| request.id == id).and_then(|request| request.reason.clone());
    let view = |update: &Update| {
        let can_roll_back_to = app.0.relay.can_roll_back_to(update);
        HistoryView { can_roll_back_to, ..history_view(update, follow_ups.get(&update.id), reason(&update.cause_id)) }
    };
    Ok(Json(History { changes: changes.iter().map(view).collect(), next }))
}

/// Returns the position of a change in the history.
async fn position(app: &App, id: &str) -> Result<(jiff::Timestamp, String), Problem> {
    let change = app.0.relay.store().updates_by_id(&[id]).await?.pop();
    let at = change.filter(|change| change.state == UpdateState::Committed).and_then(|change| change.finished_at);
    let detail = "`before` names no change of the history: it must be the `next` of an earlier answer";
    at.map(|at| (at, id.to_owned())).ok_or_else(|| Problem::new(http::StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// Rejects an unknown environment: an empty list would suggest that it exists and has no history.
pub(super) fn known_environment(relay: &Relay, name: Option<&str>) -> Result<(), Problem> {
    Ok(name.map_or(Ok(()), |name| relay.check_environment(name))?)
}

fn history_view(update: &Update, follow_up: Option<&Rollout>, reason: Option<String>) -> HistoryView {
    let file = |change: &SiteChange| FileView { path: change.path.clone(), line: change.line };
    HistoryView {
        id: update.id.clone(),
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
        can_roll_back_to: false,
        files: update.changes.iter().map(file).collect(),
    }
}
