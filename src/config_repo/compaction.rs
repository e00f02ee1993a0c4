//! Making a mirror small again: everything that its tip consists of in one new pack, written beside the old ones while
//! they are in use.
//!
//! libgit2 collects no garbage, and asking the server for everything once more would hold up pushes for as long as that
//! takes.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::folder::{MirrorError, git_error, open_objects};
use super::object::{CommitId, Kind, ObjectId, commit_tree};
use super::pack::PackWriter;
use super::tree::{self, EntryKind};

/// The folder in the mirror in which the new pack is made.
pub(super) const WORKSHOP: &str = "compaction";

/// Work that makes a mirror small. It needs nothing of the mirror but its folder.
pub(super) struct Compaction {
    pub(super) folder: PathBuf,
    /// The commit of which everything is kept.
    pub(super) tip: CommitId,
    /// What was in the folder of packs when this began, and goes when it has ended.
    pub(super) old: Vec<PathBuf>,
    /// How often the mirror had been thrown away by then.
    pub(super) generation: u64,
}

/// A pack that is to take the place of others.
pub(super) struct Compacted {
    pub(super) generation: u64,
    old: Vec<PathBuf>,
    new: Vec<PathBuf>,
}

impl Compaction {
    /// Writes the new pack. Takes as long as it takes: a second for some ten thousand files.
    pub(super) fn run(self) -> Result<Compacted, MirrorError> {
        let workshop = self.folder.join(WORKSHOP);
        let disk = |source| MirrorError::Disk { path: workshop.clone(), source };
        let git = |source| git_error(&self.folder, source);
        remove_leftovers(&self.folder).map_err(disk)?;
        fs::create_dir_all(&workshop).map_err(disk)?;
        let objects = open_objects(&self.folder)?;
        let wanted = self.reachable(&objects)?;
        let indexer = git2::Indexer::new(None, &workshop, 0, false).map_err(git)?;
        let mut pack = PackWriter::begin(indexer, wanted.len()).map_err(disk)?;
        for (kind, id) in wanted {
            let object = objects.read(id.to_git2().map_err(git)?).map_err(git)?;
            pack.add(kind, object.data()).map_err(disk)?;
        }
        pack.finish().map_err(disk)?.commit().map_err(git)?;
        let new = fs::read_dir(&workshop).map_err(disk)?.flatten().map(|file| file.path()).collect();
        Ok(Compacted { generation: self.generation, old: self.old, new })
    }

    /// Returns every object of the tip, each once.
    fn reachable(&self, objects: &git2::Odb<'_>) -> Result<Vec<(Kind, ObjectId)>, MirrorError> {
        let git = |source| git_error(&self.folder, source);
        let damaged = |reason: &str| git(git2::Error::from_str(reason));
        let commit = objects.read(self.tip.0.to_git2().map_err(git)?).map_err(git)?;
        let root = commit_tree(commit.data()).ok_or_else(|| damaged("its commit has no tree"))?;
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
    /// Puts the new pack into the folder of packs and takes the old ones out.
    pub(super) fn swap(self, packs: &Path) -> std::io::Result<()> {
        // The index comes last: it is what says that there is a pack.
        let mut new = self.new;
        new.sort_by_key(|file| file.extension().is_some_and(|extension| extension == "idx"));
        let mut kept = HashSet::new();
        for file in new {
            let Some(name) = file.file_name() else { continue };
            fs::rename(&file, packs.join(name))?;
            kept.insert(name.to_owned());
        }
        let mut old = self.old;
        // Without its index nobody looks for a pack.
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

/// Removes what was left behind by a process that ended in the middle.
pub(super) fn remove_leftovers(mirror: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(mirror.join(WORKSHOP)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
