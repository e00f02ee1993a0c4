use std::path::PathBuf;

use tagrelay_secret::Secret;

/// The settings of one registry. A registry without settings is used over HTTPS, anonymously.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Host and port as in image references, or a pattern.
    ///
    /// Examples: `docker.io`, `registry.internal:5000`, `*.example.com`.
    pub host: String,
    /// Plain HTTP instead of HTTPS.
    pub plain_http: bool,
    /// Account at the registry or its token service; `None`: from the Docker config, or else anonymous.
    pub credentials: Option<Credentials>,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// An account at a registry.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Name of the user or robot account.
    pub username: String,
    /// Password or token.
    pub password: Secret,
}
