//! Times and durations that callers write.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::Problem;

/// Parses the beginning of a list: a time, or a duration before `now`.
///
/// # Errors
///
/// With examples, if it is neither.
pub(super) fn since(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = span("since", text).ok().and_then(|span| now.checked_sub(span).ok());
    let shown: String = text.chars().take(40).collect();
    let detail = format!("`since`: `{}` is no time; write 2h, or 2026-11-20T12:00:00Z", shown.escape_debug());
    ago.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// Parses a time with its offset. `name` is the member, for the error.
///
/// # Errors
///
/// With an example, if it is none.
pub(super) fn moment(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let shown: String = text.chars().take(40).collect();
    let detail =
        format!("`{name}`: `{}` is no time with an offset; write 2027-01-04T08:00:00+01:00", shown.escape_debug());
    text.parse().map_err(|_| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
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
    fn list_begins_at_a_time_or_a_duration_ago() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        assert_eq!(since("2h", now).unwrap().to_string(), "2026-11-20T10:00:00Z");
        assert_eq!(since("2026-11-20T09:30:00+01:00", now).unwrap().to_string(), "2026-11-20T08:30:00Z");
        for text in ["yesterday", "", "9999999d"] {
            assert!(
                since(text, now).unwrap_err().detail.ends_with("is no time; write 2h, or 2026-11-20T12:00:00Z"),
                "{text}"
            );
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
