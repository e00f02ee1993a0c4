//! The state of each registry in catch-up, for scheduling looks and for status reports.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::rounds::Names;
use tagrelay_image::Repository;

/// The first backoff of a registry that does not answer. It doubles with each failure, up to the period.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// How long a registry without tag lists is skipped.
const NO_LISTS: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a repository is skipped after its tags could not be listed. A lapsed permission may come back.
const NOT_ALLOWED: Duration = Duration::from_secs(60 * 60);

/// The result of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookResult {
    /// The registry returned a list of tags.
    Listed,
    /// The registry returned the digest of a tag, which does not show whether it supports lists.
    Answered,
    /// The registry does not support tag lists.
    Unsupported { reason: String },
    /// The response is not a list of tags.
    NoList { reason: String },
    /// Access is denied until permissions or settings change.
    NotAllowed { reason: String },
    /// The failure is temporary.
    NotNow { reason: String, ask_again_after: Option<Duration> },
    /// No rule requires the look, or the repository is skipped.
    NotWanted,
}

/// The catch-up status of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryStatus {
    /// The host, as in image references.
    pub registry: String,
    /// The number of its repositories that are managed and run in an automatic environment.
    pub repositories: usize,
    /// `waiting` before the first response, then `listed`, `unsupported`, `no_list`, `not_allowed` or `not_now`.
    pub state: &'static str,
    /// Why the registry, or some of its repositories, cannot be listed.
    pub reason: Option<String>,
    /// When it last answered.
    pub listed_at: Option<Timestamp>,
    /// When its tags are listed again, if not in the next round.
    pub ask_again_at: Option<Timestamp>,
}

/// The registry states. All generations share them: a pause that a registry requested outlives a change of settings.
#[derive(Default)]
pub(in crate::relay) struct RegistryStates(Mutex<States>);

#[derive(Default)]
struct States {
    registries: BTreeMap<String, RegistryState>,
    /// Repositories that are skipped although their registry is not.
    skipped: BTreeMap<Repository, Skipped>,
}

struct Skipped {
    until: Instant,
    /// Why it is skipped.
    state: State,
}

#[derive(Default)]
struct RegistryState {
    repositories: usize,
    state: State,
    listed_at: Option<Timestamp>,
    failures: u32,
    quiet_until: Option<Instant>,
    /// Whether the registry requested the pause.
    wants_quiet: bool,
    has_listed: bool,
    /// Until when it counts as a registry without tag lists.
    no_lists_until: Option<Instant>,
    /// The last state that was logged.
    logged: State,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Listed,
    Unsupported(String),
    NoList(String),
    NotAllowed(String),
    NotNow(String),
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Listed => "listed",
            Self::Unsupported(_) => "unsupported",
            Self::NoList(_) => "no_list",
            Self::NotAllowed(_) => "not_allowed",
            Self::NotNow(_) => "not_now",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting | Self::Listed => None,
            Self::Unsupported(reason) | Self::NoList(reason) | Self::NotAllowed(reason) | Self::NotNow(reason) => {
                Some(reason)
            }
        }
    }
}

impl RegistryStates {
    fn lock(&self) -> MutexGuard<'_, States> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the states for new settings or a requested round.
    ///
    /// Skipped repositories are tried again, because credentials may have changed. Pauses that a registry requested still hold.
    pub(super) fn begin(&self) {
        let mut locked = self.lock();
        locked.skipped.clear();
        for registry in locked.registries.values_mut() {
            if !(matches!(registry.state, State::NotNow(_)) && registry.wants_quiet) {
                (registry.state, registry.quiet_until) = (State::Waiting, None);
                registry.no_lists_until = None;
            }
        }
    }

    /// Replaces the set of known repositories.
    pub(super) fn name(&self, names: &Names) {
        let mut locked = self.lock();
        locked.registries.values_mut().for_each(|registry| registry.repositories = 0);
        for repository in &names.repositories {
            locked.registries.entry(repository.registry().to_owned()).or_default().repositories += 1;
        }
        locked.registries.retain(|_, registry| registry.repositories > 0);
        locked.skipped.retain(|repository, _| names.repositories.contains(repository));
    }

    /// Returns the end of a registry's pause.
    pub(super) fn quiet_until(&self, registry: &str) -> Option<Instant> {
        self.lock().registries.get(registry)?.quiet_until
    }

    /// Whether a repository is skipped. `by_list`: the look needs a tag list.
    pub(super) fn is_skipped(&self, repository: &Repository, by_list: bool, now: Instant) -> bool {
        let locked = self.lock();
        let no_lists = locked.registries.get(repository.registry()).and_then(|registry| registry.no_lists_until);
        let skipped = locked.skipped.get(repository).map(|skipped| skipped.until);
        [skipped, no_lists.filter(|_| by_list)].into_iter().flatten().any(|until| until > now)
    }

