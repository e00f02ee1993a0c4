//! The matrix: the versions that every environment runs (from the branch), since when and why (from the store).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::branch::{Branch, sites};
use super::{Environment, Relay};
use crate::config_repo::{FileProblem, Place};
use crate::domain::{Block, BlockKind, Frozen, Update, is_same, versions_of};
use crate::store::{ApplicationHealth, FollowUp, StoreError};
use tagrelay_image::{Repository, Version};

/// How old the mirror of a branch may be before the matrix reads the branch again.
const READ_AGE: Duration = Duration::from_secs(5);

/// How long a caller waits for the branches to be read.
const READ_PATIENCE: Duration = Duration::from_secs(3);

/// An environment with the versions that it runs.
#[derive(Debug, Clone)]
pub struct EnvironmentRow {
    pub environment: Environment,
    /// The name of its config repository.
    pub config_repository: String,
    pub branch: String,
    /// The commit that the row was read from; `None`: the branch has not been read yet.
    pub tip: Option<String>,
    /// The last observed health of its applications in Argo CD.
    pub health: Vec<ApplicationHealth>,
    /// The active freezes; `None`: not frozen.
    pub frozen: Option<Frozen>,
    /// The managed repositories, sorted by name.
    pub cells: Vec<MatrixCell>,
    /// Files that could not be read.
    pub problems: Vec<FileProblem>,
}

/// A managed repository in an environment.
#[derive(Debug, Clone)]
pub struct MatrixCell {
    pub repository: Repository,
    /// The versions that its sites name: one, unless the sites differ.
    pub versions: Vec<Version>,
    pub places: Vec<Place>,
    /// Our last update, if its version runs.
    pub last_change: Option<Update>,
    /// The rollout of that update in Argo CD.
    pub follow_up: Option<FollowUp>,
    pub holds: Vec<Block>,
    pub waiting: Vec<Update>,
}

impl MatrixCell {
    /// Returns the version, if all sites name the same one.
    pub fn version(&self) -> Option<&Version> {
        match self.versions.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Returns when the running version was committed; `None`: not by us.
    pub fn since(&self) -> Option<Timestamp> {
        self.last_change.as_ref().and_then(|change| change.finished_at)
    }
}

impl Relay {
    /// Returns the versions that every environment runs, in the order of the settings.
    ///
    /// Branches are read first, unless that was done recently. A branch that does not answer soon is shown in its last known
    /// state, which `tip` identifies.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn matrix(&self) -> Result<Vec<EnvironmentRow>, StoreError> {
        self.refresh_soon().await;
        let last_changes = self.0.store.last_changes().await?;
        let (blocks, now) = (self.0.store.blocks().await?, self.now());
        let holds = blocks.rows.iter().filter(|block| block.kind == BlockKind::Hold && block.is_active(now));
        let holds = holds.cloned().collect();
        let mut notes = Notes {
            follow_ups: self.0.store.follow_ups_of(&last_changes).await?,
            health: self.0.store.application_health().await?,
            frozen: blocks.all_frozen(now),
            last: by_place(last_changes),
            holds: by_place(holds),
            waiting: by_place(self.0.store.waiting_updates().await?),
        };
        let mut rows = Vec::new();
        for branch in &self.0.branches {
            for environment in branch.environments() {
                rows.push(self.row(branch, environment, &mut notes));
            }
        }
        Ok(rows)
    }

    async fn refresh_soon(&self) {
        let relay = self.clone();
        // In its own task, so that a late read still completes.
        let refreshing = tokio::spawn(async move {
            let branches = relay.0.branches.iter().map(|branch| branch.refresh_if_older_than(READ_AGE));
            for error in futures_util::future::join_all(branches).await.into_iter().filter_map(Result::err) {
                tracing::warn!(%error, "a config repository cannot be read");
            }
        });
        let _ = tokio::time::timeout(READ_PATIENCE, refreshing).await;
    }

    fn row(&self, branch: &Branch, environment: &Environment, notes: &mut Notes) -> EnvironmentRow {
        let snapshot = branch.snapshot();
        let found = snapshot.as_ref().and_then(|snapshot| sites(snapshot, &environment.name));
        let managed = self.managed(branch, &environment.name);
        EnvironmentRow {
            environment: environment.clone(),
            config_repository: branch.repository_name().to_owned(),
            branch: branch.branch_name().to_owned(),
            tip: snapshot.as_ref().map(|snapshot| snapshot.tip.to_string()),
            health: notes.health.iter().filter(|app| app.environment == environment.name).cloned().collect(),
            frozen: notes.frozen.iter().find(|frozen| frozen.environment == environment.name).cloned(),
            cells: managed
                .into_iter()
                .map(|(repository, places)| notes.cell(&environment.name, repository, places))
                .collect(),
            problems: found.map(|found| found.problems.clone()).unwrap_or_default(),
        }
    }

    /// Whether a rule manages a repository.
    pub(super) fn manages(&self, repository: &Repository) -> bool {
        self.0.rules.shared(repository).is_some()
    }

    /// Returns the managed repositories that an environment names, with their sites.
    pub(super) fn managed(&self, branch: &Branch, environment: &str) -> BTreeMap<Repository, Vec<Place>> {
        let Some(snapshot) = branch.snapshot() else { return BTreeMap::new() };
        let Some(found) = sites(&snapshot, environment) else { return BTreeMap::new() };
        found
            .sites
            .iter()
            .filter(|(repository, _)| self.manages(repository))
            .map(|(repository, places)| (repository.clone(), places.as_ref().clone()))
            .collect()
    }
}

/// Returns the distinct versions that places name.
pub(super) fn versions(places: &[Place]) -> Vec<Version> {
    versions_of(places.iter().map(|place| &place.version))
}

type ByPlace<T> = HashMap<(String, Repository), Vec<T>>;

/// Rows of the store, by place.
struct Notes {
    last: ByPlace<Update>,
    /// By update id.
    follow_ups: HashMap<String, FollowUp>,
    health: Vec<ApplicationHealth>,
    frozen: Vec<Frozen>,
    holds: ByPlace<Block>,
    waiting: ByPlace<Update>,
}

impl Notes {
    fn cell(&mut self, environment: &str, repository: Repository, places: Vec<Place>) -> MatrixCell {
        let place = (environment.to_owned(), repository.clone());
        let versions = versions(&places);
        let last_change = self.last.remove(&place).and_then(|mut changes| changes.pop());
        // If another writer set the running version, no update of ours explains it.
        let last_change = last_change.filter(|change| versions.iter().any(|version| is_same(version, &change.version)));
        MatrixCell {
            follow_up: last_change.as_ref().and_then(|change| self.follow_ups.remove(&change.id)),
            last_change,
            holds: self.holds.remove(&place).unwrap_or_default(),
            waiting: self.waiting.remove(&place).unwrap_or_default(),
            repository,
            versions,
            places,
        }
    }
}

/// A row that belongs to a place.
trait Placed {
    /// `None`: it applies to the whole environment.
    fn place(&self) -> Option<(String, Repository)>;
}

impl Placed for Update {
    fn place(&self) -> Option<(String, Repository)> {
        Some((self.environment.clone(), self.repository.clone()))
    }
}

impl Placed for Block {
    fn place(&self) -> Option<(String, Repository)> {
        Some((self.environment.clone(), self.repository.clone()?))
    }
}

fn by_place<T: Placed>(values: Vec<T>) -> ByPlace<T> {
    let mut by_place = ByPlace::new();
    for value in values {
        if let Some(place) = value.place() {
            by_place.entry(place).or_default().push(value);
        }
    }
    by_place
}
