use std::time::Duration;

use super::MessageTemplate;
use crate::config_repo::Identity;

/// When a branch is written to, and in which words.
#[derive(Debug, Clone, Default)]
pub struct WritingSettings {
    /// How long nothing new must have come before a push; zero: the first update goes at once. However much comes, a
    /// push waits for ten times as long at the most.
    pub quiet_period: Duration,
    /// The words of the commits.
    pub message: MessageSettings,
}

/// The words of commits. The trailers are always there.
#[derive(Debug, Clone, Default)]
pub struct MessageSettings {
    /// The first line, where it is not the usual one.
    pub subject: Option<MessageTemplate>,
    /// What stands between the first line and the trailers, where it is not the usual text.
    pub body: Option<MessageTemplate>,
    /// Who signs the commits off.
    pub signed_off_by: Option<Identity>,
}

/// One environment, as the pipeline sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Who may move it.
    pub mode: UpdateMode,
    /// The environments whose versions may be promoted to it.
    pub promote_from: Vec<String>,
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
