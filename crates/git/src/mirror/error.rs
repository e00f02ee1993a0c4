use std::io;
use std::path::{Path, PathBuf};

/// Why the folder of a mirror cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Another process, or another config repository of the settings, uses it.
    #[error("the mirror {0} is in use by another process: give each process its own folder")]
    InUse(PathBuf),
    /// The folder contains other files, which a new mirror would delete.
    #[error(
        "the folder of the mirror {path} contains `{found}`, which is not part of a mirror: choose an empty folder"
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// The name of a foreign file in it.
        found: String,
    },
    /// libgit2 needs paths in UTF-8.
    #[error("the path of the mirror {0} is not valid UTF-8: choose another folder")]
    NotText(PathBuf),
    /// The file system failed.
    #[error("the folder {path} cannot be used: {source}")]
    Disk {
        /// The folder or file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// libgit2 failed.
    #[error("the folder {path} cannot be used: {source}")]
    Git {
        /// The folder.
        path: PathBuf,
        /// The error of libgit2.
        source: git2::Error,
    },
}

impl MirrorError {
    /// Whether the file system is full. libgit2 reports that only in its message.
    pub fn is_disk_full(&self) -> bool {
        let message = match self {
            Self::Disk { source, .. } => source.to_string(),
            Self::Git { source, .. } => source.message().to_owned(),
            Self::InUse(_) | Self::NotOurs { .. } | Self::NotText(_) => return false,
        };
        message.contains("No space left on device") || message.contains("Disk quota exceeded")
    }
}

/// A blocking task panicked or was cancelled.
impl From<tokio::task::JoinError> for MirrorError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Disk { path: PathBuf::new(), source: io::Error::other(error) }
    }
}

pub(crate) fn git_error(folder: &Path, source: git2::Error) -> MirrorError {
    MirrorError::Git { path: folder.to_owned(), source }
}
