//! The gate of a promotion: whether a version has run healthy in the environment that it comes from, for long enough.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::versions::is_same;
use tagrelay_image::{Repository, Version};

/// The most applications that an explanation lists.
const LISTED: usize = 20;

/// What one application of an environment runs of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// For example `argocd/user-service-staging`.
    pub application: String,
    /// The versions in pods that run until they are replaced.
    pub running: Vec<Version>,
    /// The versions that only pods of jobs and ended pods have.
    pub ended: Vec<Version>,
    pub condition: Condition,
    /// Since when it has been healthy with the version of the gate; `None`: it is not, or that is not known.
    pub healthy_since: Option<Timestamp>,
}

/// The condition of an application. The texts complete "argocd/user-service-staging …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Synced and Healthy, and the last sync did not fail.
    Fine,
    /// Degraded, or its last sync or a hook failed.
    Failed(String),
    /// The cluster does not match the manifests, or that is unknown.
    OutOfStep(String),
    /// On its way.
    Progressing(String),
    /// Paused or scaled down on purpose.
    Suspended(String),
}

/// What a gate is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The environment that the version comes from.
    pub environment: &'a str,
    pub repository: &'a Repository,
    pub version: &'a Version,
    /// How long it must have run healthy; zero: it must be healthy now.
    pub soak: Duration,
    /// Whether versions pass that no application runs.
    pub allow_untracked: bool,
    /// Why no application is known to run the repository, and what to do about it.
    pub advice: &'a str,
    pub now: Timestamp,
}

/// The answer of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Every application that runs the repository has run the version healthy since then.
    Open {
        since: Timestamp,
    },
    /// No application runs the repository, and the settings let it pass.
    Untracked(String),
    Closed(ClosedGate),
}

/// Why a gate is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedGate {
    /// One for each application, nearest cause first.
    pub obstacles: Vec<Obstacle>,
    /// When the gate opens if nothing else happens; `None`: something must happen first.
    pub opens_at: Option<Timestamp>,
}

/// Why an application keeps a gate closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub kind: ObstacleKind,
    pub text: String,
}

/// The kind of an obstacle. The nearest cause comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObstacleKind {
    /// The health is unknown: Argo CD does not answer, or cannot be asked.
    Unknown,
    /// An application failed with the version.
    Failed,
    /// An application runs another version.
    OtherVersion,
    /// No application runs the repository.
    Untracked,
    /// An application is out of step with its manifests.
    OutOfStep,
    /// An application is on its way.
    Progressing,
    /// The soak time has not passed.
    Soaking,
}

impl ClosedGate {
    /// Returns a gate that is closed for one reason.
    pub fn because(kind: ObstacleKind, text: impl Into<String>) -> Self {
        Self { obstacles: vec![Obstacle { kind, text: text.into() }], opens_at: None }
    }

    /// Returns the nearest cause.
    pub fn kind(&self) -> ObstacleKind {
        self.obstacles.first().map_or(ObstacleKind::Unknown, |obstacle| obstacle.kind)
    }

    /// Joins the reasons of several versions.
    pub fn and(mut self, other: Self) -> Self {
        self.opens_at = match (self.opens_at, other.opens_at) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
        for obstacle in other.obstacles {
            if !self.obstacles.contains(&obstacle) {
                self.obstacles.push(obstacle);
            }
        }
        self.obstacles.sort_by_key(|obstacle| obstacle.kind);
        self
    }

    /// Returns one line for each obstacle, and when the gate opens if that is known.
    pub fn explanation(&self) -> String {
        let mut lines: Vec<String> = self.obstacles.iter().take(LISTED).map(|obstacle| obstacle.text.clone()).collect();
        if self.obstacles.len() > LISTED {
            lines.push(format!("and {} more", self.obstacles.len() - LISTED));
        }
        if let Some(at) = self.opens_at {
            lines.push(format!("the gate opens at {at:.0}"));
        }
        lines.join("\n")
    }
}

/// Decides whether a version may leave an environment.
///
/// `statements`: the applications of the environment that run the repository, or that read the files that name it. Those that run
/// another version or are not fine keep the gate closed; those without a pod of the repository do not, if another one runs it.
pub fn gate(subject: &Subject<'_>, statements: &[Statement]) -> Passage {
    let runs: Vec<&Statement> = statements.iter().filter(|statement| !statement.running.is_empty()).collect();
    if runs.is_empty() {
        return untracked(subject, statements);
    }
    let obstacles: Vec<(Obstacle, Option<Timestamp>)> =
        runs.iter().filter_map(|statement| statement.obstacle(subject)).collect();
    if obstacles.is_empty() {
        let since = runs.iter().filter_map(|statement| statement.healthy_since).max();
        return Passage::Open { since: since.unwrap_or(subject.now) };
    }
    let opens: Option<Vec<Timestamp>> = obstacles.iter().map(|(_, at)| *at).collect();
    let mut obstacles: Vec<Obstacle> = obstacles.into_iter().map(|(obstacle, _)| obstacle).collect();
    obstacles.sort_by(|a, b| (a.kind, &a.text).cmp(&(b.kind, &b.text)));
    Passage::Closed(ClosedGate { obstacles, opens_at: opens.and_then(|times| times.into_iter().max()) })
}

