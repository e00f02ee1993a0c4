//! What an overlay builds upon, as kustomize sees it: kustomizations, and the images of resources.

use std::collections::BTreeSet;

use memchr::memmem;

use crate::image::{ImageReference, Repository, Tag, Version};

use super::super::markers::{Says, markers};
use super::super::prefilter::may_hold_markers;
use super::super::slots::{Reader, Slot};
use super::super::tree::{Kind, NodeId, Tree};

/// The parts of a kustomization that decide which images it runs.
#[derive(Debug)]
pub(super) struct Kustomization {
    /// `resources` and `bases`.
    pub(super) resources: Vec<Reference>,
    pub(super) components: Vec<Reference>,
    /// `images`.
    pub(super) entries: Vec<Entry>,
    pub(super) is_component: bool,
}

/// A path in a kustomization, from its folder on.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) path: String,
    pub(super) line: u32,
}

/// An entry of `images`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) new_name: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
}

/// An image as a rendered base names it.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// The name as it is written, which is what kustomize compares.
    pub(super) name: String,
    tag: Option<String>,
    digest: Option<String>,
    /// Whether an entry in the environment's own paths is about it.
    pub(super) is_set: bool,
}

impl Kustomization {
    /// Reads a kustomization; `None` where it is no single mapping.
    pub(super) fn of(tree: &Tree<'_>) -> Option<Self> {
        let [document] = tree.documents.as_slice() else { return None };
        let root = document.root;
        if !matches!(tree.node(root).kind, Kind::Mapping(_)) {
            return None;
        }
        let kind = tree.value_of(root, "kind").map(|kind| &*tree.node(kind).value);
        let references = |key: &str| references(tree, tree.value_of(root, key));
        Some(Self {
            resources: references("resources").into_iter().chain(references("bases")).collect(),
            components: references("components"),
            entries: entries(tree, tree.value_of(root, "images")),
            is_component: kind == Some("Component"),
        })
    }
}

fn references(tree: &Tree<'_>, list: Option<NodeId>) -> Vec<Reference> {
    items(tree, list)
        .filter(|item| matches!(tree.node(*item).kind, Kind::Scalar(_)))
        .map(|item| Reference { path: tree.node(item).value.clone().into_owned(), line: tree.node(item).line })
        .collect()
}

fn items<'tree>(tree: &'tree Tree<'_>, list: Option<NodeId>) -> impl Iterator<Item = NodeId> + 'tree {
    let list = list.map(|list| tree.resolve(list)).filter(|list| matches!(tree.node(*list).kind, Kind::Sequence(_)));
    list.into_iter().flat_map(|list| tree.children(list)).map(|item| tree.resolve(item))
}

fn entries(tree: &Tree<'_>, list: Option<NodeId>) -> Vec<Entry> {
    let mut reader = Reader::new(tree);
    let mut found = Vec::new();
    for item in items(tree, list).filter(|item| matches!(tree.node(*item).kind, Kind::Mapping(_))) {
        let Ok(slots) = reader.read(item) else { return found };
        let text = |slot| match reader.slot(slot) {
            Slot::Text(_, _, text) => Some(text.to_owned()),
            Slot::Absent | Slot::Other => None,
        };
        let Some(name) = text(slots.name) else { continue };
        let (tag, inner) = match text(slots.new_tag) {
            Some(tag) => match tag.split_once('@') {
                Some((tag, digest)) => (Some(tag.to_owned()), Some(digest.to_owned())),
                None => (Some(tag), None),
            },
            None => (None, None),
        };
        let digest = text(slots.digest).or(inner);
        found.push(Entry { name, line: tree.node(item).line, new_name: text(slots.new_name), tag, digest });
    }
    found
}

impl Entry {
    /// Whether it says a version at all, and not only another name.
    pub(super) fn has_version(&self) -> bool {
        self.tag.is_some() || self.digest.is_some()
    }

    /// Does to images what kustomize's image transformer does
    /// (<https://github.com/kubernetes-sigs/kustomize/blob/master/api/filters/imagetag/updater.go>). Returns whether
    /// the entry is about any of them.
    pub(super) fn apply(&self, images: &mut [Image], is_own: bool) -> bool {
        let mut matched = false;
        for image in images.iter_mut().filter(|image| image.name == self.name) {
            matched = true;
            image.is_set |= is_own;
            if let Some(name) = &self.new_name {
                image.name.clone_from(name);
            }
            if self.has_version() {
                image.tag.clone_from(&self.tag);
                image.digest.clone_from(&self.digest);
            }
        }
        matched
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

/// Returns the images that kustomize would find in a resource: those of `containers` and `initContainers`, at any
/// depth, but for what a marker excludes.
pub(super) fn images(bytes: &[u8]) -> Vec<Image> {
    // Both keys end so, and most resources have neither.
    if memmem::find(bytes, b"ontainers").is_none() {
        return Vec::new();
    }
    let Ok(tree) = Tree::parse(bytes) else { return Vec::new() };
    let ignored = ignored(&tree);
    let reader = Reader::new(&tree);
    let mut found = Vec::new();
    for document in &tree.documents {
        let kind = tree.value_of(document.root, "kind").map(|kind| &*tree.node(kind).value);
        if matches!(kind, None | Some("CustomResourceDefinition")) {
            continue;
        }
        for mapping in document.root..tree.node(document.root).subtree_end {
            if !matches!(tree.node(mapping).kind, Kind::Mapping(_)) {
                continue;
            }
            let lists = tree.entries(mapping).filter(|(key, _)| is_list_of_containers(&tree.node(*key).value));
            for container in lists.flat_map(|(_, list)| items(&tree, Some(list))) {
                let Slot::Text(at, node, text) = reader.slot(tree.value_of(container, "image")) else { continue };
                if !ignored.contains(&at) && !ignored.contains(&node) {
                    let (name, tag, digest) = ImageReference::split(text);
                    let (tag, digest) = (tag.map(str::to_owned), digest.map(str::to_owned));
                    found.push(Image { name: name.to_owned(), tag, digest, is_set: false });
                }
            }
        }
    }
    found
}

fn is_list_of_containers(key: &str) -> bool {
    matches!(key, "containers" | "initContainers")
}

fn ignored(tree: &Tree<'_>) -> BTreeSet<NodeId> {
    if !may_hold_markers(tree.text().as_bytes()) {
        return BTreeSet::new();
    }
    markers(tree).iter().filter(|marker| marker.says == Says::Ignore).filter_map(|marker| marker.at).collect()
}
