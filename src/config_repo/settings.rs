use std::path::PathBuf;

use url::Url;

use super::github_app::GitHubApp;
use super::signing::Signer;
use crate::secret::Secret;

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

/// How a config repository knows us.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// Not at all: `file` remotes and open servers.
    None,
    /// HTTP basic authentication; a token is the password.
    Basic {
        /// The user name, which most hosts ignore beside a token.
        username: String,
        /// Password or token.
        password: Secret,
    },
    /// The tokens of an installation of a GitHub App, over HTTP.
    GitHubApp(GitHubApp),
    /// An SSH key. The user name is that of the URL, or `git`.
    SshKey {
        /// The private key in OpenSSH or PEM form.
        key: Secret,
        /// What the key is encrypted with.
        passphrase: Option<Secret>,
        /// An OpenSSH `known_hosts` file. A host that it does not name is refused.
        known_hosts: PathBuf,
    },
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

/// A person or program in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name before the address.
    pub name: String,
    /// The address, without angle brackets.
    pub email: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}
