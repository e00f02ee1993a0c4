//! The bare mirror of one branch: a cache at depth 1 that can be fetched again at any time.
//!
//! `receive` writes arriving packs, and `compaction` repacks the mirror while it is in use. The folder is a valid bare
//! repository, but only its object database is opened (`folder`), so that no configuration of the user or the system is
//! read.

mod compaction;
mod error;
mod folder;
mod receive;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::object::{CommitId, Kind, NewObject, ObjectId, commit_parents, commit_tree};
use crate::pack::{self, Deltas};
use crate::tree::{self, EntryKind, ReadObject, Unreadable};
use folder::{TIP_REFERENCE, create_layout, lock, refuse_foreign, remove_partial_packs, replace_file, size_of_files};

pub use compaction::{Compacted, Compaction};
pub use error::MirrorError;
pub(crate) use error::git_error;
pub(crate) use folder::open_objects;
pub use folder::refuse_repository;
pub use receive::PackReceiver;

/// The limits of a mirror's size.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Our own objects are written to disk above this size.
    overlay_bytes: usize,
    /// The mirror is repacked above this number of packs: each fetch adds one, and libgit2 searches all of them.
    packs: usize,
    /// The mirror is repacked above three times its first size plus this.
    spare_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { overlay_bytes: 4 << 20, packs: 50, spare_bytes: 64 << 20 }
    }
}

/// The bare mirror of one branch, at depth 1.
///
/// The disk holds the last fetched commit completely. Objects of our own pushes stay in memory (`overlay`) until they grow
/// large, so that a push writes nothing here; after a restart they are fetched again.
pub struct Mirror {
    folder: PathBuf,
    limits: Limits,
    objects: git2::Odb<'static>,
    /// Our own objects that are not on disk yet.
    overlay: HashMap<ObjectId, (Kind, Bytes)>,
    overlay_bytes: usize,
    /// The commit that is complete on disk.
    stored_tip: Option<CommitId>,
    /// The size on disk after the first fetch.
    first_bytes: Option<u64>,
    /// The number of resets.
    resets: u64,
    _lock: File,
}

impl Mirror {
    /// Opens the mirror in `folder`. Creates an empty one if there is none or it is damaged.
    ///
    /// # Errors
    ///
    /// If the folder is in use, contains other files, or cannot be written.
    pub fn open(folder: &Path) -> Result<Self, MirrorError> {
        if folder.to_str().is_none() {
            return Err(MirrorError::NotText(folder.to_owned()));
        }
        let disk = |source| MirrorError::Disk { path: folder.to_owned(), source };
        refuse_foreign(folder)?;
        fs::create_dir_all(folder.parent().unwrap_or(folder)).map_err(disk)?;
        let lock = lock(folder)?;
        if !folder.join("HEAD").is_file() || !folder.join("objects/pack").is_dir() {
            create_layout(folder).map_err(disk)?;
        }
        remove_partial_packs(&folder.join("objects/pack"));
        compaction::remove_leftovers(folder).map_err(disk)?;
        let mut mirror = Self {
            folder: folder.to_owned(),
            limits: Limits::default(),
            objects: open_objects(folder)?,
            overlay: HashMap::new(),
            overlay_bytes: 0,
            stored_tip: None,
            first_bytes: None,
            resets: 0,
            _lock: lock,
        };
        match mirror.read_tip() {
            Ok(tip) => mirror.stored_tip = tip,
            Err(damage) => mirror.reset(&damage)?,
        }
        if mirror.stored_tip.is_some() {
            mirror.first_bytes = Some(mirror.bytes_on_disk());
        }
        Ok(mirror)
    }

    /// The commit that is complete on disk. Only this one may be named to a server as known.
    pub fn stored_tip(&self) -> Option<CommitId> {
        self.stored_tip
    }

