use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;

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
    let holds = app.0.relay.store().blocks_of(BlockKind::Hold).await?;
    let hold = holds.iter().find(|hold| hold.id == id).ok_or_else(|| Problem::nothing_at("active hold", &id))?;
    caller.must(&Permission::Hold(EnvironmentScope::one(&hold.environment)))?;
    match app.0.relay.end_block(&id, BlockKind::Hold, caller.name()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::nothing_at("active hold", &id)),
    }
}

/// Parses a duration: `90s`, `30m`, `4h`, `2d`, `1h 30m`. `name` is the member, for the error.
///
/// # Errors
///
/// If it is not a duration above zero.
pub(super) fn span(name: &str, text: &str) -> Result<Duration, Problem> {
    let wrong = |why: &str| {
        // Cut, because the text is arbitrary input.
        let shown: String = text.chars().take(40).collect();
        let detail = format!("`{name}`: `{}` {why}; write 30m, 4h or 2d", shown.escape_debug());
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    };
    let not_a_duration = || wrong("is not a duration");
    // A day is always 24 hours, also when daylight saving time begins or ends.
    let span: jiff::Span = text.parse().map_err(|_| not_a_duration())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(wrong("uses months or years, whose length varies"));
    }
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| not_a_duration())?;
    match Duration::try_from(span) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err(wrong("is not above zero")),
    }
}

/// Returns the time when a duration that begins now is over.
///
/// # Errors
///
/// As [`span`], or if the end is beyond the calendar.
pub(super) fn end_of(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let too_long = || format!("`{name}` ends after the year 9999");
    let end = now.checked_add(span(name, text)?);
    end.map_err(|_| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, too_long()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
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
    fn invalid_duration_is_rejected_with_examples() {
        for (text, why) in [
            ("", "`` is not a duration"),
            ("5", "`5` is not a duration"),
            ("abc", "`abc` is not a duration"),
            ("-1h", "`-1h` is not above zero"),
            ("0s", "`0s` is not above zero"),
            ("1 month", "`1 month` uses months or years, whose length varies"),
            ("99y", "`99y` uses months or years, whose length varies"),
        ] {
            let problem = serde_json::to_value(span("hold_for", text).unwrap_err()).unwrap();
            assert_eq!(problem["detail"], format!("`hold_for`: {why}; write 30m, 4h or 2d"));
            assert_eq!(problem["status"], 422);
        }
    }
}
