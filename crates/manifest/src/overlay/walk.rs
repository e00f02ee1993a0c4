//! Follows the references of a kustomization and collects their images.

use std::collections::BTreeSet;

use tagrelay_image::Repository;

use super::base::{self, Kustomization, PatchContent, Reference};
use super::images::{Image, Images};
use super::inherited::Overlay;
use super::json_patches::JsonPatch;
use super::surroundings::{Beside, Surroundings, folder_of};
use crate::site::Note;
use crate::tree::Tree;

/// Limit of nested kustomizations.
const MAX_LEVELS: usize = 32;

/// Limit of visited files and folders per kustomization.
const MAX_LOOKUPS: usize = 5_000;

/// Limit of bytes read per kustomization.
const MAX_READ: usize = 64 << 20;

/// Limit of images per kustomization.
const MAX_IMAGES: usize = 10_000;

/// Limit of matches between entries and images.
const MAX_MEETINGS: usize = 1_000_000;

/// Limit of operations in JSON Patches. Each operation is searched in every object.
const MAX_OPERATIONS: usize = 200;

/// Limits of components and bytes of a path.
const MAX_PARTS: usize = 128;
const MAX_PATH_BYTES: usize = 4096;

/// Limit of reported references without effect.
const MAX_NOTES: usize = 100;

