//! Repacking a mirror: one new pack with the objects of the tip, written while the old packs are in use.
//!
//! libgit2 has no garbage collection, and a complete fetch would block pushes.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::{MirrorError, git_error};
use super::folder::{COMPACTION_FOLDER, open_objects};
use crate::object::{CommitId, Kind, ObjectId, commit_tree};
use crate::pack::PackWriter;
use crate::tree::{self, EntryKind};

/// The work of repacking a mirror. Uses only its folder, so the mirror stays usable.
pub struct Compaction {
    pub(super) folder: PathBuf,
    /// The commit whose objects are kept.
    pub(super) tip: CommitId,
    /// The pack files to remove at the end.
    pub(super) old: Vec<PathBuf>,
    /// The number of resets of the mirror before.
    pub(super) resets: u64,
}

/// The new pack of a repack, for [`Mirror::adopt`](super::Mirror::adopt).
pub struct Compacted {
    pub(super) resets: u64,
    old: Vec<PathBuf>,
    new: Vec<PathBuf>,
}

impl Compaction {
    /// The number of resets of the mirror when the work was planned.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Writes the new pack. Takes about a second for ten thousand files.
    ///
    /// # Errors
    ///
    /// If an object is unreadable or the folder cannot be written.
    pub fn run(self) -> Result<Compacted, MirrorError> {
        let target = self.folder.join(COMPACTION_FOLDER);
        let disk = |source| MirrorError::Disk { path: target.clone(), source };
        let git = |source| git_error(&self.folder, source);
        remove_leftovers(&self.folder).map_err(disk)?;
        fs::create_dir_all(&target).map_err(disk)?;
        let objects = open_objects(&self.folder)?;
        let wanted = self.reachable(&objects)?;
        let indexer = git2::Indexer::new(None, &target, 0, false).map_err(git)?;
        let mut pack = PackWriter::begin(indexer, wanted.len()).map_err(disk)?;
        for (kind, id) in wanted {
            let object = objects.read(id.to_git2().map_err(git)?).map_err(git)?;
            pack.add(kind, object.data()).map_err(disk)?;
        }
        pack.finish().map_err(disk)?.commit().map_err(git)?;
        let new = fs::read_dir(&target).map_err(disk)?.flatten().map(|file| file.path()).collect();
        Ok(Compacted { resets: self.resets, old: self.old, new })
    }

    /// Returns the objects of the tip, each once.
    fn reachable(&self, objects: &git2::Odb<'_>) -> Result<Vec<(Kind, ObjectId)>, MirrorError> {
        let git = |source| git_error(&self.folder, source);
        let damaged = |reason: &str| git(git2::Error::from_str(reason));
        let commit = objects.read(self.tip.0.to_git2().map_err(git)?).map_err(git)?;
        let root = commit_tree(commit.data()).ok_or_else(|| damaged("the commit has no tree"))?;
        let mut found = vec![(Kind::Commit, self.tip.0), (Kind::Tree, root)];
        let mut seen = HashSet::from([root]);
        let mut next = 1;
        while let Some((kind, id)) = found.get(next).copied() {
            next += 1;
            if kind != Kind::Tree {
                continue;
            }
            let tree = objects.read(id.to_git2().map_err(git)?).map_err(git)?;
            for entry in tree::entries(tree.data()) {
                let entry = entry.map_err(damaged)?;
                let kind = match entry.kind {
                    EntryKind::Folder => Kind::Tree,
                    EntryKind::File | EntryKind::SymbolicLink => Kind::Blob,
                    EntryKind::Submodule => continue,
                };
                if seen.insert(entry.id) {
                    found.push((kind, entry.id));
                }
            }
        }
        Ok(found)
    }
}

impl Compacted {
    /// Moves the new pack into the pack folder and removes the old ones.
    pub(super) fn swap(self, packs: &Path) -> std::io::Result<()> {
        // Move the index last: readers find a pack by its index.
        let mut new = self.new;
        new.sort_by_key(|file| file.extension().is_some_and(|extension| extension == "idx"));
        let mut kept = HashSet::new();
        for file in new {
            let Some(name) = file.file_name() else { continue };
            fs::rename(&file, packs.join(name))?;
            kept.insert(name.to_owned());
        }
        let mut old = self.old;
        // Remove the index first, for the same reason.
        old.sort_by_key(|file| file.extension().is_none_or(|extension| extension != "idx"));
        for file in old.iter().filter(|file| file.file_name().is_some_and(|name| !kept.contains(name))) {
            match fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Removes the files of an interrupted repack.
pub(super) fn remove_leftovers(mirror: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(mirror.join(COMPACTION_FOLDER)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
