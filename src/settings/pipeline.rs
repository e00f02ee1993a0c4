use std::time::Duration;

use super::template::MessageTemplate;
use crate::config_repo::Identity;

/// How catch-up asks registries for tags that no webhook announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUpSettings {
    /// How often each repository is looked at; `None`: never.
    pub every: Option<Duration>,
    /// How many repositories are looked at together.
    pub at_once: usize,
}

impl Default for CatchUpSettings {
    /// Every 15 minutes, four at once.
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(15 * 60)), at_once: 4 }
    }
}

/// When a branch is written to, and with which messages.
#[derive(Debug, Clone, Default)]
pub struct WritingSettings {
    /// How long nothing new may arrive before a push; zero: the first update goes at once. A push waits at most ten times as
    /// long.
    pub quiet_period: Duration,
    pub message: MessageSettings,
}

/// The messages of commits. The trailers are always there.
#[derive(Debug, Clone, Default)]
pub struct MessageSettings {
    /// Replaces the first line.
    pub subject: Option<MessageTemplate>,
    /// Replaces the text between the first line and the trailers.
    pub body: Option<MessageTemplate>,
    pub signed_off_by: Option<Identity>,
}
