//! Divides the running requests of a listener among classes, so that no class can use up all connections: slow bodies of strangers
//! leave room for health checks, the API and other receivers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Health, metrics and the front page.
    Operations,
    Api,
    Stream,
    Receiver(String),
    /// A receiver that the settings do not have.
    Unknown,
}

/// The classes besides receivers that have a share.
const OTHERS: usize = 3;

/// The largest share of a class.
const MAX_SHARE: usize = 32;

impl Class {
    pub(super) fn of(path: &str, receivers: &BTreeSet<String>) -> Self {
        match path.strip_prefix("/webhooks/") {
            Some(name) if receivers.contains(name) => Self::Receiver(name.to_owned()),
            Some(_) => Self::Unknown,
            None if path == "/api/v1/stream" => Self::Stream,
            None if path.starts_with("/api/") => Self::Api,
            None => Self::Operations,
        }
    }
}

/// The running requests of a listener by class.
pub(super) struct Slots {
    all: usize,
    used: Mutex<HashMap<Class, usize>>,
}

/// The place of a running request. Dropping it gives the place back.
pub(super) struct Slot {
    slots: Arc<Slots>,
    class: Class,
}

impl Slots {
    /// `all`: the number of connections.
    pub(super) fn new(all: usize) -> Self {
        Self { all, used: Mutex::default() }
    }

    /// Returns a place; `None`: what is free is the share of other classes.
    pub(super) fn enter(self: &Arc<Self>, class: Class, receivers: &BTreeSet<String>) -> Option<Slot> {
        let mut used = self.used();
        let share = MAX_SHARE.min(self.all / (OTHERS + receivers.len() + 1));
        let running: usize = used.values().sum();
        let all_shares = share * (OTHERS + receivers.len());
        let classes = [Class::Operations, Class::Api, Class::Stream].into_iter();
        let classes = classes.chain(receivers.iter().cloned().map(Class::Receiver));
        let unused = |other: Class| share.saturating_sub(used.get(&other).copied().unwrap_or_default());
        let kept_free = || classes.filter(|other| *other != class).map(unused).sum::<usize>();
        // Most of the time there is room for all shares.
        if running + all_shares >= self.all && running + kept_free() >= self.all {
            return None;
        }
        *used.entry(class.clone()).or_default() += 1;
        Some(Slot { slots: Arc::clone(self), class })
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Class, usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut used = self.slots.used();
        if let Some(count) = used.get_mut(&self.class) {
            *count -= 1;
            // Names of receivers come and go with the settings.
            if *count == 0 {
                used.remove(&self.class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn path_tells_the_class() {
        let receivers = names(&["hub"]);
        for (path, class) in [
            ("/webhooks/hub", Class::Receiver("hub".to_owned())),
            ("/webhooks/other", Class::Unknown),
            ("/api/v1/stream", Class::Stream),
            ("/api/v1/events", Class::Api),
            ("/healthz", Class::Operations),
            ("/", Class::Operations),
        ] {
            assert_eq!(Class::of(path, &receivers), class, "{path}");
        }
    }

    #[test]
    fn flood_of_one_class_leaves_the_shares_of_the_others() {
        let receivers = names(&["a", "b"]);
        let slots = Arc::new(Slots::new(60));
        let flood = |path: &str| -> Vec<Slot> {
            std::iter::from_fn(|| slots.enter(Class::of(path, &receivers), &receivers)).collect()
        };
        // Six parts: one for each of five classes, and one for all.
        let first = flood("/webhooks/a");
        assert_eq!(first.len(), 20);
        let second = flood("/webhooks/b");
        assert_eq!(second.len(), 10);
        assert_eq!([flood("/webhooks/none").len(), flood("/webhooks/a").len()], [0, 0]);
        let (health, api, streams) = (flood("/healthz"), flood("/api/v1/events"), flood("/api/v1/stream"));
        assert_eq!([health.len(), api.len(), streams.len()], [10, 10, 10]);
        drop(first);
        assert_eq!(flood("/webhooks/b").len(), 10, "ten of the twenty are the share of `a`");
        drop((second, health, api, streams));
        assert!(slots.used().is_empty());
    }

    #[test]
    fn few_connections_for_many_receivers_are_shared_by_all() {
        let receivers = names(&["a", "b", "c", "d", "e", "f"]);
        let slots = Arc::new(Slots::new(8));
        let all: Vec<Option<Slot>> = (0..9).map(|_| slots.enter(Class::Api, &receivers)).collect();
        assert_eq!(all.iter().flatten().count(), 8);
    }
}