/// The file names of a kustomization, in the order in which they are looked up.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A walk over all files that a kustomization includes.
pub(super) struct Walk<'a> {
    surroundings: &'a dyn Surroundings,
    pub(super) overlay: Overlay,
    /// The visited folders and files. kustomize refuses to include a file or folder twice.
    entered: BTreeSet<String>,
    /// The line of the overlay's reference that is followed.
    line: u32,
    /// The number of lookups, bytes read and images collected.
    lookups: usize,
    read: usize,
    gathered: usize,
    /// The number of matches between entries and images.
    meetings: usize,
    /// The JSON Patches of the kustomizations above the current file, and the number of their operations.
    patches: Vec<JsonPatch>,
    operations: usize,
    /// The repositories that JSON Patches in the environment's own paths set.
    pub(super) patched: BTreeSet<Repository>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(path: &str, surroundings: &'a dyn Surroundings) -> Self {
        let entered = BTreeSet::from([folder_of(path).to_owned()]);
        Self {
            surroundings,
            overlay: Overlay::default(),
            entered,
            line: 1,
            lookups: 0,
            read: 0,
            gathered: 0,
            meetings: 0,
            patches: Vec::new(),
            operations: 0,
            patched: BTreeSet::new(),
        }
    }

    /// Returns the images of an overlay, with its components applied and before its own entries.
    pub(super) fn images_of(&mut self, folder: &str, overlay: &Kustomization) -> Images {
        let mut images = Images::default();
        self.enter_patches(folder, overlay, true);
        for reference in &overlay.resources {
            self.line = reference.line;
            self.resource(folder, reference, 0, &mut images);
        }
        // A component applies to all images before it.
        for reference in &overlay.components {
            self.line = reference.line;
            self.component(folder, reference, 0, &mut images);
        }
        images
    }

    /// Records that a part of the current reference is skipped.
    fn note(&mut self, reason: String) {
        let note = Note { line: self.line, reason };
        if self.overlay.notes.len() < MAX_NOTES && !self.overlay.notes.contains(&note) {
            self.overlay.notes.push(note);
        }
    }

    fn report_limit(&mut self, limit: &str) {
        self.note(format!("this kustomization includes more than {limit}: images beyond that limit are not found"));
    }

    /// Returns the object at a path, within the limits.
    fn look(&mut self, path: &str) -> Beside {
        if self.lookups == MAX_LOOKUPS {
            self.report_limit(&format!("{MAX_LOOKUPS} files and folders"));
            return Beside::Nothing;
        }
        self.lookups += 1;
        self.overlay.looked_at.insert(path.to_owned());
        let found = self.surroundings.at(path);
        if let Beside::File(bytes) = &found {
            self.read += bytes.len();
            if self.read > MAX_READ {
                self.report_limit(&format!("{MAX_READ} bytes"));
                return Beside::Nothing;
            }
        }
        found
    }

    /// Returns the path of a reference; `None`: visited before, or outside the repository.
    fn enter(&mut self, folder: &str, reference: &Reference) -> Option<String> {
        let Ok(path) = resolve(folder, &reference.path) else {
            self.note("a reference is longer than any path: it is not followed".to_owned());
            return None;
        };
        path.filter(|path| self.entered.insert(path.clone()))
    }

    /// Adds the images of a resource.
    fn resource(&mut self, folder: &str, reference: &Reference, depth: usize, images: &mut Images) {
        let Some(path) = self.enter(folder, reference) else { return };
        match self.look(&path) {
            Beside::Nothing => {}
            // Resources inside the environment have their own sites.
            Beside::File(_) if self.surroundings.is_own(&path) => {}
            Beside::File(bytes) => match base::images(&bytes, &self.patches) {
                Ok(found) => found.into_iter().for_each(|image| self.add(image, images)),
                Err(unreadable) => self.note(format!("the images of `{path}` are unknown: {unreadable}")),
            },
            Beside::Folder => {
                if let Some((kustomization, is_own)) = self.kustomization(&path, depth)
                    && !is_own
                {
                    self.gather(&path, &kustomization, is_own, depth, images);
                }
            }
        }
    }

    /// Adds the JSON Patches of a kustomization to the patches that apply to its images.
    fn enter_patches(&mut self, folder: &str, kustomization: &Kustomization, is_own: bool) {
        for patch in &kustomization.patches {
            let (bytes, is_own) = match &patch.content {
                PatchContent::Text(text) => (text.clone().into_bytes(), is_own),
                PatchContent::File(reference) => {
                    let Ok(Some(path)) = resolve(folder, &reference.path) else { continue };
                    let Beside::File(bytes) = self.look(&path) else { continue };
                    (bytes, self.surroundings.is_own(&path))
                }
            };
            let Some(patch) = JsonPatch::of(&bytes, patch.kind.clone(), patch.name.clone()) else { continue };
            if is_own {
                self.patched.extend(patch.repositories().cloned());
            }
            self.operations += patch.len();
            if self.operations > MAX_OPERATIONS {
                // It is unknown which images the patches match, so no image gets an entry, which might have no effect.
                self.patches.push(JsonPatch::of_everything());
                return self.report_limit(&format!("{MAX_OPERATIONS} operations of JSON Patches"));
            }
            self.patches.push(patch);
        }
    }

    /// Records the patches of a component (from `first` on) that set an image unknown so far.
    ///
    /// Such a patch replaces an image that was read earlier.
    fn report_strange_patches(&mut self, folder: &str, first: usize, images: &Images) {
        let known = images.names();
        let set: BTreeSet<Repository> =
            self.patches[first..].iter().flat_map(JsonPatch::repositories).cloned().collect();
        for repository in set.into_iter().filter(|repository| !known.contains_key(repository)) {
            self.note(format!(
                "a JSON Patch of the component `{folder}` puts `{repository}` in the place of another image: whether the \
                 environment runs that one is not clear"
            ));
        }
    }

    fn add(&mut self, image: Image, images: &mut Images) {
        if self.gathered >= MAX_IMAGES {
            return self.report_limit(&format!("{MAX_IMAGES} images"));
        }
        self.gathered += usize::from(images.add(image, self.line));
    }

    /// Applies a component to the images.
    fn component(&mut self, folder: &str, reference: &Reference, depth: usize, images: &mut Images) {
        let Some(path) = self.enter(folder, reference) else { return };
        if self.look(&path) == Beside::Folder
            && let Some((kustomization, is_own)) = self.kustomization(&path, depth)
        {
            self.gather(&path, &kustomization, is_own, depth, images);
        }
    }

    /// Adds the images of a kustomization and applies its entries.
    ///
    /// The entries of a component also apply to the images before it, the entries of a base only to its own images.
    fn gather(&mut self, folder: &str, what: &Kustomization, is_own: bool, depth: usize, images: &mut Images) {
        let patches = self.patches.len();
        self.enter_patches(folder, what, is_own);
        if what.is_component {
            self.report_strange_patches(folder, patches, images);
        }
        let mut own = Images::default();
        let sees = if what.is_component { &mut *images } else { &mut own };
        for reference in &what.resources {
            self.resource(folder, reference, depth + 1, sees);
        }
        for reference in &what.components {
            self.component(folder, reference, depth + 1, sees);
        }
        for entry in &what.entries {
            if self.meetings > MAX_MEETINGS {
                return self.report_limit("a million images of entries");
            }
            self.meetings += 1 + sees.apply(entry, is_own);
        }
        self.patches.truncate(patches);
        images.append(own);
    }

    /// Returns the kustomization in a folder, and whether it belongs to the environment.
    fn kustomization(&mut self, folder: &str, depth: usize) -> Option<(Kustomization, bool)> {
        if depth >= MAX_LEVELS {
            self.note(format!("more than {MAX_LEVELS} kustomizations include each other: `{folder}` is not read"));
            return None;
        }
        for name in NAMES {
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let Beside::File(bytes) = self.look(&path) else { continue };
            let is_own = self.surroundings.is_own(&path);
            if is_own {
                self.overlay.children.insert(folder.to_owned());
            }
            let reason = match Tree::parse(&bytes) {
                Ok(tree) => match Kustomization::of(&tree) {
                    Some(kustomization) => return Some((kustomization, is_own)),
                    None => "it is not one mapping".to_owned(),
                },
                Err(unreadable) => unreadable.to_string(),
            };
            self.note(format!("the images of `{path}` are unknown: {reason}"));
            return None;
        }
        None
    }

    /// Applies the overlay's own entries, and records entries without effect.
    pub(super) fn apply_entries(&mut self, kustomization: &Kustomization, images: &mut Images) {
        let mut idle = Vec::new();
        for entry in &kustomization.entries {
            if self.meetings > MAX_MEETINGS {
                self.line = entry.line;
                return self.report_limit("a million images of entries");
            }
            let met = images.apply(entry, true);
            self.meetings += 1 + met;
            if met == 0 {
                idle.push(entry);
            } else if !entry.has_version() && entry.new_name.is_none() {
                let reason = format!("the entry of `{}` has no version: add `newTag` to it", entry.name);
                self.overlay.notes.push(Note { line: entry.line, reason });
            }
        }
        let named = images.names();
        for entry in idle {
            let other = entry.name.parse::<Repository>().ok().and_then(|repository| named.get(&repository));
            if let Some(other) = other {
                let reason = format!(
                    "the entry of `{}` matches no image: the base writes `{other}`, and kustomize compares letter by letter",
                    entry.name
                );
                self.overlay.notes.push(Note { line: entry.line, reason });
            }
        }
    }
}

