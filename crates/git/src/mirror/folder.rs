//! The folder of a mirror: the layout of a bare repository, its lock, and checks against foreign folders.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{MirrorError, git_error};

const LOCK_TRIES: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// The only reference of a mirror.
pub(super) const TIP_REFERENCE: &str = "refs/heads/tip";

/// The subfolder in which a repack writes its new pack.
pub(super) const COMPACTION_FOLDER: &str = "compaction";

/// Locks the folder for this process. The lock ends when the file is dropped.
pub(super) fn lock(folder: &Path) -> Result<File, MirrorError> {
    // The lock file lies beside the folder, because a reset removes the folder.
    let mut path = folder.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let disk = |source| MirrorError::Disk { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(disk)?;
    // Retry: a child process that was just started holds copies of all open files for a moment.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(disk(source)),
        }
    }
    Err(MirrorError::InUse(folder.to_owned()))
}

/// Creates the files of an empty bare repository.
pub(super) fn create_layout(folder: &Path) -> io::Result<()> {
    for part in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("config"), "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")?;
    fs::write(folder.join("HEAD"), mirror_head())
}

/// Refuses a folder with foreign files, for example a working copy. A folder whose `HEAD` names the branch of a mirror is
/// accepted, whatever else it contains.
pub(super) fn refuse_foreign(folder: &Path) -> Result<(), MirrorError> {
    const OURS: [&str; 7] = ["HEAD", "config", "objects", "refs", "shallow", "history", COMPACTION_FOLDER];
    // The folder of the settings, which contains a mirror per branch.
    let above = folder.parent().unwrap_or(folder);
    refuse_repository(above)?;
    if fs::read_to_string(folder.join("HEAD")).is_ok_and(|head| head == mirror_head()) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_temporary = [".new", ".lock"].iter().any(|end| name.ends_with(end));
        if !is_temporary && !OURS.contains(&name.as_str()) {
            return Err(MirrorError::NotOurs { path: folder.to_owned(), found: name });
        }
    }
    Ok(())
}

/// Refuses a folder that is a Git repository or a working copy, because mirrors must not be created in one.
///
/// # Errors
///
/// [`MirrorError::NotOurs`] with the file that shows it.
pub fn refuse_repository(folder: &Path) -> Result<(), MirrorError> {
    let found = match () {
        () if folder.join(".git").exists() => ".git",
        () if folder.join("HEAD").is_file() && folder.join("objects").is_dir() => "HEAD",
        () => return Ok(()),
    };
    Err(MirrorError::NotOurs { path: folder.to_owned(), found: found.to_owned() })
}

fn mirror_head() -> String {
    format!("ref: {TIP_REFERENCE}\n")
}

/// Removes temporary files of an interrupted fetch.
pub(super) fn remove_partial_packs(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !file.file_name().as_encoded_bytes().starts_with(b"pack-")
            && let Err(error) = fs::remove_file(file.path())
        {
            tracing::warn!("the temporary file {} cannot be removed: {error}", file.path().display());
        }
    }
}

/// Opens the object database alone, which reads no configuration of the user or the system.
pub(crate) fn open_objects(folder: &Path) -> Result<git2::Odb<'static>, MirrorError> {
    // Objects are read once, so a cache would only use memory.
    git2::opts::enable_caching(false);
    // Packs were verified when they were received, and deflated data has its own checksum.
    git2::opts::strict_hash_verification(false);
    let git = |source| git_error(folder, source);
    let path = folder.join("objects");
    let path = path.to_str().ok_or_else(|| MirrorError::NotText(folder.to_owned()))?;
    let objects = git2::Odb::new().map_err(git)?;
    objects.add_disk_alternate(path).map_err(git)?;
    Ok(objects)
}

/// Replaces a file atomically.
pub(super) fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// The total size of the files in a folder, without subfolders.
pub(super) fn size_of_files(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
