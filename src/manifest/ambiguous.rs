//! Refuses files that readers differ on where it counts.

use std::collections::BTreeMap;

use granit_parser::StructureStyle;

use super::found::Found;
use super::site::Unreadable;
use super::slots::twice;
use super::tree::{Kind, Node, NodeId, TEMPLATE_HINT, Tree};

/// Refuses what only looks like YAML: `{{ .Values.x }}` reads as a mapping whose key is a mapping, which nobody writes.
/// Texts inside a file may be templates all the same: Argo CD renders those of an ApplicationSet.
pub(super) fn refuse_template(tree: &Tree<'_>) -> Result<(), Unreadable> {
    let is_flow = |node: &Node<'_>| node.kind == Kind::Mapping(StructureStyle::Flow);
    let opens_twice =
        |pair: &&[Node<'_>]| is_flow(&pair[0]) && is_flow(&pair[1]) && pair[0].span().start + 1 == pair[1].span().start;
    match tree.nodes.windows(2).find(opens_twice) {
        Some(pair) => Err(Unreadable { line: Some(pair[0].line), reason: format!("holds `{{{{`{TEMPLATE_HINT}") }),
        None => Ok(()),
    }
}

/// Refuses a key that is there twice on the way to a site: readers differ on which of the two counts.
pub(super) fn refuse_duplicates_above(tree: &Tree<'_>, found: &[Found]) -> Result<(), Unreadable> {
    let mut parts: Vec<NodeId> = found.iter().flat_map(Found::parts).map(|part| part.node).collect();
    parts.sort_unstable();
    let leads_to_a_site = |id: NodeId| {
        let behind = parts.partition_point(|part| *part < id);
        parts.get(behind).is_some_and(|part| *part < tree.node(id).subtree_end)
    };
    let is_above = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Mapping(_)) && leads_to_a_site(*id);
    for mapping in (0..tree.nodes.len() as NodeId).filter(is_above) {
        let mut keys: BTreeMap<&str, bool> = BTreeMap::new();
        for (key, value) in tree.entries(mapping) {
            let text = &*tree.node(tree.resolve(key)).value;
            let is_scalar = matches!(tree.node(tree.resolve(key)).kind, Kind::Scalar(_));
            let leads = leads_to_a_site(value);
            // Several merge keys are merged one after another.
            if is_scalar && text != "<<" && keys.insert(text, leads).is_some_and(|other| other || leads) {
                return Err(twice(tree, key));
            }
        }
    }
    Ok(())
}
