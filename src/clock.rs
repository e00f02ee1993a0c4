//! What time it is. Tests set it, so that no test has to wait for a window to end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

/// How long a sleep may last before the clock is looked at again: the system's may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// The clock of the system, or one that stands still until it is set.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<watch::Sender<Timestamp>>>);

impl Clock {
    /// Returns the clock of the system.
    pub fn system() -> Self {
        Self(None)
    }

    /// Returns a clock that stands still.
    pub fn stopped_at(now: Timestamp) -> Self {
        Self(Some(Arc::new(watch::Sender::new(now))))
    }

    /// Sets a clock that stands still, forward or back. That of the system cannot be set.
    pub fn set(&self, now: Timestamp) {
        if let Some(stopped) = &self.0 {
            stopped.send_replace(now);
        }
    }

    /// Returns what time it is.
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(Timestamp::now, |stopped| *stopped.borrow())
    }

    /// Returns at that time, or before: who sleeps has to look at the clock again. `seen` is what it showed when `at` was worked
    /// out, so that a clock that has been set since is noticed.
    pub async fn doze_until(&self, at: Timestamp, seen: Timestamp) {
        match &self.0 {
            None => {
                let now = self.now();
                if now < seen {
                    return;
                }
                let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                // A little more, because the store counts in milliseconds.
                tokio::time::sleep(left.min(LOOK_AGAIN) + Duration::from_millis(1)).await;
            }
            Some(stopped) => {
                let mut stopped = stopped.subscribe();
                let now = *stopped.borrow_and_update();
                if now == seen && now < at {
                    let _ = stopped.changed().await;
                }
            }
        }
    }
}
