use std::path::PathBuf;

use tagrelay_git::{Address, Authentication, Identity, Signer};
use url::Url;

/// One branch of one config repository, and how to reach it.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// `[[config_repository]] name`.
    pub name: String,
    /// Where it is: `https`, `http`, `ssh` or `file`. Holds no user information with a password.
    pub url: Url,
    /// The branch that is read and written, without `refs/heads/`.
    pub branch: String,
    /// What we show the server.
    pub authentication: Authentication,
    /// PEM certificates to trust besides the system's, for a private certificate authority.
    pub ca_bundle: Option<PathBuf>,
    /// How our commits look.
    pub commits: CommitSettings,
    /// The folder of the bare mirror. A cache: it is made anew when it is lost or damaged.
    pub mirror: PathBuf,
}

impl RemoteSettings {
    /// The address of the repository.
    pub(super) fn address(&self) -> Address {
        Address {
            url: self.url.clone(),
            authentication: self.authentication.clone(),
            ca_bundle: self.ca_bundle.clone(),
        }
    }
}

/// How our commits look.
#[derive(Debug, Clone)]
pub struct CommitSettings {
    /// Whose change it is.
    pub author: Identity,
    /// Who made the commit of it; `None`: the author.
    pub committer: Option<Identity>,
    /// How many commits a push has that changes several environments.
    pub grouping: Grouping,
    /// What commits are signed with.
    pub signer: Option<Signer>,
}

impl CommitSettings {
    /// Returns unsigned commits of one author, one for each environment.
    pub fn by(author: Identity) -> Self {
        Self { author, committer: None, grouping: Grouping::PerEnvironment, signer: None }
    }

    /// Returns who makes the commits.
    pub fn committer(&self) -> &Identity {
        self.committer.as_ref().unwrap_or(&self.author)
    }
}

impl Default for CommitSettings {
    fn default() -> Self {
        Self::by(Identity { name: "Tagrelay".to_owned(), email: "tagrelay@localhost".to_owned() })
    }
}

/// How many commits a push has that changes several environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// One for each environment.
    PerEnvironment,
    /// One for all of them.
    Single,
}
