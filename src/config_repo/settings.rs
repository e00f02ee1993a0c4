use std::path::PathBuf;

use url::Url;

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
    /// Author and committer of our commits.
    pub author: Identity,
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

/// A person or program in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name before the address.
    pub name: String,
    /// The address, without angle brackets.
    pub email: String,
}
