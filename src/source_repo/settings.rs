use std::path::PathBuf;

use tagrelay_git::Authentication;

/// The source repository of images and its accepted branches.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The URL: `https`, `http`, `ssh` or `file`. `{name}` in its path is the last component of the image's repository.
    pub url: String,
    /// Globs over branches: a commit on none of them is refused. Empty: all branches.
    pub branches: Vec<String>,
    /// Credentials for the server.
    pub authentication: Authentication,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The folder with the cached histories, one folder per source.
    pub folder: PathBuf,
}

/// The placeholder for the last component of the image's repository in a URL.
pub const NAME: &str = "{name}";
