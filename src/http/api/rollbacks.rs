use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use http::HeaderMap;

use super::super::trace::RequestTrace;
use super::input;
use super::promotions::{accepted, by};
use super::time::span;
use super::{App, Body, Caller, Problem, parse_option};
use crate::access::{EnvironmentScope, Permission};
use crate::api::{PreviewView, RequestView, RollbackBody};
use crate::relay::RollbackRequest;

/// Requests a rollback: an earlier version, and a hold. Its state is at `/api/v1/promotions/{id}`.
#[utoipa::path(post, path = "/rollbacks", request_body = RollbackBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one rollback")),
    responses(
        (status = 202, description = "Accepted", body = RequestView),
        (status = 200, description = "A dry run", body = PreviewView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Extension(RequestTrace(trace)): Extension<RequestTrace>,
    Body(body): Body<RollbackBody>,
) -> Result<Response, Problem> {
    if body.dry_run {
        caller.must_see_requests(&body.environment)?;
    } else {
        caller.must(&Permission::Rollback(EnvironmentScope::one(&body.environment)))?;
    }
    let order = RollbackRequest {
        to: parse_option("to", body.to.as_deref())?,
        hold_for: body.hold_for.as_deref().map(|text| span("hold_for", text)).transpose()?,
        environment: body.environment,
        repository: body.repository,
        reason: input::reason(body.reason)?,
    };
    if body.dry_run {
        let mut view = PreviewView::from(app.0.relay.preview_rollback(&order, &trace).await?);
        if caller.must_read().is_err() {
            view.diff = None;
        }
        return Ok(Json(view).into_response());
    }
    let made = app.0.relay.roll_back(&order, &by(caller, &headers, trace)?).await?;
    accepted(&app, made, &[]).await
}
