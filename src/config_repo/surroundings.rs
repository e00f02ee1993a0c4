//! The files that a kustomization refers to, read from a tree.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;
use tagrelay_git::tree::{EntryKind, MAX_DEPTH, ReadObject, Unreadable, entries};
use tagrelay_git::{Kind, ObjectId};

use super::files::MAX_FILE_BYTES;
use super::paths::Territory;
use tagrelay_manifest::{Beside, Overlay, Surroundings, read_overlay};

/// Reads files of a tree by path. Each folder is read once.
pub(super) struct Around<'a> {
    store: &'a dyn ReadObject,
    territory: &'a Territory,
    root: ObjectId,
    /// Returns the new bytes of a file that was edited but is not in the tree yet.
    written: &'a dyn Fn(&str) -> Option<Bytes>,
    folders: RefCell<HashMap<String, Option<Bytes>>>,
    /// The first unreadable object. Results after it are invalid.
    damage: RefCell<Option<Unreadable>>,
}

/// The tree from the view of one environment.
struct View<'a> {
    around: &'a Around<'a>,
    owner: usize,
}

impl<'a> Around<'a> {
    pub(super) fn new(
        store: &'a dyn ReadObject,
        territory: &'a Territory,
        root: ObjectId,
        written: &'a dyn Fn(&str) -> Option<Bytes>,
    ) -> Self {
        Self { store, territory, root, written, folders: RefCell::default(), damage: RefCell::default() }
    }

    /// Reads the kustomization at a path for an environment, given by its number. `None` if there is no such file.
    pub(super) fn overlay(&self, owner: usize, path: &str) -> Result<Option<Overlay>, Unreadable> {
        let view = View { around: self, owner };
        let overlay = match self.at(path) {
            Beside::File(bytes) if view.is_own(path) => Some(read_overlay(path, &bytes, &view)),
            _ => None,
        };
        match self.damage.take() {
            Some(damage) => Err(damage),
            None => Ok(overlay),
        }
    }

    fn at(&self, path: &str) -> Beside {
        if path.is_empty() {
            return Beside::Folder;
        }
        self.find(path).unwrap_or_else(|damage| {
            self.damage.borrow_mut().get_or_insert(damage);
            Beside::Nothing
        })
    }

    fn find(&self, path: &str) -> Result<Beside, Unreadable> {
        if let Some(bytes) = (self.written)(path) {
            return Ok(Beside::File(bytes.to_vec()));
        }
        let Some((kind, id)) = self.entry(path)? else { return Ok(Beside::Nothing) };
        Ok(match kind {
            EntryKind::Folder => Beside::Folder,
            EntryKind::SymbolicLink | EntryKind::Submodule => Beside::Nothing,
            EntryKind::File if self.store.size(id)? > MAX_FILE_BYTES => Beside::Nothing,
            EntryKind::File => Beside::File(self.store.read(id, Kind::Blob)?.to_vec()),
        })
    }

    fn entry(&self, path: &str) -> Result<Option<(EntryKind, ObjectId)>, Unreadable> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(tree) = self.folder(folder)? else { return Ok(None) };
        self.entry_in(&tree, name)
    }

    fn entry_in(&self, tree: &[u8], name: &str) -> Result<Option<(EntryKind, ObjectId)>, Unreadable> {
        for entry in entries(tree) {
            let entry = entry.map_err(|reason| Unreadable::content(self.root, reason))?;
            if entry.name == name.as_bytes() {
                return Ok(Some((entry.kind, entry.id)));
            }
        }
        Ok(None)
    }

    /// Returns a folder, given by a path of a kustomization.
    fn folder(&self, path: &str) -> Result<Option<Bytes>, Unreadable> {
        if let Some(known) = self.folders.borrow().get(path) {
            return Ok(known.clone());
        }
        let parts = || path.split('/').filter(|part| !part.is_empty());
        // Deeper folders are not indexed either.
        let is_too_deep = parts().nth(MAX_DEPTH).is_some();
        let mut tree = if is_too_deep { None } else { Some(self.store.read(self.root, Kind::Tree)?) };
        for part in parts() {
            let Some(folder) = tree else { break };
            let found = self.entry_in(&folder, part)?.filter(|(kind, _)| *kind == EntryKind::Folder);
            tree = found.map(|(_, id)| self.store.read(id, Kind::Tree)).transpose()?;
        }
        self.folders.borrow_mut().insert(path.to_owned(), tree.clone());
        Ok(tree)
    }
}

impl Surroundings for View<'_> {
    fn at(&self, path: &str) -> Beside {
        self.around.at(path)
    }

    fn is_own(&self, path: &str) -> bool {
        self.around.territory.owners_of(path.as_bytes()).contains(&self.owner)
    }
}
