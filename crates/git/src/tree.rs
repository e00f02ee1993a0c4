//! Tree objects as bytes: reading entries, replacing blobs along a path, walking the difference of two trees.
//!
//! An entry is `mode SP name NUL id`. Replacing a blob changes only the 20 bytes of its id, so unusual names and modes are
//! preserved.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::object::{Delta, Kind, NewObject, ObjectId};
use crate::pack;

/// Deeper folders are not read, because the walk is recursive. Real repositories are far from this depth.
pub const MAX_DEPTH: usize = 128;

/// Smaller trees are sent completely: a delta would save less than the server needs to resolve it.
const MIN_DELTA_BYTES: usize = 512;

/// A source of objects.
pub trait ReadObject {
    /// Returns the content of the object `id`, which must be of the kind.
    ///
    /// # Errors
    ///
    /// If the object is missing, damaged or of another kind.
    fn read(&self, id: ObjectId, kind: Kind) -> Result<Bytes, Unreadable>;

    /// Returns the size of an object in bytes. Reads only the header of an object on disk.
    ///
    /// # Errors
    ///
    /// If the object is missing or damaged.
    fn size(&self, id: ObjectId) -> Result<usize, Unreadable>;
}

/// Why an object cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the object {id} cannot be read: {reason}")]
pub struct Unreadable {
    id: ObjectId,
    reason: String,
    /// Whether a new mirror helps.
    pub cause: Cause,
}

/// Why an object is unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It is missing or damaged in the mirror. A new mirror helps.
    Mirror,
    /// Its content is also invalid on the remote.
    Content,
}

impl Unreadable {
    /// An object whose content is also invalid on the remote.
    pub fn content(id: ObjectId, reason: impl Into<String>) -> Self {
        Self { id, reason: reason.into(), cause: Cause::Content }
    }

    /// An object that is missing or damaged in the mirror.
    pub fn mirror(id: ObjectId, reason: impl Into<String>) -> Self {
        Self { id, reason: reason.into(), cause: Cause::Mirror }
    }
}

/// The kind of an entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A tree.
    Folder,
    /// A blob with any file mode.
    File,
    /// A blob with the path that the link points to.
    SymbolicLink,
    /// A commit of another repository.
    Submodule,
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its kind, from its mode.
    pub kind: EntryKind,
    /// Its name.
    pub name: &'a [u8],
    /// Its object.
    pub id: ObjectId,
    /// The offset of the id in the tree.
    id_offset: usize,
}

/// Returns the entries of a tree. The first `Err` is the last item.
pub fn entries(tree: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, &'static str>> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        if offset >= tree.len() {
            return None;
        }
        let entry = parse_entry(tree, offset);
        offset = entry.as_ref().map_or(tree.len(), |entry| entry.id_offset + 20);
        Some(entry)
    })
}

fn parse_entry(tree: &[u8], offset: usize) -> Result<Entry<'_>, &'static str> {
    let rest = &tree[offset..];
    // A mode has at most six digits, so the search for its end need not look far.
    let space = rest.iter().take(8).position(|byte| *byte == b' ').ok_or("a tree entry has no mode")?;
    let name_end = rest[space..].iter().position(|byte| *byte == 0).ok_or("a tree entry has no end")? + space;
    let id = rest.get(name_end + 1..name_end + 21).and_then(ObjectId::from_bytes).ok_or("a tree entry is truncated")?;
    let kind = match &rest[..space] {
        b"40000" | b"040000" => EntryKind::Folder,
        b"120000" => EntryKind::SymbolicLink,
        b"160000" => EntryKind::Submodule,
        mode if mode.starts_with(b"100") => EntryKind::File,
        _ => return Err("a tree entry has an unknown mode"),
    };
    Ok(Entry { kind, name: &rest[space + 1..name_end], id, id_offset: offset + name_end + 1 })
}

/// A tree after an edit.
pub struct EditedTree {
    /// The new root.
    pub id: ObjectId,
    /// The new trees, the root last.
    pub trees: Vec<NewObject>,
}

/// Replaces blobs. `blobs` maps paths of existing files to new blobs.
///
/// # Errors
///
/// If a tree is unreadable or a path is not a file.
pub fn replace_blobs(
    store: &dyn ReadObject,
    root: ObjectId,
    blobs: &BTreeMap<&[u8], ObjectId>,
) -> Result<EditedTree, Unreadable> {
    let paths: Vec<(&[u8], ObjectId)> = blobs.iter().map(|(path, id)| (*path, *id)).collect();
    let mut trees = Vec::new();
    let id = replace_in(store, root, &paths, &mut trees)?;
    Ok(EditedTree { id, trees })
}

