//! JSON Patches of kustomizations that may replace an image of a base.
//!
//! kustomize applies patches before `images`, so an entry matches the patched image and not the original one.

use std::ops::Range;

use super::super::json_patch::is_json_patch;
use super::super::tree::{Kind, NodeId, Tree};
use tagrelay_image::{ImageReference, Repository};

/// A JSON Patch with its target.
#[derive(Debug)]
pub(super) struct JsonPatch {
    /// The values in `target`: patterns, as in kustomize.
    kind: Option<String>,
    name: Option<String>,
    operations: Vec<Operation>,
}

/// The effect of an operation.
#[derive(Debug, PartialEq, Eq)]
struct Operation {
    pointer: String,
    /// Whether the operation inserts a value before an item of a list, if the pointer leads to an item.
    inserts: bool,
    /// The repository of the image that the operation sets.
    sets: Option<Repository>,
}

impl JsonPatch {
    /// Reads a patch; `None`: the bytes are not a JSON Patch.
    pub(super) fn of(bytes: &[u8], kind: Option<String>, name: Option<String>) -> Option<Self> {
        let tree = Tree::parse(bytes).ok()?;
        let root = tree.documents.first()?.root;
        if !is_json_patch(&tree, root) {
            return None;
        }
        let operations = tree.children(root).flat_map(|item| effects(&tree, tree.resolve(item))).collect();
        Some(Self { kind, name, operations })
    }

    /// Returns a patch that may replace any value.
    pub(super) fn of_everything() -> Self {
        let whole = Operation { pointer: String::new(), inserts: false, sets: None };
        Self { kind: None, name: None, operations: vec![whole] }
    }

    /// Returns the number of operations.
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Returns the repositories of the images that the patch sets.
    pub(super) fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.operations.iter().filter_map(|operation| operation.sets.as_ref())
    }

    /// Returns the positions of an object that the patch may replace or remove.
    pub(super) fn touched(&self, tree: &Tree<'_>, root: NodeId) -> Vec<Range<NodeId>> {
        let text = |at: Option<NodeId>| at.map(|at| &*tree.node(tree.resolve(at)).value);
        let (kind, metadata) = (text(tree.value_of(root, "kind")), tree.value_of(root, "metadata"));
        let name = text(metadata.and_then(|metadata| tree.value_of(tree.resolve(metadata), "name")));
        let may_be = |wanted: &Option<String>, is: Option<&str>, fits: fn(&str, &str) -> bool| match (wanted, is) {
            (Some(wanted), Some(is)) => has_wildcards(wanted) || fits(wanted, is),
            _ => true,
        };
        // The name may have an additional prefix or suffix.
        let is_meant = may_be(&self.kind, kind, |wanted, is| wanted == is)
            && may_be(&self.name, name, |wanted, is| wanted.contains(is));
        let operations = if is_meant { self.operations.as_slice() } else { &[] };
        operations.iter().filter_map(|operation| operation.touched(tree, root)).collect()
    }
}

impl Operation {
    fn touched(&self, tree: &Tree<'_>, root: NodeId) -> Option<Range<NodeId>> {
        let (mut at, mut is_item) = (root, false);
        for part in self.pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            at = tree.resolve(at);
            is_item = matches!(tree.node(at).kind, Kind::Sequence(_));
            at = if is_item { tree.children(at).nth(part.parse().ok()?)? } else { tree.value_of(at, &part)? };
        }
        (!(is_item && self.inserts)).then(|| at..tree.node(at).subtree_end)
    }
}

/// Returns the effects of an operation on existing values.
///
/// `test` has none. `copy` inserts at `path` like `add`. `move` removes at `from`, and inserts at `path` (RFC 6902, section 4.4).
fn effects(tree: &Tree<'_>, item: NodeId) -> Vec<Operation> {
    let text = |key| tree.value_of(item, key).map(|value| &*tree.node(tree.resolve(value)).value);
    let op = text("op").unwrap_or_default();
    let effect = |pointer: Option<&str>, inserts| {
        let sets = match op {
            "add" | "replace" if pointer.is_some_and(|pointer| pointer.ends_with("/image")) => text("value"),
            _ => None,
        };
        let sets = sets.and_then(|image| ImageReference::split(image).0.parse().ok());
        Some(Operation { pointer: pointer?.to_owned(), inserts, sets })
    };
    let all = match op {
        "test" | "" => [None, None],
        "move" => [effect(text("from"), false), effect(text("path"), true)],
        _ => [effect(text("path"), matches!(op, "add" | "copy")), None],
    };
    all.into_iter().flatten().collect()
}

/// Returns whether a pattern is more than literal text.
///
/// kustomize reads patterns as regular expressions.
fn has_wildcards(pattern: &str) -> bool {
    pattern.is_empty() || pattern.contains(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn move_changes_both_of_its_places() {
        let touched = |patch: &str| {
            let patch = JsonPatch::of(patch.as_bytes(), None, None).unwrap();
            let text = "kind: Deployment\nspec:\n  image: a\n  other: b\n";
            let tree = Tree::parse(text.as_bytes()).unwrap();
            patch.touched(&tree, tree.documents[0].root).len()
        };
        let patch = |op: &str| format!("- op: {op}\n  from: /spec/other\n  path: /spec/image\n");
        assert_eq!([touched(&patch("move")), touched(&patch("copy")), touched(&patch("test"))], [2, 1, 0]);
    }
}
