//! Gates over whole histories: applications that are deployed, dip and recover, observed with interruptions.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use tagrelay_image::{ImageReference, Repository, Version};

use super::{Condition, Passage, Statement, Subject, gate};
use crate::clock::Clock;
use crate::domain::{RunObservation, VersionRun};

/// The time between two looks, in seconds.
const LOOK: i64 = 15;

fn version(number: usize) -> Version {
    format!("a:{number}").parse::<ImageReference>().unwrap().version().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An application of Argo CD, as it really is.
#[derive(Debug, Clone)]
struct App {
    /// The versions of its pods, each with the second since when it has been healthy with it.
    pods: Vec<(usize, Option<i64>)>,
    is_healthy: bool,
    /// When the health changed last.
    changed: i64,
    /// When the last sync ended.
    synced: i64,
    /// When the rollout ends; its version is the last one of `pods`.
    settles: Option<i64>,
    recovers: Option<i64>,
}

impl App {
    fn new() -> Self {
        Self { pods: vec![(0, Some(0))], is_healthy: true, changed: 0, synced: 0, settles: None, recovers: None }
    }

    /// Begins to run a version. A quick rollout never leaves Healthy.
    fn deploy(&mut self, version: usize, now: i64, takes: i64, is_quick: bool) {
        self.pods.retain(|(running, _)| *running != version);
        self.pods.push((version, (self.is_healthy && is_quick).then_some(now)));
        self.synced = now;
        self.settles = Some(now + takes);
        if !is_quick {
            self.set_health(false, now);
        }
    }

    fn set_health(&mut self, is_healthy: bool, now: i64) {
        if self.is_healthy != is_healthy {
            (self.is_healthy, self.changed) = (is_healthy, now);
            self.pods.iter_mut().for_each(|(_, since)| *since = is_healthy.then_some(now));
        }
    }

    fn step(&mut self, now: i64) {
        if self.settles.is_some_and(|at| at <= now) {
            self.settles = None;
            let newest = self.pods.pop();
            self.pods = newest.into_iter().collect();
            if self.recovers.is_none() {
                self.set_health(true, now);
            }
        }
        if self.recovers.is_some_and(|at| at <= now) {
            self.recovers = None;
            if self.settles.is_none() {
                self.set_health(true, now);
            }
        }
    }

    fn dip(&mut self, now: i64, takes: i64) {
        self.set_health(false, now);
        self.recovers = Some(now + takes);
    }
}

/// What Tagrelay knows, as in its store.
#[derive(Default)]
struct Observer {
    runs: BTreeMap<(usize, usize), VersionRun>,
}

impl Observer {
    fn observe(&mut self, apps: &[App], repository: &Repository, now: i64) {
        let mut seen = BTreeMap::new();
        for (index, app) in apps.iter().enumerate() {
            for (number, _) in &app.pods {
                let observation = RunObservation {
                    is_healthy: app.is_healthy,
                    is_syncing: false,
                    health_since: Some(at(app.changed)),
                    last_sync: Some(at(app.synced)),
                    now: at(now),
                };
                let (first_seen_at, healthy_since) = observation.times(self.runs.get(&(index, *number)));
                let run = VersionRun {
                    environment: "staging".to_owned(),
                    application: index.to_string(),
                    repository: repository.clone(),
                    version: version(*number),
                    first_seen_at,
                    healthy_since,
                    observed_at: at(now),
                };
                seen.insert((index, *number), run);
            }
        }
        self.runs = seen;
    }

    fn passage(&self, apps: &[App], repository: &Repository, wanted: usize, soak: i64, now: i64) -> Passage {
        let statements = apps.iter().enumerate().map(|(index, app)| Statement {
            application: index.to_string(),
            running: app.pods.iter().map(|(number, _)| version(*number)).collect(),
            ended: Vec::new(),
            condition: match app.is_healthy {
                true => Condition::Fine,
                false => Condition::Progressing("is Progressing".to_owned()),
            },
            healthy_since: self.runs.get(&(index, wanted)).and_then(|run| run.healthy_since),
        });
        let subject = Subject {
            environment: "staging",
            repository,
            version: &version(wanted),
            soak: Duration::from_secs(soak.unsigned_abs()),
            allow_untracked: false,
            advice: "",
            now: at(now),
        };
        gate(&subject, &statements.collect::<Vec<_>>())
    }
}

#[derive(Debug, Clone)]
enum Happening {
    /// `only`: the other application is hydrated later, or a sync window blocks it.
    Deploy {
        takes: i64,
        is_quick: bool,
        only: Option<usize>,
    },
    Dip {
        app: usize,
        takes: i64,
    },
    /// Tagrelay or Argo CD is away.
    Away {
        takes: i64,
    },
    /// Back to an earlier version.
    Rollback {
        by: usize,
        takes: i64,
    },
    Nothing,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1..40_i64, any::<bool>(), prop::option::weighted(0.2, 0..2_usize))
            .prop_map(|(takes, is_quick, only)| Happening::Deploy { takes, is_quick, only }),
        2 => (0..2_usize, 1..50_i64).prop_map(|(app, takes)| Happening::Dip { app, takes }),
        1 => (1..200_i64).prop_map(|takes| Happening::Away { takes }),
        1 => (1..3_usize, 1..40_i64).prop_map(|(by, takes)| Happening::Rollback { by, takes }),
        3 => Just(Happening::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No version passes that an application did not run healthy for the whole soak time, and every one that did passes.
    #[test]
    fn version_passes_if_and_only_if_it_ran_healthy_for_its_soak_time(
        happenings in prop::collection::vec((happening(), 5..90_i64), 1..25),
        soak in 20..120_i64,
    ) {
        let repository: Repository = "docker.io/uyou/web".parse().unwrap();
        let mut apps = vec![App::new(), App::new()];
        let mut observer = Observer::default();
        let (mut now, mut wanted, mut newest, mut away_until, mut next_look) = (1_i64, 0, 0, 0, 1);
        for (happening, pause) in happenings {
            match happening {
                Happening::Deploy { takes, is_quick, only } => {
                    newest += 1;
                    wanted = newest;
                    for (index, app) in apps.iter_mut().enumerate() {
                        if only.is_none_or(|only| only == index) {
                            app.deploy(wanted, now, takes, is_quick);
                        }
                    }
                }
                Happening::Dip { app, takes } => apps[app].dip(now, takes),
                Happening::Away { takes } => away_until = now + takes,
                Happening::Rollback { by, takes } => {
                    wanted = wanted.saturating_sub(by);
                    apps.iter_mut().for_each(|app| app.deploy(wanted, now, takes, false));
                }
                Happening::Nothing => {}
            }
            for _ in 0..pause {
                now += 1;
                apps.iter_mut().for_each(|app| app.step(now));
                if now < next_look || now < away_until {
                    continue;
                }
                next_look = now + LOOK;
                observer.observe(&apps, &repository, now);
                let passes = matches!(observer.passage(&apps, &repository, wanted, soak, now), Passage::Open { .. });
                let runs_only_it = |app: &App| matches!(app.pods.as_slice(), [(one, _)] if *one == wanted);
                let since = |app: &App| app.pods.iter().find(|(one, _)| *one == wanted).and_then(|(_, since)| *since);
                for app in &apps {
                    let is_long = since(app).is_some_and(|since| since <= now - soak);
                    prop_assert!(!passes || (runs_only_it(app) && is_long), "{wanted} at {now}: {app:?}");
                }
                // The first sight may be one look, or one absence, after the fact.
                let seen = (0..apps.len()).filter_map(|index| observer.runs.get(&(index, wanted)));
                let seen = seen.map(|run| run.first_seen_at.as_second());
                let begun: Option<Vec<i64>> = apps.iter().map(since).collect();
                let begun = begun.and_then(|begun| begun.into_iter().chain(seen).max());
                let is_settled = apps.iter().all(|app| runs_only_it(app) && app.is_healthy);
                if is_settled && begun.is_some_and(|begun| begun + soak + LOOK <= now) {
                    prop_assert!(passes, "{wanted} at {now}: {apps:?}");
                }
            }
        }
    }
}

/// 200 services, a deployment somewhere every 10 s for 6 hours, a soak time of 30 minutes, and a look every 15 s, at the end of each
/// rollout and at the end of each soak time.
#[test]
fn every_version_that_lives_long_enough_passes_within_five_seconds() {
    const SERVICES: usize = 200;
    const SOAK: i64 = 30 * 60;
    let clock = Clock::stopped_at(at(0));
    let repository: Repository = "docker.io/uyou/web".parse().unwrap();
    let mut apps: Vec<App> = (0..SERVICES).map(|_| App::new()).collect();
    let mut observers: Vec<Observer> = (0..SERVICES).map(|_| Observer::default()).collect();
    let (mut wanted, mut passed) = (vec![0; SERVICES], vec![Some(0); SERVICES]);
    let (mut random, mut deployed, mut late, mut next_look) = (7_u64, 0, Vec::new(), 0);
    for second in 1..6 * 3600 {
        clock.set(at(second));
        let now = clock.now().as_second();
        if now % 10 == 0 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let service = usize::try_from(random >> 33).unwrap() % SERVICES;
            wanted[service] += 1;
            deployed += 1;
            apps[service].deploy(wanted[service], now, 20, random.is_multiple_of(2));
        }
        let (is_look, mut opens) = (now >= next_look, None::<i64>);
        for service in 0..SERVICES {
            let was_open = apps[service].settles.is_some();
            apps[service].step(now);
            let has_ended = was_open && apps[service].settles.is_none();
            let of_service = &apps[service..=service];
            let lives_long = of_service[0]
                .pods
                .last()
                .and_then(|(_, since)| *since)
                .is_some_and(|since| since + SOAK + LOOK + 5 <= now);
            if is_look || has_ended {
                observers[service].observe(of_service, &repository, now);
                let version = wanted[service];
                if passed[service] != Some(version) {
                    match observers[service].passage(of_service, &repository, version, SOAK, now) {
                        Passage::Open { since } => {
                            passed[service] = Some(version);
                            late.push(now - since.as_second() - SOAK);
                        }
                        Passage::Closed(closed) => {
                            opens = [opens, closed.opens_at.map(Timestamp::as_second)].into_iter().flatten().min();
                        }
                        Passage::Untracked(reason) => panic!("{reason}"),
                    }
                }
            }
            assert!(!lives_long || passed[service] == Some(wanted[service]), "service {service} at {now}");
        }
        if is_look {
            next_look = opens.map_or(now + LOOK, |opens| opens.max(now + 1).min(now + LOOK));
        }
    }
    let latest = late.iter().max().copied().unwrap_or_default();
    let share = late.len() * 100 / deployed;
    println!("{deployed} deployments, {} ({share} %) passed, the latest {latest} s after its soak time", late.len());
    assert!(latest <= 5, "{latest} s");
    assert!(late.len() > SERVICES, "{} of {deployed}", late.len());
}
