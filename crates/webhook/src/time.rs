use jiff::Timestamp;

/// 2010-01-01. Earlier times are placeholders (`0001-01-01T00:00:00Z`, 0).
const EARLIEST: i64 = 1_262_304_000;

/// Unix times above this are milliseconds: as seconds they would be after the year 5138.
const LATEST_SECONDS: f64 = 1e11;

/// Parses a sender's time: RFC 3339 with any offset (also `+0000`, without colon), or a Unix time in digits. `None` for
/// local times without an offset, placeholders and other texts.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        return from_unix(seconds);
    }
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() >= EARLIEST)
}

/// Converts a Unix time in seconds or milliseconds.
pub(crate) fn from_unix(number: f64) -> Option<Timestamp> {
    let seconds = if number > LATEST_SECONDS { number / 1000.0 } else { number };
    let time = Timestamp::from_millisecond((seconds * 1000.0).round() as i64).ok()?;
    (seconds.is_finite() && time.as_second() >= EARLIEST).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_real_senders_are_parsed() {
        for (text, expected) in [
            ("2025-08-21T10:41:01Z", "2025-08-21T10:41:01Z"),
            ("2025-08-21T12:41:01.5+02:00", "2025-08-21T10:41:01.5Z"),
            ("2025-08-21T10:41:01.664+0000", "2025-08-21T10:41:01.664Z"),
            ("2025-08-21T10:41:01.859222576Z", "2025-08-21T10:41:01.859222576Z"),
            ("1755772861", "2025-08-21T10:41:01Z"),
            ("1755772861500", "2025-08-21T10:41:01.5Z"),
            ("1.755772861e+09", "2025-08-21T10:41:01Z"),
        ] {
            assert_eq!(parse(text).unwrap_or_else(|| panic!("{text}")).to_string(), expected);
        }
    }

    #[test]
    fn placeholders_and_local_times_are_refused() {
        for text in ["", "0", "-1", "0001-01-01T00:00:00Z", "2025-08-21 18:41:01", "NaN", "inf", "1e300", "soon"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
