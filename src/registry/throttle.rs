//! Pauses that a registry asks for, with `Retry-After` or by a nearly used rate limit.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use tagrelay_git::retry_after;

use super::failure::LONGEST_WAIT;

/// The last tenth of a rate limit is reserved for confirming images.
const RESERVED_PARTS: u64 = 10;

/// The pause after a rate limit is nearly used up.
///
/// Docker Hub's limit is a sliding window of six hours, so a part of the limit is available again within minutes.
const BUDGET_WAIT: Duration = Duration::from_secs(15 * 60);

/// A pause for requests that can wait, such as tag lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) reason: &'static str,
    pub(super) wait: Duration,
}

/// The end of the current pause, with its reason.
#[derive(Default)]
pub(super) struct Throttle(Mutex<Option<(Instant, &'static str)>>);

impl Throttle {
    /// Records the pause that an answer asks for. A shorter pause does not end a longer one.
    ///
    /// The pause comes from `Retry-After` of a 429 or 503, or from Docker Hub's `ratelimit-remaining`
    /// (<https://docs.docker.com/docker-hub/usage/pulls/>).
    pub(super) fn record(&self, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let wait = retry_after(headers, Timestamp::now(), LONGEST_WAIT).filter(|_| asks);
        let (wait, reason) = match (wait, is_nearly_used_up(headers)) {
            (Some(wait), _) => (wait, "it asked for a pause (Retry-After)"),
            (None, true) => (BUDGET_WAIT, "its rate limit is nearly used up (ratelimit-remaining)"),
            (None, false) => return,
        };
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now + wait;
        if current.is_none_or(|(end, _)| end < until) {
            *current = Some((until, reason));
        }
    }

    /// Returns the rest of the current pause; `None`: no pause.
    pub(super) fn pause(&self, now: Instant) -> Option<Pause> {
        let (until, reason) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let wait = until.checked_duration_since(now).filter(|wait| !wait.is_zero())?;
        Some(Pause { reason, wait })
    }
}

/// Returns whether only the reserve of a limit such as `100;w=21600` is left.
fn is_nearly_used_up(headers: &HeaderMap) -> bool {
    let count = |name: &str| headers.get(name)?.to_str().ok()?.split(';').next()?.trim().parse::<u64>().ok();
    match (count("ratelimit-remaining"), count("ratelimit-limit")) {
        (Some(remaining), Some(limit)) => remaining <= limit / RESERVED_PARTS,
        (Some(remaining), None) => remaining == 0,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
    }

    fn waits(status: u16, pairs: &[(&'static str, &str)]) -> Option<u64> {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.record(StatusCode::from_u16(status).unwrap(), &headers(pairs), now);
        throttle.pause(now).map(|pause| pause.wait.as_secs())
    }

    #[test]
    fn retry_after_of_429_and_503_starts_a_pause() {
        assert_eq!(waits(429, &[("retry-after", "30")]), Some(30));
        assert_eq!(waits(503, &[("retry-after", "30")]), Some(30));
        assert_eq!(waits(429, &[]), None, "without Retry-After the caller's own backoff applies");
        assert_eq!(waits(200, &[("retry-after", "30")]), None);
        assert_eq!(waits(429, &[("retry-after", "999999999")]), Some(LONGEST_WAIT.as_secs()));
    }

    #[test]
    fn last_tenth_of_a_rate_limit_starts_a_pause() {
        let limits = |remaining| waits(200, &[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", remaining)]);
        assert_eq!(limits("11;w=21600"), None);
        assert_eq!(limits("10;w=21600"), Some(900));
        assert_eq!(limits("0"), Some(900));
        assert_eq!(waits(200, &[("ratelimit-remaining", "5")]), None);
        assert_eq!(waits(200, &[("ratelimit-remaining", "0;w=1")]), Some(900));
        assert_eq!(limits("many"), None);
    }

    #[test]
    fn shorter_pause_does_not_end_a_longer_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for wait in ["60", "5"] {
            throttle.record(StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", wait)]), now);
        }
        assert_eq!(throttle.pause(now).unwrap().wait, Duration::from_secs(60));
        assert_eq!(throttle.pause(now + Duration::from_secs(60)), None);
    }
}
