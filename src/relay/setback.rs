//! Why a round of the writer ended early, and how long everything is left alone then.

use std::time::Duration;

use super::writer::jitter;
use crate::config_repo::RemoteError;
use crate::store::StoreError;

/// The first and the longest pause after the remote could not be reached.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Why a round ended before everything was done.
pub(super) enum Setback {
    /// The store failed; nothing more is done before it answers.
    Store(StoreError),
    /// The remote could not be read or written to. The updates stay pending, with this reason.
    Remote {
        reason: String,
        /// When the remote asked to be asked again.
        ask_again_after: Option<Duration>,
    },
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RemoteError> for Setback {
    fn from(error: RemoteError) -> Self {
        Self::Remote { ask_again_after: error.ask_again_after(), reason: format!("config repository: {error}") }
    }
}

impl Setback {
    pub(super) fn remote(reason: impl std::fmt::Display) -> Self {
        Self::Remote { reason: reason.to_string(), ask_again_after: None }
    }

    /// Returns how long to leave everything alone after `failures` rounds in a row that failed.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        match self {
            Self::Remote { ask_again_after: Some(wait), .. } => backoff(failures).max(*wait),
            Self::Remote { ask_again_after: None, .. } | Self::Store(_) => backoff(failures),
        }
    }
}

/// Returns the pause after `failures` rounds in a row that failed: 0.5 s doubled each time, at most 60 s.
fn backoff(failures: u32) -> Duration {
    let doubled = RETRY.0.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16))).min(RETRY.1);
    doubled.mul_f64(0.75 + jitter() / 4.0)
}
