use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::files::{self, File, FileSites, Side, TooDeep, shown};
use super::mirror::Mirror;
use super::object::{CommitId, ObjectId};
use super::paths::Territory;
use super::tree::{self, Unreadable};
use crate::image::{Repository, Version};
use crate::manifest::Format;

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
    /// Files that are left alone, whole or at some line, in order of path.
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

/// A file that is left alone, or something in it.
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
    let environments = Mutex::new(vec![EnvironmentSites::default(); territory.names().len()]);
    let locked = || environments.lock().unwrap_or_else(PoisonError::into_inner);
    let too_deep = files::read_all(mirror, territory, tree, &|file, sites| {
        let mut environments = locked();
        file.owners.iter().for_each(|owner| environments[*owner].note(&file.path, &sites));
    })?;
    for (folder, _) in &too_deep {
        territory.holders_of(folder).for_each(|owner| locked()[owner].note_too_deep(folder, true));
    }
    let environments = environments.into_inner().unwrap_or_else(PoisonError::into_inner);
    let environments = territory.names().iter().cloned().zip(environments.into_iter().map(Arc::new)).collect();
    Ok(Snapshot { tip, environments })
}

/// What differs between the indexes of two trees.
pub(super) struct Update {
    gone: Vec<(File, FileSites)>,
    there: Vec<(File, FileSites)>,
    too_deep: Vec<TooDeep>,
}

/// Reads the files that differ between two trees, and nothing else.
///
/// What stood in a file before is read from its old bytes: no list of sites by file is kept.
pub(super) fn difference(
    mirror: &Mirror,
    territory: &Territory,
    old: ObjectId,
    new: ObjectId,
) -> Result<Update, Unreadable> {
    let (mut gone, mut there) = (Vec::new(), Vec::new());
    let too_deep = files::find(mirror, territory, Some(old), new, &mut |side, file| {
        let sites = files::read(mirror, territory, &file)?;
        match side {
            Side::Old => gone.push((file, sites)),
            Side::New => there.push((file, sites)),
        }
        Ok(())
    })?;
    Ok(Update { gone, there, too_deep })
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
        if !matches!(read, Ok(reading) if reading.notes.is_empty()) {
            self.problems.retain(|problem| problem.path != name);
        }
        for site in read.iter().flat_map(|reading| &reading.sites) {
            let Some(places) = self.sites.get_mut(&site.repository) else { continue };
            Arc::make_mut(places).retain(|place| *place.path != *name);
            if places.is_empty() {
                self.sites.remove(&site.repository);
            }
        }
    }

    /// Puts a file in.
    fn note(&mut self, path: &[u8], read: &FileSites) {
        let found = match read {
            Err(reason) => return self.keep(FileProblem { path: shown(path), reason: reason.clone() }),
            Ok(reading) => reading,
        };
        for note in &found.notes {
            let reason = format!("line {}: {}", note.line, note.reason);
            self.keep(FileProblem { path: shown(path), reason });
        }
        if found.sites.is_empty() {
            return;
        }
        let path: Arc<str> = shown(path).into();
        for site in &found.sites {
            let (version, format) = (site.version.clone(), site.format);
            let place = Place { path: path.clone(), line: site.line, format, version };
            let places = match self.sites.get_mut(&site.repository) {
                Some(places) => Arc::make_mut(places),
                // Most images stand in one place, and a list that grows by itself makes room for four.
                None => Arc::make_mut(
                    self.sites.entry(site.repository.clone()).or_insert_with(|| Arc::new(Vec::with_capacity(1))),
                ),
            };
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
