use std::time::Duration;

use tagrelay_git::{AddressError, RemoteError};

/// Why a source repository does not answer. Asking again later is right in every case: going on without its answer
/// might put an older build over a newer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source repository {url}: {reason}")]
pub struct SourceError {
    url: String,
    reason: String,
    ask_again_after: Option<Duration>,
}

impl SourceError {
    /// Returns how long the server asks to be left alone.
    pub fn ask_again_after(&self) -> Option<Duration> {
        self.ask_again_after
    }

    pub(super) fn remote(url: &str, error: RemoteError) -> Self {
        let ask_again_after = error.ask_again_after();
        Self { url: url.to_owned(), reason: error.to_string(), ask_again_after }
    }

    pub(super) fn address(url: &str, error: &AddressError) -> Self {
        Self { url: url.to_owned(), reason: error.to_string(), ask_again_after: None }
    }

    pub(super) fn disk(url: &str, error: impl std::fmt::Display) -> Self {
        let reason = format!("its history cannot be stored: {error}");
        Self { url: url.to_owned(), reason, ask_again_after: None }
    }

    /// An invalid URL or branch pattern.
    pub(super) fn settings(url: &str, error: impl std::fmt::Display) -> Self {
        Self { url: url.to_owned(), reason: error.to_string(), ask_again_after: None }
    }
}
