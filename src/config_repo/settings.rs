use std::path::PathBuf;

use tagrelay_git::{Address, Authentication, Identity, Signer};
use url::Url;

/// One branch of one config repository.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// `[[config_repository]] name`.
    pub name: String,
    /// `https`, `http`, `ssh` or `file`. Contains no password.
    pub url: Url,
    /// The branch, without `refs/heads/`.
    pub branch: String,
    pub authentication: Authentication,
    /// PEM certificates to trust in addition to the system's, for a private certificate authority.
    pub ca_bundle: Option<PathBuf>,
    pub commits: CommitSettings,
    /// The folder of the bare mirror. The mirror is a cache: it is fetched again if it is lost or damaged.
    pub mirror: PathBuf,
}

impl RemoteSettings {
    pub(super) fn address(&self) -> Address {
        Address {
            url: self.url.clone(),
            authentication: self.authentication.clone(),
            ca_bundle: self.ca_bundle.clone(),
        }
    }
}

/// Author, committer, grouping and signature of our commits.
#[derive(Debug, Clone)]
pub struct CommitSettings {
    pub author: Identity,
    /// The committer; `None`: the author.
    pub committer: Option<Identity>,
    /// One commit per environment, or one for all.
    pub grouping: Grouping,
    /// Signs the commits; `None`: unsigned.
    pub signer: Option<Signer>,
}

impl CommitSettings {
    /// Unsigned commits of one author, one per environment.
    pub fn by(author: Identity) -> Self {
        Self { author, committer: None, grouping: Grouping::PerEnvironment, signer: None }
    }

    pub fn committer(&self) -> &Identity {
        self.committer.as_ref().unwrap_or(&self.author)
    }
}

impl Default for CommitSettings {
    fn default() -> Self {
        Self::by(Identity { name: "Tagrelay".to_owned(), email: "tagrelay@localhost".to_owned() })
    }
}

/// The number of commits of a push that changes several environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// One per environment.
    PerEnvironment,
    /// One for all.
    Single,
}
