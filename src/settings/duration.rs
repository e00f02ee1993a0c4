use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::Section;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a span of time: `90s`, `30m`, `24h`, `7d`, `1d 12h`. Days have 24 hours.
pub(super) fn read(section: Section<'_>, key: &str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
    let text = section.text(key)?;
    match parse(text.value).filter(|duration| bounds.contains(duration)) {
        Some(duration) => Some(duration),
        None => {
            let shown = text.value.escape_debug();
            let (from, to) = (in_words(*bounds.start()), in_words(*bounds.end()));
            let message = format!("`{key}`: `{shown}` is not a span of time from {from} to {to}");
            let example = if *bounds.end() < HOUR { "write \"2s\"" } else { "write \"24h\" or \"7d\"" };
            section.report().fault_with_hint(text.offset, message, example.to_owned());
            None
        }
    }
}

fn parse(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    Duration::try_from(span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        0 => "0s".to_owned(),
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("1d 12h", 129_600)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-1h", "7", "1 month"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(in_words(Duration::from_secs(60)), "1m");
        assert_eq!(in_words(Duration::from_secs(172_800)), "2d");
    }
}
