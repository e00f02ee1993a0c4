use std::path::PathBuf;

use tagrelay_git::Authentication;

/// Where the source of images lies, and which of its branches count.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The URL: `https`, `http`, `ssh` or `file`. `{name}` in its path is the last component of the image's repository.
    pub url: String,
    /// Globs over branches: a commit on none of them is refused. Empty: every branch counts.
    pub branches: Vec<String>,
    /// What we show the server.
    pub authentication: Authentication,
    /// PEM certificates to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The folder in which each source has the folder of its history. A cache.
    pub folder: PathBuf,
}

/// What stands for the last component of the image's repository in a URL.
pub const NAME: &str = "{name}";
