//! Whether a version is newer than another one, without network requests.

use std::cmp::Ordering;

use super::Relay;
use crate::domain::{BuildTime, Descent, Fact, Facts as _, Missing};
use crate::policy::compare::{by_build_time, by_tag};
use crate::policy::{Criterion, ImageRule};
use crate::store::StoreError;
use tagrelay_image::{Repository, Version};

/// How a version relates to the one that it would replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Newer(Criterion),
    Older(Criterion),
    /// No criterion orders the two, or a fact is missing.
    Unknown,
}

impl Direction {
    /// Returns the criterion that ordered the two.
    pub fn criterion(self) -> Option<Criterion> {
        match self {
            Self::Newer(by) | Self::Older(by) => Some(by),
            Self::Unknown => None,
        }
    }
}

/// Two versions of a repository in an environment.
#[derive(Clone, Copy)]
pub(super) struct Move<'a> {
    /// The environment that would change.
    pub(super) environment: &'a str,
    pub(super) repository: &'a Repository,
    pub(super) old: &'a Version,
    pub(super) new: &'a Version,
}

impl Relay {
    /// Compares two versions with the facts in memory.
    pub(super) fn known_direction(&self, of: Move<'_>) -> Direction {
        let rule = self.0.rules.at(of.environment, of.repository);
        let result = rule.map(|rule| self.compare_known(rule, of));
        match result {
            Some(Fact::Known(direction)) => direction,
            Some(Fact::Missing(_)) | None => Direction::Unknown,
        }
    }

    /// Compares two versions with the facts in memory and in the store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub(super) async fn direction(&self, of: Move<'_>) -> Result<Direction, StoreError> {
        let Some(rule) = self.0.rules.at(of.environment, of.repository) else { return Ok(Direction::Unknown) };
        loop {
            match self.compare_known(rule, of) {
                Fact::Known(direction) => return Ok(direction),
                // Only build times are in the store, and each is missing at most once.
                Fact::Missing(missing @ Missing::BuildTime { .. }) if self.recall(&missing).await? => {}
                Fact::Missing(_) => return Ok(Direction::Unknown),
            }
        }
    }

    /// Uses the criteria for events except arrival, which does not apply to versions.
    fn compare_known(&self, rule: &ImageRule, Move { repository, old, new, .. }: Move<'_>) -> Fact<Direction> {
        let facts = &self.0.facts;
        let tag = |version: &Version| version.tag().and_then(|tag| rule.tag.read(tag).ok()).unwrap_or_default();
        let (old_tag, new_tag) = (tag(old), tag(new));
        if let (Some(source), Some(new_sha), Some(old_sha)) = (rule.source, &new_tag.sha, &old_tag.sha) {
            match facts.descent(source, repository, new_sha, old_sha) {
                Fact::Known(Descent::Descendant) => return Fact::Known(Direction::Newer(Criterion::Ancestry)),
                Fact::Known(Descent::Ancestor) => return Fact::Known(Direction::Older(Criterion::Ancestry)),
                Fact::Known(Descent::Same | Descent::Unknown { .. }) | Fact::Missing(_) => {}
            }
        }
        if let Some((ordering, by)) = by_tag(&new_tag, &old_tag) {
            return Fact::Known(in_words(ordering, by));
        }
        let mut times = [None, None];
        for (time, version) in times.iter_mut().zip([new, old]) {
            let Some(digest) = version.digest() else { return Fact::Known(Direction::Unknown) };
            match facts.build_time(repository, digest) {
                Fact::Known(BuildTime::At(at)) => *time = Some(at),
                Fact::Known(BuildTime::NotStated | BuildTime::Unreadable { .. }) => {}
                Fact::Missing(missing) => return Fact::Missing(missing),
            }
        }
        let ordering = by_build_time(times[0], times[1]);
        Fact::Known(ordering.map_or(Direction::Unknown, |ordering| in_words(ordering, Criterion::BuildTime)))
    }
}

fn in_words(ordering: Ordering, by: Criterion) -> Direction {
    match ordering {
        Ordering::Greater => Direction::Newer(by),
        Ordering::Less => Direction::Older(by),
        Ordering::Equal => Direction::Unknown,
    }
}
