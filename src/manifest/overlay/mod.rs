//! Kustomizations of an environment whose images come from a base outside of it.
//!
//! Such an image has no version in the environment's own files. It is a site nevertheless ([`Format::Inherited`]): it
//! runs what the base says, and another version is set by an entry that is added to `images`.
//!
//! Whether that is so cannot be seen in the kustomization alone: [`read_overlay`] follows its local references
//! through [`Surroundings`] and tells which paths it looked at, and [`Overlays`] knows what else of the environment
//! may decide the version.

mod base;
mod insert;
mod overlays;

use std::collections::BTreeSet;

use crate::image::Repository;

use self::base::{Image, Kustomization, Reference};
use super::document::is_kustomization;
use super::site::{Format, Note, Site};
use super::tree::{Kind, Tree};

pub use insert::edit_overlay;
pub use overlays::Overlays;

/// How many kustomizations may build upon each other.
const MAX_DEPTH: usize = 32;

/// How many files and folders are looked at for one kustomization.
const MAX_LOOKUPS: usize = 5_000;

/// The names of a kustomization, in the order in which they are looked for.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// What stands at a path of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// A folder.
    Folder,
    /// A file with these bytes.
    File(Vec<u8>),
    /// Nothing, or something that is never followed: a link, a submodule, a file that is too large.
    Nothing,
}

/// The repository around a kustomization, as one environment sees it. Paths begin at the top; that of the top is empty.
pub trait Surroundings {
    /// Returns what stands at a path.
    fn at(&self, path: &str) -> Beside;

    /// Returns whether a file is in the environment's own paths.
    fn is_own(&self, path: &str) -> bool;
}

/// What a kustomization takes from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The images that come from outside of the environment and for which it has no entry, each name once for each version.
    pub inherited: Vec<Inherited>,
    /// What cannot be done, and why.
    pub notes: Vec<Note>,
    /// Every path that was looked at, those where nothing is included: a change there may change all of this.
    pub looked_at: BTreeSet<String>,
    /// The folders of the environment's kustomizations that it builds upon.
    children: BTreeSet<String>,
    /// The images that its own entries are about.
    names: BTreeSet<Repository>,
}

/// An image that comes from a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// The name as the rendered base has it: kustomize compares letter by letter.
    name: String,
    /// The site: what the base says, at the line of the reference through which it comes.
    pub site: Site,
}

/// Returns whether a file may be an overlay: whether kustomize would take it for a kustomization by its name.
pub fn is_overlay_path(path: &str) -> bool {
    is_kustomization(path)
}

/// Returns what the kustomization at `path` takes from outside of the environment. What cannot be read takes nothing:
/// [`read`](super::read) says why.
pub fn read_overlay(path: &str, bytes: &[u8], surroundings: &dyn Surroundings) -> Overlay {
    let Ok(tree) = Tree::parse(bytes) else { return Overlay::default() };
    let Some(kustomization) = Kustomization::of(&tree) else { return Overlay::default() };
    let folder = folder_of(path);
    let mut walk = Walk { surroundings, overlay: Overlay::default(), entered: BTreeSet::from([folder.to_owned()]) };
    walk.overlay.names = kustomization.entries.iter().filter_map(|entry| entry.name.parse().ok()).collect();
    let mut images: Vec<(Image, u32)> = Vec::new();
    for reference in &kustomization.resources {
        let found = walk.resource(folder, reference, 0);
        images.extend(found.into_iter().map(|image| (image, reference.line)));
    }
    // Components see all that was gathered before them.
    let (mut gathered, mut lines): (Vec<Image>, Vec<u32>) = images.into_iter().unzip();
    for reference in &kustomization.components {
        walk.component(folder, reference, 0, &mut gathered);
        lines.resize(gathered.len(), reference.line);
    }
    walk.note_entries(&kustomization, &mut gathered);
    if !kustomization.is_component {
        for (image, line) in gathered.iter().zip(lines).filter(|(image, _)| !image.is_set) {
            walk.offer(&tree, image, line);
        }
    }
    walk.overlay
}

struct Walk<'a> {
    surroundings: &'a dyn Surroundings,
    overlay: Overlay,
    /// The folders whose kustomizations were read: kustomize refuses to take one twice.
    entered: BTreeSet<String>,
}

