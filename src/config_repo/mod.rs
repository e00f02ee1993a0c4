//! Config repositories: versions wanted in, a pushed branch out, without a checkout.
//!
//! A [`ConfigRepository`] is one branch of one repository. It knows the tip of the branch, keeps an index of every
//! site below the environments' paths ([`Snapshot`]), builds commits for a [`Plan`] and pushes them with the
//! expected old commit:
//!
//! ```text
//! refresh   transport: ls-refs, fetch depth 1 ▶ mirror ▶ tree: what differs ▶ index
//! prepare   plan ▶ index: which files ▶ manifest: edit with proof ▶ blobs, trees along the paths, commit
//! push      pack of exactly the new objects ▶ transport: one request ▶ mirror and index move along
//! ```
//!
//! A kustomization may run images of a base outside of the environment's paths. What it builds upon is looked at too
//! (`surroundings`), and the index knows which kustomizations looked at which path.
//!
//! The cost of each follows the change and not the repository. Losing a race is an answer and no accident
//! ([`PushError::Outdated`]): the caller refreshes, prepares the same plan again and pushes again. Where the answer to a
//! push is lost ([`PushError::Unknown`]), [`ConfigRepository::below_tip`] tells whether it landed, whatever others have
//! pushed on top of it since.

mod error;
mod files;
mod index;
mod paths;
mod plan;
mod prepare;
mod repository;
mod settings;
mod surroundings;

pub use tagrelay_git::{
    Authentication, Below, CommitId, GitHubApp, Identity, InvalidAppKey, InvalidCommitId, MirrorError, PushError,
    RemoteError, SignatureFormat, Signer, SigningError, refuse_repository, unified_diff,
};

pub use error::{OpenError, PrepareError};
pub use index::{EnvironmentSites, FileProblem, Place, Snapshot};
pub use paths::{EnvironmentPaths, Territory};
pub use plan::{Change, EnvironmentPlan, Outcome, Plan, PlannedCommit, Prepared, WantedVersion};
pub use repository::ConfigRepository;
pub use settings::{CommitSettings, Grouping, RemoteSettings};
