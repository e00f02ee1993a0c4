//! Credentials for Git servers.

mod github_app;
mod json_web_token;
pub(crate) mod known_hosts;

use std::path::PathBuf;

use tagrelay_secret::Secret;

pub use github_app::{GitHubApp, InvalidAppKey};
pub use json_web_token::sign_json_web_token;

/// How we authenticate to a Git server.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// Without credentials: `file` remotes and public repositories.
    None,
    /// HTTP basic authentication. A token is given as the password.
    Basic {
        /// The user name. Most hosts ignore it if the password is a token.
        username: String,
        /// Password or token.
        password: Secret,
    },
    /// Installation tokens of a GitHub App, over HTTP.
    GitHubApp(GitHubApp),
    /// An SSH key. The user name comes from the URL; default: `git`.
    SshKey {
        /// The private key in OpenSSH or PEM form.
        key: Secret,
        /// The passphrase of an encrypted key.
        passphrase: Option<Secret>,
        /// An OpenSSH `known_hosts` file. Hosts that it does not name are refused.
        known_hosts: PathBuf,
    },
}
