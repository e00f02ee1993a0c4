//! A receiver with its rate limit, the limits of its bodies, and the outcome of its last request.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota};
use http::StatusCode;
use jiff::Timestamp;

use super::Problem;
use super::bodies::Bodies;
use crate::store::ReceiverHeard;
use tagrelay_webhook::{RateLimit, Receiver};

/// A receiver with its limits.
pub(super) struct Gate {
    pub(super) receiver: Receiver,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
    pub(super) bodies: Bodies,
    /// Held while keys or certificates are fetched, so that only one request fetches them.
    pub(super) errand: tokio::sync::Mutex<()>,
    last: Arc<Mutex<Option<ReceiverHeard>>>,
}

impl Gate {
    pub(super) fn new(receiver: Receiver, max_body_bytes: usize) -> Self {
        Self {
            limiter: receiver.settings().rate_limit.map(limiter).map(Arc::new),
            bodies: Bodies::new(max_body_bytes),
            errand: tokio::sync::Mutex::new(()),
            last: Arc::default(),
            receiver,
        }
    }

    /// Returns the gate of the same receiver under new settings. It keeps the last outcome and, if the rate limit is the
    /// same, how much of it is used.
    pub(super) fn next(&self, receiver: Receiver, max_body_bytes: usize) -> Self {
        let same_limit = self.receiver.settings().rate_limit == receiver.settings().rate_limit;
        let new = Self::new(receiver, max_body_bytes);
        let limiter = if same_limit { self.limiter.clone() } else { new.limiter };
        Self { limiter, last: Arc::clone(&self.last), ..new }
    }

    /// Counts a request. Returns a 429 if the rate limit is reached.
    ///
    /// Called after authentication, so that strangers cannot use up the limit.
    pub(super) fn count(&self) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check().map_err(|no| {
            let wait = no.wait_time_from(limiter.clock().now());
            let detail = "the rate_limit of the receiver is reached: try again later";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(wait)
        })
    }

    /// Records the outcome of a request.
    pub(super) fn record(&self, outcome: &'static str) {
        let now = Timestamp::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted_before = last.as_ref().and_then(|last| last.accepted_at);
        *last = Some(ReceiverHeard {
            receiver: self.receiver.name().to_owned(),
            heard_at: now,
            outcome: outcome.to_owned(),
            accepted_at: if outcome == "accepted" { Some(now) } else { accepted_before },
        });
    }

    /// Returns the last request that this process received.
    pub(super) fn last(&self) -> Option<ReceiverHeard> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn limiter(limit: RateLimit) -> DefaultDirectRateLimiter {
    let quota = Quota::with_period(limit.per / limit.requests.get()).unwrap_or(Quota::per_second(NonZeroU32::MAX));
    DefaultDirectRateLimiter::direct(quota.allow_burst(limit.requests))
}

/// Returns a duration in whole seconds, rounded up and at least 1, for `Retry-After`.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tagrelay_webhook::{Kind, ReceiverSettings};

    fn gate(rate_limit: Option<&str>) -> Gate {
        let settings = ReceiverSettings {
            unauthenticated: true,
            rate_limit: rate_limit.map(|text| text.parse().unwrap()),
            ..ReceiverSettings::new("hub", Kind::DockerHub)
        };
        Gate::new(Receiver::new(settings).unwrap(), 1000)
    }

    #[test]
    fn burst_is_accepted_up_to_the_limit() {
        let limited = gate(Some("20/h"));
        for _ in 0..20 {
            limited.count().unwrap();
        }
        assert_eq!(limited.count().unwrap_err().outcome(), "rate_limited");
        let open = gate(None);
        for _ in 0..10_000 {
            open.count().unwrap();
        }
    }

    #[test]
    fn reload_with_the_same_limit_gives_no_second_burst() {
        let old = gate(Some("2/h"));
        old.record("accepted");
        old.count().unwrap();
        old.count().unwrap();
        let same = old.next(gate(Some("2/h")).receiver, 1024);
        assert!(same.count().is_err());
        assert_eq!(same.last(), old.last());
        old.next(gate(Some("3/h")).receiver, 1024).count().unwrap();
    }

    #[test]
    fn last_request_is_kept_with_the_last_accepted_one() {
        let gate = gate(None);
        assert_eq!(gate.last(), None);
        gate.record("accepted");
        let accepted_at = gate.last().unwrap().accepted_at;
        assert!(accepted_at.is_some());
        gate.record("unauthorized");
        let last = gate.last().unwrap();
        assert_eq!((last.outcome.as_str(), last.accepted_at), ("unauthorized", accepted_at));
    }

    #[test]
    fn seconds_to_wait_are_rounded_up() {
        for (milliseconds, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(milliseconds)), seconds);
        }
    }
}
