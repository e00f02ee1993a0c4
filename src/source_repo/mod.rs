//! Source repositories: which of two commits is newer, and which branches contain a commit.
//!
//! Only commits and their parents are stored; no trees, files or messages. A server with filters sends no more than that
//! (`filter tree:0`). Other servers are asked for a depth of 100, and for more if that does not answer a question.
//!
//! Known commits are compared in memory. A request is sent for unknown commits, and for the branches of a commit if the
//! settings restrict them.
//!
//! - [`Sources`]: all source repositories of the settings;
//! - [`CommitGraph`]: the ancestry of commits;
//! - `repository.rs` updates one of them, `disk.rs` caches it.
//!
//! Git's protocol is that of [`config_repo`](crate::config_repo).

mod disk;
mod error;
mod graph;
mod repository;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use error::SourceError;
pub use graph::{Commit, CommitGraph, Found, Kinship};
pub use settings::{NAME, SourceSettings};

use crate::image::Repository;
use repository::SourceRepository;

/// Whether a commit is on an accepted branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// An accepted branch contains it.
    OnBranch,
    /// No accepted branch contains it.
    Elsewhere {
        /// The commit and the branches.
        reason: String,
    },
}

/// The relation of a commit to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// The same commit.
    Same,
    /// It descends from the other: it is newer.
    Descendant,
    /// The other descends from it: it is older.
    Ancestor,
    /// The history does not decide.
    Untold {
        /// The reason.
        reason: String,
    },
}

/// The source repositories of the settings. Each is opened at its first use.
pub struct Sources {
    settings: Vec<SourceSettings>,
    open: Mutex<HashMap<String, Arc<SourceRepository>>>,
}

impl Sources {
    /// Creates the sources. Sends and reads nothing.
    pub fn new(settings: Vec<SourceSettings>) -> Self {
        Self { settings, open: Mutex::default() }
    }

    /// Returns whether an accepted branch contains the commit whose id begins with `sha`.
    ///
    /// `source`: the index of the source in the settings; `image`: the repository of the image.
    ///
    /// # Errors
    ///
    /// If the commit is unknown and the repository does not answer.
    pub async fn membership(&self, source: usize, image: &Repository, sha: &str) -> Result<Membership, SourceError> {
        match self.repository(source, image)? {
            Some(repository) => repository.membership(sha).await,
            None => Ok(Membership::OnBranch),
        }
    }

    /// Returns the relation of the commit whose id begins with `new` to the one whose id begins with `old`.
    ///
    /// # Errors
    ///
    /// If one of them is unknown and the repository does not answer.
    pub async fn relation(
        &self,
        source: usize,
        image: &Repository,
        new: &str,
        old: &str,
    ) -> Result<Relation, SourceError> {
        match self.repository(source, image)? {
            Some(repository) => repository.relation(new, old).await,
            None => Ok(Relation::Untold { reason: "the settings name no such source".to_owned() }),
        }
    }

    /// Returns the URL of an image's source, and its accepted branches. Asks the remote each time and stores nothing.
    ///
    /// # Errors
    ///
    /// If the repository does not answer.
    pub async fn branches(&self, source: usize, image: &Repository) -> Result<(String, Vec<String>), SourceError> {
        match self.repository(source, image)? {
            Some(repository) => Ok((repository.url().to_owned(), repository.branches().await?)),
            None => Ok((String::new(), Vec::new())),
        }
    }

    fn repository(&self, source: usize, image: &Repository) -> Result<Option<Arc<SourceRepository>>, SourceError> {
        let Some(settings) = self.settings.get(source) else { return Ok(None) };
        let url = settings.url.replace(NAME, image.name());
        let name = repository::folder_name(&url, &settings.branches);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = open.get(&name) {
            return Ok(Some(Arc::clone(repository)));
        }
        let repository = Arc::new(SourceRepository::new(url, settings, settings.folder.join(&name))?);
        open.insert(name, Arc::clone(&repository));
        Ok(Some(repository))
    }
}
