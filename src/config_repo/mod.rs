//! Config repositories: from wanted versions to a pushed branch, without a checkout.
//!
//! A [`ConfigRepository`] is one branch of one repository. It knows the tip of the branch and keeps a [`Snapshot`]: the index of
//! all sites below the paths of the environments. It builds commits for a [`Plan`], and pushes them on the condition that the
//! branch is still at the expected commit:
//!
//! ```text
//! refresh   list the branch, fetch depth 1 -> mirror -> difference of the trees -> index
//! prepare   plan -> index: which files -> manifest: edit with proof -> blobs, trees along the paths, commits
//! push      pack of the new objects -> one request -> mirror and index follow
//! ```
//!
//! Each step costs time in proportion to the change, not to the repository. A lost race is a normal result
//! ([`PushError::Outdated`]): the caller refreshes, prepares the same plan again and pushes again. After a lost answer
//! ([`PushError::Unknown`]), [`ConfigRepository::below_tip`] shows whether the push succeeded, even if the branch moved
//! on.
//!
//! A kustomization may take images from a base outside of the environment's paths. The base is also read (`surroundings`), and the
//! index knows which kustomizations read which path.

mod error;
mod files;
mod index;
mod local;
mod paths;
mod plan;
mod prepare;
mod repository;
mod settings;
mod snapshots;
mod surroundings;

pub use tagrelay_git::{
    Authentication, Below, CommitId, GitHubApp, Identity, PushError, RemoteError, SignatureFormat, Signer,
    refuse_repository, unified_diff,
};

pub use error::{OpenError, PrepareError};
pub use index::{EnvironmentSites, FileProblem, IndexedSite, Snapshot};
pub use paths::{EnvironmentPaths, Territory};
pub use plan::{
    Change, EditOutcome, EditOutcome as Outcome, EnvironmentPlan, Plan, PlannedCommit, Prepared, WantedVersion,
};
pub use repository::ConfigRepository;
pub use settings::{CommitSettings, Grouping, RemoteSettings};
