/// Why Argo CD did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgoCdError {
    /// It cannot be reached, or cannot answer now. Waiting may help.
    #[error("Argo CD does not answer: {0}")]
    Unavailable(String),
    /// An answer did not come in time; others may.
    #[error("Argo CD took too long to answer for {0}")]
    TooSlow(String),
    /// The token is not taken, or its file cannot be read.
    #[error("Argo CD does not let us in: {0}")]
    Unauthorized(String),
    /// There is no such application, or the token may not see it: Argo CD does not tell one from the other.
    #[error("Argo CD shows no application `{0}`: it is not there, or the token may not `get` it")]
    NoApplication(String),
    /// Something else came back than the API promises.
    #[error("Argo CD answers something unexpected: {0}")]
    Unexpected(String),
}

impl ArgoCdError {
    /// Returns the word for the metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::TooSlow(_) => "too_slow",
            Self::Unauthorized(_) => "unauthorized",
            Self::NoApplication(_) => "not_found",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Returns whether it is about Argo CD as a whole, and not about one application.
    pub fn is_general(&self) -> bool {
        !matches!(self, Self::NoApplication(_) | Self::TooSlow(_))
    }
}
