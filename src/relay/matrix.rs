//! The matrix: the versions that every environment runs (from the branch), since when and why (from the store).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::branch::{Branch, sites};
use super::direction::{Direction, Move};
use super::names::Names;
use super::{Environment, Relay, RequestError};
use crate::config_repo::{FileProblem, IndexedSite};
use crate::domain::{Block, BlockKind, Blocks, Candidate, Decision, Frozen, Place, Update, is_same, versions_of};
use crate::store::{ApplicationHealth, Rollout, StoreError};
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
    /// Its address, without credentials.
    pub config_repository_url: Option<String>,
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

/// Selects a part of the matrix.
#[derive(Debug, Clone, Default)]
pub struct MatrixFilter {
    pub environments: Names,
    pub repositories: Names,
    /// Only repositories that run another version than an environment that they are promoted from.
    pub differs: bool,
    /// Only repositories with a hold.
    pub held: bool,
    /// Only repositories with a waiting update.
    pub waiting: bool,
}

/// An environment that promotions come from, and that runs another version.
#[derive(Debug, Clone)]
pub struct Drift {
    /// The environment that it is promoted from.
    pub environment: String,
    pub version: Version,
    /// How that version relates to the one that runs.
    pub direction: Direction,
}

/// A managed repository in an environment.
#[derive(Debug, Clone)]
pub struct MatrixCell {
    pub repository: Repository,
    /// The versions that its sites name: one, unless the sites differ.
    pub versions: Vec<Version>,
    pub places: Vec<IndexedSite>,
    /// Our last update of this place, if its version runs.
    pub last_change: Option<Update>,
    /// The rollout of that update in Argo CD.
    pub follow_up: Option<Rollout>,
    pub holds: Vec<Block>,
    /// The last is the one that would be written if all could go.
    pub waiting: Vec<Update>,
    /// The environments that promotions come from, if they run another version.
    pub drifts: Vec<Drift>,
    /// The reason that was given for the last change.
    pub reason: Option<String>,
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
    /// If a name is unknown, or the store cannot be read.
    pub async fn matrix(&self, filter: &MatrixFilter) -> Result<Vec<EnvironmentRow>, RequestError> {
        filter.environments.check_environments(self.environment_names())?;
        self.refresh_soon().await;
        self.check_repositories(filter)?;
        let mut last_changes = self.0.store.last_changes().await?;
        last_changes.retain(|change| {
            filter.environments.has_environment(&change.environment)
                && filter.repositories.has_repository(&change.repository)
        });
        let (blocks, now) = (self.0.store.blocks().await?, self.now());
        let holds = blocks.rows.iter().filter(|block| block.kind == BlockKind::Hold && block.is_active(now));
        let holds = holds.cloned().collect();
        let mut notes = Notes {
            follow_ups: self.0.store.follow_ups_of(&last_changes).await?,
            health: self.0.store.application_health().await?,
            frozen: blocks.all_frozen(now),
            holds: by_place(holds),
            waiting: self.waiting(now).await?,
            reasons: self.reasons_of(&last_changes).await?,
            last: by_place(last_changes),
        };
        let mut rows = Vec::new();
        for branch in &self.0.branches {
            for environment in branch.environments() {
                if filter.environments.has_environment(&environment.name) {
                    rows.push(self.row(branch, environment, filter, &mut notes));
                }
            }
        }
        Ok(rows)
    }

    /// Returns the waiting updates by place. The last of each is the one that would be written if all could go.
    async fn waiting(&self, now: Timestamp) -> Result<ByPlace<Update>, StoreError> {
        let mut by_place = by_place(self.0.store.waiting_updates().await?);
        for ((environment, repository), updates) in by_place.iter_mut().filter(|(_, updates)| updates.len() > 1) {
            let candidates = updates.iter().map(|update| Candidate { update, unconfirmed: false }).collect();
            let place = Place {
                environment,
                repository,
                rule: self.0.rules.at(environment, repository),
                running: Vec::new(),
                candidates,
                blocks: &Blocks::default(),
                now,
                catch_up: self.catch_up_doubt(),
            };
            let decided = self.decide_place(&place).await?;
            if let Some(first) = decided.iter().position(|decided| decided.decision == Decision::Write) {
                let newest = updates.remove(first);
                updates.push(newest);
            }
        }
        Ok(by_place)
    }

    /// Rejects a repository that no selected environment names: an empty table would suggest that all is well.
    fn check_repositories(&self, filter: &MatrixFilter) -> Result<(), RequestError> {
        if filter.repositories.is_empty() {
            return Ok(());
        }
        let mut known = BTreeSet::new();
        let mut environments = Vec::new();
        for branch in &self.0.branches {
            let selected =
                branch.environments().iter().filter(|found| filter.environments.has_environment(&found.name));
            for environment in selected {
                // The repositories of an unread branch are unknown.
                if branch.snapshot().is_none() {
                    return Ok(());
                }
                environments.push(environment.name.as_str());
                known.extend(self.managed(branch, &environment.name).into_keys());
            }
        }
        filter.repositories.check_repositories(&environments.join(", "), known.iter())
    }

