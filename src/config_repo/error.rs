use tagrelay_git::{AddressError, InvalidBranchName, MirrorError, SigningError};

use tagrelay_git::tree::Unreadable;

/// Why a config repository cannot be used with its settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL, credentials or certificates cannot be used.
    #[error("config repository `{name}`: {source}")]
    Address {
        /// `[[config_repository]] name`.
        name: String,
        source: AddressError,
    },
    /// The branch has an invalid name.
    #[error("config repository `{name}`: {source}")]
    Branch {
        /// `[[config_repository]] name`.
        name: String,
        source: InvalidBranchName,
    },
    /// A path of an environment is not a valid glob or leaves the repository.
    #[error("environment `{environment}`: the path `{path}` {reason}")]
    Path {
        environment: String,
        /// The path as written in the settings.
        path: String,
        /// The fault, and how to correct it.
        reason: String,
    },
    /// The local mirror failed.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

/// Why no commit could be prepared. A problem of a single update is its `EditOutcome` instead.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The branch was not fetched yet.
    #[error("the config repository has not been read yet")]
    NotRead,
    /// The plan names an environment of another repository.
    #[error("the environment `{0}` does not belong to this config repository")]
    UnknownEnvironment(String),
    /// The mirror lacks objects of the tip. The next refresh resets the mirror.
    #[error("the mirror is damaged and will be reset: {0}")]
    Damaged(String),
    /// The signing key cannot be used now.
    #[error("the commit cannot be signed: {0}")]
    Signing(#[from] SigningError),
}

impl From<Unreadable> for PrepareError {
    fn from(error: Unreadable) -> Self {
        Self::Damaged(error.to_string())
    }
}
