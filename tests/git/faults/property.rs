//! Any sequence of updates, foreign commits, server faults and restarts ends at the newest versions. Every acknowledged update
//! is on the branch exactly once or ended with a reason.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::{assert_sound, behind_http, commits_of};
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::Fleet;
use tagrelay_test_support::git_http::{Fault, Server};

const SERVICES: [&str; 3] = ["one", "two", "three"];

#[derive(Debug, Clone)]
enum Step {
    /// An image is pushed and announced.
    Announce {
        service: usize,
    },
    /// A foreign commit adds a file without sites.
    Foreign,
    /// A foreign commit writes another version into a manifest.
    Overwrite {
        service: usize,
    },
    /// The last commit of the branch is reverted.
    Revert,
    /// From now on the server has this fault.
    Fault(Fault),
    /// A hook refuses every push during the next steps.
    Refuse {
        steps: usize,
    },
    /// Power failure.
    Kill,
    /// A restart.
    Restart,
    Wait {
        milliseconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![
        Fault::None,
        Fault::LoseAnswer,
        Fault::GatewayTimeout,
        Fault::BadGateway,
        Fault::DieBefore,
        Fault::DieDuring,
        Fault::LandLate,
    ]);
    prop_oneof![
        6 => (0..SERVICES.len()).prop_map(|service| Step::Announce { service }),
        2 => Just(Step::Foreign),
        2 => (0..SERVICES.len()).prop_map(|service| Step::Overwrite { service }),
        1 => Just(Step::Revert),
        4 => fault.prop_map(Step::Fault),
        1 => (1_usize..4).prop_map(|steps| Step::Refuse { steps }),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
        3 => (0_u64..400).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

/// All announcements and foreign commits.
struct World {
    fleet: Fleet,
    server: Server,
    _registry: EmbeddedRegistry,
    /// The announced tags in order: service, tag, event.
    announced: Vec<(usize, String, String)>,
    /// Foreign changes of manifests: versions and reverts.
    overwritten: [bool; SERVICES.len()],
    /// Unmanaged files.
    foreign: BTreeMap<String, String>,
    refusing_for: usize,
}

impl World {
    async fn start() -> Self {
        let builder = SERVICES.iter().fold(super::fleet(), |builder, service| builder.service(service));
        let (fleet, server, registry) = behind_http(builder).await;
        Self {
            fleet,
            server,
            _registry: registry,
            announced: Vec::new(),
            overwritten: Default::default(),
            foreign: BTreeMap::new(),
            refusing_for: 0,
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Announce { service } => {
                let tag = format!("{:040x}", self.announced.len() + 0xa000);
                let id = self.fleet.announce(SERVICES[*service], &tag).await;
                self.announced.push((*service, tag, id));
            }
            Step::Foreign => {
                let path = format!("foreign/{}.txt", self.foreign.len());
                self.fleet.upstream.commit("of others", &[(&path, &path)]);
                self.foreign.insert(path.clone(), path);
            }
            Step::Overwrite { service } => self.overwrite(*service),
            Step::Revert => self.revert(),
            Step::Fault(fault) => self.server.set_fault(*fault),
            Step::Refuse { steps } => {
                self.refusing_for = *steps + 1;
                self.fleet.upstream.hook("pre-receive", "echo not now >&2; exit 1");
            }
            Step::Kill => {
                self.fleet.kill();
                self.fleet.start().await;
            }
            Step::Restart => {
                assert_eq!(self.fleet.terminate(), Some(0));
                self.fleet.start().await;
            }
            Step::Wait { milliseconds } => tokio::time::sleep(Duration::from_millis(*milliseconds)).await,
        }
        if self.refusing_for > 0 {
            self.refusing_for -= 1;
            if self.refusing_for == 0 {
                self.fleet.upstream.remove_hook("pre-receive");
            }
        }
    }

    fn overwrite(&mut self, service: usize) {
        self.overwritten[service] = true;
        let path = format!("environments/staging/{}.yaml", SERVICES[service]);
        // An image that was never built.
        let theirs = format!("{:040x}", self.foreign.len() + 0xf000);
        loop {
            let running = self.fleet.running("staging", SERVICES[service]);
            let text = self.fleet.upstream.file(&path).replace(&running, &theirs);
            if self.fleet.upstream.try_commit("of others: a version", &[(&path, &text)]) {
                return;
            }
        }
    }

    /// As `git revert HEAD`: the tree of the parent commit.
    fn revert(&mut self) {
        if self.fleet.upstream.subjects().len() < 2 {
            return;
        }
        let git = |arguments: &[&str]| self.fleet.upstream.git(arguments).trim().to_owned();
        let tip = git(&["rev-parse", "main"]);
        let gone = git(&["diff", "--name-only", "--diff-filter=A", &format!("{tip}~"), &tip]);
        let commit = git(&["commit-tree", &format!("{tip}~^{{tree}}"), "-p", &tip, "-m", "of others: taken back"]);
        if git(&["diff", "--name-only", &format!("{tip}~"), &tip]).is_empty() || !self.try_move(&commit, &tip) {
            return;
        }
        gone.lines().for_each(|path| drop(self.foreign.remove(path)));
        // A later revert can restore what an earlier one removed.
        let back = self.fleet.upstream.git(&["diff", "--name-only", "--diff-filter=A", &tip, &commit]);
        back.lines().for_each(|path| drop(self.foreign.insert(path.to_owned(), path.to_owned())));
        let changed = self.fleet.upstream.git(&["diff", "--name-only", &tip, &commit]);
        for (service, name) in SERVICES.iter().enumerate() {
            self.overwritten[service] |= changed.contains(&format!("environments/staging/{name}.yaml"));
        }
    }

    fn try_move(&self, new: &str, old: &str) -> bool {
        std::process::Command::new("git")
            .args(["update-ref", "refs/heads/main", new, old])
            .current_dir(self.fleet.upstream.path())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    async fn check(mut self, steps: &[Step]) {
        self.server.set_fault(Fault::None);
        if self.refusing_for > 0 {
            self.fleet.upstream.remove_hook("pre-receive");
        }
        // A push that an interrupted server still accepts.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut ends: Vec<Value> = Vec::new();
        for (_, _, id) in &self.announced {
            ends.push(self.fleet.settled(id).await);
        }
        assert_eq!(self.fleet.terminate(), Some(0));
        let upstream = &self.fleet.upstream;
        assert_sound(upstream);
        for (path, text) in &self.foreign {
            assert_eq!(upstream.file(path), *text, "{steps:?}");
        }
        let mut newest: BTreeMap<usize, &str> = BTreeMap::new();
        for (number, ((service, tag, _), event)) in self.announced.iter().zip(&ends).enumerate() {
            let story =
                || format!("{tag} of {steps:?}: {event:#}\n{}", upstream.git(&["log", "--format=%h %s", "main"]));
            let commits = commits_of(upstream, &self.fleet.repository(SERVICES[*service]), "staging", tag);
            let state = event["state"].as_str().unwrap();
            match state {
                "committed" => {
                    newest.insert(*service, tag);
                    assert_eq!(commits, 1, "{}", story());
                    let commit = event["updates"][0]["commit"].as_str().unwrap();
                    // Fails if it is missing.
                    upstream.git(&["merge-base", "--is-ancestor", commit, "main"]);
                }
                "superseded" | "refused" => {
                    let reason = event["reason"].as_str().unwrap();
                    let is_followed = self.announced[number + 1..].iter().any(|(other, _, _)| other == service);
                    // Refused by the hook, or superseded by a newer version, or queued before it.
                    let is_explained = match state {
                        "refused" => reason.contains("not now") || (reason.starts_with("older") && is_followed),
                        _ => is_followed,
                    };
                    assert!(commits == 0 && is_explained, "{}", story());
                }
                _ => panic!("{}", story()),
            }
        }
        for (service, name) in SERVICES.iter().enumerate().filter(|(service, _)| !self.overwritten[*service]) {
            let expected =
                newest.get(&service).map_or_else(|| tagrelay_test_support::fleet::sha('0'), |tag| (*tag).to_owned());
            assert_eq!(self.fleet.running("staging", name), expected, "{name} after {steps:?}");
        }
    }
}

fn configuration() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4);
    ProptestConfig { cases, max_shrink_iters: 12, failure_persistence: None, ..ProptestConfig::default() }
}

fn run(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::start().await;
        for step in steps {
            world.take(step).await;
        }
        world.check(steps).await;
    });
}

proptest! {
    // Each case starts a program and waits a few seconds; `PROPTEST_CASES` sets the number of cases.
    #![proptest_config(configuration())]

    #[test]
    fn every_update_is_on_the_branch_once_or_ended_with_a_reason(steps in prop::collection::vec(step(), 4..16)) {
        run(&steps);
    }
}

/// Each fault once, with a foreign commit in between.
#[test]
fn every_fault_is_survived() {
    let ways = [
        Fault::LoseAnswer,
        Fault::GatewayTimeout,
        Fault::BadGateway,
        Fault::DieBefore,
        Fault::DieDuring,
        Fault::LandLate,
    ];
    for fault in ways {
        run(&[
            Step::Announce { service: 0 },
            Step::Fault(fault),
            Step::Announce { service: 0 },
            Step::Announce { service: 1 },
            Step::Wait { milliseconds: 200 },
            Step::Overwrite { service: 1 },
            Step::Foreign,
            Step::Kill,
            Step::Announce { service: 2 },
            Step::Wait { milliseconds: 300 },
            Step::Revert,
        ]);
    }
}
