//! Git over the wire and as objects. Knows nothing of manifests and environments.
//!
//! - [`Remote`] talks to a Git server over HTTP, SSH or a local folder: it reads a branch, fetches a commit at depth 1,
//!   pushes with the expected old commit and reads histories. Each call is one attempt.
//! - [`Mirror`] keeps one branch on disk at depth 1. It is a cache and can be fetched again at any time.
//! - [`tree`] reads, edits and compares tree objects without a checkout.
//! - [`CommitDraft`] writes commits, signed by a [`Signer`] if there is one.
//! - [`Authentication`] holds credentials: passwords, SSH keys with known hosts, GitHub Apps.

mod ancestry;
mod branch_name;
mod commit;
mod credentials;
mod diff;
mod error;
mod mirror;
mod object;
mod pack;
mod remote;
mod retry_after;
mod signing;
mod ssh_key;
pub mod tree;

pub use ancestry::{Ancestry, Below};
pub use branch_name::{BranchName, InvalidBranchName};
pub use commit::{CommitDraft, Identity};
pub use credentials::{Authentication, GitHubApp, InvalidAppKey, sign_json_web_token};
pub use diff::unified_diff;
pub use error::{AddressError, PushError, RemoteError};
pub use mirror::{Compacted, Compaction, Mirror, MirrorError, PackReceiver, Reader, refuse_repository};
pub use object::{CommitId, InvalidCommitId, Kind, NewObject, ObjectId};
pub use remote::{Address, Fetched, HistoryReading, HistoryRequest, Push, Reading, Remote};
pub use retry_after::retry_after;
pub use signing::{SignatureFormat, Signer, SigningError};