fn replace_in(
    store: &dyn ReadObject,
    tree: ObjectId,
    paths: &[(&[u8], ObjectId)],
    made: &mut Vec<NewObject>,
) -> Result<ObjectId, Unreadable> {
    let old = store.read(tree, Kind::Tree)?;
    let unreadable = |reason: &str| Unreadable::content(tree, reason);
    let mut below: BTreeMap<&[u8], Vec<(&[u8], ObjectId)>> = BTreeMap::new();
    let mut here: BTreeMap<&[u8], ObjectId> = BTreeMap::new();
    for (path, id) in paths {
        match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => below.entry(&path[..slash]).or_default().push((&path[slash + 1..], *id)),
            None => {
                here.insert(path, *id);
            }
        }
    }
    let mut replaced: Vec<(usize, ObjectId)> = Vec::with_capacity(below.len() + here.len());
    for entry in entries(&old) {
        let entry = entry.map_err(unreadable)?;
        let new = match entry.kind {
            EntryKind::File => here.remove(entry.name),
            EntryKind::Folder => match below.remove(entry.name) {
                Some(paths) => Some(replace_in(store, entry.id, &paths, made)?),
                None => None,
            },
            EntryKind::SymbolicLink | EntryKind::Submodule => None,
        };
        if let Some(new) = new.filter(|new| *new != entry.id) {
            replaced.push((entry.id_offset, new));
        }
    }
    if let Some(name) = here.keys().chain(below.keys()).next() {
        return Err(unreadable(&format!("it has no entry `{}`", String::from_utf8_lossy(name))));
    }
    if replaced.is_empty() {
        return Ok(tree);
    }
    let object = splice(tree, &old, &replaced);
    let id = object.id;
    made.push(object);
    Ok(id)
}

fn splice(base: ObjectId, old: &[u8], replaced: &[(usize, ObjectId)]) -> NewObject {
    let mut data = old.to_vec();
    for (offset, id) in replaced {
        data[*offset..*offset + 20].copy_from_slice(id.as_bytes());
    }
    let mut object = NewObject::new(Kind::Tree, data);
    if old.len() >= MIN_DELTA_BYTES {
        let replacements: Vec<(usize, &[u8])> =
            replaced.iter().map(|(offset, id)| (*offset, id.as_bytes().as_slice())).collect();
        let instructions = pack::splice_delta(old, &replacements);
        if instructions.len() < old.len() / 2 {
            object.delta = Some(Delta { base, instructions });
        }
    }
    object
}

/// Receives the difference of two trees.
pub trait Visitor {
    /// Whether to look into this folder. The path ends with `/`.
    fn enters(&mut self, folder: &[u8]) -> bool;
    /// Called for every path whose file, link or submodule was added, removed or changed.
    ///
    /// # Errors
    ///
    /// An error ends the walk.
    fn differs(
        &mut self,
        path: &[u8],
        old: Option<(EntryKind, ObjectId)>,
        new: Option<(EntryKind, ObjectId)>,
    ) -> Result<(), Unreadable>;
    /// Called for a folder below [`MAX_DEPTH`], which is not read. `is_there`: whether the new tree has it.
    fn too_deep(&mut self, folder: &[u8], is_there: bool);
}

/// Walks the difference of two trees. Equal subtrees are not read.
///
/// `budget` limits the number of entries: a few small trees that contain each other many times can expand to more files
/// than any disk holds.
///
/// # Errors
///
/// If a tree is unreadable or the budget is exhausted.
pub fn walk_difference(
    store: &dyn ReadObject,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
    budget: &mut usize,
    visitor: &mut dyn Visitor,
) -> Result<(), Unreadable> {
    let mut path = Vec::new();
    walk(store, old, new, &mut path, 0, budget, visitor)
}

fn walk(
    store: &dyn ReadObject,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
    path: &mut Vec<u8>,
    depth: usize,
    budget: &mut usize,
    visitor: &mut dyn Visitor,
) -> Result<(), Unreadable> {
    if old == new {
        return Ok(());
    }
    if depth > MAX_DEPTH {
        visitor.too_deep(path, new.is_some());
        return Ok(());
    }
    let old_tree = read_tree(store, old)?;
    let new_tree = read_tree(store, new)?;
    let mut old_entries = entries(&old_tree).peekable();
    let mut new_entries = entries(&new_tree).peekable();
    loop {
        let order = match (old_entries.peek(), new_entries.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(Ok(left)), Some(Ok(right))) => tree_order(left, right),
            // Take the invalid entry next; it ends the walk.
            (Some(Err(_)), Some(_)) => Ordering::Less,
            (Some(Ok(_)), Some(Err(_))) => Ordering::Greater,
        };
        let left = if order.is_le() { take(old, old_entries.next())? } else { None };
        let right = if order.is_ge() { take(new, new_entries.next())? } else { None };
        let Some(name) = left.or(right).map(|entry| entry.name) else { return Ok(()) };
        *budget = budget.checked_sub(1).ok_or_else(|| {
            let reason = "the repository expands to too many files";
            Unreadable::content(new.or(old).unwrap_or(ObjectId::ZERO), reason)
        })?;
        if left.map(|entry| (entry.kind, entry.id)) == right.map(|entry| (entry.kind, entry.id)) {
            continue;
        }
        let length = path.len();
        path.extend_from_slice(name);
        step(store, left, right, path, depth, budget, visitor)?;
        path.truncate(length);
    }
}

