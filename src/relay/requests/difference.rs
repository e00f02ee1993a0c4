use std::collections::{BTreeMap, BTreeSet};

use super::super::Relay;
use super::super::direction::{Direction, Move};
use super::super::matrix::versions;
use super::{RequestError, Sites, refresh};
use crate::domain::{BlockKind, Update, is_same, runs};
use tagrelay_image::{Repository, Version};

/// What a promotion from one environment to another would move.
#[derive(Debug, Clone)]
pub struct Difference {
    pub from: String,
    pub to: String,
    /// Whether the settings allow this promotion.
    pub is_allowed: bool,
    /// Sorted by repository.
    pub rows: Vec<Row>,
}

/// One repository of a difference.
#[derive(Debug, Clone)]
pub struct Row {
    pub repository: Repository,
    /// The versions that `to` runs; empty: none.
    pub old: Vec<Version>,
    /// The versions that `from` runs; empty: none.
    pub new: Vec<Version>,
    pub what: RowKind,
}

/// What a promotion would do with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKind {
    /// It would move.
    Moves {
        direction: Direction,
        /// The number of commits of the source repository between the two versions.
        commits: Option<usize>,
        /// The URL of the source repository.
        source: Option<String>,
    },
    /// Both run the same version.
    Same,
    /// It would stay as it is.
    Skipped { reason: String },
}

impl Relay {
    /// Compares two environments.
    ///
    /// # Errors
    ///
    /// If an environment is unknown, or a branch or the store cannot be read.
    pub async fn difference(&self, from: &str, to: &str) -> Result<Difference, RequestError> {
        let (source, target) = (self.branch(from)?, self.branch(to)?);
        refresh(target).await?;
        if !std::ptr::eq(source, target) {
            refresh(source).await?;
        }
        let (offered, running) = (self.managed(source, from), self.managed(target, to));
        let blocks = self.0.store.blocks().await?;
        let held = blocks.rows.iter().filter(|block| block.kind == BlockKind::Hold && block.is_active(self.now()));
        let held: BTreeMap<&Repository, String> = held
            .filter(|hold| hold.environment == to)
            .filter_map(|hold| Some((hold.repository.as_ref()?, hold.explanation())))
            .collect();
        let digests = Digests::of(&self.0.store.last_changes().await?);
        let mut rows = Vec::new();
        let all: BTreeSet<&Repository> = offered.keys().chain(running.keys()).collect();
        for repository in all {
            let old = versions(running.get(repository).map(Vec::as_slice).unwrap_or_default());
            let new = versions(offered.get(repository).map(Vec::as_slice).unwrap_or_default());
            let what = match skipped((from, to), repository, (&offered, &running), held.get(repository)) {
                Some(reason) => RowKind::Skipped { reason },
                None => self.move_of((from, to), repository, (&old, &new), &digests).await?,
            };
            rows.push(Row { repository: repository.clone(), old, new, what });
        }
        let is_allowed = self.environment(to).is_some_and(|target| target.promote_from.iter().any(|name| name == from));
        Ok(Difference { from: from.to_owned(), to: to.to_owned(), is_allowed, rows })
    }

    async fn move_of(
        &self,
        (from, to): (&str, &str),
        repository: &Repository,
        (old, new): (&[Version], &[Version]),
        digests: &Digests,
    ) -> Result<RowKind, RequestError> {
        let [new] = new else {
            return Ok(RowKind::Skipped { reason: format!("{from} runs several versions") });
        };
        if runs(old, new) {
            return Ok(RowKind::Same);
        }
        if let (Some(rule), Some(tag)) = (self.0.rules.at(to, repository), new.tag())
            && let Err(refused) = rule.check_tag(tag)
        {
            return Ok(RowKind::Skipped { reason: refused.to_string() });
        }
        let [old] = old else {
            return Ok(RowKind::Moves { direction: Direction::Unknown, commits: None, source: None });
        };
        let (old, new) = (digests.add(to, repository, old), digests.add(from, repository, new));
        let of = Move { environment: to, repository, old: &old, new: &new };
        let direction = self.direction(of).await?;
        let (commits, source) = self.commits_between(of, direction);
        Ok(RowKind::Moves { direction, commits, source })
    }

    /// Returns the number of commits between two versions, and the URL of the source repository.
    fn commits_between(&self, of: Move<'_>, direction: Direction) -> (Option<usize>, Option<String>) {
        let Some(rule) = self.0.rules.at(of.environment, of.repository) else { return (None, None) };
        let Some(source) = rule.source else { return (None, None) };
        let sha = |version: &Version| rule.tag.read(version.tag()?).ok()?.sha;
        let url = self.0.sources.url(source, of.repository);
        let (Some(old), Some(new)) = (sha(of.old), sha(of.new)) else { return (None, url) };
        let (newer, older) = match direction {
            Direction::Older(_) => (old, new),
            Direction::Newer(_) | Direction::Unknown => (new, old),
        };
        (self.0.sources.commits_between(source, of.repository, &newer, &older), url)
    }
}

/// Returns why a promotion skips a repository; `None`: it does not.
fn skipped(
    (from, to): (&str, &str),
    repository: &Repository,
    (offered, running): (&Sites, &Sites),
    hold: Option<&String>,
) -> Option<String> {
    match (offered.contains_key(repository), running.contains_key(repository)) {
        (true, false) => Some(format!("{to} does not name it")),
        (false, true) => Some(format!("{from} does not name it")),
        (true, true) | (false, false) => hold.cloned(),
    }
}

/// The digests of the last changes, for manifests that name only a tag.
struct Digests(BTreeMap<(String, Repository), Version>);

impl Digests {
    fn of(changes: &[Update]) -> Self {
        let place = |update: &Update| (update.environment.clone(), update.repository.clone());
        Self(changes.iter().map(|update| (place(update), update.version.clone())).collect())
    }

    fn add(&self, environment: &str, repository: &Repository, version: &Version) -> Version {
        if version.digest().is_some() {
            return version.clone();
        }
        let known = self.0.get(&(environment.to_owned(), repository.clone()));
        known.filter(|known| is_same(known, version)).unwrap_or(version).clone()
    }
}
