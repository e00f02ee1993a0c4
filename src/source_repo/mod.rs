//! Source repositories: which of two commits is the newer one, and which branches have it.
//!
//! Of each repository only the commits are kept, with their parents and nothing else: no tree, no file, no message. A
//! server that can filter sends no more than that (`filter tree:0`); from others the history is fetched a hundred
//! commits deep, and deeper when that does not answer a question. How commits that are known descend is answered from
//! memory; a commit that nobody has seen yet makes a request, and where the settings name the branches that count, the
//! question whether one of them has a commit.
//!
//! - [`Sources`] are all of them, as the settings name them;
//! - [`CommitGraph`] knows how commits descend from each other;
//! - `repository.rs` keeps one up to date, `disk.rs` keeps it over a restart.
//!
//! The client of Git's protocol is that of [`config_repo`](crate::config_repo).

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

/// Whether a commit is where it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// A branch that counts has it.
    OnBranch,
    /// None of them has.
    Elsewhere {
        /// Which commit, and which branches.
        reason: String,
    },
}

/// How a commit relates to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Same,
    /// It descends from the other: it is newer.
    Descendant,
    /// The other descends from it: it is older.
    Ancestor,
    /// The history does not tell.
    Untold {
        /// Why not.
        reason: String,
    },
}

/// The source repositories of the settings. Each is opened when it is asked for the first time.
pub struct Sources {
    settings: Vec<SourceSettings>,
    open: Mutex<HashMap<String, Arc<SourceRepository>>>,
}

impl Sources {
    /// Speaks to nobody and reads nothing.
    pub fn new(settings: Vec<SourceSettings>) -> Self {
        Self { settings, open: Mutex::default() }
    }

    /// Returns whether a branch that counts has the commit whose id begins with `sha`.
    ///
    /// `source` is the place of the source in the settings, `image` the repository of the image.
    ///
    /// # Errors
    ///
    /// When the commit is not known yet and the repository does not answer.
    pub async fn membership(&self, source: usize, image: &Repository, sha: &str) -> Result<Membership, SourceError> {
        match self.repository(source, image)? {
            Some(repository) => repository.membership(sha).await,
            None => Ok(Membership::OnBranch),
        }
    }

    /// Returns how the commit whose id begins with `new` relates to the one whose id begins with `old`.
    ///
    /// # Errors
    ///
    /// When one of them is not known yet and the repository does not answer.
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

    /// Returns what [`Self::relation`] would, if no network is needed for it.
    pub fn known_relation(&self, source: usize, image: &Repository, new: &str, old: &str) -> Option<Relation> {
        self.repository(source, image).ok().flatten()?.known_relation(new, old)
    }

    /// Returns where the source of an image lies, and which of its branches count. Asks the remote each time, and
    /// keeps nothing.
    ///
    /// # Errors
    ///
    /// When it does not answer.
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
