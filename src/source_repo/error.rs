use std::time::Duration;

use tagrelay_git::{AddressError, RemoteError};

/// Why a source repository cannot be read. The caller must retry later: without the answer it might replace a newer build by
/// an older one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source repository {url}: {reason}")]
pub struct SourceError {
    url: String,
    reason: String,
    ask_again_after: Option<Duration>,
}

impl SourceError {
    /// How long the server asked us to wait; `None` if it did not say.
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
