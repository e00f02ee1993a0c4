use std::path::PathBuf;

use crate::secret::Secret;

/// What is special about one registry. A registry without settings is asked over HTTPS, anonymously.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The host with its port, as references write it: `docker.io`, `registry.internal:5000`.
    pub host: String,
    /// HTTP instead of HTTPS.
    pub plain_http: bool,
    /// Account for the registry or for its token service.
    pub credentials: Option<Credentials>,
    /// PEM certificates to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// An account of a registry.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User or robot name.
    pub username: String,
    /// Password or token.
    pub password: Secret,
}