/// A path that is longer than any path in Git or a file system.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// Returns the path of a reference in `folder`; `None`: the path leaves the repository.
fn resolve(folder: &str, reference: &str) -> Result<Option<String>, TooLong> {
    if reference.is_empty() || reference.starts_with('/') || reference.contains("://") {
        return Ok(None);
    }
    if reference.len() > MAX_PATH_BYTES {
        return Err(TooLong);
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Ok(None);
                }
            }
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    if parts.len() > MAX_PARTS || path.len() > MAX_PATH_BYTES { Err(TooLong) } else { Ok(Some(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_in_the_repository_and_in_bounds() {
        for (folder, reference, expected) in [
            ("env/a", "../../base", Ok(Some("base"))),
            ("", "./a//b/", Ok(Some("a/b"))),
            ("a", "../..", Ok(None)),
            ("a", "/b", Ok(None)),
            ("a", "https://x/y", Ok(None)),
        ] {
            assert_eq!(resolve(folder, reference), expected.map(|path| path.map(str::to_owned)), "{reference}");
        }
        assert!(resolve("a", &"b/".repeat(MAX_PARTS - 1)).is_ok());
        assert_eq!(resolve("a", &"b/".repeat(MAX_PARTS)), Err(TooLong));
        assert_eq!(resolve("a", &"b".repeat(MAX_PATH_BYTES)), Err(TooLong));
        assert_eq!(resolve("a", &"./".repeat(MAX_PATH_BYTES)), Err(TooLong));
    }
}
