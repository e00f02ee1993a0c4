//! Finding and reading the files of a tree that may contain sites.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tagrelay_git::tree::{self, EntryKind, ReadObject, Unreadable, Visitor};
use tagrelay_git::{Kind, Mirror, MirrorError, ObjectId, Reader};

use super::paths::Territory;
use tagrelay_manifest::Reading;

/// Larger files are not read, to limit the use of memory. Manifests have kilobytes.
pub(super) const MAX_FILE_BYTES: usize = 8 << 20;

/// A walk fails above this number of tree entries.
const MAX_ENTRIES: usize = 2_000_000;

/// A walk fails above this number of manifests.
const MAX_MANIFESTS: usize = 300_000;

/// A file that may contain sites.
pub(super) struct File {
    pub(super) path: Vec<u8>,
    /// The environments that read the file in the same way, by number.
    pub(super) owners: Vec<usize>,
    kind: EntryKind,
    id: ObjectId,
}

/// The sites of a file, or the reason why the file is skipped.
pub(super) type FileSites = Result<Reading, String>;

/// The sites of files that were just edited, so that they need not be read again.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(HashMap<ObjectId, KnownFile>);

#[derive(Debug, Clone)]
struct KnownFile {
    path: Arc<str>,
    /// An environment that reads the file in this way, by number.
    owner: usize,
    reading: Reading,
}

impl Known {
    pub(super) fn add(&mut self, id: ObjectId, path: &Arc<str>, owner: usize, reading: Reading) {
        self.0.insert(id, KnownFile { path: path.clone(), owner, reading });
    }

    /// Removes and returns the result that [`read`] would return for a file.
    pub(super) fn take(&mut self, file: &File) -> Option<Reading> {
        let known = self.0.get(&file.id)?;
        let is_same = known.path.as_bytes() == file.path && file.owners.contains(&known.owner);
        if is_same { self.0.remove(&file.id).map(|known| known.reading) } else { None }
    }
}

/// A folder that is too deep to be read, and whether the new tree has it.
pub(super) type TooDeep = (Vec<u8>, bool);

/// The tree that contains a file. A changed file is in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Old,
    New,
}

/// Observes changes of paths, also outside of the environments.
pub(super) trait Watch {
    /// Whether a path below this folder is observed. The folder ends with `/`.
    fn looks_into(&self, folder: &[u8]) -> bool;
    /// Called for an added, removed or changed path.
    fn differs(&mut self, path: &[u8]);
}

/// Observes nothing.
pub(super) struct NoWatch;

impl Watch for NoWatch {
    fn looks_into(&self, _: &[u8]) -> bool {
        false
    }

    fn differs(&mut self, _: &[u8]) {}
}

/// Passes each file that differs between two trees to `found`. Without `old`, passes all files of the new tree.
pub(super) fn find(
    mirror: &Mirror,
    territory: &Territory,
    old: Option<ObjectId>,
    new: ObjectId,
    watch: &mut dyn Watch,
    found: &mut dyn FnMut(Side, File) -> Result<(), Unreadable>,
) -> Result<Vec<TooDeep>, Unreadable> {
    let mut finder = Finder { territory, watch, found, count: 0, too_deep: Vec::new() };
    tree::walk_difference(mirror, old, Some(new), &mut MAX_ENTRIES.clone(), &mut finder)?;
    Ok(finder.too_deep)
}

struct Finder<'a> {
    territory: &'a Territory,
    watch: &'a mut dyn Watch,
    found: &'a mut dyn FnMut(Side, File) -> Result<(), Unreadable>,
    count: usize,
    too_deep: Vec<TooDeep>,
}

impl Visitor for Finder<'_> {
    fn enters(&mut self, folder: &[u8]) -> bool {
        self.territory.may_hold(folder) || self.watch.looks_into(folder)
    }

    fn differs(
        &mut self,
        path: &[u8],
        old: Option<(EntryKind, ObjectId)>,
        new: Option<(EntryKind, ObjectId)>,
    ) -> Result<(), Unreadable> {
        self.watch.differs(path);
        if !self.territory.may_hold_sites(path) {
            return Ok(());
        }
        let owners = self.territory.owners_of(path);
        if owners.is_empty() {
            return Ok(());
        }
        let readers = self.territory.readers(path, owners);
        self.count += 1;
        if self.count > MAX_MANIFESTS {
            let reason = format!("the environments contain more than {MAX_MANIFESTS} manifests");
            return Err(Unreadable::content(new.or(old).map_or(ObjectId::ZERO, |(_, id)| id), reason));
        }
        for (side, entry) in [(Side::Old, old), (Side::New, new)] {
            if let Some((kind, id)) = entry {
                for owners in &readers {
                    (self.found)(side, File { path: path.to_owned(), owners: owners.clone(), kind, id })?;
                }
            }
        }
        Ok(())
    }

    fn too_deep(&mut self, folder: &[u8], is_there: bool) {
        self.too_deep.push((folder.to_owned(), is_there));
    }
}

