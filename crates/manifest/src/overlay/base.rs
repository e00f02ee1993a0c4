//! The files that an overlay includes, as kustomize reads them.
//!
//! These are kustomizations, and the images of resources.

use memchr::memmem;

use super::super::markers::{Ignored, markers};
use super::super::prefilter::may_hold_markers;
use super::super::site::Unreadable;
use super::super::slots::{Key, Reader, Slot};
use super::super::tree::{Kind, NodeId, Tree, is_in, outermost};
use super::entry::Entry;
use super::images::Image;
use super::json_patches::JsonPatch;
use tagrelay_image::ImageReference;

/// The parts of a kustomization that determine its images.
#[derive(Debug)]
pub(super) struct Kustomization {
    /// `resources` and `bases`.
    pub(super) resources: Vec<Reference>,
    pub(super) components: Vec<Reference>,
    pub(super) entries: Vec<Entry>,
    pub(super) is_component: bool,
    /// The patches in `patches` and `patchesJson6902` that may be JSON Patches.
    pub(super) patches: Vec<Patch>,
}

/// An entry of `patches`.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) content: PatchContent,
    /// `kind` and `name` of its `target`.
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

/// The source of a patch's operations.
#[derive(Debug)]
pub(super) enum PatchContent {
    Text(String),
    File(Reference),
}

/// A path in a kustomization, relative to its folder.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) path: String,
    pub(super) line: u32,
}

impl Kustomization {
    /// Reads a kustomization; `None`: the file is not a single map, or uses too many aliases.
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
            entries: entries(tree, tree.value_of(root, "images")).ok()?,
            is_component: kind == Some("Component"),
            patches: ["patches", "patchesJson6902"]
                .iter()
                .flat_map(|key| patches(tree, tree.value_of(root, key)))
                .collect(),
        })
    }
}

impl Kustomization {
    /// Returns whether the other kustomization includes the same files.
    pub(super) fn builds_upon_like(&self, other: &Self) -> bool {
        let paths = |references: &[Reference]| -> Vec<String> {
            references.iter().map(|reference| reference.path.clone()).collect()
        };
        paths(&self.resources) == paths(&other.resources)
            && paths(&self.components) == paths(&other.components)
            && self.is_component == other.is_component
    }
}

fn references(tree: &Tree<'_>, list: Option<NodeId>) -> Vec<Reference> {
    children_of_list(tree, list)
        .map(|item| tree.resolve(item))
        .filter(|item| matches!(tree.node(*item).kind, Kind::Scalar(_)))
        .map(|item| Reference { path: tree.node(item).value.clone().into_owned(), line: tree.node(item).line })
        .collect()
}

/// Returns the patches of a list. kustomize ignores a JSON Patch without a target.
fn patches(tree: &Tree<'_>, list: Option<NodeId>) -> Vec<Patch> {
    let text = |at: Option<NodeId>| {
        let node = tree.node(tree.resolve(at?));
        matches!(node.kind, Kind::Scalar(_)).then(|| (node.value.clone().into_owned(), node.line))
    };
    let patch = |item: NodeId| {
        let target = tree.resolve(tree.value_of(item, "target")?);
        let of_target = |key| text(tree.value_of(target, key)).map(|(text, _)| text);
        let content = match text(tree.value_of(item, "patch")) {
            Some((text, _)) => PatchContent::Text(text),
            None => {
                let (path, line) = text(tree.value_of(item, "path"))?;
                PatchContent::File(Reference { path, line })
            }
        };
        Some(Patch { content, kind: of_target("kind"), name: of_target("name") })
    };
    children_of_list(tree, list).filter_map(|item| patch(tree.resolve(item))).collect()
}

fn children_of_list<'tree>(tree: &'tree Tree<'_>, list: Option<NodeId>) -> impl Iterator<Item = NodeId> + 'tree {
    let list = list.map(|list| tree.resolve(list)).filter(|list| matches!(tree.node(*list).kind, Kind::Sequence(_)));
    list.into_iter().flat_map(|list| tree.children(list))
}

fn entries(tree: &Tree<'_>, list: Option<NodeId>) -> Result<Vec<Entry>, Unreadable> {
    let mut reader = Reader::new(tree);
    let mut found = Vec::new();
    for item in children_of_list(tree, list) {
        let item = reader.follow(item)?;
        if !matches!(tree.node(item).kind, Kind::Mapping(_)) {
            continue;
        }
        let slots = reader.read(item)?;
        let text = |slot| match reader.slot(slot) {
            Slot::Text(_, _, text) => Some(text.to_owned()),
            Slot::Absent | Slot::Other => None,
        };
        let Some(name) = text(slots[Key::Name]) else { continue };
        let (tag, inner) = match text(slots[Key::NewTag]) {
            Some(tag) => match tag.split_once('@') {
                Some((tag, digest)) => (Some(tag.to_owned()), Some(digest.to_owned())),
                None => (Some(tag), None),
            },
            None => (None, None),
        };
        let digest = text(slots[Key::Digest]).or(inner);
        let line = tree.node(item).line;
        let version_line = slots[Key::NewTag].or(slots[Key::Digest]).map_or(line, |version| tree.node(version).line);
        found.push(Entry { name, line, new_name: text(slots[Key::NewName]), tag, digest, version_line });
    }
    Ok(found)
}

/// Returns the images that kustomize finds in a resource.
///
/// These are the images of `containers` and `initContainers` at any depth, except those that a marker excludes. `patches`: the JSON
/// Patches that apply to the resource.
///
/// # Errors
///
/// If the resource cannot be read.
pub(super) fn images(bytes: &[u8], patches: &[JsonPatch]) -> Result<Vec<Image>, Unreadable> {
    // `containers` and `initContainers` both end like this, and most resources have neither.
    if memmem::find(bytes, b"ontainers").is_none() {
        return Ok(Vec::new());
    }
    let tree = Tree::parse(bytes)?;
    let markers = if may_hold_markers(bytes) { markers(&tree) } else { Vec::new() };
    let ignored = Ignored::of(&tree, &markers);
    let mut reader = Reader::new(&tree);
    let mut found = Vec::new();
    for document in &tree.documents {
        let kind = tree.value_of(document.root, "kind").map(|kind| &*tree.node(kind).value);
        if matches!(kind, None | Some("CustomResourceDefinition")) {
            continue;
        }
        let patched: Vec<_> = patches.iter().flat_map(|patch| patch.touched(&tree, document.root)).collect();
        let patched = outermost(patched);
        for mapping in document.root..tree.node(document.root).subtree_end {
            if !matches!(tree.node(mapping).kind, Kind::Mapping(_)) {
                continue;
            }
            let lists = tree.entries(mapping).filter(|(key, _)| is_list_of_containers(&tree.node(*key).value));
            for (_, list) in lists {
                reader.follow(list)?;
                for container in children_of_list(&tree, Some(list)) {
                    let container = reader.follow(container)?;
                    let Slot::Text(at, node, text) = reader.slot(tree.value_of(container, "image")) else { continue };
                    if !ignored.takes(&tree, at) && !ignored.takes(&tree, node) {
                        let (name, tag, digest) = ImageReference::split(text);
                        let (tag, digest) = (tag.map(str::to_owned), digest.map(str::to_owned));
                        let is_patched = is_in(&patched, at);
                        found.push(Image { name: name.to_owned(), tag, digest, is_set: false, is_patched });
                    }
                }
            }
        }
    }
    Ok(found)
}

fn is_list_of_containers(key: &str) -> bool {
    matches!(key, "containers" | "initContainers")
}
