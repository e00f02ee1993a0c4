use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tagrelay_git::tree::{self, Unreadable};
use tagrelay_git::{CommitId, Mirror, ObjectId};

use super::files::{self, File, FileSites, Known, Side, TooDeep, Watch, shown};
use super::paths::Territory;
use super::surroundings::Around;
use crate::image::{Repository, Version};
use crate::manifest::{Format, Inherited, Note, Overlay, Overlays, is_overlay_path};

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
    /// What its kustomizations take from elsewhere.
    overlays: Arc<Overlays>,
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
    let kustomizations = Mutex::new(BTreeSet::new());
    let locked = || environments.lock().unwrap_or_else(PoisonError::into_inner);
    let too_deep = files::read_all(mirror, territory, tree, &|file, sites| {
        if is_overlay_path(&shown(&file.path)) {
            let mut kustomizations = kustomizations.lock().unwrap_or_else(PoisonError::into_inner);
            kustomizations.extend(file.owners.iter().map(|owner| (*owner, shown(&file.path))));
        }
        let mut environments = locked();
        file.owners.iter().for_each(|owner| environments[*owner].note(&file.path, &sites));
    })?;
    for (folder, _) in &too_deep {
        territory.holders_of(folder).for_each(|owner| locked()[owner].note_too_deep(folder, true));
    }
    let mut environments = environments.into_inner().unwrap_or_else(PoisonError::into_inner);
    let kustomizations = kustomizations.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (owner, overlays) in read_overlays(&Around::new(mirror, territory, tree, &|_| None), kustomizations)? {
        environments[owner].note_overlays(overlays, BTreeSet::new());
    }
    let environments = territory.names().iter().cloned().zip(environments.into_iter().map(Arc::new)).collect();
    Ok(Snapshot { tip, environments })
}

/// What differs between the indexes of two trees.
pub(super) struct Update {
    gone: Vec<(File, FileSites)>,
    there: Vec<(File, FileSites)>,
    too_deep: Vec<TooDeep>,
    overlays: BTreeMap<usize, OverlaysByPath>,
}

/// What the kustomizations of an environment are now, by their paths; `None`: there is none any more.
type OverlaysByPath = Vec<(String, Option<Overlay>)>;

fn read_overlays(
    around: &Around<'_>,
    kustomizations: BTreeSet<(usize, String)>,
) -> Result<BTreeMap<usize, OverlaysByPath>, Unreadable> {
    let mut overlays: BTreeMap<usize, OverlaysByPath> = BTreeMap::new();
    for (owner, path) in kustomizations {
        let overlay = around.overlay(owner, &path)?;
        overlays.entry(owner).or_default().push((path, overlay));
    }
    Ok(overlays)
}

/// Notices which kustomizations have to be read again because something that they looked at differs.
struct Dependents<'a> {
    /// The environments, by their numbers.
    overlays: Vec<(usize, &'a Overlays)>,
    found: BTreeSet<(usize, String)>,
}

impl Watch for Dependents<'_> {
    fn looks_into(&self, folder: &[u8]) -> bool {
        std::str::from_utf8(folder).is_ok_and(|folder| self.overlays.iter().any(|(_, known)| known.looks_into(folder)))
    }

    fn differs(&mut self, path: &[u8]) {
        let Ok(path) = std::str::from_utf8(path) else { return };
        for (owner, overlays) in &self.overlays {
            self.found.extend(overlays.dependents_of(path).map(|dependent| (*owner, dependent.to_string())));
        }
    }
}

