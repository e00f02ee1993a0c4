use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::answer::{Membership, Relation};
use super::error::SourceError;
use super::repository::{self, SourceRepository};
use super::settings::{NAME, SourceSettings};
use tagrelay_image::Repository;

/// The source repositories of the settings. Each is opened on first use.
pub struct Sources {
    settings: Vec<SourceSettings>,
    open: Mutex<HashMap<String, Arc<SourceRepository>>>,
}

impl Sources {
    /// Uses neither network nor disk.
    pub fn new(settings: Vec<SourceSettings>) -> Self {
        Self { settings, open: Mutex::default() }
    }

    /// Returns whether a branch that counts contains the commit whose id begins with `sha`.
    ///
    /// `source` is the position of the source in the settings, `image` the repository of the image.
    ///
    /// # Errors
    ///
    /// If the repository cannot be read and the answer is not known.
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
    /// If the repository cannot be read and the answer is not known.
    pub async fn relation(
        &self,
        source: usize,
        image: &Repository,
        new: &str,
        old: &str,
    ) -> Result<Relation, SourceError> {
        match self.repository(source, image)? {
            Some(repository) => repository.relation(new, old).await,
            None => Ok(Relation::Unknown { reason: "the settings have no such source".to_owned() }),
        }
    }

    /// Returns the same as [`Self::relation`], without network; `None`: the relation is not known yet.
    pub fn known_relation(&self, source: usize, image: &Repository, new: &str, old: &str) -> Option<Relation> {
        self.repository(source, image).ok().flatten()?.known_relation(new, old)
    }

    /// Returns the number of commits that `new` has and `old` lacks, without network.
    ///
    /// `None`: `new` is not known to descend from `old`.
    pub fn commits_between(&self, source: usize, image: &Repository, new: &str, old: &str) -> Option<usize> {
        self.repository(source, image).ok().flatten()?.commits_between(new, old)
    }

    /// Returns the URL of the source of an image; `None`: the settings have no such source.
    pub fn url(&self, source: usize, image: &Repository) -> Option<String> {
        self.settings.get(source).map(|settings| settings.url.replace(NAME, image.name()))
    }

    /// Returns the URL of the source of an image, and its branches that count. Always asks the remote.
    ///
    /// # Errors
    ///
    /// If the repository cannot be read.
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
