//! Schedules the looks. Times are values, so tests need not wait.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use tagrelay_image::Repository;

/// The least time between two looks at one registry. It limits the rate at the start and after a pause, when all are due.
pub(super) const GAP: Duration = Duration::from_millis(100);

/// The time between two reads of the set of repositories. Manifests may name new ones.
const NAMES_AGE: Duration = Duration::from_secs(60);

/// The same, until every branch has been read.
const UNREAD_AGE: Duration = Duration::from_secs(1);

/// The most tries per repository and round.
const MAX_TRIES: u32 = 3;

/// The repositories to look at.
pub(super) struct Names {
    pub(super) repositories: BTreeSet<Repository>,
    /// Whether a branch has not been read yet, so that repositories may be missing.
    pub(super) is_unread: bool,
}

/// A scheduled look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScheduledLook {
    pub(super) repository: Repository,
    due: Instant,
    tries: u32,
}

/// Scheduled looks, and the number of looks under way.
///
/// A new repository is due at once. In addition, each round spreads all repositories evenly over the period, so two looks are at
/// most a period and one slot apart.
pub(super) struct Rounds {
    every: Duration,
    at_once: usize,
    names: BTreeSet<Repository>,
    met: HashSet<Repository>,
    waiting: Vec<ScheduledLook>,
    under_way: usize,
    /// The earliest next look at each registry.
    free_at: HashMap<String, Instant>,
    names_due: Instant,
    round_due: Instant,
    begun: Instant,
}

impl Rounds {
    pub(super) fn new(every: Duration, at_once: usize, now: Instant) -> Self {
        Self {
            every,
            at_once,
            names: BTreeSet::new(),
            met: HashSet::new(),
            waiting: Vec::new(),
            under_way: 0,
            free_at: HashMap::new(),
            names_due: now,
            round_due: now,
            begun: now,
        }
    }

    /// Whether the set of repositories is due to be read.
    pub(super) fn wants_names(&self, now: Instant) -> bool {
        self.names_due <= now
    }

    /// Replaces the set of repositories. Returns whether a round began. `jitter` returns numbers from 0 to 1.
    pub(super) fn name(&mut self, names: Names, now: Instant, mut jitter: impl FnMut() -> f64) -> bool {
        let Names { repositories, is_unread } = names;
        self.names = repositories;
        self.names_due = now + if is_unread { UNREAD_AGE } else { NAMES_AGE };
        let names = &self.names;
        self.waiting.retain(|look| names.contains(&look.repository));
        self.met.retain(|repository| names.contains(repository));
        let due: HashSet<Repository> =
            self.waiting.iter().filter(|look| look.due <= now).map(|look| look.repository.clone()).collect();
        for repository in names {
            if self.met.insert(repository.clone()) && !due.contains(repository) {
                self.waiting.push(ScheduledLook { repository: repository.clone(), due: now, tries: 0 });
            }
        }
        // A round that begins before all branches are read would leave repositories out. A branch that stays unreadable delays
        // the first round only for `NAMES_AGE`.
        let may_come = is_unread && now < self.begun + NAMES_AGE;
        if may_come || self.round_due > now {
            return false;
        }
        self.round_due = now + self.every;
        let late: HashSet<Repository> =
            self.waiting.iter().filter(|look| look.due < now).map(|look| look.repository.clone()).collect();
        let place = self.every / u32::try_from(self.names.len().max(1)).unwrap_or(u32::MAX);
        for (number, repository) in (1u32..).zip(&self.names) {
            if !late.contains(repository) {
                let due = now + place.saturating_mul(number) - place.mul_f64(jitter() / 2.0);
                self.waiting.push(ScheduledLook { repository: repository.clone(), due, tries: 0 });
            }
        }
        true
    }

    /// Makes every repository due now.
    pub(super) fn again(&mut self, now: Instant) {
        self.met.clear();
        self.names_due = now;
    }

