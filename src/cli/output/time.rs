//! Times as people read and write them.

use std::sync::OnceLock;

use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// How times are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Times {
    /// 3m ago, in 2h
    Relative,
    /// In the time zone of this machine, or of TZ
    Local,
    /// In UTC
    Utc,
}

static TIMES: OnceLock<Times> = OnceLock::new();

/// Sets how times are printed. The first call counts.
pub(in crate::cli) fn set_times(times: Times) {
    let _ = TIMES.set(times);
}

/// Returns a time as it is printed in tables.
pub(in crate::cli) fn shown(at: Timestamp, now: Timestamp) -> String {
    match TIMES.get().copied().unwrap_or(Times::Relative) {
        Times::Relative => relative(at, now),
        Times::Local => absolute(at, &TimeZone::system()),
        Times::Utc => absolute(at, &TimeZone::UTC),
    }
}

/// Returns a time in full, for details and logs.
pub(in crate::cli) fn exact(at: Timestamp) -> String {
    match TIMES.get().copied().unwrap_or(Times::Utc) {
        Times::Local => at.to_zoned(TimeZone::system()).strftime("%F %T%.3f %Z").to_string(),
        Times::Relative | Times::Utc => at.strftime("%F %T%.3fZ").to_string(),
    }
}

fn absolute(at: Timestamp, zone: &TimeZone) -> String {
    let format = if *zone == TimeZone::UTC { "%F %H:%MZ" } else { "%F %H:%M %Z" };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

/// Returns an end time, or `otherwise` if there is none.
pub(in crate::cli) fn end(at: Option<Timestamp>, otherwise: &str, now: Timestamp) -> String {
    at.map_or_else(|| otherwise.to_owned(), |at| shown(at, now))
}

/// Returns a time relative to now, in its largest unit: `12s ago`, `in 4h`.
pub(in crate::cli) fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second());
    let amount = amount(seconds.unsigned_abs());
    if seconds < 0 { format!("in {amount}") } else { format!("{amount} ago") }
}

/// Returns how long ago a time was: `3m`.
pub(in crate::cli) fn age(at: Timestamp, now: Timestamp) -> String {
    amount(now.as_second().saturating_sub(at.as_second()).unsigned_abs())
}

fn amount(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Examples of times, for errors.
const EXAMPLES: &str =
    "write 2h, 18:00, \"tomorrow 8:00\", \"monday 8:00\", \"2027-01-04 8:00\" or 2027-01-04T08:00:00+01:00";

/// Reads a future time. Times without an offset are in the zone of `now`.
///
/// # Errors
///
/// With examples, if it is no time, or is over.
pub(in crate::cli) fn read_future(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let at = read(text.trim(), now).ok_or_else(|| format!("`{text}` is no time; {EXAMPLES}"))?;
    if at <= now.timestamp() {
        return Err(format!("`{text}` is over; {EXAMPLES}"));
    }
    Ok(at)
}

fn read(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(span) = text.parse::<jiff::Span>()
        && span.get_years() == 0
        && span.get_months() == 0
    {
        // A day is always 24 hours, as in the API.
        let length: SignedDuration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        return now.timestamp().checked_add(length).ok();
    }
    let zone = now.time_zone();
    if let Ok(local) = text.parse::<DateTime>() {
        return in_zone(local, zone);
    }
    let lower = text.to_lowercase();
    let (day, time) = match lower.split_once(' ') {
        Some((day, time)) => (Some(day), Some(time.trim())),
        None if lower.contains(':') => (None, Some(lower.as_str())),
        None => (Some(lower.as_str()), None),
    };
    let time = time.map_or(Some(Time::midnight()), clock)?;
    let today = now.date();
    let date = match day {
        None => {
            let at = in_zone(today.to_datetime(time), zone)?;
            if at > now.timestamp() {
                return Some(at);
            }
            today.tomorrow().ok()?
        }
        Some("today") => today,
        Some("tomorrow") => today.tomorrow().ok()?,
        Some(day) => match weekday(day) {
            // The next one: never today.
            Some(weekday) => today.nth_weekday(1, weekday).ok()?,
            None => day.parse().ok()?,
        },
    };
    in_zone(date.to_datetime(time), zone)
}

fn in_zone(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    Some(local.to_zoned(zone.clone()).ok()?.timestamp())
}

/// Reads `8:00` or `08:00:30`.
fn clock(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() { None } else { Time::new(hour, minute, second, 0).ok() }
}

fn weekday(text: &str) -> Option<Weekday> {
    let names = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let index = names.iter().position(|name| *name == text || name[..3] == *text)?;
    Weekday::from_monday_zero_offset(i8::try_from(index).ok()?).ok()
}

/// Reads a duration such as `90`, `90s` or `10m`, in seconds.
pub(in crate::cli) fn read_seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds);
    }
    let span = text.parse::<jiff::Span>().ok().filter(|span| span.get_years() == 0 && span.get_months() == 0);
    let length = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let seconds = length.and_then(|length| u64::try_from(length.as_secs()).ok());
    seconds.ok_or_else(|| "write seconds, or a duration: 90, 90s, 10m, 2h".to_owned())
}

