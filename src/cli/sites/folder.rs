//! Reads the manifests of a local folder or file, and their sites.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Found, FoundSite, UnreadFile};
use tagrelay_manifest::{ManifestSettings, is_manifest_path, is_overlay_path};

/// Larger files are skipped, as in a config repository.
pub(super) const MAX_FILE_BYTES: u64 = 8 << 20;

/// The argument that means standard input.
pub(super) const STDIN: &str = "-";

/// A manifest.
pub(super) struct Manifest {
    /// The path to show: relative to the folder, or as given.
    pub(super) shown: String,
    /// The path on the disk; `None`: standard input.
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// Reads the sites of a folder and its subfolders, of one file, or of standard input.
///
/// # Errors
///
/// As [`walk`].
pub(super) fn read(place: &Path, manifests: &ManifestSettings) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut notes = Vec::new();
    let mut problems = walk(place, manifests, &mut |file| {
        let reading = tagrelay_manifest::read(&file.shown, &file.bytes, manifests)
            .map_err(|unreadable| unreadable.to_string())?;
        notes.extend(reading.notes.iter().map(|note| UnreadFile {
            path: file.shown.clone(),
            reason: format!("line {}: {}", note.line, note.reason),
        }));
        let site = |site: &tagrelay_manifest::Site| {
            FoundSite::new(&file.shown, site.line, site.format, &site.repository, &site.version)
        };
        found.sites.extend(reading.sites.iter().map(site));
        if is_overlay_path(&file.shown) {
            found.kustomizations.push((file.shown, file.bytes));
        }
        Ok(())
    })?;
    problems.extend(notes);
    found.problems = problems;
    Ok(found)
}

/// Calls `visit` for every manifest of a folder and its subfolders, of one file, or of standard input, in any order. Returns
/// the files that could not be read, and those for which `visit` returned an error.
///
/// Links are not followed: they may lead out of the folder, or in circles. A broken link is a problem.
///
/// # Errors
///
/// If the place itself cannot be read. Unreadable files are returned as problems.
pub(super) fn walk(
    place: &Path,
    manifests: &ManifestSettings,
    take: &mut dyn FnMut(Manifest) -> Result<(), String>,
) -> anyhow::Result<Vec<UnreadFile>> {
    let mut walk = Walk { place, manifests, problems: Vec::new(), take };
    let failed = || format!("{} cannot be read", place.display());
    if place == Path::new(STDIN) {
        let bytes = read_bounded(std::io::stdin().lock()).context("standard input cannot be read")?;
        walk.give(place, STDIN.to_owned(), Ok(bytes));
    } else if fs::metadata(place).with_context(failed)?.is_file() {
        walk.read_file(place, place.display().to_string());
    } else {
        fs::read_dir(place).with_context(failed)?;
        walk.read_all();
    }
    Ok(walk.problems)
}

struct Walk<'a> {
    place: &'a Path,
    manifests: &'a ManifestSettings,
    problems: Vec<UnreadFile>,
    take: &'a mut dyn FnMut(Manifest) -> Result<(), String>,
}

impl Walk<'_> {
    fn read_all(&mut self) {
        let mut folders = vec![self.place.to_path_buf()];
        while let Some(folder) = folders.pop() {
            if let Err(error) = self.read_folder(&folder, &mut folders) {
                self.problem(self.shown(&folder), error.to_string());
            }
        }
    }

    fn read_folder(&mut self, folder: &Path, folders: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // The type of the entry itself, not of a link's target.
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() {
                if entry.file_name() != ".git" {
                    folders.push(path);
                }
            } else if !is_manifest_path(&entry.file_name().to_string_lossy())
                && !self.manifests.rules.iter().any(|rule| rule.takes(&self.shown(&path)))
            {
                // Neither a folder nor a manifest.
            } else if kind.is_file() {
                self.read_file(&path, self.shown(&path));
            } else if kind.is_symlink() && fs::metadata(&path).is_err() {
                self.problem(self.shown(&path), "it is a link that leads nowhere".to_owned());
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path, shown: String) {
        self.give(path, shown, fs::File::open(path).and_then(read_bounded));
    }

    fn give(&mut self, path: &Path, shown: String, bytes: std::io::Result<Vec<u8>>) {
        let taken = match bytes {
            Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => {
                Err(format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20))
            }
            Ok(bytes) => (self.take)(Manifest { shown: shown.clone(), path: path.to_owned(), bytes }),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = taken {
            self.problem(shown, reason);
        }
    }

    fn problem(&mut self, path: String, reason: String) {
        self.problems.push(UnreadFile { path, reason });
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.place).unwrap_or(path).display().to_string()
    }
}

pub(super) fn read_bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: a/b:1\n";

    #[test]
    fn walk_skips_links_and_git_folders() {
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
        assert_eq!(found.problems[1].reason, "it is larger than 8 MiB");
    }

    #[test]
    fn file_is_shown_under_the_given_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        fs::write(&file, POD).unwrap();
        assert_eq!(read(&file, &ManifestSettings::default()).unwrap().sites[0].path, file.display().to_string());
        let error = read(&folder.path().join("absent"), &ManifestSettings::default()).unwrap_err().to_string();
        assert!(error.ends_with("absent cannot be read"), "{error}");
    }
}