    /// Returns the reasons of the requests that made these changes, by request.
    async fn reasons_of(&self, changes: &[Update]) -> Result<HashMap<String, String>, StoreError> {
        let requests: BTreeSet<&str> =
            changes.iter().filter(|change| !change.cause.is_event()).map(|change| change.cause_id.as_str()).collect();
        let requests = self.0.store.requests_by_id(&requests.into_iter().collect::<Vec<_>>()).await?;
        Ok(requests.into_iter().filter_map(|request| Some((request.id, request.reason?))).collect())
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

    fn row(
        &self,
        branch: &Branch,
        environment: &Environment,
        filter: &MatrixFilter,
        notes: &mut Notes,
    ) -> EnvironmentRow {
        let snapshot = branch.snapshot();
        let found = snapshot.as_ref().and_then(|snapshot| sites(snapshot, &environment.name));
        let mut managed = self.managed(branch, &environment.name);
        managed.retain(|repository, _| filter.repositories.has_repository(repository));
        let cells = managed.into_iter().map(|(repository, places)| {
            let mut cell = notes.cell(&environment.name, repository, places);
            cell.drifts = self.drifts(environment, &cell);
            cell
        });
        let cells = cells.filter(|cell| filter.has(cell)).collect();
        EnvironmentRow {
            environment: environment.clone(),
            config_repository: branch.repository_name().to_owned(),
            config_repository_url: branch.public_url(),
            branch: branch.branch_name().to_owned(),
            tip: snapshot.as_ref().map(|snapshot| snapshot.tip.to_string()),
            health: notes.health.iter().filter(|app| app.environment == environment.name).cloned().collect(),
            frozen: notes.frozen.iter().find(|frozen| frozen.environment == environment.name).cloned(),
            cells,
            problems: found.map(|found| found.problems.clone()).unwrap_or_default(),
        }
    }

    /// Compares a repository with the environments that it is promoted from.
    fn drifts(&self, environment: &Environment, cell: &MatrixCell) -> Vec<Drift> {
        let mut drifts = Vec::new();
        for source in &environment.promote_from {
            for version in self.running(source, &cell.repository) {
                if cell.versions.iter().any(|found| is_same(found, &version)) {
                    continue;
                }
                let direction = match cell.version() {
                    Some(old) => self.known_direction(Move {
                        environment: &environment.name,
                        repository: &cell.repository,
                        old,
                        new: &version,
                    }),
                    None => Direction::Unknown,
                };
                drifts.push(Drift { environment: source.clone(), version, direction });
            }
        }
        drifts
    }

    /// Whether a rule manages a repository.
    pub(super) fn manages(&self, repository: &Repository) -> bool {
        self.0.rules.shared(repository).is_some()
    }

    /// Returns the managed repositories that an environment names, with their sites.
    pub(super) fn managed(&self, branch: &Branch, environment: &str) -> BTreeMap<Repository, Vec<IndexedSite>> {
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
pub(super) fn versions(places: &[IndexedSite]) -> Vec<Version> {
    versions_of(places.iter().map(|place| &place.version))
}

type ByPlace<T> = HashMap<(String, Repository), Vec<T>>;

/// Rows of the store, by place.
struct Notes {
    last: ByPlace<Update>,
    /// By update id.
    follow_ups: HashMap<String, Rollout>,
    health: Vec<ApplicationHealth>,
    frozen: Vec<Frozen>,
    holds: ByPlace<Block>,
    waiting: ByPlace<Update>,
    /// By request.
    reasons: HashMap<String, String>,
}

impl MatrixFilter {
    fn has(&self, cell: &MatrixCell) -> bool {
        (!self.differs || !cell.drifts.is_empty())
            && (!self.held || !cell.holds.is_empty())
            && (!self.waiting || !cell.waiting.is_empty())
    }
}

impl Notes {
    fn cell(&mut self, environment: &str, repository: Repository, places: Vec<IndexedSite>) -> MatrixCell {
        let place = (environment.to_owned(), repository.clone());
        let versions = versions(&places);
        let last_change = self.last.remove(&place).and_then(|mut changes| changes.pop());
        // If another writer set the running version, no update of ours explains it.
        let last_change = last_change.filter(|change| versions.iter().any(|version| is_same(version, &change.version)));
        MatrixCell {
            reason: last_change.as_ref().and_then(|change| self.reasons.get(&change.cause_id).cloned()),
            drifts: Vec::new(),
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
