use std::path::PathBuf;

use tagrelay_git::Authentication;

/// The source repositories of a rule's images.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// `https`, `http`, `ssh` or `file`. `{name}` in the path stands for the last component of the image's repository.
    pub url: String,
    /// Globs of the branches that count: a commit on none of them is refused. Empty: all branches.
    pub branches: Vec<String>,
    pub authentication: Authentication,
    /// PEM certificates to trust in addition to the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The folder for histories, with a subfolder per source. A cache.
    pub folder: PathBuf,
}

/// The placeholder for the last component of the image's repository.
pub const NAME: &str = "{name}";
