use std::path::PathBuf;

use tagrelay_secret::Secret;

use super::cloud::{Cloud, CloudEnvironment};

/// The settings of all registries.
#[derive(Debug, Clone, Default)]
pub struct RegistriesSettings {
    /// Each `[[registry]]`.
    pub sections: Vec<RegistrySettings>,
    /// `docker_config` of `[registries]`: accounts of registries without `username` and `login`.
    pub docker_config: Option<PathBuf>,
    /// The pod's cloud identity.
    pub environment: CloudEnvironment,
}

/// The settings of one registry. A registry without settings is used over HTTPS, anonymously.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Host and port as in image references, or a pattern.
    ///
    /// Examples: `docker.io`, `registry.internal:5000`, `*.example.com`.
    pub host: String,
    /// Plain HTTP instead of HTTPS.
    pub plain_http: bool,
    /// Account at the registry or its token service.
    pub credentials: Option<Credentials>,
    /// The cloud whose login provides the account. Without `login` and `credentials`: the Docker config's account,
    /// otherwise that of the cloud that the host belongs to, if the environment describes an identity there.
    pub login: Option<Cloud>,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_bundle: Option<PathBuf>,
}

impl RegistrySettings {
    /// Returns settings without an account, over HTTPS.
    pub fn for_host(host: &str) -> Self {
        Self { host: host.to_owned(), plain_http: false, credentials: None, login: None, ca_bundle: None }
    }
}

/// An account at a registry.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Name of the user or robot account.
    pub username: String,
    /// Password or token.
    pub password: Secret,
}
