//! The images that a kustomization gathers, each once.

use std::collections::BTreeMap;

use super::entry::Entry;
use tagrelay_image::{Repository, Tag, Version};

/// An image as a rendered base names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Image {
    /// The name as it is written, which is what kustomize compares.
    pub(super) name: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
    /// Whether an entry in the environment's own paths is about it.
    pub(super) is_set: bool,
    /// Whether a JSON Patch may put another in its place.
    pub(super) is_patched: bool,
}

/// Where an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    /// How many were there before it.
    order: usize,
    /// The line of the overlay's reference through which it comes.
    line: u32,
}

/// Images by their names, which is how entries meet them.
#[derive(Debug, Default)]
pub(super) struct Images {
    all: BTreeMap<Image, Origin>,
    added: usize,
}

impl Images {
    /// Adds an image. Returns whether it is a new one.
    pub(super) fn add(&mut self, image: Image, line: u32) -> bool {
        let count = self.all.len();
        self.put(image, Origin { order: self.added, line });
        self.added += 1;
        self.all.len() > count
    }

    /// Adds all of the others behind these.
    pub(super) fn append(&mut self, other: Self) {
        let before = self.added;
        for (image, origin) in other.all {
            self.put(image, Origin { order: before + origin.order, ..origin });
        }
        self.added += other.added;
    }

    /// Of the same image twice the first counts.
    fn put(&mut self, image: Image, origin: Origin) {
        self.all.entry(image).and_modify(|known| *known = origin.min(*known)).or_insert(origin);
    }

    /// Does to the images what kustomize's image transformer does
    /// (<https://github.com/kubernetes-sigs/kustomize/blob/master/api/filters/imagetag/updater.go>). Returns how many
    /// the entry is about.
    pub(super) fn apply(&mut self, entry: &Entry, is_own: bool) -> usize {
        let first = Image { name: entry.name.clone(), tag: None, digest: None, is_set: false, is_patched: false };
        let named = self.all.range(&first..).take_while(|(image, _)| image.name == entry.name);
        let named: Vec<(Image, Origin)> = named.map(|(image, origin)| (image.clone(), *origin)).collect();
        for (image, _) in &named {
            self.all.remove(image);
        }
        let count = named.len();
        for (mut image, origin) in named {
            image.is_set |= is_own;
            if let Some(name) = &entry.new_name {
                image.name.clone_from(name);
            }
            if entry.has_version() {
                image.tag.clone_from(&entry.tag);
                image.digest.clone_from(&entry.digest);
            }
            self.put(image, origin);
        }
        count
    }

    /// Returns the names of images that no entry of the environment is about, by their repositories.
    pub(super) fn names(&self) -> BTreeMap<Repository, &str> {
        let unset = self.all.keys().filter(|image| !image.is_set);
        unset.filter_map(|image| Some((image.name.parse().ok()?, image.name.as_str()))).collect()
    }

    /// Returns the images that no entry of the environment is about, in the order in which they came, with their lines.
    pub(super) fn unset(&self) -> Vec<(&Image, u32)> {
        let mut unset: Vec<_> = self.all.iter().filter(|(image, _)| !image.is_set).collect();
        unset.sort_by_key(|(_, origin)| **origin);
        unset.into_iter().map(|(image, origin)| (image, origin.line)).collect()
    }
}

impl Image {
    /// Returns the repository and what runs of it; `None` for what is no reference, such as a placeholder. An image
    /// without a version runs `latest`.
    pub(super) fn parts(&self) -> Option<(Repository, Version)> {
        let repository = self.name.parse().ok()?;
        let tag = self.tag.as_deref().map(str::parse::<Tag>).transpose().ok()?;
        let digest = self.digest.as_deref().map(str::parse).transpose().ok()?;
        let version = Version::from_parts(tag, digest);
        Some((repository, version.or_else(|| Version::from_parts("latest".parse().ok(), None))?))
    }
}
