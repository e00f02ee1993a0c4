//! When a server asks to be asked again.

use std::time::Duration;

use ::http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// A number in `Retry-After` from here on is a moment and not a span: Docker Hub sends Unix times.
const EARLIEST_UNIX_SECONDS: u64 = 1_000_000_000;

/// Returns how long `Retry-After` asks to wait from `now` on, at most `longest`; `None` where it is absent, makes
/// no sense, or names no time to come: that is no leave to ask again and again.
///
/// A number of seconds or a date (<https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>), and the Unix time that
/// Docker Hub sends instead.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp, longest: Duration) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) if seconds < EARLIEST_UNIX_SECONDS => Duration::from_secs(seconds),
        Ok(moment) => until(Timestamp::from_second(i64::try_from(moment).ok()?).ok()?, now),
        Err(_) => until(rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?, now),
    };
    (!wait.is_zero()).then_some(wait.min(longest))
}

fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(text: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, "2026-11-23T08:00:00Z".parse().unwrap(), Duration::from_secs(21_600))
            .map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_a_date_or_a_unix_time() {
        assert_eq!(waits("30"), Some(30));
        assert_eq!(waits("Mon, 23 Nov 2026 08:02:00 GMT"), Some(120));
        assert_eq!(waits("1795420810"), Some(10));
        for text in ["", "soon", "-1", "1.5", "0", "Mon, 23 Nov 2026 07:00:00 GMT", "1795420000"] {
            assert_eq!(waits(text), None, "{text}");
        }
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_the_caller_says() {
        assert_eq!(waits("999999999"), Some(21_600));
        assert_eq!(waits("Sun, 23 Nov 2036 08:02:00 GMT"), Some(21_600));
        assert_eq!(waits("18446744073709551615"), None);
    }
}
