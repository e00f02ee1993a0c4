//! What a registry has said about how often it wants to be asked.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::setback::LONGEST_WAIT;
use tagrelay_git::retry_after;

/// Of a limit that a registry counts down, a tenth is left to those who confirm images.
const RESERVED_PARTS: u64 = 10;

/// How long a budget that is nearly used up is left alone before it is looked at again. Docker Hub counts over six hours,
/// and what was used first comes back first.
const BUDGET_WAIT: Duration = Duration::from_secs(15 * 60);

/// A registry that is to be left alone by whoever can wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) reason: &'static str,
    pub(super) wait: Duration,
}

/// The last words of a registry about that.
#[derive(Default)]
pub(super) struct Patience(Mutex<Option<(Instant, &'static str)>>);

impl Patience {
    /// Takes note of an answer: `Retry-After` of 429 and 503, and Docker Hub's `ratelimit-remaining`
    /// (<https://docs.docker.com/docker-hub/usage/pulls/>).
    pub(super) fn hear(&self, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let wait = retry_after(headers, Timestamp::now(), LONGEST_WAIT).filter(|_| asks);
        let heard = match (wait, is_nearly_used_up(headers)) {
            (Some(wait), _) => (wait, "it asked to be left alone (Retry-After)"),
            (None, true) => (BUDGET_WAIT, "its rate limit is nearly used up (ratelimit-remaining)"),
            (None, false) => return,
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now + heard.0;
        if known.is_none_or(|(there, _)| there < until) {
            *known = Some((until, heard.1));
        }
    }

    /// Returns how long it is still to be left alone.
    pub(super) fn quiet(&self, now: Instant) -> Option<Quiet> {
        let (until, reason) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let wait = until.checked_duration_since(now).filter(|wait| !wait.is_zero())?;
        Some(Quiet { reason, wait })
    }
}

/// Returns whether of a limit such as `100;w=21600` less than its reserve is left.
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
        let (patience, now) = (Patience::default(), Instant::now());
        patience.hear(StatusCode::from_u16(status).unwrap(), &headers(pairs), now);
        patience.quiet(now).map(|quiet| quiet.wait.as_secs())
    }

    #[test]
    fn a_registry_is_left_alone_when_it_says_so() {
        assert_eq!(waits(429, &[("retry-after", "30")]), Some(30));
        assert_eq!(waits(503, &[("retry-after", "30")]), Some(30));
        assert_eq!(waits(429, &[]), None, "the caller knows how long");
        assert_eq!(waits(200, &[("retry-after", "30")]), None);
        assert_eq!(waits(429, &[("retry-after", "999999999")]), Some(LONGEST_WAIT.as_secs()));
    }

    #[test]
    fn the_end_of_a_limit_is_left_to_those_who_need_it() {
        let limits = |remaining| waits(200, &[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", remaining)]);
        assert_eq!(limits("11;w=21600"), None);
        assert_eq!(limits("10;w=21600"), Some(900));
        assert_eq!(limits("0"), Some(900));
        assert_eq!(waits(200, &[("ratelimit-remaining", "5")]), None);
        assert_eq!(waits(200, &[("ratelimit-remaining", "0;w=1")]), Some(900));
        assert_eq!(limits("many"), None);
    }

    #[test]
    fn a_shorter_wait_does_not_end_a_longer_one() {
        let (patience, now) = (Patience::default(), Instant::now());
        for wait in ["60", "5"] {
            patience.hear(StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", wait)]), now);
        }
        assert_eq!(patience.quiet(now).unwrap().wait, Duration::from_secs(60));
        assert_eq!(patience.quiet(now + Duration::from_secs(60)), None);
    }
}