    /// The number of resets.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Deletes all objects. The next fetch is complete.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn reset(&mut self, reason: &str) -> Result<(), MirrorError> {
        tracing::warn!(mirror = %self.folder.display(), "resetting the mirror: {reason}");
        // The removal may fail halfway.
        self.stored_tip = None;
        let disk = |source| MirrorError::Disk { path: self.folder.clone(), source };
        // Drop the memory maps of the packs before their files.
        self.objects = git2::Odb::new().map_err(|source| git_error(&self.folder, source))?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
            _ => {}
        }
        self.resets += 1;
        create_layout(&self.folder).map_err(disk)?;
        self.objects = open_objects(&self.folder)?;
        self.overlay.clear();
        self.overlay_bytes = 0;
        self.stored_tip = None;
        self.first_bytes = None;
        Ok(())
    }

    /// Returns the work that repacks the mirror; `None` if it is within its limits.
    pub fn compaction(&self) -> Option<Compaction> {
        let (tip, first_bytes) = (self.stored_tip?, self.first_bytes?);
        // A pack that is being received has another name.
        let packs = self.packs().filter(|file| file.file_name().as_encoded_bytes().starts_with(b"pack-"));
        let old: Vec<PathBuf> = packs.map(|file| file.path()).collect();
        // Each pack has an index file.
        let is_overgrown = old.len() > 2 * self.limits.packs
            || self.bytes_on_disk() > first_bytes.saturating_mul(3).saturating_add(self.limits.spare_bytes);
        is_overgrown.then(|| Compaction { folder: self.folder.clone(), tip, old, resets: self.resets })
    }

    /// Replaces the packs by the result of a repack. No pack may be received at the same time: its deltas may refer to
    /// objects of the removed packs.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn adopt(&mut self, compacted: Compacted) -> Result<(), MirrorError> {
        if compacted.resets != self.resets {
            // The mirror was reset in the meantime, so it is small.
            return Ok(());
        }
        let packs = self.pack_folder();
        compacted.swap(&packs).map_err(|source| MirrorError::Disk { path: packs, source })?;
        self.objects = open_objects(&self.folder)?;
        self.first_bytes = Some(self.bytes_on_disk());
        Ok(())
    }

    /// Starts to receive a pack.
    pub fn receive_pack(&self) -> PackReceiver {
        PackReceiver::start(self.folder.clone())
    }

    /// Makes a commit the tip, whose objects must all be on disk. Drops our own objects in memory.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn store_tip(&mut self, tip: CommitId) -> Result<(), MirrorError> {
        self.objects.refresh().map_err(|source| git_error(&self.folder, source))?;
        self.overlay.clear();
        self.overlay_bytes = 0;
        self.write_tip(tip)
    }

    /// Makes the objects of new packs readable, after a fetch.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn find_new_packs(&self) -> Result<(), MirrorError> {
        self.objects.refresh().map_err(|source| git_error(&self.folder, source))
    }

    /// Adds the objects of our own commits, in memory.
    pub fn add(&mut self, objects: Vec<NewObject>) {
        for object in objects {
            self.overlay_bytes += object.data.len();
            self.overlay.insert(object.id, (object.kind, object.data));
        }
    }

    /// Writes our own objects of the commit `tip` to disk if they are large. Returns whether the disk was written.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn settle(&mut self, tip: CommitId) -> Result<bool, MirrorError> {
        if self.overlay_bytes <= self.limits.overlay_bytes {
            return Ok(false);
        }
        self.drop_unreachable(tip);
        if self.overlay_bytes <= self.limits.overlay_bytes / 2 {
            return Ok(false);
        }
        self.write_overlay(tip).map(|()| true)
    }

    /// Drops our own objects that later commits replaced.
    fn drop_unreachable(&mut self, tip: CommitId) {
        let mut reachable = HashSet::new();
        let mut waiting = vec![tip.0];
        while let Some(id) = waiting.pop() {
            let Some((kind, data)) = self.overlay.get(&id) else { continue };
            if !reachable.insert(id) {
                continue;
            }
            match kind {
                Kind::Blob => {}
                Kind::Commit => waiting.extend(commit_tree(data)),
                Kind::Tree => waiting.extend(tree::entries(data).flatten().map(|entry| entry.id)),
            }
        }
        self.overlay.retain(|id, _| reachable.contains(id));
        self.overlay_bytes = self.overlay.values().map(|(_, data)| data.len()).sum();
    }

    fn write_overlay(&mut self, tip: CommitId) -> Result<(), MirrorError> {
        let objects: Vec<NewObject> = self
            .overlay
            .iter()
            .map(|(id, (kind, data))| NewObject { id: *id, kind: *kind, data: data.clone(), delta: None })
            .collect();
        let disk = |source| MirrorError::Disk { path: self.folder.clone(), source };
        let pack = pack::write(&objects, Deltas::Whole).map_err(disk)?;
        let git = |source| git_error(&self.folder, source);
        let mut indexer = git2::Indexer::new(None, &self.pack_folder(), 0, false).map_err(git)?;
        indexer.write_all(&pack).map_err(disk)?;
        indexer.commit().map_err(git)?;
        self.store_tip(tip)
    }

    fn write_tip(&mut self, tip: CommitId) -> Result<(), MirrorError> {
        let disk = |source| MirrorError::Disk { path: self.folder.clone(), source };
        // Write `shallow` first: Git's tools accept an extra entry there, but not a missing one.
        replace_file(&self.folder.join("shallow"), &format!("{tip}\n")).map_err(disk)?;
        replace_file(&self.folder.join(TIP_REFERENCE), &format!("{tip}\n")).map_err(disk)?;
        self.stored_tip = Some(tip);
        self.first_bytes.get_or_insert_with(|| size_of_files(&self.folder.join("objects/pack")));
        Ok(())
    }

    /// Returns the tip after checking that all its objects exist. `Err` describes the damage.
    fn read_tip(&self) -> Result<Option<CommitId>, String> {
        let text = match fs::read_to_string(self.folder.join(TIP_REFERENCE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("the reference of the tip cannot be read: {error}")),
        };
        let tip =
            text.trim().parse::<CommitId>().map_err(|error| format!("the reference of the tip is damaged: {error}"))?;
        let commit = self.read(tip.0, Kind::Commit).map_err(|error| error.to_string())?;
        let mut waiting = vec![commit_tree(&commit).ok_or("the commit has no tree")?];
        let mut seen = HashSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let tree = self.read(id, Kind::Tree).map_err(|error| error.to_string())?;
            for entry in tree::entries(&tree) {
                let entry = entry?;
                match entry.kind {
                    EntryKind::Folder => waiting.push(entry.id),
                    EntryKind::File | EntryKind::SymbolicLink => {
                        let id = entry.id.to_git2().map_err(|error| error.message().to_owned())?;
                        if !self.objects.exists(id) {
                            return Err(format!("the file object {} is missing", entry.id));
                        }
                    }
                    EntryKind::Submodule => {}
                }
            }
        }
        Ok(Some(tip))
    }

    /// Returns the tree of a commit.
    ///
    /// # Errors
    ///
    /// If the commit is unreadable.
    pub fn tree_of(&self, commit: CommitId) -> Result<ObjectId, Unreadable> {
        let data = self.read(commit.0, Kind::Commit)?;
        commit_tree(&data).ok_or_else(|| Unreadable::content(commit.0, "the commit has no tree"))
    }

    /// Returns the parents of a commit.
    ///
    /// # Errors
    ///
    /// If the commit is unreadable.
    pub fn parents_of(&self, commit: CommitId) -> Result<Vec<CommitId>, Unreadable> {
        Ok(commit_parents(&self.read(commit.0, Kind::Commit)?))
    }

    fn pack_folder(&self) -> PathBuf {
        self.folder.join("objects/pack")
    }

    fn packs(&self) -> impl Iterator<Item = fs::DirEntry> {
        fs::read_dir(self.pack_folder()).into_iter().flatten().flatten()
    }

    fn bytes_on_disk(&self) -> u64 {
        size_of_files(&self.pack_folder())
    }
}