/// Reads the files that differ between two trees, and nothing else; not even those of which is known what they hold.
///
/// What stood in a file before is read from its old bytes: no list of sites by file is kept, but for what kustomizations
/// take from elsewhere. Those are read again when something that they looked at differs.
pub(super) fn difference(
    mirror: &Mirror,
    territory: &Territory,
    snapshot: &Snapshot,
    (old, new): (ObjectId, ObjectId),
    mut known_files: Known,
) -> Result<Update, Unreadable> {
    let (mut gone, mut there, mut kustomizations) = (Vec::new(), Vec::new(), BTreeSet::new());
    let names = territory.names().iter().enumerate();
    let known = names.filter_map(|(owner, name)| Some((owner, &*snapshot.environments.get(name)?.overlays)));
    let mut dependents = Dependents { overlays: known.collect(), found: BTreeSet::new() };
    let too_deep = files::find(mirror, territory, Some(old), new, &mut dependents, &mut |side, file| {
        if is_overlay_path(&shown(&file.path)) {
            kustomizations.extend(file.owners.iter().map(|owner| (*owner, shown(&file.path))));
        }
        let sites = match known_files.take(&file) {
            Some(reading) => Ok(reading),
            None => files::read(mirror, territory, &file)?,
        };
        match side {
            Side::Old => gone.push((file, sites)),
            Side::New => there.push((file, sites)),
        }
        Ok(())
    })?;
    kustomizations.append(&mut dependents.found);
    let overlays = read_overlays(&Around::new(mirror, territory, new, &|_| None), kustomizations)?;
    Ok(Update { gone, there, too_deep, overlays })
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
        let mut touched: BTreeMap<usize, BTreeSet<Repository>> = BTreeMap::new();
        for (file, read) in self.gone.iter().chain(&self.there) {
            for site in read.iter().flat_map(|reading| &reading.sites) {
                for owner in &file.owners {
                    touched.entry(*owner).or_default().insert(site.repository.clone());
                }
            }
        }
        let mut overlays = self.overlays;
        let owners: BTreeSet<usize> = touched.keys().chain(overlays.keys()).copied().collect();
        for owner in owners {
            let mut overlays = overlays.remove(&owner).unwrap_or_default();
            let touched = touched.remove(&owner).unwrap_or_default();
            change(owner, &mut |sites| sites.note_overlays(std::mem::take(&mut overlays), touched.clone()));
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
            self.put(&site.repository, Place { path: path.clone(), line: site.line, format, version });
        }
    }

    fn put(&mut self, repository: &Repository, place: Place) {
        let places = match self.sites.get_mut(repository) {
            Some(places) => Arc::make_mut(places),
            // Most images stand in one place, and a list that grows by itself makes room for four.
            None => {
                Arc::make_mut(self.sites.entry(repository.clone()).or_insert_with(|| Arc::new(Vec::with_capacity(1))))
            }
        };
        let behind = places.partition_point(|known| (&known.path, known.line) <= (&place.path, place.line));
        places.insert(behind, place);
    }

    /// Notes what kustomizations are now, and brings the places of the images of `touched` and of theirs up to date.
    fn note_overlays(&mut self, overlays: OverlaysByPath, mut touched: BTreeSet<Repository>) {
        for (path, overlay) in overlays {
            let problem = |note: &Note| FileProblem {
                path: path.clone(),
                reason: format!("line {}: {}", note.line, note.reason),
            };
            let notes = |overlay: Option<&Overlay>| -> Vec<FileProblem> {
                overlay.iter().flat_map(|overlay| &overlay.notes).map(problem).collect()
            };
            let (old, new) = (notes(self.overlays.get(&path)), notes(overlay.as_ref()));
            self.problems.retain(|problem| !old.contains(problem));
            new.into_iter().for_each(|problem| self.keep(problem));
            touched.append(&mut Arc::make_mut(&mut self.overlays).put(&path, overlay));
        }
        for repository in &touched {
            self.offer(repository);
        }
    }

    /// Brings the places of an image up to date that have no entry yet.
    fn offer(&mut self, repository: &Repository) {
        let mut named = Vec::new();
        if let Some(places) = self.sites.get_mut(repository) {
            if places.iter().any(|place| place.format == Format::Inherited) {
                Arc::make_mut(places).retain(|place| place.format != Format::Inherited);
            }
            named = places.iter().map(|place| (place.path.clone(), place.format)).collect();
            if places.is_empty() {
                self.sites.remove(repository);
            }
        }
        let overlays = self.overlays.clone();
        for (path, Inherited { site, .. }) in overlays.sites_of(repository, &named) {
            let (line, format, version) = (site.line, site.format, site.version.clone());
            self.put(repository, Place { path: path.clone(), line, format, version });
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