fn step(
    store: &dyn ReadObject,
    left: Option<Entry<'_>>,
    right: Option<Entry<'_>>,
    path: &mut Vec<u8>,
    depth: usize,
    budget: &mut usize,
    visitor: &mut dyn Visitor,
) -> Result<(), Unreadable> {
    let folder = |entry: Option<Entry<'_>>| entry.filter(|entry| entry.kind == EntryKind::Folder).map(|entry| entry.id);
    let leaf = |entry: Option<Entry<'_>>| {
        entry.filter(|entry| entry.kind != EntryKind::Folder).map(|entry| (entry.kind, entry.id))
    };
    if leaf(left).is_some() || leaf(right).is_some() {
        visitor.differs(path, leaf(left), leaf(right))?;
    }
    let (old, new) = (folder(left), folder(right));
    if old.is_some() || new.is_some() {
        path.push(b'/');
        if visitor.enters(path) {
            walk(store, old, new, path, depth + 1, budget, visitor)?;
        }
    }
    Ok(())
}

fn read_tree(store: &dyn ReadObject, id: Option<ObjectId>) -> Result<Bytes, Unreadable> {
    id.map_or_else(|| Ok(Bytes::new()), |id| store.read(id, Kind::Tree))
}

fn take<'a>(
    tree: Option<ObjectId>,
    entry: Option<Result<Entry<'a>, &'static str>>,
) -> Result<Option<Entry<'a>>, Unreadable> {
    entry.transpose().map_err(|reason| Unreadable::content(tree.unwrap_or(ObjectId::ZERO), reason))
}

/// Compares entries as a tree sorts them: by name, a folder as if its name ended with a slash.
fn tree_order(left: &Entry<'_>, right: &Entry<'_>) -> Ordering {
    let key = |entry: &Entry<'_>| (entry.kind == EntryKind::Folder).then_some(b'/');
    left.name.iter().copied().chain(key(left)).cmp(right.name.iter().copied().chain(key(right)))
}

/// Returns the blob of each path, in the order of the paths. Reads each tree once.
///
/// # Errors
///
/// If a tree is unreadable or a path is not a file.
pub fn find_blobs(store: &dyn ReadObject, root: ObjectId, paths: &[&[u8]]) -> Result<Vec<ObjectId>, Unreadable> {
    let mut found = vec![ObjectId::ZERO; paths.len()];
    let wanted: Vec<(&[u8], usize)> = paths.iter().enumerate().map(|(number, path)| (*path, number)).collect();
    find_in(store, root, &wanted, &mut found)?;
    Ok(found)
}

fn find_in(
    store: &dyn ReadObject,
    tree: ObjectId,
    paths: &[(&[u8], usize)],
    found: &mut [ObjectId],
) -> Result<(), Unreadable> {
    if paths.is_empty() {
        return Ok(());
    }
    let data = store.read(tree, Kind::Tree)?;
    let mut below: HashMap<&[u8], Vec<(&[u8], usize)>> = HashMap::new();
    let mut here: HashMap<&[u8], usize> = HashMap::new();
    for (path, number) in paths {
        match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => below.entry(&path[..slash]).or_default().push((&path[slash + 1..], *number)),
            None => {
                here.insert(path, *number);
            }
        }
    }
    for entry in entries(&data) {
        let entry = entry.map_err(|reason| Unreadable::content(tree, reason))?;
        match entry.kind {
            EntryKind::File => {
                if let Some(number) = here.remove(entry.name) {
                    found[number] = entry.id;
                }
            }
            EntryKind::Folder => {
                if let Some(paths) = below.remove(entry.name) {
                    find_in(store, entry.id, &paths, found)?;
                }
            }
            EntryKind::SymbolicLink | EntryKind::Submodule => {}
        }
    }
    match here.keys().chain(below.keys()).next() {
        Some(name) => Err(Unreadable::content(tree, format!("it has no entry `{}`", String::from_utf8_lossy(name)))),
        None => Ok(()),
    }
}
