use std::collections::BTreeMap;
use std::sync::Arc;

use super::mirror::Mirror;
use super::object::{CommitId, Kind, ObjectId};
use super::paths::Territory;
use super::tree::{self, EntryKind, ReadObject as _, Unreadable, Visitor};
use crate::image::{Repository, Version};
use crate::manifest::{self, Format, Site};

/// Larger files are not read: manifests are kilobytes, and memory is for all of them.
const MAX_FILE_BYTES: usize = 8 << 20;

/// How many entries of trees one update of the index looks at, and how many manifests it keeps in mind, before it
/// gives up on the repository.
const MAX_ENTRIES: usize = 2_000_000;
const MAX_MANIFESTS: usize = 300_000;

/// Below this many files one thread reads them all.
const FILES_PER_THREAD: usize = 256;

/// What a branch runs at one commit: every site of every environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit that was read.
    pub tip: CommitId,
    /// The environments of the settings, by name.
    pub environments: BTreeMap<String, Arc<EnvironmentSites>>,
}

/// The sites of one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentSites {
    /// Where each image is named, in order of path and line; never empty lists.
    pub sites: BTreeMap<Repository, Arc<Vec<Place>>>,
    /// Files that may hold sites and could not be read, in order of path.
    pub problems: Vec<FileProblem>,
}

/// A site and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file; the sites of one file share it.
    pub path: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// What kind of site it is.
    pub format: Format,
    /// What it names.
    pub version: Version,
}

/// A file that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file, with escapes where its name cannot be shown.
    pub path: String,
    /// Why it is left alone.
    pub reason: String,
}

/// Reads every file of the tree that an environment holds.
pub(super) fn build(
    mirror: &Mirror,
    territory: &Territory,
    tree: ObjectId,
    tip: CommitId,
) -> Result<Snapshot, Unreadable> {
    let found = Difference::walk(mirror, territory, None, tree)?;
    let mut environments = vec![EnvironmentSites::default(); territory.names().len()];
    read_all(mirror, &found.there, |file, read| {
        file.owners.iter().for_each(|owner| environments[*owner].note(&file.path, &read));
    })?;
    for (folder, _) in &found.too_deep {
        territory.holders_of(folder).for_each(|owner| environments[owner].note_too_deep(folder, true));
    }
    let environments = territory.names().iter().cloned().zip(environments.into_iter().map(Arc::new)).collect();
    Ok(Snapshot { tip, environments })
}

/// What differs between the indexes of two trees.
pub(super) struct Update {
    gone: Vec<(File, FileSites)>,
    there: Vec<(File, FileSites)>,
    too_deep: Vec<(Vec<u8>, bool)>,
}

/// The sites of a file, or why it is left alone.
type FileSites = Result<Vec<Site>, String>;

/// Reads the files that differ between two trees, and nothing else.
///
/// What stood in a file before is read from its old bytes: no list of sites by file is kept.
pub(super) fn difference(
    mirror: &Mirror,
    territory: &Territory,
    old: ObjectId,
    new: ObjectId,
) -> Result<Update, Unreadable> {
    let found = Difference::walk(mirror, territory, Some(old), new)?;
    let read_files = |files: Vec<File>| -> Result<Vec<(File, FileSites)>, Unreadable> {
        files.into_iter().map(|file| read(mirror, &file).map(|sites| (file, sites))).collect()
    };
    Ok(Update { gone: read_files(found.gone)?, there: read_files(found.there)?, too_deep: found.too_deep })
}

impl Update {
    /// Brings the index of the old tree to the new one, which is that of the commit `tip`.
    pub(super) fn apply(self, snapshot: &mut Snapshot, territory: &Territory, tip: CommitId) {
        snapshot.tip = tip;
        let mut change = |owner: usize, change: &mut dyn FnMut(&mut EnvironmentSites)| {
            let name = &territory.names()[owner];
            if let Some(sites) = snapshot.environments.get_mut(name) {
                change(Arc::make_mut(sites));
            }
        };
        for (file, read) in &self.gone {
            file.owners.iter().for_each(|owner| change(*owner, &mut |sites| sites.forget(&file.path, read)));
        }
        for (file, read) in &self.there {
            file.owners.iter().for_each(|owner| change(*owner, &mut |sites| sites.note(&file.path, read)));
        }
        for (folder, is_there) in &self.too_deep {
            let owners = territory.holders_of(folder);
            owners.for_each(|owner| change(owner, &mut |sites| sites.note_too_deep(folder, *is_there)));
        }
    }
}

impl EnvironmentSites {
    /// Takes a file out.
    fn forget(&mut self, path: &[u8], read: &FileSites) {
        let name = shown(path);
        match read {
            Err(_) => self.problems.retain(|problem| problem.path != name),
            Ok(found) => {
                for site in found {
                    let Some(places) = self.sites.get_mut(&site.repository) else { continue };
                    Arc::make_mut(places).retain(|place| *place.path != *name);
                    if places.is_empty() {
                        self.sites.remove(&site.repository);
                    }
                }
            }
        }
    }

    /// Puts a file in.
    fn note(&mut self, path: &[u8], read: &FileSites) {
        let found = match read {
            Err(reason) => return self.keep(FileProblem { path: shown(path), reason: reason.clone() }),
            Ok(found) if found.is_empty() => return,
            Ok(found) => found,
        };
        let path: Arc<str> = shown(path).into();
        for site in found {
            let (version, format) = (site.version.clone(), site.format);
            let place = Place { path: path.clone(), line: site.line, format, version };
            let places = match self.sites.get_mut(&site.repository) {
                Some(places) => places,
                None => self.sites.entry(site.repository.clone()).or_default(),
            };
            let places = Arc::make_mut(places);
            let behind = places.partition_point(|known| (&known.path, known.line) <= (&place.path, place.line));
            places.insert(behind, place);
        }
    }