impl Mirror {
    /// Returns a reader for one thread. libgit2 inflates one object at a time per object database, so each reading thread
    /// needs its own.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn reader(&self) -> Result<Reader<'_>, MirrorError> {
        Ok(Reader { mirror: self, objects: open_objects(&self.folder)? })
    }

    fn read_from(&self, objects: &git2::Odb<'_>, id: ObjectId, kind: Kind) -> Result<Bytes, Unreadable> {
        let unreadable = |error: git2::Error| Unreadable::mirror(id, error.message());
        let (found, data) = match self.overlay.get(&id) {
            Some((kind, data)) => (Some(*kind), data.clone()),
            None => {
                let name = id.to_git2().map_err(unreadable)?;
                let object = objects.read(name).map_err(unreadable)?;
                (Kind::from_git2(object.kind()), Bytes::copy_from_slice(object.data()))
            }
        };
        if found == Some(kind) {
            Ok(data)
        } else {
            Err(Unreadable::content(id, format!("it is not a {}", kind.name())))
        }
    }

    fn size_from(&self, objects: &git2::Odb<'_>, id: ObjectId) -> Result<usize, Unreadable> {
        if let Some((_, data)) = self.overlay.get(&id) {
            return Ok(data.len());
        }
        let unreadable = |error: git2::Error| Unreadable::mirror(id, error.message());
        let (size, _) = objects.read_header(id.to_git2().map_err(unreadable)?).map_err(unreadable)?;
        Ok(size)
    }
}

