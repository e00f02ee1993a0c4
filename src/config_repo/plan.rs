use std::sync::Arc;

use bytes::Bytes;
use tagrelay_git::{CommitId, NewObject, unified_diff};

use super::files::Known;
use crate::image::{Repository, Version};
use crate::manifest::Format;

/// What shall run where: the updates that one push shall carry.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In this order, where anything changes; one commit each, or one for all, as the settings say.
    pub environments: Vec<EnvironmentPlan>,
}

/// The updates of one environment.
#[derive(Debug, Clone)]
pub struct EnvironmentPlan {
    /// The environment's name.
    pub environment: String,
    /// The updates, oldest first.
    pub wanted: Vec<WantedVersion>,
}

/// One update: every site of the repository in the environment shall name the version.
#[derive(Debug, Clone)]
pub struct WantedVersion {
    /// The caller's name of the update.
    pub key: String,
    /// What shall be updated.
    pub repository: Repository,
    /// To what.
    pub version: Version,
}

/// What an update did to one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The environment's name.
    pub environment: String,
    /// The file.
    pub path: String,
    /// The line of the site, from 1.
    pub line: u32,
    /// What kind of site it is.
    pub format: Format,
    /// The image.
    pub repository: Repository,
    /// What the site named before.
    pub old: Version,
    /// What it names now.
    pub new: Version,
}

/// What became of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its changes are in this commit.
    Changed {
        /// The commit.
        commit: CommitId,
        /// The changes of this update alone.
        changes: Vec<Change>,
    },
    /// Every site names the version already.
    Unchanged,
    /// It cannot be done, and nothing of it was done.
    Refused {
        /// Why not.
        reason: String,
    },
}

/// A commit, and what it changes.
#[derive(Debug, Clone)]
pub struct PlannedCommit {
    /// The environments in which it changes anything, in the plan's order.
    pub environments: Vec<String>,
    /// The commit; `None` while its message is being written.
    pub id: Option<CommitId>,
    /// The keys of the updates in it, in the plan's order, with the changes of each.
    pub changes: Vec<(String, Vec<Change>)>,
}

/// Commits that exist here and not yet on the remote.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) parent: CommitId,
    pub(super) tip: CommitId,
    pub(super) outcomes: Vec<(String, Outcome)>,
    pub(super) commits: Vec<PlannedCommit>,
    pub(super) objects: Vec<NewObject>,
    /// The files that differ between `parent` and `tip`: path, old and new bytes.
    pub(super) files: Vec<ChangedFile>,
    /// What these hold, for the index.
    pub(super) known: Known,
}

#[derive(Debug, Clone)]
pub(super) struct ChangedFile {
    pub(super) path: Arc<str>,
    pub(super) old: Bytes,
    pub(super) new: Bytes,
}

impl Prepared {
    /// Returns the commit that this builds upon.
    pub fn parent(&self) -> CommitId {
        self.parent
    }

    /// Returns the last commit, or the parent where nothing changes.
    pub fn tip(&self) -> CommitId {
        self.tip
    }

    /// Returns what became of each update, by its key, in the plan's order.
    pub fn outcomes(&self) -> &[(String, Outcome)] {
        &self.outcomes
    }

    /// Returns the commits, oldest first; where nothing changes there are none.
    pub fn commits(&self) -> &[PlannedCommit] {
        &self.commits
    }

    /// Whether there is nothing to push.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// Returns what `git diff` would show between the parent and the last commit.
    ///
    /// # Errors
    ///
    /// What libgit2 says when it runs out of memory; there is no other reason.
    pub fn unified_diff(&self) -> Result<String, git2::Error> {
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&unified_diff(&file.path, &file.old, &file.new)?);
        }
        Ok(text)
    }
}
