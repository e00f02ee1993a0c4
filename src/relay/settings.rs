use std::time::Duration;

/// One environment, as the pipeline sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Who may move it.
    pub mode: UpdateMode,
    /// The environments whose versions may be promoted to it.
    pub promote_from: Vec<String>,
    /// How long those must have been healthy, zero where they have to be healthy only; `None`: nobody asks.
    pub soak: Option<Duration>,
}

/// Who may move an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Push events, promotions and rollbacks.
    Automatic,
    /// Promotions and rollbacks.
    Manual,
}

impl UpdateMode {
    /// Returns the word in the settings and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }
}