/// Returns now, in the zone of this machine or of `TZ`.
pub(in crate::cli) fn now() -> Zoned {
    Zoned::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shown_in_its_largest_unit() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        for (at, told) in [
            ("2026-11-20T12:00:00Z", "0s ago"),
            ("2026-11-20T11:59:01Z", "59s ago"),
            ("2026-11-20T11:58:01Z", "1m ago"),
            ("2026-11-19T11:00:00Z", "25h ago"),
            ("2026-11-01T12:00:00Z", "19d ago"),
            ("2026-11-20T16:00:00Z", "in 4h"),
        ] {
            assert_eq!(relative(at.parse().unwrap(), now), told);
        }
    }

    #[test]
    fn time_is_shown_in_a_zone() {
        let at: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        assert_eq!(absolute(at, &TimeZone::UTC), "2026-11-20 12:00Z");
        assert_eq!(absolute(at, &TimeZone::get("Europe/Berlin").unwrap()), "2026-11-20 13:00 CET");
    }

    #[test]
    fn future_times_are_read_in_the_local_zone() {
        // A Friday.
        let now: Zoned = "2026-11-20T12:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("2h", "2026-11-20T13:00:00Z"),
            ("1d 12h", "2026-11-21T23:00:00Z"),
            ("18:00", "2026-11-20T17:00:00Z"),
            ("8:00", "2026-11-21T07:00:00Z"),
            ("today 18:30", "2026-11-20T17:30:00Z"),
            ("tomorrow 8:00", "2026-11-21T07:00:00Z"),
            ("Tomorrow", "2026-11-20T23:00:00Z"),
            ("monday 8:00", "2026-11-23T07:00:00Z"),
            ("fri 08:00", "2026-11-27T07:00:00Z"),
            ("2027-01-04", "2027-01-03T23:00:00Z"),
            ("2027-01-04 8:00", "2027-01-04T07:00:00Z"),
            ("2027-07-04T08:00", "2027-07-04T06:00:00Z"),
            ("2027-01-04T08:00:00+05:00", "2027-01-04T03:00:00Z"),
        ] {
            assert_eq!(read_future(text, &now).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "soon", "25:00", "8", "tomorrow eight", "2027-13-01", "1 month"] {
            let error = read_future(text, &now).unwrap_err();
            assert!(error.contains("is no time; write 2h, 18:00, \"tomorrow 8:00\""), "{text}: {error}");
        }
        assert!(read_future("2026-11-20 11:00", &now).unwrap_err().contains("is over; write"));
    }

    #[test]
    fn durations_are_read_in_seconds() {
        assert_eq!((read_seconds("90"), read_seconds("10m"), read_seconds("1h 30m")), (Ok(90), Ok(600), Ok(5400)));
        assert!(read_seconds("soon").unwrap_err().contains("10m"));
    }
}
