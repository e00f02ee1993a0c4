use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;

use super::{App, Body, Caller, Problem};
use crate::access::{EnvironmentScope, Permission};
use crate::api::{HoldBody, HoldView, Holds};
use crate::domain::BlockKind;

/// The holds that are active.
#[utoipa::path(get, path = "/holds", responses((status = 200, body = Holds)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Holds>, Problem> {
    caller.must_read()?;
    let holds = app.0.relay.store().blocks_of(BlockKind::Hold).await?;
    Ok(Json(Holds { holds: holds.iter().map(Into::into).collect() }))
}

/// Pins a repository in an environment.
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
    let hold = crate::relay::HoldOrder {
        environment: order.environment,
        repository: order.repository,
        reason: order.reason,
        actor: caller.name().to_owned(),
        expires_at,
    };
    let made = app.0.relay.hold(hold).await?;
    Ok((StatusCode::CREATED, Json((&made).into())))
}

/// Releases a hold: the newest update that waited for it goes.
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
    let holds = app.0.relay.store().blocks_of(BlockKind::Hold).await?;
    let hold = holds.iter().find(|hold| hold.id == id).ok_or_else(|| Problem::nothing_at("active hold", &id))?;
    caller.must(&Permission::Hold(EnvironmentScope::one(&hold.environment)))?;
    match app.0.relay.end_block(&id, BlockKind::Hold, caller.name()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::nothing_at("active hold", &id)),
    }
}

/// Parses the span of time of a member as people write it: `90s`, `30m`, `4h`, `2d`, `1h 30m`.
///
/// # Errors
///
/// When it is none, or is not above zero.
pub(super) fn span(name: &str, text: &str) -> Result<Duration, Problem> {
    let wrong = |why: &str| {
        // Whatever was sent comes back, so only the beginning of it.
        let shown: String = text.chars().take(40).collect();
        let detail = format!("`{name}`: `{}` {why}; write 30m, 4h or 2d", shown.escape_debug());
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    };
    let no_span = || wrong("is no span of time");
    // Days are 24 hours here: a hold does not care for the change of the clocks.
    let span: jiff::Span = text.parse().map_err(|_| no_span())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(wrong("counts in months or years, which are not all of one length"));
    }
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| no_span())?;
    match Duration::try_from(span) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err(wrong("is not above zero")),
    }
}

/// Returns when the span of time of a member is over that begins now.
///
/// # Errors
///
/// As [`span`], and when there is no such time.
pub(super) fn end_of(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let too_long = || format!("`{name}` reaches beyond the end of the calendar");
    let end = now.checked_add(span(name, text)?);
    end.map_err(|_| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, too_long()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("30m", 1800),
            ("4h", 14400),
            ("2d", 172_800),
            ("1w", 604_800),
            ("1h 30m", 5400),
            ("PT1H", 3600),
        ] {
            assert_eq!(span("hold_for", text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_told_with_examples() {
        for (text, why) in [
            ("", "`` is no span of time"),
            ("5", "`5` is no span of time"),
            ("abc", "`abc` is no span of time"),
            ("-1h", "`-1h` is not above zero"),
            ("0s", "`0s` is not above zero"),
            ("1 month", "`1 month` counts in months or years, which are not all of one length"),
            ("99y", "`99y` counts in months or years, which are not all of one length"),
        ] {
            let problem = serde_json::to_value(span("hold_for", text).unwrap_err()).unwrap();
            assert_eq!(problem["detail"], format!("`hold_for`: {why}; write 30m, 4h or 2d"));
            assert_eq!(problem["status"], 422);
        }
    }
}
