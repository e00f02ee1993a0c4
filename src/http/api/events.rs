use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::{EventDetailView, EventView};
use super::{App, Caller, Problem, Query, limit, parse_option};
use crate::settings::Permission;
use crate::store::{EventFilter, Replayed};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this repository.
    repository: Option<String>,
    /// Only this state.
    state: Option<String>,
    /// At most so many, newest first: 100 unasked, 1000 at the most.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    events: Vec<EventView>,
}

/// Push events, newest first.
#[utoipa::path(get, path = "/events", params(Filter), responses(
    (status = 200, body = Events),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(filter): Query<Filter>,
) -> Result<Json<Events>, Problem> {
    caller.must_read()?;
    let filter = EventFilter {
        repository: parse_option("repository", filter.repository.as_deref())?,
        state: parse_option("state", filter.state.as_deref())?,
        limit: limit(filter.limit)?,
    };
    let events = app.0.relay.store().events(&filter).await?;
    Ok(Json(Events { events: events.iter().map(Into::into).collect() }))
}

/// One push event with its whole explanation.
#[utoipa::path(get, path = "/events/{id}", responses(
    (status = 200, body = EventDetailView),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<EventDetailView>, Problem> {
    caller.must_read()?;
    detail(&app, &id).await
}

/// Runs a refused event again.
#[utoipa::path(post, path = "/events/{id}/replay", responses(
    (status = 202, body = EventDetailView),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is not refused", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<EventDetailView>), Problem> {
    caller.must(&Permission::Replay)?;
    match app.0.relay.replay(&id).await? {
        Replayed::Queued => {}
        Replayed::Unknown => return Err(Problem::nothing_at("event", &id)),
        Replayed::NotFinal(state) => {
            let detail = format!("event {id} is {state}; only refused events can run again");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
    }
    Ok((StatusCode::ACCEPTED, detail(&app, &id).await?))
}

async fn detail(app: &App, id: &str) -> Result<Json<EventDetailView>, Problem> {
    let store = app.0.relay.store();
    let event = store.event(id).await?.ok_or_else(|| Problem::nothing_at("event", id))?;
    let updates = store.updates_of(id).await?;
    let follow_ups = store.follow_ups_of(&updates).await?;
    Ok(Json(EventDetailView::new(&event, &updates, &follow_ups)))
}