    /// Returns a due look, if there is one. `quiet_until` returns the end of a registry's pause.
    pub(super) fn take(
        &mut self,
        now: Instant,
        quiet_until: impl Fn(&str) -> Option<Instant>,
    ) -> Option<ScheduledLook> {
        if self.under_way >= self.at_once {
            return None;
        }
        let ready = |look: &&ScheduledLook| self.ready_at(look, &quiet_until) <= now;
        let first = self.waiting.iter().filter(ready).min_by_key(|look| look.due)?.clone();
        self.waiting.retain(|look| *look != first);
        self.free_at.insert(first.repository.registry().to_owned(), now + GAP);
        self.under_way += 1;
        Some(first)
    }

    /// Returns the next time at which work may be due without a notification.
    pub(super) fn wake_at(&self, quiet_until: impl Fn(&str) -> Option<Instant>) -> Instant {
        let is_full = self.under_way >= self.at_once;
        let looks = self.waiting.iter().filter(|_| !is_full).map(|look| self.ready_at(look, &quiet_until));
        looks.chain([self.names_due]).min().unwrap_or(self.names_due)
    }

    fn ready_at(&self, look: &ScheduledLook, quiet_until: impl Fn(&str) -> Option<Instant>) -> Instant {
        let registry = look.repository.registry();
        let free_at = self.free_at.get(registry).copied();
        [free_at, quiet_until(registry)].into_iter().flatten().fold(look.due, Instant::max)
    }

    /// Records that a look has ended.
    pub(super) fn done(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Records that a look failed. It is repeated, up to [`MAX_TRIES`] tries in total.
    pub(super) fn failed(&mut self, look: ScheduledLook, now: Instant) {
        self.done();
        let tries = look.tries + 1;
        if tries < MAX_TRIES {
            // Behind the other looks at the registry, which may succeed.
            self.waiting.push(ScheduledLook { due: now, tries, ..look });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(900);

    fn names(registry: &str, count: usize) -> Names {
        let name = |number: usize| format!("{registry}/uyou/a{number:04}").parse().unwrap();
        Names { repositories: (0..count).map(name).collect(), is_unread: false }
    }

    fn never_quiet(_: &str) -> Option<Instant> {
        None
    }

    /// Takes every look until `until`, each with a duration of zero. Returns when each was taken.
    fn run(rounds: &mut Rounds, from: Instant, until: Duration, source: impl Fn() -> Names) -> Vec<Duration> {
        let mut now = from;
        let mut taken = Vec::new();
        while now < from + until {
            if rounds.wants_names(now) {
                rounds.name(source(), now, || 0.5);
            }
            while rounds.take(now, never_quiet).is_some() {
                taken.push(now - from);
                rounds.done();
            }
            now = rounds.wake_at(never_quiet).max(now + Duration::from_millis(1));
        }
        taken
    }

    #[test]
    fn first_round_is_rate_limited_and_later_ones_are_even() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        let taken = run(&mut rounds, start, EVERY * 3, || names("r.test", 500));
        let within = |from: u64, to: u64| {
            let range = Duration::from_secs(from)..Duration::from_secs(to);
            taken.iter().filter(|at| range.contains(at)).count()
        };
        // Ten per second until each repository had one look, plus the first ones of the even round.
        assert!((500..=530).contains(&within(0, 51)), "{}", within(0, 51));
        assert!(within(0, 1) <= 10);
        // Then 500 in 900 s: each minute has a fifteenth of them.
        for minute in 1..44 {
            let count = within(minute * 60, minute * 60 + 60);
            assert!((32..=35).contains(&count), "minute {minute}: {count}");
        }
        assert!((1998..=2000).contains(&taken.len()), "a round at the start and three even ones: {}", taken.len());
    }

    #[test]
    fn single_repository_is_listed_once_per_period() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        let taken: Vec<u64> =
            run(&mut rounds, start, EVERY * 3, || names("r.test", 1)).iter().map(Duration::as_secs).collect();
        assert_eq!(taken, [0, 675, 1575, 2475]);
    }

    #[test]
    fn requested_round_lists_each_repository_once() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        rounds.name(names("r.test", 1), start, || 0.0);
        assert!(rounds.take(start, never_quiet).is_some());
        rounds.done();
        let now = start + Duration::from_secs(10);
        for _ in 0..3 {
            rounds.again(now);
            assert!(rounds.wants_names(now));
            rounds.name(names("r.test", 1), now, || 0.0);
        }
        assert!(rounds.take(now, never_quiet).is_some());
        rounds.done();
        assert!(rounds.take(now + GAP, never_quiet).is_none());
    }

