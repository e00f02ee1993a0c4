//! What the cluster runs, according to Argo CD: the evidence for gates and rollouts.
//!
//! A version runs in an environment if the applications of the environment that run its repository run this version and no other, in
//! pods that last, and are Synced and Healthy. Files and commits say only what should run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Following, Promoted};
use crate::argocd::{
    Application, ApplicationName, ApplicationSet, ArgoCdError, Health, LivePods, Member, Reach, Refresh, Selection,
    SyncStatus, WatchedBranch, members,
};
use crate::domain::{
    ClosedGate, Condition, GateSubject, ObstacleKind, Passage, RunObservation, Statement, VersionRun, gate, is_same,
};
use crate::policy::GatePolicy;
use crate::relay::branch::sites;
use crate::relay::{Branch, Relay};
use crate::store::StoreError;
use tagrelay_image::{Digest, ImageReference, Repository, Version};

/// The most concurrent requests to Argo CD.
const AT_ONCE: usize = 32;

/// How often an unchanged run is written again if Argo CD does not report the time of the last change.
const WRITE_AGAIN: std::time::Duration = std::time::Duration::from_secs(50);

/// The most files and applications that an advice names.
const NAMED: usize = 3;

/// The applications as Argo CD shows them at one moment.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) all: Vec<Application>,
    /// Those with the labels of the environment, if it selects by labels.
    labelled: Option<HashSet<ApplicationName>>,
    pub(super) sets: Vec<ApplicationSet>,
}

impl Sight {
    /// Adds a newer answer about one application. It replaces the entry of the list.
    pub(super) fn replace(&mut self, app: &Application) {
        match self.all.iter_mut().find(|known| known.name == app.name) {
            Some(known) => known.clone_from(app),
            None => self.all.push(app.clone()),
        }
    }
}

/// The pods of applications whose lists of images do not decide.
pub(super) type Pods = HashMap<ApplicationName, Result<LivePods, ArgoCdError>>;

/// The files that name managed images, by environment.
struct Files<'a> {
    environment: &'a str,
    branch: &'a WatchedBranch,
    selection: &'a Selection,
    paths: BTreeSet<Arc<str>>,
}

impl Relay {
    /// Asks Argo CD for its applications. ApplicationSets are asked for only if they can matter.
    pub(super) async fn see_applications(
        &self,
        following: &Following,
        environment: &str,
    ) -> Result<Sight, ArgoCdError> {
        let listed = following.argocd.applications(None).await;
        self.count("list", listed.as_ref().err());
        let mut sight = Sight { all: listed?, ..Sight::default() };
        if let Some(selector) = following.selector(environment) {
            let listed = following.argocd.applications(Some(selector)).await;
            self.count("list", listed.as_ref().err());
            sight.labelled = Some(listed?.into_iter().map(|app| app.name).collect());
        }
        if self.may_be_of_sets(following, environment, &sight) {
            let listed = following.argocd.application_sets().await;
            self.count("list_sets", listed.as_ref().err());
            sight.sets = listed?;
        }
        Ok(sight)
    }

    /// Whether a managed repository is run by no application of the environment, so that an ApplicationSet may generate one.
    fn may_be_of_sets(&self, following: &Following, environment: &str, sight: &Sight) -> bool {
        let Some(branch) = self.branch_of(environment) else { return false };
        let mine = self.members(following, environment, sight);
        let images = mine.iter().flat_map(|member| member.app.images.iter().flatten());
        let run: HashSet<Repository> =
            images.filter_map(|image| Some(image.parse::<ImageReference>().ok()?.repository)).collect();
        self.managed(branch, environment).keys().any(|repository| !run.contains(repository))
    }