    /// Records the result of a look. `every`: the period, which also bounds pauses that the registry did not request.
    pub(super) fn looked(&self, repository: &Repository, looked: &LookResult, now: Instant, every: Duration) {
        let mut locked = self.lock();
        let host = repository.registry();
        let registry = locked.registries.entry(host.to_owned()).or_default();
        let mut skip = None;
        match looked {
            LookResult::NotWanted => return,
            LookResult::Listed | LookResult::Answered => {
                (registry.failures, registry.quiet_until) = (0, None);
                registry.listed_at = Some(Timestamp::now());
                registry.has_listed |= *looked == LookResult::Listed;
                if registry.has_listed || !matches!(registry.state, State::Unsupported(_)) {
                    (registry.state, registry.no_lists_until) = (State::Listed, None);
                }
            }
            // A registry that has listed another repository supports lists.
            LookResult::Unsupported { reason } | LookResult::NoList { reason } | LookResult::NotAllowed { reason }
                if registry.has_listed =>
            {
                tracing::warn!(%repository, reason, "catch-up skips a repository");
                skip = Some(match looked {
                    LookResult::Unsupported { .. } => State::Unsupported(reason.clone()),
                    LookResult::NoList { .. } => State::NoList(reason.clone()),
                    _ => State::NotAllowed(reason.clone()),
                });
            }
            LookResult::Unsupported { reason } => {
                registry.state = State::Unsupported(reason.clone());
                registry.no_lists_until = Some(now + NO_LISTS);
            }
            LookResult::NotAllowed { reason } => {
                registry.state = State::NotAllowed(reason.clone());
                skip = Some(registry.state.clone());
            }
            LookResult::NoList { reason } => {
                registry.state = State::NoList(reason.clone());
                skip = Some(registry.state.clone());
            }
            LookResult::NotNow { reason, ask_again_after } => {
                let is_paused = registry.quiet_until.is_some_and(|until| until > now);
                if !is_paused {
                    registry.failures += 1;
                }
                let doubled = 2u32.saturating_pow(registry.failures.saturating_sub(1).min(16));
                let pause = ask_again_after.unwrap_or_else(|| FIRST_PAUSE.saturating_mul(doubled).min(every));
                // Jitter, so that not all clients return at the same moment.
                let until = now + pause + pause.mul_f64(super::super::runtime::backoff::jitter() / 10.0);
                registry.wants_quiet = ask_again_after.is_some() || (is_paused && registry.wants_quiet);
                registry.quiet_until = registry.quiet_until.max(Some(until));
                registry.state = State::NotNow(reason.clone());
            }
        }
        registry.log_change(host);
        if let Some(state) = skip {
            locked.skipped.insert(repository.clone(), Skipped { until: now + NOT_ALLOWED, state });
        }
    }

    /// Returns the status of every registry.
    pub(in crate::relay) fn statuses(&self) -> Vec<RegistryStatus> {
        let now = Instant::now();
        let at = |until: Instant| until.checked_duration_since(now).map(|wait| Timestamp::now() + wait);
        let locked = self.lock();
        let statuses = locked.registries.iter().map(|(host, registry)| {
            let is_here =
                |(repository, skipped): &(&Repository, &Skipped)| repository.registry() == host && skipped.until > now;
            let left_out: Vec<_> = locked.skipped.iter().filter(is_here).collect();
            let (mut state, mut reason) = (registry.state.word(), registry.state.reason().map(str::to_owned));
            // The registry lists other repositories, so the reason names the skipped ones.
            if let (None, Some((repository, skipped))) = (&reason, left_out.first()) {
                let (count, all) = (left_out.len(), registry.repositories);
                if count >= all {
                    state = skipped.state.word();
                }
                reason = Some(format!(
                    "{count} of {all} repositories: {}: {}",
                    repository.name(),
                    skipped.state.reason().unwrap_or_default()
                ));
            }
            let soonest = left_out.iter().map(|(_, skipped)| skipped.until).min();
            RegistryStatus {
                registry: host.clone(),
                repositories: registry.repositories,
                state,
                reason,
                listed_at: registry.listed_at,
                ask_again_at: registry.quiet_until.max(registry.no_lists_until).or(soonest).and_then(at),
            }
        });
        statuses.collect()
    }
}

