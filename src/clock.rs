//! The clock. Tests set it instead of waiting.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

/// The longest sleep before the clock is read again, because the system's clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(20);

/// The system's clock, or a stopped one for tests.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<watch::Sender<Timestamp>>>);

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// Returns a clock that stands at `now` until it is set.
    pub fn stopped_at(now: Timestamp) -> Self {
        Self(Some(Arc::new(watch::Sender::new(now))))
    }

    /// Sets a stopped clock, forward or back. Does nothing on the system's clock.
    pub fn set(&self, now: Timestamp) {
        if let Some(stopped) = &self.0 {
            stopped.send_replace(now);
        }
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(Timestamp::now, |stopped| *stopped.borrow())
    }

    /// Sleeps until `at`, or less: the caller must read the clock again afterwards.
    ///
    /// `seen` is the time from which `at` was computed. If the clock has been set back since, it returns at once.
    pub async fn sleep_until_or_less(&self, at: Timestamp, seen: Timestamp) {
        match &self.0 {
            None => {
                let now = self.now();
                if now < seen {
                    return;
                }
                let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                // One millisecond more, because the store rounds down to milliseconds.
                tokio::time::sleep(left.min(LONGEST_SLEEP) + Duration::from_millis(1)).await;
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
