use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::super::trace::RequestTrace;
use super::history::known_environment;
use super::input;
use super::views::request_view;
use super::{App, Body, Caller, Problem, Query, limit, next_page, parse, parse_option, word};
use crate::access::{EnvironmentScope, Permission};
use crate::api::{PreviewView, PreviewedView, PromotionBody, Promotions, RequestView, Word};
use crate::domain::{Change, RequestKind, RequestState};
use crate::relay::{Preview, PreviewedUpdate, PromotionRequest, Requester};
use crate::store::{Cancelled, RequestFilter, RequestMade};
use crate::telemetry::TraceContext;
use tagrelay_image::{Repository, Tag};

/// The longest time that a client may wait for an answer.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// Requests a promotion.
#[utoipa::path(post, path = "/promotions", request_body = PromotionBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one promotion")),
    responses(
        (status = 202, description = "Accepted", body = RequestView),
        (status = 200, description = "A dry run", body = PreviewView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`to` runs another version than expected, or its source is not healthy enough", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Extension(RequestTrace(trace)): Extension<RequestTrace>,
    Body(body): Body<PromotionBody>,
) -> Result<Response, Problem> {
    if body.repositories.as_ref().is_some_and(Vec::is_empty) {
        let detail = "`repositories` is empty: leave it out to promote all";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let expect = body.expect.iter().map(|(repository, tag)| Ok((repository.clone(), parse::<Tag>("expect", tag)?)));
    let order = PromotionRequest {
        expect: expect.collect::<Result<_, Problem>>()?,
        tag: parse_option("tag", body.tag.as_deref())?,
        to: body.to,
        from: body.from,
        repositories: body.repositories,
        reason: input::reason(body.reason)?,
        overrides: body.overrides,
        wait: body.wait,
    };
    if body.dry_run {
        caller.must_see_requests(&order.to)?;
        let preview = app.0.relay.preview_promotion(&order, &trace).await?;
        let mut view = PreviewView::from(preview);
        if caller.must_read().is_err() {
            view.diff = None;
        }
        return Ok(Json(view).into_response());
    }
    caller.must(&Permission::Promote(EnvironmentScope::one(&order.to)))?;
    if order.overrides {
        caller.must(&Permission::Override(EnvironmentScope::one(&order.to)))?;
    }
    let (made, skipped) = app.0.relay.promote(&order, &by(caller, &headers, trace)?).await?;
    accepted(&app, made, &skipped).await
}

/// A promotion or rollback with its state.
#[utoipa::path(get, path = "/promotions/{id}", params(Wait), responses(
    (status = 200, body = RequestView),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<RequestView>, Problem> {
    let mut deadline = Instant::now() + Duration::from_secs(wait.wait.unwrap_or_default()).min(MAX_WAIT);
    // Subscribe before the first read, so that no change is missed in between.
    let store = app.0.relay.store();
    let mut outbox = store.subscribe();
    if caller.must_read().is_err() {
        caller.must_somewhere(&[Permission::Promote, Permission::Rollback])?;
    }
    let request = store.request(&id).await?.ok_or_else(|| Problem::nothing_at("promotion", &id))?;
    caller.must_see_requests(&request.environment)?;
    loop {
        let updates = store.updates_of(&id).await?;
        let state = RequestState::of(updates.iter().map(|update| update.state));
        if state != RequestState::Pending || Instant::now() >= deadline {
            let follow_ups = store.follow_ups_of(&updates).await?;
            return Ok(Json(request_view(&request, &updates, &follow_ups)));
        }
        let of_request = async { while !outbox.next().await.iter().any(|entry| is_about(&entry.change, &id)) {} };
        tokio::select! {
            _ = tokio::time::timeout_at(deadline, of_request) => {}
            () = app.clone().stopped() => deadline = Instant::now(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only those of this environment.
    environment: Option<String>,
    /// Only those in this state.
    state: Option<String>,
    /// At most this many, newest first; default: 100, maximum: 1000.
    limit: Option<u32>,
    /// Only those that are older than this one: the `next` of an earlier answer.
    before: Option<String>,
}

/// Promotions and rollbacks, newest first.
#[utoipa::path(get, path = "/promotions", params(Filter), responses(
    (status = 200, body = Promotions),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(filter): Query<Filter>,
) -> Result<Json<Promotions>, Problem> {
    match &filter.environment {
        Some(environment) => caller.must_see_requests(environment)?,
        None => caller.must_read()?,
    }
    known_environment(&app.0.relay, filter.environment.as_deref())?;
    let limit = limit(filter.limit)?;
    let filter = RequestFilter {
        environment: filter.environment,
        state: word("state", filter.state.as_deref(), RequestState::ALL, RequestState::as_str)?,
        before: filter.before,
        // One more, to know whether there is a next page.
        limit: limit + 1,
        ..RequestFilter::default()
    };
    let mut promotions = request_views(&app, &filter).await?;
    let next = next_page(&mut promotions, limit, |request| request.id.clone());
    Ok(Json(Promotions { promotions, next }))
}

/// Returns the requests of a filter with their updates.
pub(super) async fn request_views(app: &App, filter: &RequestFilter) -> Result<Vec<RequestView>, Problem> {
    let store = app.0.relay.store();
    let requests = store.requests(filter).await?;
    let follow_ups = store.follow_ups_of(requests.iter().flat_map(|(_, updates)| updates)).await?;
    Ok(requests.iter().map(|(request, updates)| request_view(request, updates, &follow_ups)).collect())
}

/// Cancels a promotion or rollback: what is not written yet is not written any more.
#[utoipa::path(delete, path = "/promotions/{id}", responses(
    (status = 200, description = "Cancelled; what had been written before stays", body = RequestView),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Nothing is left to cancel, or it is being pushed", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RequestView>, Problem> {
    caller.must_somewhere(&[Permission::Promote, Permission::Rollback])?;
    let store = app.0.relay.store();
    let request = store.request(&id).await?.ok_or_else(|| Problem::nothing_at("promotion", &id))?;
    let scope = EnvironmentScope::one(&request.environment);
    caller.must(&match request.kind {
        RequestKind::Promotion | RequestKind::Follow => Permission::Promote(scope),
        RequestKind::Rollback => Permission::Rollback(scope),
    })?;
    let outcome = app.0.relay.cancel(&request, caller.name()).await?;
    let updates = store.updates_of(&id).await?;
    let state = RequestState::of(updates.iter().map(|update| update.state));
    let kind = request.kind;
    match outcome {
        Cancelled::Now => {
            let follow_ups = store.follow_ups_of(&updates).await?;
            Ok(Json(request_view(&request, &updates, &follow_ups)))
        }
        Cancelled::Ended => {
            let detail = format!("{kind} {id} is {state}: nothing is left to cancel");
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        Cancelled::UnderWay => {
            let detail = format!("{kind} {id} is {state} and is being pushed now: look at its state again in a moment");
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
    }
}

/// Whether a change is about an update of the request.
fn is_about(change: &Change, request: &str) -> bool {
    matches!(change, Change::Update { cause_id, .. } if cause_id == request)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// How many seconds to wait until it is no longer pending; maximum: 300.
    wait: Option<u64>,
}

/// Returns the caller, the idempotency key and the trace of a request.
pub(super) fn by(caller: Caller, headers: &HeaderMap, trace: TraceContext) -> Result<Requester, Problem> {
    let key = headers.get("idempotency-key").map(|value| value.to_str().unwrap_or_default());
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
        return Err(Problem::bad_request(format!(
            "Idempotency-Key must have 1 to {MAX_KEY_BYTES} visible ASCII characters"
        )));
    }
    Ok(Requester { actor: caller.name().to_owned(), idempotency_key: key.map(str::to_owned), trace })
}

/// Answers 202 with the request. If the idempotency key was used before, that is the earlier request.
pub(super) async fn accepted(app: &App, made: RequestMade, skipped: &[Repository]) -> Result<Response, Problem> {
    let request = match made {
        RequestMade::New { request, .. } | RequestMade::Repeated(request) => request,
    };
    let store = app.0.relay.store();
    let updates = store.updates_of(&request.id).await?;
    let follow_ups = store.follow_ups_of(&updates).await?;
    let skipped = skipped.iter().map(ToString::to_string).collect();
    let view = RequestView { skipped, ..request_view(&request, &updates, &follow_ups) };
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

impl From<Preview> for PreviewView {
    fn from(preview: Preview) -> Self {
        let view = |update: &PreviewedUpdate| PreviewedView {
            repository: update.repository.to_string(),
            old: update.old.iter().map(Into::into).collect(),
            direction: crate::api::Direction::from(update.direction).into(),
            tag: update.version.tag().map(ToString::to_string),
            digest: update.version.digest().map(ToString::to_string),
            state: Word::read(update.state.as_str()),
            reason: update.reason.clone(),
        };
        Self {
            dry_run: true,
            updates: preview.updates.iter().map(view).collect(),
            parent: preview.parent,
            diff: Some(preview.diff),
            skipped: preview.skipped.iter().map(ToString::to_string).collect(),
        }
    }
}
