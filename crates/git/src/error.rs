use std::time::Duration;

use tagrelay_secret::Redaction;

use crate::mirror::MirrorError;

/// Why no connection can be made with an address and its credentials. Found without any network.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// An unsupported scheme, a missing part, or credentials that do not fit the scheme.
    #[error("{0}")]
    Url(String),
    /// Unreadable certificates, or a TLS client that cannot be built.
    #[error("{0}")]
    Tls(String),
}

/// Why a remote repository could not be read.
///
/// The messages do not say which repository it is: the caller knows its role and its name.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Wrong, missing or insufficient credentials, or an unknown host key.
    #[error("authentication failed: {reason}")]
    Unauthorized {
        /// The answer of the server.
        reason: String,
    },
    /// No such repository, or the address is not that of a Git server.
    #[error("not found: {reason}")]
    NotFound {
        /// The answer of the server.
        reason: String,
    },
    /// The repository is empty or has only other branches.
    #[error("branch `{branch}` not found: {hint}")]
    NoBranch {
        /// The branch that was asked for.
        branch: String,
        /// The branches that the repository has.
        hint: String,
    },
    /// An answer or content that we cannot use. A retry would get the same.
    #[error("unusable: {reason}")]
    Protocol {
        /// The received answer or content.
        reason: String,
    },
    /// A failure of the network or of the server. A retry may succeed.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// How long the server asked us to wait; `None` if it did not say.
        ask_again_after: Option<Duration>,
    },
    /// The local mirror failed.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl RemoteError {
    /// Whether a retry may succeed without a change of settings or permissions.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Mirror(error) => !matches!(error, MirrorError::NotText(_) | MirrorError::NotOurs { .. }),
            Self::Unauthorized { .. } | Self::NotFound { .. } | Self::NoBranch { .. } | Self::Protocol { .. } => false,
        }
    }

    /// How long the server asked us to wait; `None` if it did not say.
    pub fn ask_again_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { ask_again_after, .. } => *ask_again_after,
            _ => None,
        }
    }

    /// A transient failure without a time to wait.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), ask_again_after: None }
    }

    /// Removes our credentials from the server's text.
    pub(crate) fn redacted(self, redaction: &Redaction) -> Self {
        match self {
            Self::Unauthorized { reason } => Self::Unauthorized { reason: redaction.clean(&reason) },
            Self::NotFound { reason } => Self::NotFound { reason: redaction.clean(&reason) },
            Self::NoBranch { branch, hint } => Self::NoBranch { branch, hint: redaction.clean(&hint) },
            Self::Protocol { reason } => Self::Protocol { reason: redaction.clean(&reason) },
            Self::Unavailable { reason, ask_again_after } => {
                Self::Unavailable { reason: redaction.clean(&reason), ask_again_after }
            }
            // Contains no text of a server.
            Self::Mirror(error) => Self::Mirror(error),
        }
    }
}

/// Why a commit did not reach the remote branch, or may not have reached it.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The branch moved. Refresh, prepare the same plan again, push again.
    #[error("branch moved: {reason}")]
    Outdated {
        /// The answer of the server.
        reason: String,
    },
    /// Rejected by branch protection, a hook or a limit. The same push would be rejected again.
    #[error("push rejected: {reason}")]
    Refused {
        /// The answer of the server and its hooks.
        reason: String,
    },
    /// Wrong, missing or insufficient credentials, or an unknown host key.
    #[error("authentication failed: {reason}")]
    Unauthorized {
        /// The answer of the server.
        reason: String,
    },
    /// The push did not happen. A retry may succeed.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// How long the server asked us to wait; `None` if it did not say.
        ask_again_after: Option<Duration>,
    },
    /// The push was sent and its answer was lost, so the branch may have moved. Refresh before anything else: if the
    /// commit is at or below the tip, the push succeeded.
    #[error("unconfirmed push: {reason}")]
    Unknown {
        /// What failed.
        reason: String,
        /// How long the server asked us to wait; `None` if it did not say.
        ask_again_after: Option<Duration>,
    },
}

impl PushError {
    /// An unconfirmed push without a time to wait.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), ask_again_after: None }
    }

    /// Removes our credentials from the server's text.
    pub(crate) fn redacted(self, redaction: &Redaction) -> Self {
        match self {
            Self::Outdated { reason } => Self::Outdated { reason: redaction.clean(&reason) },
            Self::Refused { reason } => Self::Refused { reason: redaction.clean(&reason) },
            Self::Unauthorized { reason } => Self::Unauthorized { reason: redaction.clean(&reason) },
            Self::Unavailable { reason, ask_again_after } => {
                Self::Unavailable { reason: redaction.clean(&reason), ask_again_after }
            }
            Self::Unknown { reason, ask_again_after } => {
                Self::Unknown { reason: redaction.clean(&reason), ask_again_after }
            }
        }
    }
}

impl From<RemoteError> for PushError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Unauthorized { reason } => Self::Unauthorized { reason },
            RemoteError::Unavailable { reason, ask_again_after } => Self::Unavailable { reason, ask_again_after },
            RemoteError::NoBranch { .. } => Self::Outdated { reason: error.to_string() },
            // Neither is a decision against the commit. Hosts answer "not found" while a permission or a volume is missing
            // for a moment, and a gateway's page or a login banner goes away again.
            RemoteError::NotFound { .. } | RemoteError::Protocol { .. } | RemoteError::Mirror(_) => {
                Self::Unavailable { reason: error.to_string(), ask_again_after: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_answer_to_a_push_is_not_a_rejection() {
        let error = PushError::from(RemoteError::Protocol { reason: "this is not the Git protocol: '00'".to_owned() });
        assert!(matches!(error, PushError::Unavailable { .. }), "{error}");
    }
}
