use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use tagrelay_image::Repository;

use super::super::file_name::is_kustomization;
use super::super::site::Format;
use super::inherited::{Inherited, Overlay};
use super::surroundings::folder_of;

/// The overlays of an environment and their dependencies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlays {
    by_path: BTreeMap<Arc<str>, Arc<Overlay>>,
    /// The overlays that visited a path.
    dependents: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// The overlays that include the kustomization in a folder of the environment.
    parents: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// The overlays that inherit an image, with the indexes of the image in the list of each overlay.
    heirs: BTreeMap<Repository, BTreeMap<Arc<str>, Vec<usize>>>,
}

impl Overlays {
    /// Replaces an overlay; `None`: the overlay was removed. Returns the images that may have changed.
    pub fn put(&mut self, path: &str, overlay: Option<Overlay>) -> BTreeSet<Repository> {
        let path: Arc<str> = path.into();
        let old = self.by_path.remove(&path);
        let mut touched = BTreeSet::new();
        if let Some(old) = &old {
            touched.extend(old.repositories());
            old.looked_at.iter().for_each(|at| remove(&mut self.dependents, at, &path));
            old.children.iter().for_each(|child| remove(&mut self.parents, child, &path));
            old.inherited.iter().for_each(|image| self.disinherit(&image.site.repository, &path));
        }
        if let Some(new) = overlay {
            touched.extend(new.repositories());
            let insert = |map: &mut BTreeMap<String, BTreeSet<Arc<str>>>, key: &String| {
                map.entry(key.clone()).or_default().insert(path.clone());
            };
            new.looked_at.iter().for_each(|at| insert(&mut self.dependents, at));
            new.children.iter().for_each(|child| insert(&mut self.parents, child));
            for (index, image) in new.inherited.iter().enumerate() {
                let heirs = self.heirs.entry(image.site.repository.clone()).or_default();
                heirs.entry(path.clone()).or_default().push(index);
            }
            self.by_path.insert(path, Arc::new(new));
        }
        touched
    }

    /// Returns the overlay at a path.
    pub fn get(&self, path: &str) -> Option<&Overlay> {
        self.by_path.get(path).map(Arc::as_ref)
    }

    /// Returns the overlays that visited a path.
    pub fn dependents_of(&self, path: &str) -> impl Iterator<Item = &Arc<str>> {
        self.dependents.get(path).into_iter().flatten()
    }

    /// Returns whether an overlay visited a path below a folder (with a trailing slash).
    pub fn looks_into(&self, folder: &str) -> bool {
        let mut behind = self.dependents.range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        behind.next().is_some_and(|(path, _)| path.starts_with(folder))
    }

    /// Returns the overlays that need an entry for an image, with the inherited image.
    ///
    /// `places`: the other positions that name the image in the environment. No entry is needed if one of these positions sets the
    /// version: in the overlay's folder or below (such as a patch), in an Application, or in an overlay above.
    pub fn sites_of<'a>(
        &'a self,
        repository: &'a Repository,
        places: &'a [(Arc<str>, Format)],
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Inherited)> {
        let heirs = self.heirs.get(repository).into_iter().flatten();
        let undecided = heirs.filter(move |(path, _)| !self.is_decided_elsewhere(path, repository, places));
        undecided.flat_map(|(path, indices)| {
            let images = indices.iter().filter_map(|index| self.by_path.get(path)?.inherited.get(*index));
            images.map(move |image| (path, image))
        })
    }

    fn disinherit(&mut self, repository: &Repository, path: &Arc<str>) {
        if let Some(heirs) = self.heirs.get_mut(repository) {
            heirs.remove(path);
            if heirs.is_empty() {
                self.heirs.remove(repository);
            }
        }
    }

    fn is_decided_elsewhere(&self, path: &str, repository: &Repository, places: &[(Arc<str>, Format)]) -> bool {
        let folder = folder_of(path);
        let is_below =
            |place: &str| folder.is_empty() || place.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        places.iter().any(|(place, format)| match format {
            Format::Argocd => true,
            Format::Kustomization if !is_kustomization(place) => true,
            _ => is_below(place),
        }) || self.is_set_above(folder, repository)
    }

    /// Whether a kustomization that includes this folder has an entry for the image.
    fn is_set_above(&self, folder: &str, repository: &Repository) -> bool {
        let mut seen = BTreeSet::new();
        let mut pending = vec![folder];
        while let Some(folder) = pending.pop() {
            for parent in self.parents.get(folder).into_iter().flatten().filter(|parent| seen.insert(*parent)) {
                if self.by_path.get(parent).is_some_and(|overlay| overlay.names.contains(repository)) {
                    return true;
                }
                pending.push(folder_of(parent));
            }
        }
        false
    }
}

impl Overlay {
    fn repositories(&self) -> impl Iterator<Item = Repository> {
        self.inherited.iter().map(|image| &image.site.repository).chain(&self.names).cloned()
    }
}

fn remove(map: &mut BTreeMap<String, BTreeSet<Arc<str>>>, key: &str, path: &Arc<str>) {
    if let Some(paths) = map.get_mut(key) {
        paths.remove(path);
        if paths.is_empty() {
            map.remove(key);
        }
    }
}
