//! Collects the images of a kustomization. Each image is listed once.

use std::collections::BTreeMap;

use super::entry::Entry;
use tagrelay_image::{Repository, Tag, Version};

/// An image in a rendered base.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Image {
    /// The name as written, which kustomize compares.
    pub(super) name: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
    /// Whether an entry in the environment's own paths matches the image.
    pub(super) is_set: bool,
    /// Whether a JSON Patch may replace the image.
    pub(super) is_patched: bool,
}

/// The origin of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    /// The number of images that were added before the image.
    order: usize,
    /// The line of the reference in the overlay that leads to the image.
    line: u32,
}

/// Images by name, for matching with entries.
#[derive(Debug, Default)]
pub(super) struct Images {
    all: BTreeMap<Image, Origin>,
    added: usize,
}

impl Images {
    /// Adds an image. Returns whether it is new.
    pub(super) fn add(&mut self, image: Image, line: u32) -> bool {
        let count = self.all.len();
        self.put(image, Origin { order: self.added, line });
        self.added += 1;
        self.all.len() > count
    }

    /// Appends all images of another collection.
    pub(super) fn append(&mut self, other: Self) {
        let before = self.added;
        for (image, origin) in other.all {
            self.put(image, Origin { order: before + origin.order, ..origin });
        }
        self.added += other.added;
    }

    /// Adds an image, or keeps the first origin of a known one.
    fn put(&mut self, image: Image, origin: Origin) {
        self.all.entry(image).and_modify(|known| *known = origin.min(*known)).or_insert(origin);
    }

    /// Applies an entry as kustomize's image transformer does. Returns the number of matching images.
    ///
    /// Source: <https://github.com/kubernetes-sigs/kustomize/blob/master/api/filters/imagetag/updater.go>.
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

    /// Returns the names of images without an entry in the environment, by repository.
    pub(super) fn names(&self) -> BTreeMap<Repository, &str> {
        let unset = self.all.keys().filter(|image| !image.is_set);
        unset.filter_map(|image| Some((image.name.parse().ok()?, image.name.as_str()))).collect()
    }

    /// Returns the images without an entry in the environment, with their lines.
    ///
    /// The images are in the order in which they were found.
    pub(super) fn unset(&self) -> Vec<(&Image, u32)> {
        let mut unset: Vec<_> = self.all.iter().filter(|(image, _)| !image.is_set).collect();
        unset.sort_by_key(|(_, origin)| **origin);
        unset.into_iter().map(|(image, origin)| (image, origin.line)).collect()
    }
}

impl Image {
    /// Returns the repository and its version; `None`: not a reference, such as a placeholder.
    ///
    /// The default version is `latest`.
    pub(super) fn parts(&self) -> Option<(Repository, Version)> {
        let repository = self.name.parse().ok()?;
        let tag = self.tag.as_deref().map(str::parse::<Tag>).transpose().ok()?;
        let digest = self.digest.as_deref().map(str::parse).transpose().ok()?;
        let version = Version::from_parts(tag, digest);
        Some((repository, version.or_else(|| Version::from_parts("latest".parse().ok(), None))?))
    }
}
