//! The account that requests to a registry use.

use std::sync::Arc;

use super::Credentials;
use super::cloud::{Cloud, CloudLogin, CloudToken};
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
    /// The pod's cloud identity.
    Cloud {
        login: Arc<CloudLogin>,
        /// Whether the settings say `login`.
        explicit: bool,
        /// Its entries take precedence over an automatic login.
        docker_config: Option<Arc<DockerConfig>>,
    },
}

/// An account for one request.
pub(super) enum Found {
    /// From the settings or a file.
    Fixed(Account),
    /// From a cloud; `cached` unless it was fetched for this request.
    Cloud { token: Arc<CloudToken>, cached: bool },
}

impl Found {
    pub(super) fn account(&self) -> &Account {
        match self {
            Self::Fixed(account) => account,
            Self::Cloud { token, .. } => &token.account,
        }
    }

    /// Returns the cloud to which the account is restricted.
    pub(super) fn cloud(&self) -> Option<Cloud> {
        match self {
            Self::Fixed(_) => None,
            Self::Cloud { token, .. } => Some(token.cloud),
        }
    }
}

impl Login {
    /// Returns the current account for the repository at `path`; `None`: anonymous.
    pub(super) async fn account(&self, host: &str, path: &str) -> Result<Option<Found>, RegistryFailure> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Section { credentials, .. } => {
                section_account(credentials, host).map(|found| Some(Found::Fixed(found)))
            }
            Self::DockerConfig(config) => Ok(docker_account(config, host, path)?.map(Found::Fixed)),
            Self::Cloud { login, docker_config, .. } => {
                let entry = docker_config.as_ref().map(|config| docker_account(config, host, path)).transpose()?;
                match entry.flatten() {
                    Some(account) => Ok(Some(Found::Fixed(account))),
                    None => login.token().await.map(|(token, cached)| Some(Found::Cloud { token, cached })),
                }
            }
        }
    }

    /// Drops a cached account that the registry or its token service refused. Returns whether another one may be tried.
    pub(super) fn drop_refused(&self, found: &Found) -> bool {
        match (self, found) {
            (Self::Cloud { login, .. }, Found::Cloud { token, cached: true }) => login.drop_token(token),
            _ => false,
        }
    }

    /// Returns the cloud of a login that the settings do not mention.
    pub(super) fn automatic(&self) -> Option<Cloud> {
        match self {
            Self::Cloud { login, explicit: false, .. } => Some(login.cloud()),
            _ => None,
        }
    }

    /// Returns the client for requests with the account in their body; `None`: the usual one.
    pub(super) fn client(&self) -> Option<&reqwest::Client> {
        match self {
            Self::Cloud { login, .. } => Some(login.client()),
            _ => None,
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
            Self::Cloud { docker_config: Some(config), .. } | Self::DockerConfig(config)
                if !config.accounts_of(host).is_empty() =>
            {
                format!(
                    "denied access with the credentials of docker_config {}: check that an entry for {host} covers the \
                     repository, that its account may pull, and that the repository exists",
                    config.path().display()
                )
            }
            Self::DockerConfig(_) => "denied access to the repository".to_owned(),
            Self::Cloud { login, .. } => format!(
                "denied access with login = \"{}\"{}: check that the identity may pull from the repository ({}), and that the \
                 repository exists",
                login.cloud(),
                describe_variables(&login.variables()),
                pull_permission(login.cloud())
            ),
        }
    }

    /// Removes the credentials from a message.
    pub(super) fn clean(&self, host: &str, message: &str) -> String {
        let accounts: Vec<Account> = match self {
            Self::Anonymous => Vec::new(),
            Self::Section { credentials, .. } => section_account(credentials, host).ok().into_iter().collect(),
            Self::DockerConfig(config) => config.accounts_of(host),
            Self::Cloud { login, docker_config, .. } => {
                let entries = docker_config.iter().flat_map(|config| config.accounts_of(host));
                entries.chain(login.last_account()).collect()
            }
        };
        let redaction = accounts.iter().fold(Redaction::none(), |redaction, account| match account {
            Account::Password { username, password } => redaction.and(username, password.expose_secret()),
            Account::IdentityToken(token) => redaction.and("", token.expose_secret()),
        });
        redaction.clean(message)
    }
}

fn section_account(credentials: &Credentials, host: &str) -> Result<Account, RegistryFailure> {
    // Temporary: the file of a mounted secret may appear later.
    let password = credentials.password.reveal().map_err(|error| {
        RegistryFailure::not_now(format!("the password of registry {host} cannot be read: {error}"))
    })?;
    Ok(Account::Password { username: credentials.username.clone(), password })
}

fn docker_account(config: &DockerConfig, host: &str, path: &str) -> Result<Option<Account>, RegistryFailure> {
    config.account(host, path).map_err(|error| {
        RegistryFailure::not_now(format!("the credentials of registry {host} cannot be read: {error}"))
    })
}

/// Writes ` (A, B)`; nothing without variables.
pub(super) fn describe_variables(variables: &[&str]) -> String {
    if variables.is_empty() { String::new() } else { format!(" ({})", variables.join(", ")) }
}

fn pull_permission(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Aws => "ecr:BatchGetImage and ecr:GetDownloadUrlForLayer",
        Cloud::Google => "roles/artifactregistry.reader",
        Cloud::Azure => "AcrPull",
    }
}
