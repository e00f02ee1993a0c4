use std::time::Duration;

use http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// A larger number in `Retry-After` is a Unix time, as sent by Docker Hub, and not a number of seconds to wait.
const EARLIEST_UNIX_SECONDS: u64 = 1_000_000_000;

/// Returns the wait that the header `Retry-After` asks for, at most `longest`.
///
/// Understands a number of seconds, a date (<https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>) and the Unix time
/// that Docker Hub sends. `None` if the header is missing or invalid, or names `now` or a past time: the caller then uses
/// its own backoff.
pub fn retry_after(headers: &HeaderMap, now: Timestamp, longest: Duration) -> Option<Duration> {
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
    fn seconds_dates_and_unix_times_are_understood() {
        assert_eq!(waits("30"), Some(30));
        assert_eq!(waits("Mon, 23 Nov 2026 08:02:00 GMT"), Some(120));
        assert_eq!(waits("1795420810"), Some(10));
        for text in ["", "soon", "-1", "1.5", "0", "Mon, 23 Nov 2026 07:00:00 GMT", "1795420000"] {
            assert_eq!(waits(text), None, "{text}");
        }
    }

    #[test]
    fn wait_is_limited_by_the_caller() {
        assert_eq!(waits("999999999"), Some(21_600));
        assert_eq!(waits("Sun, 23 Nov 2036 08:02:00 GMT"), Some(21_600));
        assert_eq!(waits("18446744073709551615"), None);
    }
}