impl ReadObject for Mirror {
    fn read(&self, id: ObjectId, kind: Kind) -> Result<Bytes, Unreadable> {
        self.read_from(&self.objects, id, kind)
    }

    fn size(&self, id: ObjectId) -> Result<usize, Unreadable> {
        self.size_from(&self.objects, id)
    }
}

/// The objects of a mirror, for one thread.
pub struct Reader<'a> {
    mirror: &'a Mirror,
    objects: git2::Odb<'static>,
}

impl ReadObject for Reader<'_> {
    fn read(&self, id: ObjectId, kind: Kind) -> Result<Bytes, Unreadable> {
        self.mirror.read_from(&self.objects, id, kind)
    }

    fn size(&self, id: ObjectId) -> Result<usize, Unreadable> {
        self.mirror.size_from(&self.objects, id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The number of files in the folder of each team.
    const SERVICES: usize = 100;

    /// A mirror that gets commits of one changed file each, as a branch writer makes them.
    struct Growing {
        mirror: Mirror,
        tip: CommitId,
        tree: ObjectId,
        teams: usize,
        commits: usize,
    }

    impl Growing {
        fn start(folder: &Path, teams: usize, limits: Limits) -> Self {
            let mut mirror = Mirror::open(folder).unwrap();
            mirror.limits = limits;
            let mut objects = Vec::new();
            let mut tree = |entries: Vec<(&str, String, ObjectId)>| {
                let mut data = Vec::new();
                for (mode, name, id) in entries {
                    data.extend_from_slice(format!("{mode} {name}\0").as_bytes());
                    data.extend_from_slice(id.as_bytes());
                }
                let tree = NewObject::new(Kind::Tree, data);
                objects.push(tree.clone());
                tree.id
            };
            let first = blob(0);
            let services = (0..SERVICES).map(|service| ("100644", format!("{service:02}.yaml"), first.id)).collect();
            let team = tree(services);
            let root = tree((0..teams).map(|number| ("40000", format!("team-{number:03}"), team)).collect());
            let commit = commit(root, ObjectId::ZERO);
            objects.extend([first, commit.clone()]);
            mirror.add(objects);
            let tip = CommitId(commit.id);
            mirror.write_overlay(tip).unwrap();
            Self { mirror, tip, tree: root, teams, commits: 0 }
        }

        /// Adds a commit, and repacks the mirror if it asks for it. Returns whether it did.
        fn commit(&mut self) -> bool {
            self.commits += 1;
            let service = self.commits.wrapping_mul(7919) % (self.teams * SERVICES);
            let path = format!("team-{:03}/{:02}.yaml", service / SERVICES, service % SERVICES);
            let new = blob(self.commits);
            let edited =
                tree::replace_blobs(&self.mirror, self.tree, &BTreeMap::from([(path.as_bytes(), new.id)])).unwrap();
            let commit = commit(edited.id, self.tip.0);
            (self.tip, self.tree) = (CommitId(commit.id), edited.id);
            self.mirror.add(edited.trees.into_iter().chain([new, commit]).collect());
            if !self.mirror.settle(self.tip).unwrap() {
                return false;
            }
            let Some(compaction) = self.mirror.compaction() else { return false };
            let compacted = compaction.run().unwrap();
            self.mirror.adopt(compacted).unwrap();
            true
        }
    }

    fn blob(number: usize) -> NewObject {
        let line = format!("# {:x}\n", hash_of(number));
        NewObject::new(Kind::Blob, format!("image: uyou/service:{number}\n{}", line.repeat(40)))
    }

    /// A hash, so that blobs do not compress well.
    fn hash_of(number: usize) -> u128 {
        (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn commit(tree: ObjectId, parent: ObjectId) -> NewObject {
        let person = "A <a@example.com> 0 +0000";
        NewObject::new(
            Kind::Commit,
            format!("tree {tree}\nparent {parent}\nauthor {person}\ncommitter {person}\n\nx\n"),
        )
    }

    /// Makes 1,000 commits with limits 64 times tighter. `TAGRELAY_COMMITS=100000` makes that many with the real limits and
    /// 10,000 files, and prints the sizes.
    #[test]
    fn mirror_stays_within_limits_after_many_commits() {
        let asked: Option<usize> = std::env::var("TAGRELAY_COMMITS").ok().and_then(|text| text.parse().ok());
        let tight = Limits { overlay_bytes: 64 << 10, packs: 8, spare_bytes: 1 << 20 };
        let limits = if asked.is_some() { Limits::default() } else { tight };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirror");
        let teams = if asked.is_some() { 100 } else { 10 };
        let mut growing = Growing::start(&path, teams, limits);
        let first = growing.mirror.bytes_on_disk();
        let (mut most_files, mut most_bytes, mut repacks) = (0, 0, 0);
        let begun = std::time::Instant::now();
        for _ in 0..asked.unwrap_or(1_000) {
            repacks += usize::from(growing.commit());
            most_files = most_files.max(growing.mirror.packs().count());
            most_bytes = most_bytes.max(growing.mirror.bytes_on_disk());
        }
        let (files, bytes) = (growing.mirror.packs().count(), growing.mirror.bytes_on_disk());
        println!(
            "{} commits in {:?}: first {first} bytes, at most {most_bytes} in {most_files} files, now {bytes} in {files}; \
             {repacks} repacks",
            growing.commits,
            begun.elapsed()
        );
        assert!(most_files <= 2 * limits.packs + 4, "{most_files} files");
        assert!(asked.is_some() || repacks >= 3, "{repacks} repacks");
        // The disk holds a complete repository; newer objects are in memory.
        let stored = growing.mirror.stored_tip().unwrap();
        let output = std::process::Command::new("git")
            .args(["fsck", "--strict", "--no-dangling"])
            .current_dir(&path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        growing.mirror.read(growing.tree, Kind::Tree).unwrap();
        drop(growing);
        assert_eq!(Mirror::open(&path).unwrap().stored_tip(), Some(stored));
    }
}
