use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Wakes the intake, and tells it what for, so that it need not look into the store for what it would not begin yet.
#[derive(Default)]
pub(super) struct Arrivals {
    wake: Notify,
    news: Mutex<News>,
}

/// What has happened since the intake looked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// New events have come, of these registries.
    pub(super) registries: HashSet<String>,
    /// Something else has happened.
    pub(super) other: bool,
}

impl Arrivals {
    /// Tells of new events.
    pub(super) fn of<'r>(&self, registries: impl Iterator<Item = &'r str>) {
        self.tell(|news| {
            for registry in registries {
                if !news.registries.contains(registry) {
                    news.registries.insert(registry.to_owned());
                }
            }
        });
    }

    /// Tells of anything else.
    pub(super) fn other(&self) {
        self.tell(|news| news.other = true);
    }

    fn tell(&self, what: impl FnOnce(&mut News)) {
        what(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// Waits for news. May return none when they were taken by the wait before.
    pub(super) async fn wait(&self) -> News {
        self.wake.notified().await;
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_are_told_once_and_together() {
        let arrivals = Arrivals::default();
        arrivals.of(["a.test", "b.test"].into_iter());
        arrivals.of(["a.test"].into_iter());
        let registries: HashSet<String> = ["a.test".to_owned(), "b.test".to_owned()].into();
        assert_eq!(arrivals.wait().await, News { registries, other: false });
        arrivals.other();
        assert_eq!(arrivals.wait().await, News { registries: HashSet::new(), other: true });
    }
}
