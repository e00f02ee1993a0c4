//! The sites of a folder or a file on this machine.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Found, FoundSite, UnreadFile};
use crate::manifest::{self, ManifestSettings, is_manifest_path};

/// Larger files are not read: manifests are kilobytes.
const MAX_FILE_BYTES: u64 = 5 << 20;

/// Reads a folder with everything below it, or one file. Paths are told from the folder on.
///
/// Links are not followed: they may lead out of the folder, or in circles. One that leads nowhere is told.
///
/// # Errors
///
/// When the place itself cannot be read. What is wrong with a file in it is told among the problems.
pub(super) fn read(place: &Path, manifests: &ManifestSettings) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let failed = || format!("{} cannot be read", place.display());
    if fs::metadata(place).with_context(failed)?.is_file() {
        read_file(place, &place.display().to_string(), manifests, &mut found);
        return Ok(found);
    }
    fs::read_dir(place).with_context(failed)?;
    let mut folders = vec![place.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let shown = |path: &Path| path.strip_prefix(place).unwrap_or(path).display().to_string();
        if let Err(error) = read_folder(&folder, manifests, &mut folders, &mut found, &shown) {
            found.problems.push(UnreadFile { path: shown(&folder), reason: error.to_string() });
        }
    }
    Ok(found)
}

fn read_folder(
    folder: &Path,
    manifests: &ManifestSettings,
    folders: &mut Vec<PathBuf>,
    found: &mut Found,
    shown: &dyn Fn(&Path) -> String,
) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The entry's own kind, not that of what a link leads to.
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            if entry.file_name() != ".git" {
                folders.push(path);
            }
        } else if !is_manifest_path(&entry.file_name().to_string_lossy())
            && !manifests.rules.iter().any(|rule| rule.takes(&shown(&path)))
        {
            // Nothing for us.
        } else if kind.is_file() {
            read_file(&path, &shown(&path), manifests, found);
        } else if kind.is_symlink() && fs::metadata(&path).is_err() {
            found
                .problems
                .push(UnreadFile { path: shown(&path), reason: "it is a link that leads nowhere".to_owned() });
        }
    }
    Ok(())
}

fn read_file(path: &Path, shown: &str, manifests: &ManifestSettings, found: &mut Found) {
    let mut problem = |reason: String| found.problems.push(UnreadFile { path: shown.to_owned(), reason });
    let bytes = match read_bounded(path) {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => {
            return problem(format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20));
        }
        Ok(bytes) => bytes,
        Err(error) => return problem(error.to_string()),
    };
    match manifest::read(shown, &bytes, manifests) {
        Ok(reading) => {
            reading.notes.iter().for_each(|note| problem(format!("line {}: {}", note.line, note.reason)));
            let site = |site: &crate::manifest::Site| {
                FoundSite::new(shown, site.line, site.format, &site.repository, &site.version)
            };
            found.sites.extend(reading.sites.iter().map(site));
        }
        Err(unreadable) => problem(unreadable.to_string()),
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: a/b:1\n";

    #[test]
    fn a_folder_is_walked_without_its_links_and_its_git() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["z.yaml", "deep/er/a.yml", ".git/hidden.yaml", "notes.txt"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), POD).unwrap();
        }
        fs::write(root.join("broken.yaml"), "kind: [\nimage: a/b:1\n").unwrap();
        fs::write(root.join("large.yaml"), vec![b' '; (MAX_FILE_BYTES + 1) as usize]).unwrap();
        std::os::unix::fs::symlink(root, root.join("deep/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("z.yaml"), root.join("link.yaml")).unwrap();
        std::os::unix::fs::symlink(root.join("absent"), root.join("nowhere.yaml")).unwrap();

        let mut found = read(root, &ManifestSettings::default()).unwrap();
        found.sort();
        let sites: Vec<_> = found.sites.iter().map(|site| (site.path.as_str(), site.line)).collect();
        assert_eq!(sites, [("deep/er/a.yml", 5), ("z.yaml", 5)]);
        let problems: Vec<_> = found.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(problems, ["broken.yaml", "large.yaml", "nowhere.yaml"]);
        assert_eq!(found.problems[1].reason, "it is larger than 5 MiB");
    }

    #[test]
    fn a_file_keeps_the_name_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        fs::write(&file, POD).unwrap();
        assert_eq!(read(&file, &ManifestSettings::default()).unwrap().sites[0].path, file.display().to_string());
        let error = read(&folder.path().join("absent"), &ManifestSettings::default()).unwrap_err().to_string();
        assert!(error.ends_with("absent cannot be read"), "{error}");
    }
}
