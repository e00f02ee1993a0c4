//! The account that requests to a registry use.

use std::sync::Arc;

use super::Credentials;
use super::docker_config::{Account, DockerConfig};
use super::failure::RegistryFailure;
use tagrelay_secret::{ExposeSecret as _, Redaction};

/// Where the account of a registry comes from.
#[derive(Clone)]
pub(super) enum Login {
    Anonymous,
    /// `username` and `password` of a `[[registry]]`.
    Section {
        /// The `host` of the section, which may be a pattern.
        host: String,
        credentials: Credentials,
    },
    /// `docker_config` of `[registries]`.
    DockerConfig(Arc<DockerConfig>),
}

impl Login {
    /// Returns the current account for the repository at `path`; `None`: anonymous.
    pub(super) fn account(&self, host: &str, path: &str) -> Result<Option<Account>, RegistryFailure> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Section { credentials, .. } => {
                // Temporary: the file of a mounted secret may appear later.
                let password = credentials.password.reveal().map_err(|error| {
                    RegistryFailure::not_now(format!("the password of registry {host} cannot be read: {error}"))
                })?;
                Ok(Some(Account::Password { username: credentials.username.clone(), password }))
            }
            Self::DockerConfig(config) => config.account(host, path).map_err(|error| {
                RegistryFailure::not_now(format!("the credentials of registry {host} cannot be read: {error}"))
            }),
        }
    }

    /// Returns a description of the refusal, and what to do about it.
    ///
    /// The text is the end of a message that begins with the name of the service.
    pub(super) fn describe_refusal(&self, host: &str) -> String {
        match self {
            Self::Section { host: section, .. } => format!(
                "denied access with the credentials of [[registry]] host = \"{section}\": check username and password, \
                 that the account may pull from the repository, and that the repository exists"
            ),
            Self::Anonymous => format!(
                "denied anonymous access to the repository: set username and password for [[registry]] host = \
                 \"{host}\", and check that the repository exists"
            ),
            Self::DockerConfig(config) if config.accounts_of(host).is_empty() => format!(
                "denied anonymous access to the repository: docker_config {} has no entry for {host}; add one, and check \
                 that the repository exists",
                config.path().display()
            ),
            Self::DockerConfig(config) => format!(
                "denied access with the credentials of docker_config {}: check that an entry for {host} covers the \
                 repository, that its account may pull, and that the repository exists",
                config.path().display()
            ),
        }
    }

    /// Removes the credentials from a message.
    pub(super) fn clean(&self, host: &str, message: &str) -> String {
        let accounts = match self {
            Self::DockerConfig(config) => config.accounts_of(host),
            Self::Anonymous | Self::Section { .. } => self.account(host, "").ok().flatten().into_iter().collect(),
        };
        let redaction = accounts.iter().fold(Redaction::none(), |redaction, account| match account {
            Account::Password { username, password } => redaction.and(username, password.expose_secret()),
            Account::IdentityToken(token) => redaction.and("", token.expose_secret()),
        });
        redaction.clean(message)
    }
}
