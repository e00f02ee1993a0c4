use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::history::known_environment;
use super::promotions::request_views;
use super::views::{event_detail, event_view};
use super::{App, Body, Caller, LIMIT, Problem, Query, limit, unknown_word, word};
use crate::access::Permission;
use crate::api::{EventDetailView, EventView, Events, ReplayFilter, ReplayedEvent, ReplayedEvents, RequestView};
use crate::domain::{Cause, Event, EventState, RequestKind, RequestState};
use crate::store::{EventFilter, Replayed, RequestFilter};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only this repository: the whole name, or the last component if that is unambiguous.
    repository: Option<String>,
    /// Only this state. `failed` selects events that are `refused`, or refused in some environment.
    state: Option<String>,
    /// Only events that concern this environment.
    environment: Option<String>,
    /// Only this cause; `promotion` and `rollback` select requests instead of push events.
    cause: Option<String>,
    /// Only events since then: a time such as `2026-11-20T12:00:00Z`, or a duration such as `2h`.
    since: Option<String>,
    /// At most this many, newest first; default: 100, maximum: 1000. Counts events and requests together.
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
    let selection = Selection::read(&app, filter)?;
    let mut events = match &selection.events {
        Some(filter) => event_views(&app, filter).await?,
        None => Vec::new(),
    };
    let mut requests = match &selection.requests {
        Some(filter) => Some(request_views(&app, filter).await?),
        None => None,
    };
    if let Some(requests) = &mut requests {
        cut(&mut events, requests, selection.limit as usize);
    }
    Ok(Json(Events { events, requests }))
}

async fn event_views(app: &App, filter: &EventFilter) -> Result<Vec<EventView>, Problem> {
    let store = app.0.relay.store();
    let events = store.events(filter).await?;
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let refused = store.refused_updates_of(&ids).await?;
    let view = |event: &Event| event_view(event, refused.iter().filter(|update| update.cause_id == event.id));
    Ok(events.iter().map(view).collect())
}

/// Keeps the newest of both lists. Ids sort by arrival.
fn cut(events: &mut Vec<EventView>, requests: &mut Vec<RequestView>, limit: usize) {
    let mut ids: Vec<&str> = events
        .iter()
        .map(|event| event.id.as_str())
        .chain(requests.iter().map(|request| request.id.as_str()))
        .collect();
    if ids.len() <= limit {
        return;
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let oldest = ids[limit - 1].to_owned();
    events.retain(|event| event.id >= oldest);
    requests.retain(|request| request.id >= oldest);
}

const FAILED: &str = "failed";

/// What a filter selects.
struct Selection {
    events: Option<EventFilter>,
    requests: Option<RequestFilter>,
    limit: u32,
}

impl Selection {
    fn read(app: &App, filter: Filter) -> Result<Self, Problem> {
        let Filter { repository, state, environment, cause, since, limit: asked } = filter;
        let relay = &app.0.relay;
        known_environment(relay, environment.as_deref())?;
        let repository = repository.map(|name| relay.repository_of(environment.as_deref(), &name)).transpose()?;
        let since = since.map(|text| super::time::since(&text, relay.now())).transpose()?;
        let cause = word("cause", cause.as_deref(), Cause::ALL, Cause::as_str)?;
        let limit = limit(asked)?;
        let failed = state.as_deref() == Some(FAILED);
        let state = state.filter(|_| !failed);
        let kind = match cause {
            Some(Cause::Promotion) => Some(RequestKind::Promotion),
            Some(Cause::Rollback) => Some(RequestKind::Rollback),
            Some(Cause::Follow) => Some(RequestKind::Follow),
            Some(Cause::Push | Cause::CatchUp) | None => None,
        };
        let requests = if kind.is_some() || (failed && cause.is_none()) {
            let (repository, environment) = (repository.clone(), environment.clone());
            let state = word("state", state.as_deref(), RequestState::ALL, RequestState::as_str)?;
            Some(RequestFilter { environment, repository, kind, state, failed, before: None, since, limit })
        } else {
            None
        };
        let events = if kind.is_none() {
            let state = state_word(state.as_deref())?;
            Some(EventFilter { repository, state, failed, cause, environment, since, limit })
        } else {
            None
        };
        Ok(Self { events, requests, limit })
    }
}

/// Parses the state of events. `failed` is none, but it is one of the words.
fn state_word(text: Option<&str>) -> Result<Option<EventState>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let found = EventState::ALL.iter().copied().find(|state| state.as_str() == text);
    let known = EventState::ALL.iter().map(|state| state.as_str()).chain([FAILED]);
    found.map(Some).ok_or_else(|| unknown_word("state", text, known))
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
            // Without the permission to read, the answer has no details of the event.
            let reason = before.and_then(|event| event.reason).filter(|_| caller.must_read().is_ok());
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            Some(format!(
                "the next attempt was due at {until:.0}{reason}; it starts now, and if it fails, the event waits again"
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
    let event = match caller.must_read() {
        Ok(()) => Some(detail(&app, &id).await?.0),
        Err(_) => None,
    };
    Ok((StatusCode::ACCEPTED, Json(ReplayedEvent { replayed: id, event, hastened })))
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
    let repository = filter.repository.map(|name| app.0.relay.repository_of(None, &name)).transpose()?;
    let failed = state == FAILED;
    let state = state_word(Some(state).filter(|_| !failed))?;
    let filter = EventFilter { repository, state, failed, limit, ..EventFilter::default() };
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
