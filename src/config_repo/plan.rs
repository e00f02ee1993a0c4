use std::sync::Arc;

use bytes::Bytes;
use tagrelay_git::{CommitId, NewObject, unified_diff};

use super::files::Known;
use tagrelay_image::{Repository, Version};
use tagrelay_manifest::Format;

/// The updates for one push.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The environments, in the order of their commits.
    pub environments: Vec<EnvironmentPlan>,
}

/// The updates of one environment.
#[derive(Debug, Clone)]
pub struct EnvironmentPlan {
    pub environment: String,
    /// The updates, oldest first.
    pub wanted: Vec<WantedVersion>,
}

/// One update: every site of the repository in the environment must name the version.
#[derive(Debug, Clone)]
pub struct WantedVersion {
    /// The caller's id of the update.
    pub key: String,
    pub repository: Repository,
    pub version: Version,
}

/// The change of one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub environment: String,
    pub path: String,
    /// The line of the site, from 1.
    pub line: u32,
    pub format: Format,
    pub repository: Repository,
    pub old: Version,
    pub new: Version,
}

/// The result of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditOutcome {
    /// The update changes sites, in a commit.
    Changed {
        commit: CommitId,
        /// The changes of this update only.
        changes: Vec<Change>,
    },
    /// Every site names the version already.
    Unchanged,
    /// The update is impossible. No site was changed for it.
    Refused { reason: String },
}

/// A commit and its changes.
#[derive(Debug, Clone)]
pub struct PlannedCommit {
    /// The changed environments, in the order of the plan.
    pub environments: Vec<String>,
    /// The commit; `None` while its message is rendered.
    pub id: Option<CommitId>,
    /// The changes of each update by its key, in the order of the plan.
    pub changes: Vec<(String, Vec<Change>)>,
}

/// Commits that the remote does not have yet.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) parent: CommitId,
    pub(super) tip: CommitId,
    pub(super) outcomes: Vec<(String, EditOutcome)>,
    pub(super) commits: Vec<PlannedCommit>,
    pub(super) objects: Vec<NewObject>,
    /// The files that differ between `parent` and `tip`.
    pub(super) files: Vec<ChangedFile>,
    /// The sites of these files, for the index.
    pub(super) known: Known,
}

#[derive(Debug, Clone)]
pub(super) struct ChangedFile {
    pub(super) path: Arc<str>,
    pub(super) old: Bytes,
    pub(super) new: Bytes,
}

impl Prepared {
    /// The commit below the first new one.
    pub fn parent(&self) -> CommitId {
        self.parent
    }

    /// The last new commit; without new commits, the parent.
    pub fn tip(&self) -> CommitId {
        self.tip
    }

    /// The result of each update by its key, in the order of the plan.
    pub fn outcomes(&self) -> &[(String, EditOutcome)] {
        &self.outcomes
    }

    /// The new commits, oldest first.
    pub fn commits(&self) -> &[PlannedCommit] {
        &self.commits
    }

    /// Whether there is nothing to push.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// Returns the output of `git diff` between the parent and the last new commit.
    ///
    /// # Errors
    ///
    /// Only if libgit2 runs out of memory.
    pub fn unified_diff(&self) -> Result<String, git2::Error> {
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&unified_diff(&file.path, &file.old, &file.new)?);
        }
        Ok(text)
    }
}
