//! The folder of a mirror: a bare repository as it lies on the disk, and who may use it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::compaction::WORKSHOP;

const LOCK_TRIES: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

pub(super) const TIP_REFERENCE: &str = "refs/heads/tip";

/// Why the folder of the mirror cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Another process, or another config repository of the settings, works in it.
    #[error("the mirror {0} is in use by another process: give each process its own folder")]
    InUse(PathBuf),
    /// Something else lies there, which would be thrown away where it is damaged or has grown.
    #[error("the folder of the mirror {path} holds `{found}`, which is no part of a mirror: choose an empty folder")]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// What lies in it.
        found: String,
    },
    /// libgit2 takes paths as text.
    #[error("the path of the mirror {0} is not valid UTF-8: choose another folder")]
    NotText(PathBuf),
    /// The disk or its permissions.
    #[error("the mirror {path} cannot be used: {source}")]
    Disk {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What libgit2 says of it.
    #[error("the mirror {path} cannot be used: {source}")]
    Git {
        /// The folder.
        path: PathBuf,
        /// What libgit2 says.
        source: git2::Error,
    },
}

impl MirrorError {
    /// Whether the file system has no room left. libgit2 says it in words alone.
    pub(super) fn is_for_want_of_room(&self) -> bool {
        let said = match self {
            Self::Disk { source, .. } => source.to_string(),
            Self::Git { source, .. } => source.message().to_owned(),
            Self::InUse(_) | Self::NotOurs { .. } | Self::NotText(_) => return false,
        };
        said.contains("No space left on device") || said.contains("Disk quota exceeded")
    }
}

/// A thread that worked on it panicked or was ended.
impl From<tokio::task::JoinError> for MirrorError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Disk { path: PathBuf::new(), source: io::Error::other(error) }
    }
}

pub(super) fn lock(folder: &Path) -> Result<File, MirrorError> {
    // Beside the folder, which is removed when the mirror starts over.
    let mut path = folder.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let disk = |source| MirrorError::Disk { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(disk)?;
    // A child process that is just being started holds a copy of every open file for a moment.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(disk(source)),
        }
    }
    Err(MirrorError::InUse(folder.to_owned()))
}

pub(super) fn lay_out(folder: &Path) -> io::Result<()> {
    for part in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("config"), "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")?;
    fs::write(folder.join("HEAD"), head_of_a_mirror())
}

/// Refuses a folder that is not a mirror and holds what no mirror holds: a working copy, a repository of somebody else,
/// any files. A mirror is known by the branch that its `HEAD` names, whatever else was left in it.
pub(super) fn refuse_foreign(folder: &Path) -> Result<(), MirrorError> {
    const OURS: [&str; 7] = ["HEAD", "config", "objects", "refs", "shallow", "history", WORKSHOP];
    // The folder of the settings, in which each branch has one.
    let above = folder.parent().unwrap_or(folder);
    refuse_repository(above)?;
    if fs::read_to_string(folder.join("HEAD")).is_ok_and(|head| head == head_of_a_mirror()) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_half_done = [".new", ".lock"].iter().any(|end| name.ends_with(end));
        if !is_half_done && !OURS.contains(&name.as_str()) {
            return Err(MirrorError::NotOurs { path: folder.to_owned(), found: name });
        }
    }
    Ok(())
}

/// Refuses a folder that is somebody's Git repository or working copy, in which no mirrors are to be made.
///
/// # Errors
///
/// [`MirrorError::NotOurs`], with what shows it.
pub fn refuse_repository(folder: &Path) -> Result<(), MirrorError> {
    let found = match () {
        () if folder.join(".git").exists() => ".git",
        () if folder.join("HEAD").is_file() && folder.join("objects").is_dir() => "HEAD",
        () => return Ok(()),
    };
    Err(MirrorError::NotOurs { path: folder.to_owned(), found: found.to_owned() })
}

fn head_of_a_mirror() -> String {
    format!("ref: {TIP_REFERENCE}\n")
}

/// Removes what a process left behind that ended while it took in a pack.
pub(super) fn remove_half_packs(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !file.file_name().as_encoded_bytes().starts_with(b"pack-")
            && let Err(error) = fs::remove_file(file.path())
        {
            tracing::warn!("{} is left over and cannot be removed: {error}", file.path().display());
        }
    }
}

pub(super) fn open_objects(folder: &Path) -> Result<git2::Odb<'static>, MirrorError> {
    // An object is read once and what matters of it kept elsewhere; the cache would be the largest part of our memory.
    git2::opts::enable_caching(false);
    // Every pack was hashed when it came in, and what is compressed has a sum of its own.
    git2::opts::strict_hash_verification(false);
    let git = |source| git_error(folder, source);
    let path = folder.join("objects");
    let path = path.to_str().ok_or_else(|| MirrorError::NotText(folder.to_owned()))?;
    let objects = git2::Odb::new().map_err(git)?;
    objects.add_disk_alternate(path).map_err(git)?;
    Ok(objects)
}

pub(super) fn git_error(folder: &Path, source: git2::Error) -> MirrorError {
    MirrorError::Git { path: folder.to_owned(), source }
}

pub(super) fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

pub(super) fn bytes_below(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
