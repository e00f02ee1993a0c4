use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;

use super::input;
use super::time::{end_of, moment};
use super::{App, Body, Caller, Problem};
use crate::access::{EnvironmentScope, Permission};
use crate::api::{FreezeBody, FreezeView, Freezes, WindowView};
use crate::domain::BlockKind;
use crate::relay::{Branch, Environment};

/// The freezes made through the API, and the windows of the settings.
#[utoipa::path(get, path = "/freezes", responses((status = 200, body = Freezes)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Freezes>, Problem> {
    caller.must_read()?;
    let freezes = app.0.relay.store().blocks_of(BlockKind::Freeze).await?;
    let now = app.0.relay.store().clock().now();
    let environments = app.0.relay.branches().iter().flat_map(Branch::environments);
    let windows = environments.flat_map(|environment| windows(environment, now)).collect();
    Ok(Json(Freezes { freezes: freezes.iter().map(Into::into).collect(), windows }))
}

fn windows(environment: &Environment, now: Timestamp) -> Vec<WindowView> {
    let view = |window: &crate::policy::FreezeWindow| {
        let (from, until) = window.span.now_or_next(now)?;
        Some(WindowView {
            environment: environment.name.clone(),
            window: window.span.to_string(),
            reason: window.reason.clone(),
            from,
            until,
            active: from <= now,
        })
    };
    environment.freezes.windows().iter().filter_map(view).collect()
}

/// Freezes an environment: updates and promotions wait.
#[utoipa::path(post, path = "/freezes", request_body = FreezeBody, responses(
    (status = 201, body = FreezeView),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(order): Body<FreezeBody>,
) -> Result<(StatusCode, Json<FreezeView>), Problem> {
    caller.must(&Permission::Freeze(EnvironmentScope::one(&order.environment)))?;
    let wrong = |detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let reason = input::reason(Some(order.reason))?.unwrap_or_default();
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(wrong("`reason` is empty: say why updates wait"));
    }
    let now = app.0.relay.store().clock().now();
    let expires_at = match (order.until.as_deref().map(|text| moment("until", text)).transpose()?, &order.freeze_for) {
        (Some(_), Some(_)) => return Err(wrong("`until` and `freeze_for` are both set: leave one out")),
        (Some(until), None) if until <= now => return Err(wrong("`until` is in the past")),
        (until, None) => until,
        (None, Some(text)) => Some(end_of("freeze_for", text, now)?),
    };
    let freeze = crate::relay::FreezeRequest {
        environment: order.environment,
        reason: reason.to_owned(),
        actor: caller.name().to_owned(),
        expires_at,
    };
    let made = app.0.relay.freeze(freeze).await?;
    let view = FreezeView { under_way: made.under_way, ..(&made.block).into() };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Ends a freeze: the newest waiting update of each repository is written, all in one commit.
#[utoipa::path(delete, path = "/freezes/{id}", responses(
    (status = 204),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn thaw(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.must_somewhere(&[Permission::Freeze])?;
    let freezes = app.0.relay.store().blocks_of(BlockKind::Freeze).await?;
    let freeze =
        freezes.iter().find(|freeze| freeze.id == id).ok_or_else(|| Problem::nothing_at("active freeze", &id))?;
    caller.must(&Permission::Freeze(EnvironmentScope::one(&freeze.environment)))?;
    match app.0.relay.end_block(&id, BlockKind::Freeze, caller.name()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::nothing_at("active freeze", &id)),
    }
}