impl Walk<'_> {
    fn look(&mut self, path: &str) -> Beside {
        if self.overlay.looked_at.len() >= MAX_LOOKUPS && !self.overlay.looked_at.contains(path) {
            return Beside::Nothing;
        }
        self.overlay.looked_at.insert(path.to_owned());
        self.surroundings.at(path)
    }

    /// Returns the images that a resource brings.
    fn resource(&mut self, folder: &str, reference: &Reference, depth: usize) -> Vec<Image> {
        let mut images = Vec::new();
        let Some(path) = resolve(folder, &reference.path) else { return images };
        match self.look(&path) {
            Beside::Nothing => {}
            // What the environment holds itself has sites of its own.
            Beside::File(bytes) if !self.surroundings.is_own(&path) => images = base::images(&bytes),
            Beside::File(_) => {}
            Beside::Folder => {
                if let Some((kustomization, is_own)) = self.enter(&path, depth)
                    && !is_own
                {
                    self.gather(&path, &kustomization, is_own, depth, &mut images);
                }
            }
        }
        images
    }

    /// Lets a component work on images.
    fn component(&mut self, folder: &str, reference: &Reference, depth: usize, images: &mut Vec<Image>) {
        let Some(path) = resolve(folder, &reference.path) else { return };
        if self.look(&path) == Beside::Folder
            && let Some((kustomization, is_own)) = self.enter(&path, depth)
        {
            self.gather(&path, &kustomization, is_own, depth, images);
        }
    }

    /// Adds the images of a kustomization, and applies its entries to all of them.
    fn gather(
        &mut self,
        folder: &str,
        kustomization: &Kustomization,
        is_own: bool,
        depth: usize,
        images: &mut Vec<Image>,
    ) {
        let mut below = Vec::new();
        for reference in &kustomization.resources {
            below.extend(self.resource(folder, reference, depth + 1));
        }
        // A component works on what came before it, a base on nothing but its own.
        let start = if kustomization.is_component { 0 } else { images.len() };
        images.append(&mut below);
        let mut sees = images.split_off(start);
        for reference in &kustomization.components {
            self.component(folder, reference, depth + 1, &mut sees);
        }
        for entry in &kustomization.entries {
            entry.apply(&mut sees, is_own);
        }
        images.append(&mut sees);
    }

    /// Returns the kustomization of a folder and whether it is the environment's own; each is entered once.
    fn enter(&mut self, folder: &str, depth: usize) -> Option<(Kustomization, bool)> {
        if depth >= MAX_DEPTH || !self.entered.insert(folder.to_owned()) {
            return None;
        }
        for name in NAMES {
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let Beside::File(bytes) = self.look(&path) else { continue };
            let is_own = self.surroundings.is_own(&path);
            if is_own {
                self.overlay.children.insert(folder.to_owned());
            }
            return Some((Kustomization::of(&Tree::parse(&bytes).ok()?)?, is_own));
        }
        None
    }

    /// Applies the overlay's own entries, and tells of those that do not do what they seem to do.
    fn note_entries(&mut self, kustomization: &Kustomization, images: &mut [Image]) {
        for entry in &kustomization.entries {
            if entry.apply(images, true) {
                if !entry.has_version() && entry.new_name.is_none() {
                    let reason = format!("the entry of `{}` says no version: add `newTag` to it", entry.name);
                    self.overlay.notes.push(Note { line: entry.line, reason });
                }
                continue;
            }
            let Ok(repository) = entry.name.parse::<Repository>() else { continue };
            let other = images.iter().find(|image| image.name.parse().as_ref() == Ok(&repository));
            if let Some(other) = other.filter(|other| !other.is_set) {
                let reason = format!(
                    "the entry of `{}` is about no image: the base calls it `{}`, and kustomize compares letter by letter",
                    entry.name, other.name
                );
                self.overlay.notes.push(Note { line: entry.line, reason });
            }
        }
    }

    /// Offers an image, unless the overlay names it in some other way.
    fn offer(&mut self, tree: &Tree<'_>, image: &Image, line: u32) {
        let Some((repository, version)) = image.parts() else { return };
        if self.overlay.names.contains(&repository) {
            return;
        }
        if let Some(node) =
            tree.nodes.iter().find(|node| matches!(node.kind, Kind::Scalar(_)) && node_names(&node.value, &image.name))
        {
            let reason = format!(
                "`{}` comes from a base and is named here outside of `images`, as a patch does: which version counts \
                 is not clear, so no entry is added; add one",
                image.name
            );
            let note = Note { line: node.line, reason };
            if !self.overlay.notes.contains(&note) {
                self.overlay.notes.push(note);
            }
            return;
        }
        let site = Site { repository, version, format: Format::Inherited, line };
        let inherited = Inherited { name: image.name.clone(), site };
        let is_known = |known: &Inherited| known.name == inherited.name && known.site.version == inherited.site.version;
        if !self.overlay.inherited.iter().any(is_known) {
            self.overlay.inherited.push(inherited);
        }
    }
}

/// Returns whether a text holds a reference of this name with a version.
fn node_names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(start, _)| {
        let is_free = text[..start]
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_ascii_alphanumeric() && !"/-_.:".contains(before));
        let mut rest = text[start + name.len()..].chars();
        is_free && matches!(rest.next(), Some(':' | '@')) && rest.next().is_some_and(|next| !next.is_whitespace())
    })
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the path that a reference in a kustomization of `folder` means; `None` where it leads out of the repository.
fn resolve(folder: &str, reference: &str) -> Option<String> {
    if reference.is_empty() || reference.starts_with('/') || reference.contains("://") {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