fn untracked(subject: &Subject<'_>, statements: &[Statement]) -> Passage {
    let name = subject.repository.name();
    let jobs: Vec<&str> =
        statements.iter().filter(|statement| !statement.ended.is_empty()).map(|one| one.application.as_str()).collect();
    let reason = if jobs.is_empty() {
        format!("no application of {} runs {name}: {}", subject.environment, subject.advice)
    } else {
        format!("only jobs and ended pods of {} run {name}", jobs.join(", "))
    };
    if !subject.allow_untracked {
        let hint = "set `untracked = \"allow\"` if Argo CD does not deploy it as a workload";
        return Passage::Closed(ClosedGate::because(ObstacleKind::Untracked, format!("{reason} ({hint})")));
    }
    // What is made of its files must be in order all the same.
    let mut obstacles: Vec<Obstacle> = statements.iter().filter_map(Statement::disorder).collect();
    obstacles.sort_by(|a, b| (a.kind, &a.text).cmp(&(b.kind, &b.text)));
    if obstacles.is_empty() {
        Passage::Untracked(reason)
    } else {
        Passage::Closed(ClosedGate { obstacles, opens_at: None })
    }
}

impl Statement {
    /// Whether the application is in order.
    pub fn is_fine(&self) -> bool {
        self.disorder().is_none()
    }

    /// Returns why it keeps the gate closed, and when it stops to do so if that is known.
    fn obstacle(&self, subject: &Subject<'_>) -> Option<(Obstacle, Option<Timestamp>)> {
        let others: Vec<String> =
            self.running.iter().filter(|one| !is_same(one, subject.version)).map(Version::short).collect();
        let (name, wanted) = (subject.repository.name(), subject.version.short());
        if !others.is_empty() {
            let also = if others.len() < self.running.len() { "also runs" } else { "runs" };
            let condition = self.condition.text().map(|text| format!("; it {text}")).unwrap_or_default();
            let text = format!(
                "{} {also} {} of {name}, not {}{wanted}{condition}",
                self.application,
                others.join(" and "),
                if also == "runs" { "" } else { "only " },
            );
            // A rollout that failed keeps the pods of the old version.
            let kind = match self.condition {
                Condition::Failed(_) if also == "also runs" => ObstacleKind::Failed,
                // Without the wanted version, the old one failed, and that one may be its fix.
                _ => ObstacleKind::OtherVersion,
            };
            return Some((Obstacle { kind, text }, None));
        }
        if let Some(obstacle) = self.disorder() {
            return Some((obstacle, None));
        }
        let since = self.healthy_since.unwrap_or(subject.now);
        let opens = SignedDuration::try_from(subject.soak).ok().and_then(|soak| since.checked_add(soak).ok());
        // A time beyond the calendar never comes.
        if opens.is_some_and(|at| at <= subject.now) {
            return None;
        }
        let text = format!(
            "{} has run {wanted} of {name} healthy since {since:.0}; the soak time is {}",
            self.application,
            spoken(subject.soak)
        );
        Some((Obstacle { kind: ObstacleKind::Soaking, text }, opens))
    }

    fn disorder(&self) -> Option<Obstacle> {
        let kind = match &self.condition {
            Condition::Fine => return None,
            // Without a pod of the repository, that is how it should be.
            Condition::Suspended(_) if self.running.is_empty() => return None,
            Condition::Failed(_) => ObstacleKind::Failed,
            Condition::OutOfStep(_) => ObstacleKind::OutOfStep,
            Condition::Progressing(_) | Condition::Suspended(_) => ObstacleKind::Progressing,
        };
        let text = self.condition.text().unwrap_or_default();
        Some(Obstacle { kind, text: format!("{} {text}", self.application) })
    }
}

impl Condition {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Fine => None,
            Self::Failed(text) | Self::OutOfStep(text) | Self::Progressing(text) | Self::Suspended(text) => Some(text),
        }
    }
}

/// Returns a duration as people write it in the settings: `30m`, `90s`.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= length && seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod histories;

#[cfg(test)]
mod tests {
    use super::*;
    use tagrelay_image::ImageReference;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn version(text: &str) -> Version {
        format!("a:{text}").parse::<ImageReference>().unwrap().version().unwrap()
    }

    fn statement(application: &str, running: &[&str], condition: Condition, since: Option<i64>) -> Statement {
        Statement {
            application: application.to_owned(),
            running: running.iter().map(|text| version(text)).collect(),
            ended: Vec::new(),
            condition,
            healthy_since: since.map(at),
        }
    }

