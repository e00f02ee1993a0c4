//! What stands before a receiver: how many requests it takes, and what is remembered of them.

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
use crate::webhook::{RateLimit, Receiver};

/// A receiver with its limits.
pub(super) struct Gate {
    pub(super) receiver: Receiver,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
    pub(super) bodies: Bodies,
    /// So that only one request at a time fetches keys or certificates.
    pub(super) errand: tokio::sync::Mutex<()>,
    heard: Arc<Mutex<Option<ReceiverHeard>>>,
}

impl Gate {
    pub(super) fn new(receiver: Receiver, max_body_bytes: usize) -> Self {
        Self {
            limiter: receiver.settings().rate_limit.map(limiter).map(Arc::new),
            bodies: Bodies::new(max_body_bytes),
            errand: tokio::sync::Mutex::new(()),
            heard: Arc::default(),
            receiver,
        }
    }

    /// Returns the gate of the same receiver under other settings. It keeps what was heard, and how much of the same
    /// limit is used up.
    pub(super) fn next(&self, receiver: Receiver, max_body_bytes: usize) -> Self {
        let same_limit = self.receiver.settings().rate_limit == receiver.settings().rate_limit;
        let new = Self::new(receiver, max_body_bytes);
        let limiter = if same_limit { self.limiter.clone() } else { new.limiter };
        Self { limiter, heard: Arc::clone(&self.heard), ..new }
    }

    /// Returns an error where the receiver has had as many requests as it takes.
    ///
    /// Asked when the sender is known: strangers must not use up what it has.
    pub(super) fn count(&self) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check().map_err(|no| {
            let wait = no.wait_time_from(limiter.clock().now());
            let detail = "the receiver has had as many requests as its rate_limit allows: try again later";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(wait)
        })
    }

    /// Remembers how a request ended.
    pub(super) fn note(&self, outcome: &'static str) {
        let now = Timestamp::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted_before = heard.as_ref().and_then(|heard| heard.accepted_at);
        *heard = Some(ReceiverHeard {
            receiver: self.receiver.name().to_owned(),
            heard_at: now,
            outcome: outcome.to_owned(),
            accepted_at: if outcome == "accepted" { Some(now) } else { accepted_before },
        });
    }

    /// Returns how the last request to this process ended.
    pub(super) fn heard(&self) -> Option<ReceiverHeard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn limiter(limit: RateLimit) -> DefaultDirectRateLimiter {
    let quota = Quota::with_period(limit.per / limit.requests.get()).unwrap_or(Quota::per_second(NonZeroU32::MAX));
    DefaultDirectRateLimiter::direct(quota.allow_burst(limit.requests))
}

/// Returns a duration in whole seconds, at least one, as `Retry-After` has it.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::{Kind, ReceiverSettings};

    fn gate(rate_limit: Option<&str>) -> Gate {
        let settings = ReceiverSettings {
            unauthenticated: true,
            rate_limit: rate_limit.map(|text| text.parse().unwrap()),
            ..ReceiverSettings::new("hub", Kind::DockerHub)
        };
        Gate::new(Receiver::new(settings).unwrap(), 1000)
    }

    #[test]
    fn as_many_as_the_limit_says_come_in_at_once() {
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
    fn other_settings_give_no_second_burst_under_the_same_limit() {
        let old = gate(Some("2/h"));
        old.note("accepted");
        old.count().unwrap();
        old.count().unwrap();
        let same = old.next(gate(Some("2/h")).receiver, 1024);
        assert!(same.count().is_err());
        assert_eq!(same.heard(), old.heard());
        old.next(gate(Some("3/h")).receiver, 1024).count().unwrap();
    }

    #[test]
    fn what_was_heard_last_is_kept_with_the_last_that_was_accepted() {
        let gate = gate(None);
        assert_eq!(gate.heard(), None);
        gate.note("accepted");
        let accepted_at = gate.heard().unwrap().accepted_at;
        assert!(accepted_at.is_some());
        gate.note("unauthorized");
        let heard = gate.heard().unwrap();
        assert_eq!((heard.outcome.as_str(), heard.accepted_at), ("unauthorized", accepted_at));
    }

    #[test]
    fn seconds_to_wait_are_rounded_up() {
        for (milliseconds, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(milliseconds)), seconds);
        }
    }
}
