use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tagrelay_git::tree::{self, Unreadable};
use tagrelay_git::{CommitId, Mirror, ObjectId};

use super::files::{self, File, FileSites, Known, Side, TooDeep, Watch, shown};
use super::paths::Territory;
use super::surroundings::Around;
use tagrelay_image::{Repository, Version};
use tagrelay_manifest::{Format, Inherited, Note, Overlay, Overlays, is_overlay_path};

/// The sites of every environment at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub tip: CommitId,
    pub environments: BTreeMap<String, Arc<EnvironmentSites>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentSites {
    /// The sites that name each image, sorted by path and line. No list is empty.
    pub sites: BTreeMap<Repository, Arc<Vec<IndexedSite>>>,
    /// Files and lines that are skipped, sorted by path.
    pub problems: Vec<FileProblem>,
    /// The images that kustomizations of the environment take from elsewhere.
    overlays: Arc<Overlays>,
}

/// A site and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedSite {
    /// The file. Shared by all its sites.
    pub path: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    pub format: Format,
    pub version: Version,
}

/// A skipped file, or a skipped line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file. Bytes that are not printable are escaped.
    pub path: String,
    pub reason: String,
}

/// Indexes a whole tree.
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
        file.owners.iter().for_each(|owner| environments[*owner].add_file(&file.path, &sites));
    })?;
    for (folder, _) in &too_deep {
        territory.holders_of(folder).for_each(|owner| locked()[owner].set_too_deep(folder, true));
    }
    let mut environments = environments.into_inner().unwrap_or_else(PoisonError::into_inner);
    let kustomizations = kustomizations.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (owner, overlays) in read_overlays(&Around::new(mirror, territory, tree, &|_| None), kustomizations)? {
        environments[owner].set_overlays(overlays, BTreeSet::new());
    }
    let environments = territory.names().iter().cloned().zip(environments.into_iter().map(Arc::new)).collect();
    Ok(Snapshot { tip, environments })
}

/// The difference of the indexes of two trees.
pub(super) struct Difference {
    removed: Vec<(File, FileSites)>,
    added: Vec<(File, FileSites)>,
    too_deep: Vec<TooDeep>,
    overlays: BTreeMap<usize, OverlaysByPath>,
}

/// The kustomizations of an environment by path. `None`: the kustomization was removed.
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

/// Collects the kustomizations that must be read again because a path that they depend on changed.
struct Dependents<'a> {
    /// By number of the environment.
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

/// Reads the files that differ between two trees. Files in `known_files` are not read.
///
/// The old sites of a file are read from its old bytes, because the index has no list of sites per file. The index keeps the
/// dependencies of kustomizations. A kustomization is read again if a dependency changed.
pub(super) fn difference(
    mirror: &Mirror,
    territory: &Territory,
    snapshot: &Snapshot,
    (old, new): (ObjectId, ObjectId),
    mut known_files: Known,
) -> Result<Difference, Unreadable> {
    let (mut removed, mut added, mut kustomizations) = (Vec::new(), Vec::new(), BTreeSet::new());
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
            Side::Old => removed.push((file, sites)),
            Side::New => added.push((file, sites)),
        }
        Ok(())
    })?;
    kustomizations.append(&mut dependents.found);
    let overlays = read_overlays(&Around::new(mirror, territory, new, &|_| None), kustomizations)?;
    Ok(Difference { removed, added, too_deep, overlays })
}

impl Difference {
    /// Changes the index of the old tree into the index of the new tree, which belongs to the commit `tip`.
    pub(super) fn apply(self, snapshot: &mut Snapshot, territory: &Territory, tip: CommitId) {
        snapshot.tip = tip;
        let mut change = |owner: usize, change: &mut dyn FnMut(&mut EnvironmentSites)| {
            let name = &territory.names()[owner];
            if let Some(sites) = snapshot.environments.get_mut(name) {
                change(Arc::make_mut(sites));
            }
        };
        for (file, read) in &self.removed {
            file.owners.iter().for_each(|owner| change(*owner, &mut |sites| sites.remove_file(&file.path, read)));
        }
        for (file, read) in &self.added {
            file.owners.iter().for_each(|owner| change(*owner, &mut |sites| sites.add_file(&file.path, read)));
        }
        let mut touched: BTreeMap<usize, BTreeSet<Repository>> = BTreeMap::new();
        for (file, read) in self.removed.iter().chain(&self.added) {
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
            change(owner, &mut |sites| sites.set_overlays(std::mem::take(&mut overlays), touched.clone()));
        }
        for (folder, is_there) in &self.too_deep {
            let owners = territory.holders_of(folder);
            owners.for_each(|owner| change(owner, &mut |sites| sites.set_too_deep(folder, *is_there)));
        }
    }
}

