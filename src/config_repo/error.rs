use std::time::Duration;

use super::folder::MirrorError;
use crate::secret::Redaction;

/// Why a config repository cannot be used with these settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is of no kind that we speak, or lacks a part.
    #[error("config repository `{name}`: {reason}")]
    Address {
        /// `[[config_repository]] name`.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A branch name that Git does not allow.
    #[error("config repository `{name}`: `{branch}` is no branch name that Git allows")]
    Branch {
        /// `[[config_repository]] name`.
        name: String,
        /// What was configured.
        branch: String,
    },
    /// A path of an environment that is no glob, or that leaves the repository.
    #[error("environment `{environment}`: the path `{path}` {reason}")]
    Path {
        /// The environment.
        environment: String,
        /// The path as it was configured.
        path: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Certificates that cannot be read, or a TLS set-up that cannot be made.
    #[error("config repository `{name}`: {reason}")]
    Tls {
        /// `[[config_repository]] name`.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The local mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

/// Why the remote could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Wrong, missing or insufficient credentials, or a host that is not the one we know.
    #[error("the config repository does not let us in: {reason}")]
    Unauthorized {
        /// What the server said.
        reason: String,
    },
    /// There is no such repository, or what is there is no Git server.
    #[error("the config repository is not there: {reason}")]
    NotFound {
        /// What the server said.
        reason: String,
    },
    /// The repository is empty or has other branches only.
    #[error("the config repository has no branch `{branch}`: {hint}")]
    NoBranch {
        /// The branch of the settings.
        branch: String,
        /// What it has instead.
        hint: String,
    },
    /// The server speaks in a way that we do not know, or holds what cannot be read. Waiting changes nothing.
    #[error("the config repository cannot be understood: {reason}")]
    Protocol {
        /// What was met.
        reason: String,
    },
    /// The network, or a server that has trouble. Worth another try.
    #[error("the config repository cannot be reached: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// When the server asked to be asked again.
        ask_again_after: Option<Duration>,
    },
    /// The local mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl RemoteError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Mirror(error) => !matches!(error, MirrorError::NotText(_) | MirrorError::NotOurs { .. }),
            Self::Unauthorized { .. } | Self::NotFound { .. } | Self::NoBranch { .. } | Self::Protocol { .. } => false,
        }
    }

    /// When the server asked to be asked again.
    pub fn ask_again_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { ask_again_after, .. } => *ask_again_after,
            _ => None,
        }
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), ask_again_after: None }
    }

    /// Takes our credentials out of what the server said.
    pub(super) fn redacted(self, redaction: &Redaction) -> Self {
        match self {
            Self::Unauthorized { reason } => Self::Unauthorized { reason: redaction.clean(&reason) },
            Self::NotFound { reason } => Self::NotFound { reason: redaction.clean(&reason) },
            Self::NoBranch { branch, hint } => Self::NoBranch { branch, hint: redaction.clean(&hint) },
            Self::Protocol { reason } => Self::Protocol { reason: redaction.clean(&reason) },
            Self::Unavailable { reason, ask_again_after } => {
                Self::Unavailable { reason: redaction.clean(&reason), ask_again_after }
            }
            // No server has a say in it.
            Self::Mirror(error) => Self::Mirror(error),
        }
    }
}

/// Why nothing could be prepared at all. What is wrong with one update is an `Outcome` of that update.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Nothing is known of the remote yet.
    #[error("the config repository has not been read yet")]
    NotRead,
    /// The plan names an environment that this repository does not hold.
    #[error("the environment `{0}` is not one of this config repository")]
    UnknownEnvironment(String),
    /// The mirror lacks what the tip is made of; it is made anew at the next refresh.
    #[error("the mirror is damaged and will be made anew: {0}")]
    Damaged(String),
    /// The key that commits are signed with cannot be used now.
    #[error("the commit cannot be signed: {0}")]
    Signing(String),
}

/// Why a commit did not reach the remote branch, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Somebody else moved the branch. Refresh, prepare the same plan again, push again.
    #[error("the branch moved on the remote: {reason}")]
    Outdated {
        /// What the server said.
        reason: String,
    },
    /// Branch protection, a hook. Waiting changes nothing.
    #[error("the remote refused the push: {reason}")]
    Refused {
        /// What the server and its hooks said.
        reason: String,
    },
    /// Wrong, missing or insufficient credentials, or a host that is not the one we know.
    #[error("the remote does not let us push: {reason}")]
    Unauthorized {
        /// What the server said.
        reason: String,
    },
    /// The push did not happen, and may succeed later.
    #[error("the remote cannot be reached: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// When the server asked to be asked again.
        ask_again_after: Option<Duration>,
    },
    /// The push was sent and the answer was lost: it may have happened. Refresh before anything else; whoever finds
    /// the commit as the tip, or the plan without changes, is done.
    #[error("whether the push arrived is not known: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
        /// When the server asked to be asked again.
        ask_again_after: Option<Duration>,
    },
}

impl PushError {
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), ask_again_after: None }
    }

    /// Takes our credentials out of what the server said.
    pub(super) fn redacted(self, redaction: &Redaction) -> Self {
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
            // Hosts say so too while a permission has lapsed or a volume is away, and it comes back.
            RemoteError::NotFound { .. } => Self::Unavailable { reason: error.to_string(), ask_again_after: None },
            // Nobody decided against the commit: a gateway's page, a banner, a server that is being replaced.
            RemoteError::Protocol { .. } => Self::Unavailable { reason: error.to_string(), ask_again_after: None },
            RemoteError::Unavailable { reason, ask_again_after } => Self::Unavailable { reason, ask_again_after },
            RemoteError::NoBranch { .. } => Self::Outdated { reason: error.to_string() },
            RemoteError::Mirror(error) => Self::Unavailable { reason: error.to_string(), ask_again_after: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A banner, a page of a gateway, half a packet: nobody has decided against the commit.
    #[test]
    fn what_cannot_be_understood_is_no_refusal() {
        let error = PushError::from(RemoteError::Protocol { reason: "this is not the Git protocol: '00'".to_owned() });
        assert!(matches!(error, PushError::Unavailable { .. }), "{error}");
    }
}
