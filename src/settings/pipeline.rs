use std::time::Duration;

use super::template::MessageTemplate;
use crate::config_repo::Identity;

/// The settings of catch-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUpSettings {
    /// The time between two lists of a repository's tags; `None`: catch-up is off.
    pub every: Option<Duration>,
    /// The most repositories that are listed concurrently.
    pub at_once: usize,
}

impl Default for CatchUpSettings {
    /// Every 15 minutes, four at once.
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(15 * 60)), at_once: 4 }
    }
}

/// The debounce of pushes, and the messages of commits.
#[derive(Debug, Clone, Default)]
pub struct WritingSettings {
    /// A push waits until no update has arrived for this time; zero: the first update is pushed at once. A push waits
    /// at most ten times as long.
    pub quiet_period: Duration,
    pub message: MessageSettings,
}

/// The messages of commits. Trailers are always added.
#[derive(Debug, Clone, Default)]
pub struct MessageSettings {
    /// Replaces the first line.
    pub subject: Option<MessageTemplate>,
    /// Replaces the text between the first line and the trailers.
    pub body: Option<MessageTemplate>,
    pub signed_off_by: Option<Identity>,
}
