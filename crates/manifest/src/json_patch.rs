//! Recognises a JSON Patch.
//!
//! Source: <https://datatracker.ietf.org/doc/html/rfc6902>.

use super::tree::{Kind, NodeId, Tree};

/// The operations of JSON Patch (<https://datatracker.ietf.org/doc/html/rfc6902#section-4>).
pub(crate) const OPERATIONS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// Returns whether a node is a JSON Patch: a list that contains only operations.
pub(crate) fn is_json_patch(tree: &Tree<'_>, root: NodeId) -> bool {
    let is_operation = |item: NodeId| {
        let text = |key| tree.value_of(item, key).map(|value| &*tree.node(value).value);
        text("op").is_some_and(|op| OPERATIONS.contains(&op)) && text("path").is_some_and(is_pointer)
    };
    matches!(tree.node(root).kind, Kind::Sequence(_))
        && tree.node(root).subtree_end > root + 1
        && tree.children(root).all(|item| is_operation(tree.resolve(item)))
}

/// Returns whether a text is a JSON Pointer (<https://datatracker.ietf.org/doc/html/rfc6901>).
pub(crate) fn is_pointer(text: &str) -> bool {
    text.is_empty() || text.starts_with('/')
}