impl RegistryState {
    /// Logs a problem once, and its end once.
    fn log_change(&mut self, registry: &str) {
        if self.logged.word() == self.state.word() {
            return;
        }
        match &self.state {
            State::Unsupported(reason) => {
                tracing::warn!(registry, reason, "catch-up skips the registry: it does not list tags");
            }
            State::NotAllowed(reason) => tracing::warn!(registry, reason, "access to tag lists denied"),
            State::NoList(reason) => tracing::warn!(registry, reason, "catch-up cannot read the lists of tags"),
            State::NotNow(reason) => tracing::warn!(registry, reason, "catch-up is paused for the registry"),
            State::Listed if self.logged != State::Waiting => tracing::info!(registry, "catch-up continues"),
            State::Listed | State::Waiting => {}
        }
        self.logged = self.state.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(900);

    fn repository(name: &str) -> Repository {
        format!("r.test/uyou/{name}").parse().unwrap()
    }

    fn states(names: &[&str]) -> RegistryStates {
        let states = RegistryStates::default();
        states.name(&Names { repositories: names.iter().map(|name| repository(name)).collect(), is_unread: false });
        states
    }

    fn not_now(seconds: Option<u64>) -> LookResult {
        LookResult::NotNow { reason: "away".to_owned(), ask_again_after: seconds.map(Duration::from_secs) }
    }

    fn unsupported() -> LookResult {
        LookResult::Unsupported { reason: "404".to_owned() }
    }

    /// Returns the remaining pause of the registry at `now`, in seconds.
    fn pause(states: &RegistryStates, now: Instant) -> u64 {
        states.quiet_until("r.test").map_or(0, |until| (until - now).as_secs())
    }

    #[test]
    fn requested_pause_is_kept() {
        let (states, now) = (states(&["a", "b"]), Instant::now());
        states.looked(&repository("a"), &not_now(Some(600)), now, EVERY);
        assert!((600..=660).contains(&pause(&states, now)), "{}", pause(&states, now));
        // The concurrent look requests a shorter pause, and the settings change: the longer pause holds.
        states.looked(&repository("b"), &not_now(Some(5)), now, EVERY);
        states.begin();
        assert!(pause(&states, now) >= 600);
        let statuses = states.statuses().remove(0);
        assert_eq!((statuses.state, statuses.reason.as_deref(), statuses.repositories), ("not_now", Some("away"), 2));
        assert!(statuses.ask_again_at.is_some());
        states.looked(&repository("a"), &LookResult::Listed, now, EVERY);
        assert_eq!((pause(&states, now), states.statuses().remove(0).state), (0, "listed"));
    }

    #[test]
    fn own_pauses_grow_up_to_the_period() {
        let (states, mut now) = (states(&["a"]), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            // Concurrent looks that fail together count as one failure.
            for _ in 0..4 {
                states.looked(&repository("a"), &not_now(None), now, EVERY);
            }
            pauses.push(pause(&states, now));
            now += EVERY * 2;
        }
        for (pause, expected) in pauses.iter().zip([30, 60, 120, 240, 480, 900, 900, 900]) {
            assert!((expected..=expected + expected / 10).contains(pause), "{pauses:?}");
        }
        // A requested round ends a pause that the registry did not request.
        now -= EVERY * 2;
        assert!(pause(&states, now) >= 900);
        states.begin();
        assert_eq!(pause(&states, now), 0);
    }

    #[test]
    fn registry_without_tag_lists_is_skipped_for_a_day_or_until_reload() {
        let (states, now) = (states(&["a", "b"]), Instant::now());
        let skips = |by_list, now| states.is_skipped(&repository("b"), by_list, now);
        states.looked(&repository("a"), &unsupported(), now, EVERY);
        assert!(skips(true, now) && !skips(true, now + NO_LISTS));
        assert!(!skips(false, now), "a tag that moves needs no list");
        states.looked(&repository("b"), &LookResult::Answered, now, EVERY);
        assert_eq!((pause(&states, now), states.statuses()[0].state), (0, "unsupported"));
        states.begin();
        assert!(!skips(true, now));
        assert_eq!(states.statuses()[0].state, "waiting");
    }

    #[test]
    fn unlisted_repository_is_skipped_alone() {
        let (states, now) = (states(&["a", "b"]), Instant::now());
        states.looked(&repository("a"), &LookResult::Listed, now, EVERY);
        states.looked(&repository("b"), &unsupported(), now, EVERY);
        assert_eq!((pause(&states, now), states.statuses()[0].state), (0, "listed"));
        assert!(states.statuses()[0].reason.as_ref().is_some_and(|reason| reason.starts_with("1 of 2 repositories: ")));
        // All repositories fail, as after a permission has lapsed.
        states.looked(&repository("a"), &LookResult::NotAllowed { reason: "401".to_owned() }, now, EVERY);
        assert_eq!(states.statuses()[0].state, "not_allowed");
        states.begin();
        states.looked(&repository("a"), &LookResult::Listed, now, EVERY);
        states.looked(&repository("b"), &unsupported(), now, EVERY);
        assert!(states.is_skipped(&repository("b"), true, now) && !states.is_skipped(&repository("a"), true, now));
        assert!(!states.is_skipped(&repository("b"), true, now + NO_LISTS));
    }

    #[test]
    fn denied_access_skips_one_repository() {
        let (states, now) = (states(&["a", "b"]), Instant::now());
        states.looked(&repository("a"), &LookResult::NotAllowed { reason: "401".to_owned() }, now, EVERY);
        assert!(states.is_skipped(&repository("a"), false, now) && !states.is_skipped(&repository("b"), false, now));
        assert_eq!((pause(&states, now), states.statuses()[0].state), (0, "not_allowed"));
        states.looked(&repository("b"), &LookResult::Listed, now, EVERY);
        assert_eq!(states.statuses()[0].state, "listed");
        states.name(&Names { repositories: Default::default(), is_unread: false });
        assert_eq!(states.statuses(), []);
    }
}
