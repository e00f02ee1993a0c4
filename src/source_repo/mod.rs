//! Source repositories: which of two commits is newer, and which branches contain a commit.
//!
//! Only commits and their parents are kept: no trees, files or messages. A server that can filter sends nothing else
//! (`filter tree:0`). From other servers the history is fetched at depth 100, and deeper if that does not answer a question.
//! The relation of known commits is answered from memory. A request is needed for an unknown commit, and for the question
//! whether one of the configured branches contains a commit.
//!
//! - [`Sources`]: all source repositories of the settings;
//! - [`CommitGraph`]: how commits descend from each other;
//! - `repository.rs` keeps one repository up to date, `disk.rs` stores it.

mod answer;
mod disk;
mod error;
mod graph;
mod repository;
mod settings;
mod sources;

pub use answer::{Membership, Relation};
pub use error::SourceError;
pub use graph::{Commit, CommitGraph, Found, Kinship};
pub use settings::{NAME, SourceSettings};
pub use sources::Sources;
