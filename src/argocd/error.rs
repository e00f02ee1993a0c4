/// Why a request to Argo CD failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgoCdError {
    /// Temporary: it cannot be reached, or it answered with a server error.
    #[error("Argo CD is unavailable: {0}")]
    Unavailable(String),
    /// One request timed out. Other requests may still succeed.
    #[error("Argo CD timed out on {0}")]
    TooSlow(String),
    /// The token is invalid, lacks a permission, or its file cannot be read.
    #[error("authentication to Argo CD failed: {0}")]
    Unauthorized(String),
    /// The application does not exist or the token may not see it. Argo CD's answer is the same for both.
    #[error("Argo CD has no application `{0}`: it does not exist, or the token may not `get` it")]
    NoApplication(String),
    /// The answer does not follow the API.
    #[error("unexpected answer of Argo CD: {0}")]
    Unexpected(String),
}

impl ArgoCdError {
    /// Returns the `outcome` label of metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::TooSlow(_) => "too_slow",
            Self::Unauthorized(_) => "unauthorized",
            Self::NoApplication(_) => "not_found",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Returns whether the error concerns all applications and not just one.
    pub fn is_general(&self) -> bool {
        !matches!(self, Self::NoApplication(_) | Self::TooSlow(_))
    }
}
