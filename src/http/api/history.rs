use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::{RolloutView, VersionView, time};
use super::{App, Caller, Problem, Query, limit, parse_option};
use crate::relay::{Branch, Relay, RequestError};
use crate::store::{FollowUp, HistoryFilter, Update};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this environment.
    environment: Option<String>,
    /// Only this repository.
    repository: Option<String>,
    /// At most so many, newest first: 100 unasked, 1000 at the most.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct History {
    changes: Vec<HistoryView>,
}

/// One version that an environment got.
#[derive(Serialize, ToSchema)]
struct HistoryView {
    environment: String,
    repository: String,
    from: Option<VersionView>,
    to: VersionView,
    commit: Option<String>,
    /// `push`, `promotion` or `rollback`.
    cause: String,
    /// The event, or the promotion or rollback.
    cause_id: String,
    /// The receiver, or the name of the API token.
    actor: String,
    /// When the registry says the image was pushed.
    pushed_at: Option<String>,
    /// When the cause reached Tagrelay.
    received_at: String,
    /// When it was on the branch.
    committed_at: Option<String>,
    /// What became of it in Argo CD; `null` where nobody follows it.
    rollout: Option<RolloutView>,
    files: Vec<FileView>,
}

#[derive(Serialize, ToSchema)]
struct FileView {
    path: String,
    line: u32,
}

/// Every change with commit, cause, actor and times, newest first.
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
    let view = |update: &Update| HistoryView::new(update, follow_ups.get(&update.id));
    Ok(Json(History { changes: changes.iter().map(view).collect() }))
}

/// Refuses a name that no environment has: an empty list would say that nothing ever happened there.
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

impl HistoryView {
    fn new(update: &Update, follow_up: Option<&FollowUp>) -> Self {
        Self {
            environment: update.environment.clone(),
            repository: update.repository.to_string(),
            from: update.old.as_ref().map(Into::into),
            to: (&update.version).into(),
            commit: update.commit.clone(),
            cause: update.cause.to_string(),
            cause_id: update.cause_id.clone(),
            actor: update.actor.clone(),
            pushed_at: time(update.pushed_at),
            received_at: update.received_at.to_string(),
            committed_at: time(update.finished_at),
            rollout: follow_up.map(Into::into),
            files: update
                .changes
                .iter()
                .map(|change| FileView { path: change.path.clone(), line: change.line })
                .collect(),
        }
    }
}
