use std::path::PathBuf;

use url::Url;

use crate::credentials::Authentication;

/// The URL of a repository, with the credentials and certificates for it.
#[derive(Debug, Clone)]
pub struct Address {
    /// `https`, `http`, `ssh` or `file`. Contains no password.
    pub url: Url,
    /// The credentials.
    pub authentication: Authentication,
    /// PEM certificates to trust in addition to the system's, for a private certificate authority.
    pub ca_bundle: Option<PathBuf>,
}