    /// Returns the applications of an environment.
    pub(super) fn members<'s>(&self, following: &Following, environment: &str, sight: &'s Sight) -> Vec<Member<'s>> {
        let files: Vec<Files<'_>> =
            self.environment_names().filter_map(|name| self.files_of(following, name)).collect();
        let paths: Vec<BTreeSet<&str>> =
            files.iter().map(|files| files.paths.iter().map(AsRef::as_ref).collect()).collect();
        let reaches = files.iter().zip(&paths).map(|(files, paths)| {
            let labelled = sight.labelled.as_ref().filter(|_| files.environment == environment);
            (files.environment, Reach { branch: files.branch, files: paths, selection: files.selection, labelled })
        });
        let (of, others): (Vec<_>, Vec<_>) = reaches.partition(|(name, _)| *name == environment);
        let others: Vec<Reach<'_>> = others.into_iter().map(|(_, reach)| reach).collect();
        of.first().map(|(_, of)| members(&sight.all, &sight.sets, of, &others)).unwrap_or_default()
    }

    fn files_of<'a>(&'a self, following: &'a Following, environment: &'a str) -> Option<Files<'a>> {
        let snapshot = self.branch_of(environment).and_then(Branch::snapshot);
        let found = snapshot.as_ref().and_then(|snapshot| sites(snapshot, environment));
        let managed = found.iter().flat_map(|found| &found.sites).filter(|(repository, _)| self.manages(repository));
        let paths = managed.flat_map(|(_, places)| places.iter()).map(|place| Arc::clone(&place.path)).collect();
        let (branch, selection) = (self.watched(following, environment)?, following.selection(environment));
        Some(Files { environment, branch, selection, paths })
    }

    /// Returns for each version whether it runs in the environment and may leave it.
    pub(super) async fn passages(
        &self,
        following: &Following,
        environment: &str,
        sight: &Sight,
        (promoted, policy): (&[Promoted], GatePolicy),
        now: Timestamp,
    ) -> Result<Vec<Passage>, StoreError> {
        let mine = self.members(following, environment, sight);
        let pods = self.pods(following, &mine, promoted).await;
        let runs = self.0.store.version_runs(environment).await?;
        let unseen = unseen(following, environment, sight);
        let passages = promoted.iter().map(|(repository, version)| {
            let place = (environment, repository, version);
            let statements = self.statements(following, &mine, place, &pods, &runs);
            let subject = GateSubject {
                environment,
                repository,
                version,
                soak: policy.soak,
                allow_untracked: policy.allow_untracked
                    || self.0.rules.shared(repository).is_some_and(|rule| rule.allow_untracked),
                advice: &self.advice(following, place, sight, &mine),
                now,
            };
            match gate(&subject, &statements) {
                Passage::Untracked(_) | Passage::Open { .. } if let Some(unseen) = &unseen => {
                    Passage::Closed(ClosedGate::because(ObstacleKind::Unknown, unseen.clone()))
                }
                passage => passage,
            }
        });
        Ok(passages.collect())
    }

    /// Reads the resource trees of the applications whose lists of images do not decide.
    pub(super) async fn pods(&self, following: &Following, mine: &[Member<'_>], promoted: &[Promoted]) -> Pods {
        let undecided =
            |app: &Application| promoted.iter().any(|(repository, version)| is_undecided(app, repository, version));
        let names: Vec<&ApplicationName> =
            mine.iter().filter(|member| undecided(member.app)).map(|member| &member.app.name).collect();
        let mut pods = Pods::new();
        for some in names.chunks(AT_ONCE) {
            let asked = some.iter().map(async |name| {
                let found = following.argocd.pods(name).await;
                self.count("tree", found.as_ref().err());
                ((*name).clone(), found)
            });
            pods.extend(futures_util::future::join_all(asked).await);
        }
        pods
    }

    /// Returns what the applications of an environment say about a repository: those that run it, or read a file that names it.
    pub(super) fn statements(
        &self,
        following: &Following,
        mine: &[Member<'_>],
        (environment, repository, version): (&str, &Repository, &Version),
        pods: &Pods,
        runs: &[VersionRun],
    ) -> Vec<Statement> {
        let snapshot = self.branch_of(environment).and_then(Branch::snapshot);
        let places = snapshot.as_ref().and_then(|found| sites(found, environment)?.sites.get(repository));
        let files: BTreeSet<&str> =
            places.into_iter().flat_map(|places| places.iter()).map(|place| place.path.as_ref()).collect();
        let watched = self.watched(following, environment);
        let reads =
            |app: &Application| watched.is_some_and(|watched| app.is_touched_by(watched, files.iter().copied()));
        mine.iter()
            .filter_map(|member| {
                let app = member.app;
                let of_app = pods.get(&app.name);
                let found = app.runs(repository, Some(version), of_app.and_then(|pods| pods.as_ref().ok()));
                if found.is_empty() && !reads(app) {
                    return None;
                }
                let unread = of_app.and_then(|pods| pods.as_ref().err());
                let name = app.name.to_string();
                let run = runs.iter().find(|run| {
                    run.application == name && run.repository == *repository && is_same(&run.version, version)
                });
                Some(Statement {
                    running: found.lasting,
                    ended: found.ended,
                    condition: match unread {
                        Some(error) => Condition::OutOfStep(format!("has pods that cannot be read: {error}")),
                        None => condition(app),
                    },
                    healthy_since: run.and_then(|run| run.healthy_since),
                    application: name,
                })
            })
            .collect()
    }

    /// Returns why no application of an environment is known to run a repository, and what to do about it.
    pub(super) fn advice(
        &self,
        following: &Following,
        (environment, repository, version): (&str, &Repository, &Version),
        sight: &Sight,
        mine: &[Member<'_>],
    ) -> String {
        let list = |apps: Vec<&Application>| -> String {
            let names: Vec<String> = apps.iter().take(NAMED).map(|app| app.name.to_string()).collect();
            let more = apps.len().saturating_sub(NAMED);
            if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
        };
        let is_mine = |app: &Application| mine.iter().any(|member| member.app.name == app.name);
        let runs = |app: &&Application| !app.runs(repository, Some(version), None).is_empty() && !is_mine(app);
        let Some(files) = self.files_of(following, environment) else { return "its branch is unknown".to_owned() };
        let snapshot = self.branch_of(environment).and_then(Branch::snapshot);
        let places = snapshot.as_ref().and_then(|found| sites(found, environment)?.sites.get(repository));
        let named: BTreeSet<&str> =
            places.into_iter().flat_map(|places| places.iter()).map(|place| place.path.as_ref()).collect();
        let reads = |app: &&Application| app.is_touched_by(files.branch, named.iter().copied());
        let reading: Vec<&Application> = mine.iter().map(|member| member.app).filter(reads).collect();
        if !reading.is_empty() {
            return format!("{} reads its files and has no pod of it", list(reading));
        }
        let left: Vec<&Application> =
            sight.all.iter().filter(|app| app.would_read(files.branch, named.iter().copied())).collect();
        if let Some(app) = left.first() {
            let why = match (app.is_deleted, app.other_revision_of(files.branch)) {
                (true, _) => "is being deleted".to_owned(),
                (false, Some(revision)) => format!("reads `{revision}` instead of the branch"),
                (false, None) => "does not belong to it".to_owned(),
            };
            return format!("{} {why}", app.name);
        }
        // Those of other environments run it, too, so this is a guess.
        let running: Vec<&Application> =
            sight.all.iter().filter(runs).filter(|app| !self.is_elsewhere(following, environment, app)).collect();
        if let Some(app) = running.first() {
            return format!(
                "{} runs it, but is not known to belong to `{environment}`: select its applications with \
                 `argocd = {{ app = \"{}\" }}` or by labels, or let the token `get` applicationsets",
                list(running.clone()),
                app.name
            );
        }
        let named: Vec<&str> = named.into_iter().take(NAMED).collect();
        format!(
            "none of the {} applications that the token may see reads {}; Argo CD may know the repository by another URL \
             (`argocd_url`)",
            sight.all.len(),
            if named.is_empty() { "its files".to_owned() } else { named.join(", ") }
        )
    }

    /// Whether another environment has an application by its files or its settings.
    fn is_elsewhere(&self, following: &Following, environment: &str, app: &Application) -> bool {
        let sight = Sight { all: vec![app.clone()], ..Sight::default() };
        self.environment_names()
            .filter(|name| *name != environment)
            .any(|name| !self.members(following, name, &sight).is_empty())
    }

    /// Records which versions the applications of an environment run, and since when.
    ///
    /// The caller holds the lock of recorded health.
    pub(super) async fn record_runs(
        &self,
        environment: &str,
        mine: &[&Application],
        is_whole: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let branch = self.branch_of(environment).filter(|branch| branch.snapshot().is_some());
        let Some(branch) = branch else { return Ok(()) };
        let known = Managed::of(self, branch, environment);
        let mut before: HashMap<(String, Repository, String), VersionRun> = HashMap::new();
        for run in self.0.store.version_runs(environment).await? {
            before.insert((run.application.clone(), run.repository.clone(), run.version.to_string()), run);
        }
        let mut written = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        for app in mine {
            let observation = RunObservation {
                is_healthy: app.health == Health::Healthy && app.failed_sync.is_none(),
                is_syncing: app.is_syncing,
                health_since: app.health_since,
                last_sync: app.last_sync,
                now,
            };
            let application = app.name.to_string();
            if app.images.is_none() {
                // Its images could not be read: what is recorded stays.
                before.retain(|(of, _, _), _| *of != application);
                continue;
            }
            seen.insert(application.clone());
            for (repository, version) in known.run_by(app) {
                let run = before.remove(&(application.clone(), repository.clone(), version.to_string()));
                let (first_seen_at, healthy_since) = observation.times(run.as_ref());
                let is_old = |run: &VersionRun| super::elapsed(run.observed_at, now) >= WRITE_AGAIN;
                let is_same = run.as_ref().is_some_and(|run| {
                    run.healthy_since == healthy_since && !(app.health_since.is_none() && is_old(run))
                });
                // An unhealthy run is written again: it can have recovered after the last observation at the earliest.
                if !is_same || healthy_since.is_none() {
                    let (environment, observed_at) = (environment.to_owned(), now);
                    let application = application.clone();
                    written.push(VersionRun {
                        environment,
                        application,
                        repository,
                        version,
                        first_seen_at,
                        healthy_since,
                        observed_at,
                    });
                }
            }
        }
        let gone = before.into_values().filter(|run| is_whole || seen.contains(&run.application)).collect();
        self.0.store.record_version_runs(written, gone).await
    }
}

/// Returns why the list of applications does not show whether an environment runs a version: an application that cannot be read may run
/// it, and an Argo CD that has just started shows none.
fn unseen(following: &Following, environment: &str, sight: &Sight) -> Option<String> {
    if sight.all.is_empty() {
        return Some(format!("Argo CD shows no application at all, so what {environment} runs is unknown"));
    }
    let unreadable = following.unreadable(&sight.all, environment).next()?;
    Some(format!("{} cannot be read, and may run the version in {environment}", unreadable.name))
}

/// The managed repositories of an environment, and the digests by which renamed images are recognised.
struct Managed {
    repositories: BTreeSet<Repository>,
    digests: BTreeMap<Digest, (Repository, Version)>,
}

impl Managed {
    fn of(relay: &Relay, branch: &Branch, environment: &str) -> Self {
        let managed = relay.managed(branch, environment);
        let named = managed
            .iter()
            .flat_map(|(repository, places)| places.iter().map(move |place| (repository, &place.version)));
        let digests = named.filter_map(|(repository, version)| {
            Some((version.digest()?.clone(), (repository.clone(), version.clone())))
        });
        Self { digests: digests.collect(), repositories: managed.keys().cloned().collect() }
    }

    /// Returns the managed repositories that an application runs, each with its versions.
    fn run_by(&self, app: &Application) -> Vec<(Repository, Version)> {
        let mut found: Vec<(Repository, Version)> = Vec::new();
        for image in app.images.iter().flatten() {
            let Ok(reference) = image.parse::<ImageReference>() else { continue };
            let run = if self.repositories.contains(&reference.repository) {
                reference.version().map(|version| (reference.repository, version))
            } else {
                reference.digest.as_ref().and_then(|digest| self.digests.get(digest).cloned())
            };
            found.extend(run.filter(|run| !found.contains(run)));
        }
        found
    }
}

/// Whether the list of images does not show which versions of a repository an application runs.
pub(super) fn is_undecided(app: &Application, repository: &Repository, version: &Version) -> bool {
    let found = app.runs(repository, Some(version), None).lasting;
    !found.is_empty() && (app.may_have_ended_pods || found.iter().any(|one| !is_same(one, version)))
}

/// Returns the condition of an application.
fn condition(app: &Application) -> Condition {
    let message = app.trouble.as_ref().or(app.health_message.as_ref());
    let because = message.map(|message| format!(": {message}")).unwrap_or_default();
    let text = format!("is {} and {}{because}", app.sync.as_str(), app.health.as_str());
    if app.health == Health::Degraded {
        return Condition::Failed(text);
    }
    if let Some(reason) = &app.failed_sync {
        return Condition::Failed(format!("is {} and {}: {reason}", app.sync.as_str(), app.health.as_str()));
    }
    match (app.sync, app.health) {
        (SyncStatus::OutOfSync | SyncStatus::Unknown, _) => Condition::OutOfStep(text),
        (SyncStatus::Synced, _) if app.is_syncing => Condition::Progressing("is being synced".to_owned()),
        (SyncStatus::Synced, Health::Healthy) => Condition::Fine,
        (SyncStatus::Synced, Health::Suspended) => Condition::Suspended(text),
        (SyncStatus::Synced, Health::Progressing | Health::Missing | Health::Unknown | Health::Degraded) => {
            Condition::Progressing(text)
        }
    }
}

/// Requests an application without a refresh.
pub(super) async fn closer(relay: &Relay, following: &Following, name: &ApplicationName) -> Option<Application> {
    let asked = following.argocd.application(name, Refresh::No, None).await;
    relay.count("get", asked.as_ref().err());
    asked.ok()
}
