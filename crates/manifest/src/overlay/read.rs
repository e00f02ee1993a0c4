//! Reads a kustomization and its base.

use std::collections::{BTreeMap, BTreeSet};

use tagrelay_image::Repository;

use super::super::file_name::is_kustomization;
use super::super::read::Contents;
use super::super::settings::ManifestSettings;
use super::super::site::{Format, Note, Site};
use super::super::task::Task;
use super::super::tree::{Kind, Tree};
use super::base::Kustomization;
use super::images::Images;
use super::inherited::{Inherited, Overlay};
use super::surroundings::{Surroundings, folder_of};
use super::walk::Walk;

/// Returns whether a file may be an overlay. Its name must be that of a kustomization.
pub fn is_overlay_path(path: &str) -> bool {
    is_kustomization(path)
}

/// Returns the images that the kustomization at `path` takes from outside the environment.
///
/// Files of the base that are unreadable or too large are reported in notes. If the kustomization itself cannot be read, no image
/// is inherited; [`read`](super::super::read()) reports the cause.
pub fn read_overlay(path: &str, bytes: &[u8], surroundings: &dyn Surroundings) -> Overlay {
    let Ok(tree) = Tree::parse(bytes) else { return Overlay::default() };
    let Some(kustomization) = Kustomization::of(&tree) else { return Overlay::default() };
    let mut walk = Walk::new(path, surroundings);
    walk.overlay.names = kustomization.entries.iter().filter_map(|entry| entry.name.parse().ok()).collect();
    let mut images = walk.images_of(folder_of(path), &kustomization);
    walk.apply_entries(&kustomization, &mut images);
    let Walk { mut overlay, patched, .. } = walk;
    if !kustomization.is_component {
        overlay.offer(path, &tree, &images);
        overlay.leave_patched(&images, &patched);
    }
    overlay
}

impl Overlay {
    /// Adds the images without an entry, except those that the kustomization names in another way.
    fn offer(&mut self, path: &str, tree: &Tree<'_>, images: &Images) {
        let mut known = BTreeSet::new();
        let unset = images.unset().into_iter().filter(|(image, _)| !image.is_patched);
        let offered = unset.filter_map(|(image, line)| {
            let (repository, version) = image.parts()?;
            let is_new = !self.names.contains(&repository) && known.insert((&image.name, version.to_string()));
            is_new.then(|| Inherited {
                name: image.name.clone(),
                site: Site { repository, version, format: Format::Inherited, line },
            })
        });
        let offered: Vec<Inherited> = offered.collect();
        let named = named_in(tree, &offered.iter().map(|image| image.name.as_str()).collect());
        // A patch in the kustomization is a site of its own.
        let own = if named.is_empty() { BTreeSet::new() } else { own_repositories(path, tree) };
        for (name, line) in named.iter().filter(|(name, _)| name.parse().is_ok_and(|name| !own.contains(&name))) {
            let reason = format!(
                "`{name}` comes from a base and is named here outside of `images`: which version counts is not clear, \
                 so no entry is added; add one"
            );
            self.notes.push(Note { line: *line, reason });
        }
        let unnamed = offered.iter().filter(|image| !named.contains_key(image.name.as_str()));
        self.inherited.extend(unnamed.cloned());
    }
}

impl Overlay {
    /// Records images that a JSON Patch may replace, because an entry would match the patched image.
    ///
    /// `patched`: the repositories that the environment's own patches set, which are sites.
    fn leave_patched(&mut self, images: &Images, patched: &BTreeSet<Repository>) {
        for (image, line) in images.unset().into_iter().filter(|(image, _)| image.is_patched) {
            let is_site = |(repository, _): (Repository, _)| patched.contains(&repository);
            if image.parts().is_some_and(|parts| !self.names.contains(&parts.0) && !is_site(parts)) {
                let reason = format!(
                    "`{}` comes from a base, and a JSON Patch may put another image in its place: which version counts is \
                     not clear, so no entry is added; add one",
                    image.name
                );
                self.notes.push(Note { line, reason });
            }
        }
    }
}

/// Returns the repositories of the kustomization's own sites.
fn own_repositories(path: &str, tree: &Tree<'_>) -> BTreeSet<Repository> {
    let settings = ManifestSettings::default();
    let contents = Contents::of(tree, &Task::of_file(path, &settings));
    contents.iter().flat_map(Contents::found).map(|found| found.site.repository.clone()).collect()
}

/// Returns the names that are in a scalar together with a version, and the first line of each.
fn named_in<'names>(tree: &Tree<'_>, names: &BTreeSet<&'names str>) -> BTreeMap<&'names str, u32> {
    let mut named = BTreeMap::new();
    if names.is_empty() {
        return named;
    }
    let is_outside = |character: char| !character.is_ascii_alphanumeric() && !"/-_.:@".contains(character);
    for node in tree.nodes.iter().filter(|node| matches!(node.kind, Kind::Scalar(_))) {
        for word in node.value.split_inclusive(is_outside) {
            // A name has at most one colon, before a port.
            for (end, _) in word.match_indices([':', '@']).take(2) {
                let has_version = word[end + 1..].starts_with(|next: char| !next.is_whitespace());
                if let Some(name) = names.get(&word[..end]).filter(|_| has_version) {
                    named.entry(*name).or_insert(node.line);
                }
            }
        }
    }
    named
}