    #[test]
    fn concurrent_looks_are_limited() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 3, start);
        // Ten registries, so that the gap delays no look.
        let of_many = (0..10).flat_map(|number| names(&format!("r{number}.test"), 5).repositories).collect();
        rounds.name(Names { repositories: of_many, is_unread: false }, start, || 0.0);
        let taken = std::iter::from_fn(|| rounds.take(start, never_quiet)).count();
        assert_eq!(taken, 3);
        assert_eq!(rounds.wake_at(never_quiet), start + NAMES_AGE, "the limit is reached until a look ends");
        rounds.done();
        assert!(rounds.take(start, never_quiet).is_some());
        assert!(rounds.take(start, never_quiet).is_none());
    }

    #[test]
    fn paused_registry_delays_no_other_and_is_rate_limited_afterwards() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        let both = [names("a.test", 3).repositories, names("b.test", 3).repositories].into_iter().flatten().collect();
        rounds.name(Names { repositories: both, is_unread: false }, start, || 0.0);
        let pause_ends = start + Duration::from_secs(30);
        let quiet = |registry: &str| (registry == "a.test").then_some(pause_ends);
        let mut now = start;
        let mut taken = Vec::new();
        while now < start + Duration::from_secs(40) {
            while let Some(look) = rounds.take(now, quiet) {
                taken.push((look.repository.registry().to_owned(), now - start));
                rounds.done();
            }
            now += Duration::from_millis(50);
        }
        let of = |registry: &str| -> Vec<u128> {
            taken.iter().filter(|(found, _)| found == registry).map(|(_, at)| at.as_millis()).collect()
        };
        assert_eq!(of("b.test"), [0, 100, 200]);
        assert_eq!(of("a.test"), [30_000, 30_100, 30_200]);
    }

    #[test]
    fn failed_look_is_tried_three_times() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        rounds.name(names("r.test", 1), start, || 0.0);
        let mut now = start;
        let mut tries = 0;
        while now < start + Duration::from_secs(60) {
            if let Some(look) = rounds.take(now, never_quiet) {
                tries += 1;
                rounds.failed(look, now);
            }
            now += Duration::from_millis(100);
        }
        assert_eq!(tries, 3);
    }

    #[test]
    fn new_repository_is_listed_soon_and_removed_one_is_not() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        assert!(
            !rounds.name(Names { is_unread: true, ..names("r.test", 1) }, start, || 0.0),
            "a branch is unread, so repositories may be missing"
        );
        assert!(rounds.take(start, never_quiet).is_some());
        rounds.done();
        assert_eq!(rounds.wake_at(never_quiet), start + UNREAD_AGE);
        let later = start + UNREAD_AGE;
        assert!(rounds.name(names("r.test", 2), later, || 0.0));
        let look = rounds.take(later, never_quiet).unwrap();
        assert_eq!(look.repository.as_str(), "r.test/uyou/a0001");
        rounds.done();
        rounds.name(names("r.test", 0), later + NAMES_AGE, || 0.0);
        assert_eq!(rounds.wake_at(never_quiet), later + NAMES_AGE * 2);
    }

    #[test]
    fn unreadable_branch_delays_the_first_round_by_a_minute() {
        let start = Instant::now();
        let mut rounds = Rounds::new(EVERY, 4, start);
        let unread = || Names { is_unread: true, ..names("r.test", 2) };
        let taken = run(&mut rounds, start, EVERY * 3, unread);
        assert!(taken.len() >= 6, "{taken:?}");
    }
}
