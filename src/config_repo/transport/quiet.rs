//! When a server wants to be left alone: `Retry-After`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config_repo::error::RemoteError;

/// How long a server has asked to be left alone, and why. Whoever wants something of it asks here first: whatever rings
/// meanwhile, for whatever reason, is no reason to ask it before.
#[derive(Default)]
pub(super) struct Quiet(Mutex<Option<Wish>>);

struct Wish {
    until: Instant,
    reason: String,
}

impl Quiet {
    /// Returns nothing where the server may be asked.
    ///
    /// # Errors
    ///
    /// What the server said, and how long it is to be left alone from now on.
    pub(super) fn may_ask(&self) -> Result<(), RemoteError> {
        self.may_ask_at(Instant::now())
    }

    fn may_ask_at(&self, now: Instant) -> Result<(), RemoteError> {
        let mut wish = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |wish: &Wish| wish.until.checked_duration_since(now).filter(|left| !left.is_zero());
        match wish.as_ref().and_then(|wish| Some((left(wish)?, wish.reason.clone()))) {
            Some((left, reason)) => Err(RemoteError::Unavailable { reason, ask_again_after: Some(left) }),
            None => {
                *wish = None;
                Ok(())
            }
        }
    }

    /// Keeps what an answer asks for; the longest wish counts.
    pub(super) fn hear(&self, error: &RemoteError) {
        self.hear_at(error, Instant::now());
    }

    fn hear_at(&self, error: &RemoteError, now: Instant) {
        if let RemoteError::Unavailable { reason, ask_again_after: Some(wait) } = error
            && *wait > Duration::ZERO
        {
            let until = now + *wait;
            let mut wish = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if wish.as_ref().is_none_or(|known| known.until < until) {
                *wish = Some(Wish { until, reason: reason.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks_for(seconds: Option<u64>, reason: &str) -> RemoteError {
        RemoteError::Unavailable { reason: reason.to_owned(), ask_again_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asks() {
        let (quiet, begun) = (Quiet::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        quiet.hear_at(&asks_for(None, "away"), begun);
        quiet.hear_at(&asks_for(Some(0), "now"), begun);
        quiet.hear_at(&RemoteError::Protocol { reason: "what?".to_owned() }, begun);
        assert!(quiet.may_ask_at(begun).is_ok());

        quiet.hear_at(&asks_for(Some(30), "slow down"), begun);
        quiet.hear_at(&asks_for(Some(5), "busy"), after(1));
        let error = quiet.may_ask_at(after(10)).unwrap_err();
        assert!(error.to_string().contains("slow down"), "{error}");
        assert_eq!(error.ask_again_after(), Some(Duration::from_secs(20)));
        assert!(quiet.may_ask_at(after(30)).is_ok());
    }
}
