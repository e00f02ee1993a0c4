use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::keys;
use super::nearest::{hint, nearest};
use super::reader::Section;
use super::report::At;
use crate::policy::{FreezeSchedule, FreezeSpan, FreezeWindow, InvalidWeekTime, WeekTime};

/// The bundled time zones instead of the system's: a freeze means the same on every machine, and minimal container images
/// have no time zones.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

const EXAMPLE: &str = "write \"2026-12-18T16:00:00+01:00\", or \"Fri 16:00\" with a `time_zone`";

/// Start or end of a window.
enum Edge {
    Moment(Timestamp),
    /// In `time_zone`.
    Local(DateTime),
    Weekly(WeekTime),
}

/// Reads `freeze` of an environment.
pub(super) fn read(section: Section<'_>) -> FreezeSchedule {
    let windows = section.tables("freeze", &keys::FREEZE);
    let schedule = FreezeSchedule::new(windows.into_iter().filter_map(read_window).collect());
    if schedule.is_endless() {
        let hint = "leave some time free, or write update = \"manual\"".to_owned();
        section.report().fault_with_hint(section.offset_of("freeze"), "the weekly windows of `freeze` never end", hint);
    }
    schedule
}

fn read_window(section: Section<'_>) -> Option<FreezeWindow> {
    let reason = section.text("reason").map(|reason| reason.value.to_owned());
    let zone = section.text("time_zone").and_then(|name| read_zone(section, name));
    let (from, until) = (read_end(section, "from"), read_end(section, "until"));
    let ((from, from_at), (until, until_at)) = (from?, until?);
    if matches!(from, Edge::Weekly(_)) != matches!(until, Edge::Weekly(_)) {
        let message = "`from` and `until` of a freeze must both be times of the week, or both be dates";
        section.report().fault_with_hint(until_at, message, EXAMPLE.to_owned());
        return None;
    }
    if section.has("time_zone") && matches!((&from, &until), (Edge::Moment(_), Edge::Moment(_))) {
        let message = "`time_zone` has no effect: both times have an offset";
        section.report().fault_with_hint(
            section.offset_of("time_zone"),
            message,
            "leave one of the two out".to_owned(),
        );
        return None;
    }
    // An invalid zone has been reported.
    let is_wrong = section.has("time_zone") && zone.is_none();
    let zone_of = |offset: usize| {
        if zone.is_none() && !is_wrong {
            let message = "a time without an offset needs a `time_zone`";
            section.report().fault_with_hint(offset, message, "write time_zone = \"Europe/Berlin\"".to_owned());
        }
        zone.clone()
    };
    let span = match (from, until) {
        (Edge::Weekly(from), Edge::Weekly(until)) => {
            if from == until {
                let message = format!("`from` and `until` of a freeze are both `{from}`");
                section.report().fault(until_at, message);
                return None;
            }
            FreezeSpan::Weekly { from, until, zone: zone_of(from_at)? }
        }
        (from, until) => {
            let from = moment(from, || zone_of(from_at), FreezeSpan::begins);
            let until = moment(until, || zone_of(until_at), FreezeSpan::ends);
            let (from, until) = (from?, until?);
            if until < Timestamp::now() {
                let message = "this freeze is over";
                section.report().warning(until_at, message, "remove it".to_owned());
            }
            if until <= from {
                section.report().fault(until_at, "`until` of a freeze is not after its `from`");
                return None;
            }
            FreezeSpan::Once { from, until }
        }
    };
    Some(FreezeWindow { span, reason })
}

fn moment(
    end: Edge,
    zone: impl FnOnce() -> Option<TimeZone>,
    in_zone: impl FnOnce(&TimeZone, DateTime) -> Option<Timestamp>,
) -> Option<Timestamp> {
    match end {
        Edge::Moment(at) => Some(at),
        Edge::Local(at) => in_zone(&zone()?, at),
        Edge::Weekly(_) => None,
    }
}

/// Returns the start or end of a window, with its offset in the file.
fn read_end(section: Section<'_>, key: &str) -> Option<(Edge, usize)> {
    // TOML dates may be written without quotes.
    let date =
        section.value(key).and_then(|found| found.value.as_datetime().map(|date| (date.to_string(), found.offset)));
    let (text, offset) = match date {
        Some(date) => date,
        None => section
            .required_text(key, &format!("{key} = \"Fri 16:00\""))
            .map(|text| (text.value.to_owned(), text.offset))?,
    };
    let end = if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        match text.parse() {
            Ok(time) => Some(Edge::Weekly(time)),
            Err(error) => {
                let hint = match &error {
                    InvalidWeekTime::Day(day) => nearest_day(day),
                    InvalidWeekTime::Time(_) => "write it as in \"Fri 16:00\"".to_owned(),
                };
                section.report().fault_with_hint(offset, format!("`{key}`: {error}"), hint);
                return None;
            }
        }
    } else {
        let moment = text.parse().ok().map(Edge::Moment);
        moment.or_else(|| text.parse().ok().map(Edge::Local))
    };
    if end.is_none() {
        let message = format!("`{key}`: `{}` is not a time", text.escape_debug());
        section.report().fault_with_hint(offset, message, EXAMPLE.to_owned());
    }
    Some((end?, offset))
}

fn nearest_day(text: &str) -> String {
    match nearest(text, WeekTime::days()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => hint(text, WeekTime::days().take(7)).unwrap_or_default(),
    }
}

fn read_zone(section: Section<'_>, name: At<&str>) -> Option<TimeZone> {
    if let Ok(zone) = ZONES.get(name.value) {
        return Some(zone);
    }
    let known: Vec<_> = ZONES.available().collect();
    // A list of all 600 zones would not help.
    let hint = match nearest(name.value, known.iter().map(|known| known.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write the name of an IANA time zone, as in \"Europe/Berlin\"".to_owned(),
    };
    let message = format!("`time_zone`: there is no time zone called `{}`", name.value.escape_debug());
    section.report().fault_with_hint(name.offset, message, hint);
    None
}