    fn note_too_deep(&mut self, folder: &[u8], is_there: bool) {
        let path = shown(folder);
        self.problems.retain(|problem| problem.path != path);
        if is_there {
            let reason = format!("the folder lies deeper than {} levels and is not read", tree::MAX_DEPTH);
            self.keep(FileProblem { path, reason });
        }
    }

    fn keep(&mut self, problem: FileProblem) {
        if !self.problems.contains(&problem) {
            let behind = self.problems.partition_point(|known| known.path <= problem.path);
            self.problems.insert(behind, problem);
        }
    }
}

/// A file that may hold sites.
struct File {
    path: Vec<u8>,
    kind: EntryKind,
    id: ObjectId,
    owners: Vec<usize>,
}

/// What the walk over the difference of two trees finds.
struct Difference<'a> {
    territory: &'a Territory,
    gone: Vec<File>,
    there: Vec<File>,
    too_deep: Vec<(Vec<u8>, bool)>,
}

impl<'a> Difference<'a> {
    fn walk(
        mirror: &Mirror,
        territory: &'a Territory,
        old: Option<ObjectId>,
        new: ObjectId,
    ) -> Result<Self, Unreadable> {
        let mut found = Self { territory, gone: Vec::new(), there: Vec::new(), too_deep: Vec::new() };
        let mut budget = MAX_ENTRIES;
        tree::walk_difference(mirror, old, Some(new), &mut budget, &mut found)?;
        Ok(found)
    }
}

impl Visitor for Difference<'_> {
    fn enters(&mut self, folder: &[u8]) -> bool {
        self.territory.may_hold(folder)
    }

    fn differs(
        &mut self,
        path: &[u8],
        old: Option<(EntryKind, ObjectId)>,
        new: Option<(EntryKind, ObjectId)>,
    ) -> Result<(), Unreadable> {
        if !manifest::is_manifest_path(&String::from_utf8_lossy(path)) {
            return Ok(());
        }
        let owners = self.territory.owners_of(path);
        if owners.is_empty() {
            return Ok(());
        }
        if self.there.len().max(self.gone.len()) >= MAX_MANIFESTS {
            let reason = format!("the environments hold more than {MAX_MANIFESTS} manifests");
            return Err(Unreadable::content(new.or(old).map_or(ObjectId::ZERO, |(_, id)| id), reason));
        }
        let file = |(kind, id)| File { path: path.to_owned(), kind, id, owners: owners.clone() };
        self.gone.extend(old.map(file));
        self.there.extend(new.map(file));
        Ok(())
    }

    fn too_deep(&mut self, folder: &[u8], is_there: bool) {
        self.too_deep.push((folder.to_owned(), is_there));
    }
}

/// Reads files on as many threads as there are processors and hands each to `note`, in no particular order.
fn read_all(mirror: &Mirror, files: &[File], mut note: impl FnMut(&File, FileSites)) -> Result<(), Unreadable> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(files.len() / FILES_PER_THREAD);
    if threads < 2 {
        for file in files {
            note(file, read(mirror, file)?);
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        // A bounded channel: what is read is noted at once and does not pile up.
        let (results, noted) = std::sync::mpsc::sync_channel(64);
        for part in files.chunks(files.len().div_ceil(threads)) {
            let results = results.clone();
            scope.spawn(move || {
                for file in part {
                    let read = read(mirror, file);
                    let broken = read.is_err();
                    // The receiver is gone after the first damage, which is all that is reported.
                    if results.send((file, read)).is_err() || broken {
                        return;
                    }
                }
            });
        }
        drop(results);
        for (file, read) in noted {
            note(file, read?);
        }
        Ok(())
    })
}

/// Returns the sites of a file, or why it is left alone.
fn read(mirror: &Mirror, file: &File) -> Result<FileSites, Unreadable> {
    match file.kind {
        EntryKind::SymbolicLink => return Ok(Err("is a symbolic link, which is never followed".to_owned())),
        EntryKind::Submodule => return Ok(Err("is a submodule, which is never followed".to_owned())),
        EntryKind::File | EntryKind::Folder => {}
    }
    let path = match usable_name(&file.path) {
        Ok(path) => path,
        Err(reason) => return Ok(Err(reason.to_owned())),
    };
    let size = mirror.size(file.id)?;
    if size > MAX_FILE_BYTES {
        let reason = format!("has {} MiB; files above {} MiB are not read", size >> 20, MAX_FILE_BYTES >> 20);
        return Ok(Err(reason));
    }
    let bytes = mirror.read(file.id, Kind::Blob)?;
    if !manifest::may_hold_sites(&bytes) {
        return Ok(Ok(Vec::new()));
    }
    Ok(manifest::scan(path, &bytes).map_err(|error| error.to_string()))
}

/// A name that cannot be written into a log, a message or a diff is not managed; it stays as it is.
fn usable_name(path: &[u8]) -> Result<&str, &'static str> {
    let path = std::str::from_utf8(path).map_err(|_| "has a name that is not valid UTF-8: rename it")?;
    if path.chars().any(char::is_control) {
        return Err("has control characters in its name: rename it");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git")) {
        return Err("has a part in its path that Git does not allow: rename it");
    }
    Ok(path)
}

/// Returns a path as people can see it: what is no text, or no visible text, is escaped.
fn shown(path: &[u8]) -> String {
    match usable_name(path) {
        Ok(path) => path.to_owned(),
        Err(_) => path.escape_ascii().to_string(),
    }
}
