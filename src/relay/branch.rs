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

/// A branch of a config repository with its environments. One branch writer works on it.
pub struct Branch {
    repository: ConfigRepository,
    repository_name: String,
    branch_name: String,
    environments: Vec<Environment>,
    writing: WritingSettings,
    metrics: Metrics,
    /// When the remote was last asked. Locked during the request, so that concurrent callers share it.
    asked: Mutex<Option<Instant>>,
    /// When the last successful reading began.
    read: std::sync::Mutex<Option<Instant>>,
    /// Notified when updates may be ready to be written.
    pub(super) wake: Notify,
    /// Notified when a push to the branch is announced.
    pub(super) moved: Notify,
}

/// The result of an announcement that a branch has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BranchAnnouncement {
    /// The branch is being read.
    Reading,
    /// The mirror has the commit already.
    Known,
    /// No environment is on that branch.
    Foreign,
}

/// Whether an environment names a repository, according to the mirror.
pub(super) enum Presence {
    /// At least one site names it.
    Named,
    /// No site names it.
    Absent,
    /// The branch has not been read yet.
    Unknown,
}

impl Branch {
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

    pub fn repository_name(&self) -> &str {
        &self.repository_name
    }

    pub fn branch_name(&self) -> &str {
        &self.branch_name
    }

    /// Returns `repository/branch`, for messages.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.repository_name, self.branch_name)
    }

    /// Returns the config repository. The same branch under new settings uses it, too.
    pub fn repository(&self) -> &ConfigRepository {
        &self.repository
    }

    /// Returns the address of the config repository without user and password; `None`: it is a folder of this machine.
    pub(super) fn public_url(&self) -> Option<String> {
        let mut url = self.repository.url().clone();
        // Fails for addresses without a host, which are left out.
        let is_clean = url.set_username("").is_ok() && url.set_password(None).is_ok();
        (is_clean && url.scheme() != "file").then(|| url.to_string())
    }

    /// Returns the state of the mirror; `None`: the remote has not been read yet.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.repository.snapshot()
    }

    pub(super) fn writing(&self) -> &WritingSettings {
        &self.writing
    }

    pub(super) fn environment_names(&self) -> Vec<String> {
        self.environments.iter().map(|environment| environment.name.clone()).collect()
    }

    /// Updates the mirror to the tip of the remote.
    ///
    /// # Errors
    ///
    /// If the remote cannot be read.
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

    /// Updates the mirror for a final answer, unless a successful reading began less than `age` before this call.
    ///
    /// Concurrent callers share a reading that began after their calls.
    ///
    /// # Errors
    ///
    /// If the remote cannot be read.
    pub(super) async fn read_if_older_than(&self, age: Duration) -> Result<(), RemoteError> {
        // Before the wait for the lock, however long that is.
        let called = Instant::now();
        let mut asked = self.asked.lock().await;
        let read = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = read.is_some_and(|read| read + age > called);
        if is_fresh { Ok(()) } else { self.ask(&mut asked).await.map(|_| ()) }
    }

    /// Counts a successful push that began at `begun` as a reading: the remote compared the branch with the mirror.
    pub(super) fn pushed(&self, begun: Instant) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    /// Returns the commit that the mirror is at.
    pub(super) fn tip(&self) -> Option<CommitId> {
        self.snapshot().map(|snapshot| snapshot.tip)
    }

    /// Updates the mirror to the tip of the remote, unless the remote was asked less than `age` ago.
    ///
    /// # Errors
    ///
    /// If the remote cannot be read.
    pub(super) async fn refresh_if_older_than(&self, age: Duration) -> Result<(), RemoteError> {
        let mut asked = self.asked.lock().await;
        let is_fresh = asked.is_some_and(|asked| asked.elapsed() < age);
        if is_fresh { Ok(()) } else { self.ask(&mut asked).await.map(|_| ()) }
    }

    /// Returns which of these commits lie below the tip of the mirror.
    pub(super) async fn below_tip(&self, commits: &[CommitId]) -> Result<HashMap<CommitId, Below>, RemoteError> {
        let begun = Instant::now();
        let result = self.repository.below_tip(commits).await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.metrics.git_operation(GitOperation::history, outcome, begun.elapsed());
        match result {
            // If the server sends no part of the history, the result stays unknown.
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

    /// Returns the environments on this branch that accept push events.
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