/// Reads every file of a tree and passes it to `receive`, in any order. Reads on all processors while the tree is walked.
pub(super) fn read_all(
    mirror: &Mirror,
    territory: &Territory,
    tree: ObjectId,
    receive: &(dyn Fn(&File, FileSites) + Sync),
) -> Result<Vec<TooDeep>, Unreadable> {
    let readers = std::thread::available_parallelism().map_or(1, usize::from);
    let stores: Result<Vec<Reader<'_>>, MirrorError> = (0..readers).map(|_| mirror.reader()).collect();
    let stores = stores.map_err(|error| Unreadable::mirror(tree, error.to_string()))?;
    // Bounded, so that the walk cannot fill the memory.
    let (found, waiting) = sync_channel::<File>(256);
    let waiting = Mutex::new(waiting);
    let damage = Mutex::new(None);
    let walked = std::thread::scope(|scope| {
        for store in stores {
            let (waiting, damage) = (&waiting, &damage);
            scope.spawn(move || read_waiting(&store, territory, waiting, receive, damage));
        }
        let walked = find(mirror, territory, None, tree, &mut NoWatch, &mut |_, file| {
            // Cannot fail: the readers outlive the walk.
            let _ = found.send(file);
            Ok(())
        });
        drop(found);
        walked
    });
    match damage.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(damage) => Err(damage),
        None => walked,
    }
}

/// Reads files until the channel is closed. After the first damage, only empties the channel.
fn read_waiting(
    store: &dyn ReadObject,
    territory: &Territory,
    waiting: &Mutex<Receiver<File>>,
    receive: &(dyn Fn(&File, FileSites) + Sync),
    damage: &Mutex<Option<Unreadable>>,
) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(file) = next else { return };
        if damage.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            continue;
        }
        match read(store, territory, &file) {
            Ok(sites) => receive(&file, sites),
            Err(error) => *damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
        }
    }
}

/// Reads the sites of a file.
pub(super) fn read(store: &dyn ReadObject, territory: &Territory, file: &File) -> Result<FileSites, Unreadable> {
    match file.kind {
        EntryKind::SymbolicLink => return Ok(Err("is a symbolic link: links are not followed".to_owned())),
        EntryKind::Submodule => return Ok(Err("is a submodule: submodules are not read".to_owned())),
        EntryKind::File | EntryKind::Folder => {}
    }
    let path = match usable_name(&file.path) {
        Ok(path) => path,
        Err(reason) => return Ok(Err(reason.to_owned())),
    };
    let size = store.size(file.id)?;
    if size > MAX_FILE_BYTES {
        let reason = format!("has {} MiB; files above {} MiB are not read", size >> 20, MAX_FILE_BYTES >> 20);
        return Ok(Err(reason));
    }
    let bytes = store.read(file.id, Kind::Blob)?;
    let Some(owner) = file.owners.first() else { return Ok(Ok(Reading::default())) };
    Ok(tagrelay_manifest::read(path, &bytes, territory.manifests(*owner)).map_err(|error| error.to_string()))
}

/// Returns the path as text, or the reason to skip the file.
///
/// A file is skipped if its path cannot be shown in logs, messages and diffs.
fn usable_name(path: &[u8]) -> Result<&str, &'static str> {
    let path = std::str::from_utf8(path).map_err(|_| "has a name that is not valid UTF-8: rename it")?;
    if path.chars().any(char::is_control) {
        return Err("has control characters in its name: rename it");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git")) {
        return Err("has a path that Git does not allow: rename it");
    }
    Ok(path)
}

/// Returns a path as printable text. Other bytes are escaped.
pub(super) fn shown(path: &[u8]) -> String {
    match usable_name(path) {
        Ok(path) => path.to_owned(),
        Err(_) => path.escape_ascii().to_string(),
    }
}
