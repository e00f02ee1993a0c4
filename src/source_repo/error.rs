use std::time::Duration;

use crate::config_repo::{OpenError, RemoteError};

/// Why a source repository does not answer. Asking again later is right in every case: going on without its answer
/// might put an older build over a newer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source repository {url} {what}")]
pub struct SourceError {
    url: String,
    what: String,
    ask_again_after: Option<Duration>,
}

impl SourceError {
    /// Returns how long the server asks to be left alone.
    pub fn ask_again_after(&self) -> Option<Duration> {
        self.ask_again_after
    }

    pub(super) fn remote(url: &str, error: RemoteError) -> Self {
        let mut after = None;
        let what = match error {
            RemoteError::Unauthorized { reason } => format!("does not let us in: {reason}; check its credentials"),
            RemoteError::NotFound { reason } => format!("is not there: {reason}"),
            RemoteError::NoBranch { hint, .. } => format!("has no branch: {hint}"),
            RemoteError::Protocol { reason } => format!("cannot be understood: {reason}"),
            RemoteError::Unavailable { reason, ask_again_after } => {
                after = ask_again_after;
                format!("cannot be reached: {reason}")
            }
            RemoteError::Mirror(error) => format!("cannot be kept: {error}"),
        };
        Self { url: url.to_owned(), what, ask_again_after: after }
    }

    pub(super) fn unusable(url: &str, error: &OpenError) -> Self {
        Self { url: url.to_owned(), what: format!("cannot be used: {error}"), ask_again_after: None }
    }

    pub(super) fn disk(url: &str, error: impl std::fmt::Display) -> Self {
        Self { url: url.to_owned(), what: format!("cannot be kept on the disk: {error}"), ask_again_after: None }
    }

    pub(super) fn no_url(url: &str, error: impl std::fmt::Display) -> Self {
        Self { url: url.to_owned(), what: format!("is no URL: {error}"), ask_again_after: None }
    }
}
