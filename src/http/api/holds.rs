use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::input;
use super::time::end_of;
use super::{App, Body, Caller, Problem};
use crate::access::{EnvironmentScope, Permission};
use crate::api::{HoldBody, HoldView, Holds};
use crate::domain::BlockKind;

/// The active holds.
#[utoipa::path(get, path = "/holds", responses((status = 200, body = Holds)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Holds>, Problem> {
    caller.must_read()?;
    let holds = app.0.relay.store().blocks_of(BlockKind::Hold).await?;
    Ok(Json(Holds { holds: holds.iter().map(Into::into).collect() }))
}

/// Holds a repository in an environment.
#[utoipa::path(post, path = "/holds", request_body = HoldBody, responses(
    (status = 201, body = HoldView),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(order): Body<HoldBody>,
) -> Result<(StatusCode, Json<HoldView>), Problem> {
    caller.must(&Permission::Hold(EnvironmentScope::one(&order.environment)))?;
    let now = app.0.relay.store().clock().now();
    let expires_at = order.hold_for.as_deref().map(|text| end_of("hold_for", text, now)).transpose()?;
    let hold = crate::relay::HoldRequest {
        environment: order.environment,
        repository: order.repository,
        reason: input::reason(order.reason)?,
        actor: caller.name().to_owned(),
        expires_at,
    };
    let made = app.0.relay.hold(hold).await?;
    let view = HoldView { under_way: made.under_way, ..(&made.block).into() };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Releases a hold: the newest update that waited for it is written.
#[utoipa::path(delete, path = "/holds/{id}", responses(
    (status = 204),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn release(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.must_somewhere(&[Permission::Hold])?;
    let holds = app.0.relay.store().blocks_of(BlockKind::Hold).await?;
    let hold = holds.iter().find(|hold| hold.id == id).ok_or_else(|| Problem::nothing_at("active hold", &id))?;
    caller.must(&Permission::Hold(EnvironmentScope::one(&hold.environment)))?;
    match app.0.relay.end_block(&id, BlockKind::Hold, caller.name()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::nothing_at("active hold", &id)),
    }
}
