use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::views::{event_detail, event_view, request_view};
use super::{App, Body, Caller, LIMIT, Problem, Query, limit, parse_option};
use crate::access::Permission;
use crate::api::{EventDetailView, Events, ReplayFilter, ReplayedEvent, ReplayedEvents, RequestView};
use crate::domain::EventState;
use crate::store::{EventFilter, Replayed};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this repository.
    repository: Option<String>,
    /// Only this state. `failed` selects events that are `refused`, or refused in some environment.
    state: Option<String>,
    /// At most this many, newest first; default: 100, maximum: 1000.
    limit: Option<u32>,
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
    let filter = event_filter(filter.repository.as_deref(), filter.state.as_deref(), limit(filter.limit)?)?;
    let store = app.0.relay.store();
    let events = store.events(&filter).await?;
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let refused = store.refused_updates_of(&ids).await?;
    let view =
        |event: &crate::domain::Event| event_view(event, refused.iter().filter(|update| update.cause_id == event.id));
    let events = events.iter().map(view).collect();
    let requests = if filter.failed { Some(failed_requests(&app, &filter).await?) } else { None };
    Ok(Json(Events { events, requests }))
}

async fn failed_requests(app: &App, filter: &EventFilter) -> Result<Vec<RequestView>, Problem> {
    let store = app.0.relay.store();
    let requests = store.failed_requests(filter.repository.as_ref(), filter.limit).await?;
    let ids: Vec<&str> = requests.iter().map(|request| request.id.as_str()).collect();
    let updates = store.updates_of_all(&ids).await?;
    let follow_ups = store.follow_ups_of(updates.values().flatten()).await?;
    let view = |request: &crate::domain::Request| {
        let updates = updates.get(&request.id).map(Vec::as_slice).unwrap_or_default();
        request_view(request, updates, &follow_ups)
    };
    Ok(requests.iter().map(view).collect())
}

const FAILED: &str = "failed";

fn event_filter(repository: Option<&str>, state: Option<&str>, limit: u32) -> Result<EventFilter, Problem> {
    let failed = state == Some(FAILED);
    Ok(EventFilter {
        repository: parse_option("repository", repository)?,
        state: parse_option("state", state.filter(|_| !failed))?,
        failed,
        limit,
    })
}

/// A push event with its updates and its explanation.
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

/// Replays a refused event, or starts the next attempt of a queued event at once.
#[utoipa::path(post, path = "/events/{id}/replay", responses(
    (status = 202, body = ReplayedEvent),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The event is not refused, or is being processed", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<ReplayedEvent>), Problem> {
    caller.must(&Permission::Replay)?;
    // Read first, because the next attempt overwrites the reason.
    let before = app.0.relay.store().event(&id).await?;
    let hastened = match app.0.relay.replay(&id).await? {
        Replayed::Queued => None,
        Replayed::Hastened(until) => {
            let reason = before.and_then(|event| event.reason).unwrap_or_default();
            Some(format!(
                "the next attempt was due at {until:.0} ({reason}); it starts now, and if it fails, the event waits again"
            ))
        }
        Replayed::Unknown => return Err(Problem::nothing_at("event", &id)),
        Replayed::NotFinal(state) => {
            let detail = format!(
                "event {id} is {state}; only refused events, and queued ones that wait for their next attempt, can be replayed"
            );
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
    };
    let Json(event) = detail(&app, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(ReplayedEvent { event, hastened })))
}

/// Replays all refused events.
#[utoipa::path(post, path = "/events/replay", request_body = ReplayFilter, responses(
    (status = 202, body = ReplayedEvents),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn replay_all(
    State(app): State<App>,
    caller: Caller,
    Body(filter): Body<ReplayFilter>,
) -> Result<(StatusCode, Json<ReplayedEvents>), Problem> {
    caller.must(&Permission::Replay)?;
    let state = filter.state.as_deref().unwrap_or(FAILED);
    if state != FAILED && state != EventState::Refused.as_str() {
        let detail = format!("`state` is `{state}`: only `failed` and `refused` events can be replayed");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let limit = limit(filter.limit.or(Some(LIMIT.0)))?;
    let filter = event_filter(filter.repository.as_deref(), Some(state), limit)?;
    let replayed = app.0.relay.replay_all(&filter).await?;
    Ok((StatusCode::ACCEPTED, Json(ReplayedEvents { replayed })))
}

async fn detail(app: &App, id: &str) -> Result<Json<EventDetailView>, Problem> {
    let store = app.0.relay.store();
    let event = store.event(id).await?.ok_or_else(|| Problem::nothing_at("event", id))?;
    let updates = store.updates_of(id).await?;
    let follow_ups = store.follow_ups_of(&updates).await?;
    let attempts = store.failed_attempts(id).await?;
    Ok(Json(event_detail(&event, &updates, &follow_ups, &attempts)))
}
