use jiff::Timestamp;

use super::update::SiteChange;
use super::words;
use tagrelay_image::Version;

words! {
    /// The state of a push attempt.
    PushState {
        /// The remote's answer is not known: the push is under way, or its answer was lost.
        Open = "open",
        /// The commit is on the branch.
        Landed = "landed",
        /// The commit can no longer reach the branch.
        Lost = "lost",
    }
}

/// One try to move a branch from `parent` to `tip`.
///
/// A push is atomic, and the remote compares the branch with `parent`. So at most one of two attempts with the same parent lands,
/// and an attempt whose parent is no longer the tip cannot land any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushAttempt {
    pub id: String,
    pub config_repository: String,
    pub branch: String,
    /// The commit at which the branch must be.
    pub parent: String,
    /// The last commit of the push.
    pub tip: String,
    pub state: PushState,
    pub created_at: Timestamp,
    pub updates: Vec<AttemptedUpdate>,
}

/// The part of a push attempt that belongs to one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptedUpdate {
    pub update_id: String,
    /// The commit of the push that contains the changes of the update.
    pub commit: String,
    /// The version that the environment ran before the update.
    pub old: Version,
    /// The edited sites.
    pub changes: Vec<SiteChange>,
    /// The criterion that decided about the order, and the comparison in words; `None` for requests.
    pub basis: Option<(String, String)>,
}
