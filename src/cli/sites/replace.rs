//! Replaces the content of a file.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Replaces the content `old` of a file by `new`, keeping its mode.
///
/// The new file is written beside the old one and renamed, so readers see either the old or the new content, and an
/// interruption leaves the old file.
///
/// # Errors
///
/// If the file is a link (which a rename would replace), its content is no longer `old`, or it cannot be written.
pub(super) fn replace_file(path: &Path, old: &[u8], new: &[u8]) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    anyhow::ensure!(metadata.is_file(), "it is a link; name its target instead");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new()
        .prefix(".tagrelay-")
        .tempfile_in(folder)
        .context("no file can be created beside it")?;
    beside.write_all(new)?;
    // Ignored: only root may change the owner.
    let _ = std::os::unix::fs::fchown(beside.as_file(), Some(metadata.uid()), Some(metadata.gid()));
    beside.as_file().set_permissions(metadata.permissions())?;
    beside.as_file().sync_all()?;
    anyhow::ensure!(fs::read(path)? == old, "it changed after it was read; try again");
    beside.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaced_file_keeps_its_mode_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "old").unwrap();
        for mode in [0o640, 0o755, 0o444] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            replace_file(&file, b"old", b"new").unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mode);
            assert_eq!(fs::read(&file).unwrap(), b"new");
            replace_file(&file, b"new", b"old").unwrap();
        }
        let error = replace_file(&file, b"other", b"new").unwrap_err().to_string();
        assert!(error.contains("changed after"), "{error}");
        let link = folder.path().join("link.yaml");
        std::os::unix::fs::symlink("a.yaml", &link).unwrap();
        let error = replace_file(&link, b"old", b"new").unwrap_err().to_string();
        assert!(error.contains("is a link") && fs::symlink_metadata(&link).unwrap().is_symlink(), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