impl EnvironmentSites {
    fn remove_file(&mut self, path: &[u8], read: &FileSites) {
        let name = shown(path);
        if !matches!(read, Ok(reading) if reading.notes.is_empty()) {
            self.problems.retain(|problem| problem.path != name);
        }
        for site in read.iter().flat_map(|reading| &reading.sites) {
            let Some(known) = self.sites.get_mut(&site.repository) else { continue };
            Arc::make_mut(known).retain(|site| *site.path != *name);
            if known.is_empty() {
                self.sites.remove(&site.repository);
            }
        }
    }

    fn add_file(&mut self, path: &[u8], read: &FileSites) {
        let found = match read {
            Err(reason) => return self.add_problem(FileProblem { path: shown(path), reason: reason.clone() }),
            Ok(reading) => reading,
        };
        for note in &found.notes {
            let reason = format!("line {}: {}", note.line, note.reason);
            self.add_problem(FileProblem { path: shown(path), reason });
        }
        if found.sites.is_empty() {
            return;
        }
        let path: Arc<str> = shown(path).into();
        for site in &found.sites {
            let (version, format) = (site.version.clone(), site.format);
            self.add_site(&site.repository, IndexedSite { path: path.clone(), line: site.line, format, version });
        }
    }

    fn add_site(&mut self, repository: &Repository, site: IndexedSite) {
        let sites = match self.sites.get_mut(repository) {
            Some(sites) => Arc::make_mut(sites),
            // Most images have one site. A growing list would allocate four.
            None => {
                Arc::make_mut(self.sites.entry(repository.clone()).or_insert_with(|| Arc::new(Vec::with_capacity(1))))
            }
        };
        let behind = sites.partition_point(|known| (&known.path, known.line) <= (&site.path, site.line));
        sites.insert(behind, site);
    }

    /// Replaces kustomizations, and updates the inherited sites of their images and of `touched`.
    fn set_overlays(&mut self, overlays: OverlaysByPath, mut touched: BTreeSet<Repository>) {
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
            new.into_iter().for_each(|problem| self.add_problem(problem));
            touched.append(&mut Arc::make_mut(&mut self.overlays).put(&path, overlay));
        }
        for repository in &touched {
            self.update_inherited(repository);
        }
    }

    /// Updates the sites of an image in kustomizations that have no entry for the image yet.
    fn update_inherited(&mut self, repository: &Repository) {
        let mut named = Vec::new();
        if let Some(sites) = self.sites.get_mut(repository) {
            if sites.iter().any(|site| site.format == Format::Inherited) {
                Arc::make_mut(sites).retain(|site| site.format != Format::Inherited);
            }
            named = sites.iter().map(|site| (site.path.clone(), site.format)).collect();
            if sites.is_empty() {
                self.sites.remove(repository);
            }
        }
        let overlays = self.overlays.clone();
        for (path, Inherited { site, .. }) in overlays.sites_of(repository, &named) {
            let (line, format, version) = (site.line, site.format, site.version.clone());
            self.add_site(repository, IndexedSite { path: path.clone(), line, format, version });
        }
    }

    fn set_too_deep(&mut self, folder: &[u8], is_there: bool) {
        let path = shown(folder);
        self.problems.retain(|problem| problem.path != path);
        if is_there {
            let reason = format!("the folder is deeper than {} levels and is not read", tree::MAX_DEPTH);
            self.add_problem(FileProblem { path, reason });
        }
    }

    fn add_problem(&mut self, problem: FileProblem) {
        if !self.problems.contains(&problem) {
            let behind = self.problems.partition_point(|known| known.path <= problem.path);
            self.problems.insert(behind, problem);
        }
    }
}