    fn fine(application: &str, running: &[&str], since: i64) -> Statement {
        statement(application, running, Condition::Fine, Some(since))
    }

    fn asked(statements: &[Statement], soak: u64, allow_untracked: bool) -> Passage {
        let repository = "docker.io/uyou/web".parse().unwrap();
        let wanted = version("2");
        gate(
            &Subject {
                environment: "staging",
                repository: &repository,
                version: &wanted,
                soak: Duration::from_secs(soak),
                allow_untracked,
                advice: "Argo CD shows none",
                now: at(1000),
            },
            statements,
        )
    }

    fn closed(statements: &[Statement], soak: u64, allow_untracked: bool) -> ClosedGate {
        match asked(statements, soak, allow_untracked) {
            Passage::Closed(closed) => closed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn version_that_every_application_runs_healthy_passes() {
        assert_eq!(
            asked(&[fine("a", &["2"], 400), fine("b", &["2"], 700)], 300, false),
            Passage::Open { since: at(700) }
        );
        assert_eq!(asked(&[fine("a", &["2"], 700), fine("b", &[], 990)], 300, false), Passage::Open { since: at(700) });
    }

    #[test]
    fn soak_counts_from_the_application_that_became_healthy_last() {
        let closed = closed(&[fine("a", &["2"], 400), fine("b", &["2"], 701)], 300, false);
        assert_eq!(closed.opens_at, Some(at(1001)));
        assert_eq!(
            closed.explanation(),
            "b has run 2 of web healthy since 1970-01-01T00:11:41Z; the soak time is 5m\nthe gate opens at \
             1970-01-01T00:16:41Z"
        );
    }

    #[test]
    fn one_line_for_each_application_with_the_nearest_cause_first() {
        let broken = statement("a", &["1"], Condition::Failed("is Degraded".to_owned()), None);
        assert_eq!(closed(&[broken], 60, false).kind(), ObstacleKind::OtherVersion, "2 may be the fix");
        let closed = closed(
            &[
                fine("a", &["2"], 999),
                fine("b", &["1"], 10),
                statement("c", &["1", "2"], Condition::Failed("is Degraded: back-off".to_owned()), None),
                statement("d", &["2"], Condition::OutOfStep("is OutOfSync".to_owned()), None),
                statement("e", &["2"], Condition::Progressing("is Progressing".to_owned()), None),
            ],
            60,
            false,
        );
        assert_eq!(closed.opens_at, None);
        assert_eq!(
            closed.explanation().lines().collect::<Vec<_>>(),
            [
                "c also runs 1 of web, not only 2; it is Degraded: back-off",
                "b runs 1 of web, not 2",
                "d is OutOfSync",
                "e is Progressing",
                "a has run 2 of web healthy since 1970-01-01T00:16:39Z; the soak time is 1m",
            ]
        );
    }

    #[test]
    fn version_that_no_application_runs_needs_the_setting() {
        let reason = "no application of staging runs web: Argo CD shows none";
        assert!(closed(&[], 0, false).explanation().starts_with(reason));
        assert_eq!(asked(&[], 0, true), Passage::Untracked(reason.to_owned()));
        let job = Statement { ended: vec![version("2")], ..fine("a", &[], 10) };
        let said = closed(std::slice::from_ref(&job), 0, false).explanation();
        assert!(said.starts_with("only jobs and ended pods of a run web (set `untracked"), "{said}");
        assert!(matches!(asked(&[job], 0, true), Passage::Untracked(_)));
        let paused = statement("a", &[], Condition::Suspended("is Suspended".to_owned()), None);
        assert!(matches!(asked(&[paused], 0, true), Passage::Untracked(_)));
        // A new application whose first sync failed.
        let failed = statement("a", &[], Condition::Failed("is Degraded".to_owned()), None);
        assert_eq!(closed(&[failed], 0, true).explanation(), "a is Degraded");
    }

    #[test]
    fn many_applications_are_counted() {
        let many: Vec<Statement> = (0..30).map(|number| fine(&format!("{number:02}"), &["1"], 0)).collect();
        let text = closed(&many, 0, false).explanation();
        assert_eq!(text.lines().count(), LISTED + 1);
        assert_eq!(text.lines().last(), Some("and 10 more"));
    }

    #[test]
    fn gates_of_several_versions_join() {
        let one = ClosedGate { opens_at: Some(at(5)), ..ClosedGate::because(ObstacleKind::Soaking, "soaking") };
        let other = ClosedGate { opens_at: Some(at(7)), ..ClosedGate::because(ObstacleKind::Soaking, "soaking, too") };
        assert_eq!(one.clone().and(other).opens_at, Some(at(7)));
        let both = one.clone().and(ClosedGate::because(ObstacleKind::Failed, "failed"));
        assert_eq!((both.opens_at, both.kind()), (None, ObstacleKind::Failed));
        assert_eq!(one.clone().and(one).obstacles.len(), 1);
    }
}
