use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};

use super::{Environment, UpdateMode};
use crate::config_repo::{Below, CommitId, ConfigRepository, EnvironmentSites, RemoteError, Snapshot};
use crate::domain::Update;
use crate::settings::WritingSettings;
use crate::telemetry::{GitOperation, Metrics};
use tagrelay_image::Repository;

/// A branch of a config repository, with the environments that live on it. One writer works on it.
pub struct Branch {
    repository: ConfigRepository,
    repository_name: String,
    branch_name: String,
    environments: Vec<Environment>,
    writing: WritingSettings,
    metrics: Metrics,
    /// When the remote was asked last. Held while it is asked, so that callers share one question.
    asked: Mutex<Option<Instant>>,
    /// When it last answered.
    read: std::sync::Mutex<Option<Instant>>,
    /// Rung when there may be something to write.
    pub(super) wake: Notify,
    /// Rung when somebody says that the branch has moved.
    pub(super) moved: Notify,
}

/// What the news are worth that a branch has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BranchNews {
    /// The branch is read now.
    Reading,
    /// It is known already.
    Known,
    /// No environment is on that branch.
    Foreign,
}

/// What the mirror knows of a repository in an environment.
pub(super) enum Presence {
    /// At least one site names it.
    Named,
    /// No site names it.
    Absent,
    /// The branch has not been read yet.
    Unknown,
}

impl Branch {
    /// Joins a config repository's branch with its environments.
    pub fn new(
        repository: ConfigRepository,
        repository_name: String,
        branch_name: String,
        environments: Vec<Environment>,
        writing: WritingSettings,
        metrics: Metrics,
    ) -> Self {
        Self {
            repository,
            repository_name,
            branch_name,
            environments,
            writing,
            metrics,
            asked: Mutex::new(None),
            read: std::sync::Mutex::new(None),
            wake: Notify::new(),
            moved: Notify::new(),
        }
    }

    /// Returns the environments, in the order of the settings.
    pub fn environments(&self) -> &[Environment] {
        &self.environments
    }

    /// Returns the name of the config repository.
    pub fn repository_name(&self) -> &str {
        &self.repository_name
    }

    /// Returns the name of the branch.
    pub fn branch_name(&self) -> &str {
        &self.branch_name
    }

    /// Returns repository and branch, for messages.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.repository_name, self.branch_name)
    }

    /// Returns the config repository, for a branch of the same under other settings.
    pub fn repository(&self) -> &ConfigRepository {
        &self.repository
    }

    /// Returns what the mirror knows; `None` until the remote has been read once.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.repository.snapshot()
    }

    pub(super) fn config_repository(&self) -> &ConfigRepository {
        &self.repository
    }

    pub(super) fn writing(&self) -> &WritingSettings {
        &self.writing
    }

    pub(super) fn environment_names(&self) -> Vec<String> {
        self.environments.iter().map(|environment| environment.name.clone()).collect()
    }

    /// Brings the mirror up to the remote's tip.
    ///
    /// # Errors
    ///
    /// Why the remote could not be read.
    pub async fn refresh(&self) -> Result<CommitId, RemoteError> {
        let mut asked = self.asked.lock().await;
        self.ask(&mut asked).await
    }

    async fn ask(&self, asked: &mut Option<Instant>) -> Result<CommitId, RemoteError> {
        let begun = Instant::now();
        let result = self.repository.refresh().await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.metrics.git_operation(GitOperation::refresh, outcome, begun.elapsed());
        *asked = Some(Instant::now());
        if result.is_ok() {
            *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        }
        result
    }

    /// Brings the mirror up to the remote's tip for an answer that is final, unless a reading that was begun less than
    /// `age` before this call has told what is there. All who wait for one that was begun after they called share it.
    ///
    /// # Errors
    ///
    /// Why the remote could not be read.
    pub(super) async fn read_if_older_than(&self, age: Duration) -> Result<(), RemoteError> {
        // Before the wait for others, however long that is.
        let called = Instant::now();
        let mut asked = self.asked.lock().await;
        let read = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = read.is_some_and(|read| read + age > called);
        if is_fresh { Ok(()) } else { self.ask(&mut asked).await.map(|_| ()) }
    }

    /// Takes a push that was begun then and has succeeded for a reading: the remote has compared the branch with what we know.
    pub(super) fn pushed(&self, begun: Instant) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    /// Returns the commit that the mirror is at.
    pub(super) fn tip(&self) -> Option<CommitId> {
        self.snapshot().map(|snapshot| snapshot.tip)
    }

    /// Brings the mirror up to the remote's tip, unless that was done less than `age` ago.
    ///
    /// # Errors
    ///
    /// Why the remote could not be read.
    pub(super) async fn refresh_if_older_than(&self, age: Duration) -> Result<(), RemoteError> {
        let mut asked = self.asked.lock().await;
        let is_fresh = asked.is_some_and(|asked| asked.elapsed() < age);
        if is_fresh { Ok(()) } else { self.ask(&mut asked).await.map(|_| ()) }
    }

    /// Tells which of these commits lie below the commit that is known.
    pub(super) async fn below_tip(&self, commits: &[CommitId]) -> Result<HashMap<CommitId, Below>, RemoteError> {
        let begun = Instant::now();
        let result = self.repository.below_tip(commits).await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.metrics.git_operation(GitOperation::history, outcome, begun.elapsed());
        match result {
            // A server that sends no part of a history leaves the question open for good.
            Err(RemoteError::Protocol { reason }) => {
                tracing::warn!(reason, repository = self.repository_name, "the history cannot be read");
                Ok(commits.iter().map(|commit| (*commit, Below::Unknown)).collect())
            }
            result => result,
        }
    }

    pub(super) fn presence(&self, environment: &str, repository: &Repository) -> Presence {
        match self.snapshot() {
            None => Presence::Unknown,
            Some(snapshot)
                if sites(&snapshot, environment).is_some_and(|found| found.sites.contains_key(repository)) =>
            {
                Presence::Named
            }
            Some(_) => Presence::Absent,
        }
    }

    /// Returns the environments on this branch that take push events.
    pub(super) fn automatic(&self) -> impl Iterator<Item = &Environment> {
        self.environments.iter().filter(|environment| environment.mode == UpdateMode::Automatic)
    }
}

pub(super) fn sites<'a>(snapshot: &'a Snapshot, environment: &str) -> Option<&'a EnvironmentSites> {
    snapshot.environments.get(environment).map(Arc::as_ref)
}

/// Whether the branch names, at each site that an update changed, the version that the update wrote.
pub(super) fn stands_on(update: &Update, snapshot: &Snapshot) -> bool {
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    let places = places.map(|places| places.as_slice()).unwrap_or_default();
    let mut named = places.iter().flat_map(|place| {
        let here = update.changes.iter().filter(|change| change.path == place.path.as_ref());
        here.map(|change| (&place.version, &change.new))
    });
    update.commit.is_some() && named.clone().next().is_some() && named.all(|(now, new)| now == new)
}
