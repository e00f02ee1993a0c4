//! The pause that a server asks for with `Retry-After`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::RemoteError;

/// How long a server wants no requests. Checked before every request, whatever triggers it.
#[derive(Default)]
pub(super) struct Cooldown(Mutex<Option<Pause>>);

struct Pause {
    until: Instant,
    reason: String,
}

impl Cooldown {
    /// Fails with the server's reason and the remaining wait during a pause.
    pub(super) fn check(&self) -> Result<(), RemoteError> {
        self.check_at(Instant::now())
    }

    fn check_at(&self, now: Instant) -> Result<(), RemoteError> {
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |pause: &Pause| pause.until.checked_duration_since(now).filter(|left| !left.is_zero());
        match pause.as_ref().and_then(|pause| Some((left(pause)?, pause.reason.clone()))) {
            Some((left, reason)) => Err(RemoteError::Unavailable { reason, ask_again_after: Some(left) }),
            None => {
                *pause = None;
                Ok(())
            }
        }
    }

    /// Starts the pause that an answer asks for, unless a longer one has begun.
    pub(super) fn record(&self, error: &RemoteError) {
        self.record_at(error, Instant::now());
    }

    fn record_at(&self, error: &RemoteError, now: Instant) {
        if let RemoteError::Unavailable { reason, ask_again_after: Some(wait) } = error
            && *wait > Duration::ZERO
        {
            let until = now + *wait;
            let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if pause.as_ref().is_none_or(|known| known.until < until) {
                *pause = Some(Pause { until, reason: reason.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(seconds: Option<u64>, reason: &str) -> RemoteError {
        RemoteError::Unavailable { reason: reason.to_owned(), ask_again_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn longest_pause_counts() {
        let (cooldown, begun) = (Cooldown::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        cooldown.record_at(&unavailable(None, "away"), begun);
        cooldown.record_at(&unavailable(Some(0), "now"), begun);
        cooldown.record_at(&RemoteError::Protocol { reason: "what?".to_owned() }, begun);
        assert!(cooldown.check_at(begun).is_ok());

        cooldown.record_at(&unavailable(Some(30), "slow down"), begun);
        cooldown.record_at(&unavailable(Some(5), "busy"), after(1));
        let error = cooldown.check_at(after(10)).unwrap_err();
        assert!(error.to_string().contains("slow down"), "{error}");
        assert_eq!(error.ask_again_after(), Some(Duration::from_secs(20)));
        assert!(cooldown.check_at(after(30)).is_ok());
    }
}
