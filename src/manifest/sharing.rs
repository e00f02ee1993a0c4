//! Whether the change of a scalar would reach something else through an anchor.
//!
//! An alias repeats its anchor's node, and a merge key (`<<`) repeats the entries of its anchor's mapping. So
//! the bytes of one scalar may stand for several places, and a change of the scalar is right only when each
//! of these places is a site that is wanted to change in the same way. Such places are:
//!
//! - the scalar's own place, which counts unless it stands below a key that is there to hold anchors (`x-…`,
//!   `.…`, `_…`; what stands there has no meaning of its own);
//! - every alias of the scalar;
//! - every alias of a collection around the scalar. As long as the whole site stands in the collection, the
//!   copy is the same site once more;
//! - every mapping into which a merge key brings it, where the mapping does not say the key itself: it has to be one
//!   of the mappings that have the site.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::image::Repository;

use super::find::Sites;
use super::slots::merge_sources;
use super::tree::{Kind, NodeId, Tree, is_in, outermost};

/// A scalar that cannot change alone.
pub(super) struct Stray {
    /// The scalar.
    pub(super) node: NodeId,
    /// The place that would change with it and should not.
    pub(super) place: NodeId,
}

/// Finds a scalar of `changing` that stands for something else than sites of wanted repositories, too.
pub(super) fn stray_use(
    tree: &Tree<'_>,
    sites: &Sites<'_>,
    changing: &BTreeSet<NodeId>,
    is_wanted: impl Fn(&Repository) -> bool,
) -> Option<Stray> {
    let targets: BTreeSet<NodeId> = tree.aliases.iter().map(|alias| tree.resolve(*alias)).collect();
    let subtree = |id: NodeId| id..tree.node(id).subtree_end;
    let shared: BTreeSet<NodeId> = targets.iter().flat_map(|id| changing.range(subtree(*id))).copied().collect();
    if shared.is_empty() {
        return None;
    }

    // The places that are sites, and the mappings of the sites, by scalar.
    let mut reached: BTreeSet<NodeId> = BTreeSet::new();
    let mut homes: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for found in &sites.found {
        for part in found.parts().filter(|part| shared.contains(&part.node)) {
            let place = found.homes.first().copied().unwrap_or(part.node);
            if !is_wanted(&found.site.repository) {
                return Some(Stray { node: part.node, place });
            }
            // A place is the site's own when it stands in the site's mapping, not in one that is merged in:
            // that one may mean something by itself.
            let is_own = |at: &&NodeId| found.homes.iter().any(|home| subtree(*home).contains(at));
            reached.extend(part.reached_by.iter().filter(is_own));
            homes.entry(part.node).or_default().extend(&found.homes);
        }
    }

    // A text with sites inside changes as a whole, and is the same wherever it is reached as such.
    for embedded in sites.embedded.iter().filter(|embedded| shared.contains(&embedded.node)) {
        reached.extend(&embedded.reached_by);
        homes.entry(embedded.node).or_default().push(embedded.node);
    }

    let apart = set_apart(tree);
    let is_apart = |id: NodeId| is_in(&apart, id);
    if let Some(node) = shared.iter().find(|node| !reached.contains(node) && !is_apart(**node)) {
        return Some(Stray { node: *node, place: *node });
    }
    let is_whole = |node: &NodeId, target: NodeId| homes[node].iter().any(|home| subtree(target).contains(home));
    for mapping in merging(tree, sites).filter(|mapping| !is_apart(*mapping)) {
        for value in merged_values(tree, mapping) {
            let target = tree.resolve(value);
            let strays = |node: &&NodeId| match **node == target {
                true => !homes[*node].contains(&mapping),
                false => !is_whole(node, target),
            };
            if let Some(node) = shared.range(subtree(target)).find(strays) {
                return Some(Stray { node: *node, place: mapping });
            }
        }
    }
    let mut copied = BTreeSet::new();
    for alias in &tree.aliases {
        let target = tree.resolve(*alias);
        if changing.contains(&target) && !reached.contains(alias) {
            return Some(Stray { node: target, place: *alias });
        }
        if sites.merges.binary_search(alias).is_err() && copied.insert(target) {
            let inside = subtree(target).start + 1..subtree(target).end;
            if let Some(node) = shared.range(inside).find(|node| !is_whole(node, target)) {
                return Some(Stray { node: *node, place: *alias });
            }
        }
    }
    None
}

/// Returns the mappings that have a merge key. The finder has bounded how much they merge.
fn merging<'a>(tree: &'a Tree<'_>, sites: &Sites<'_>) -> impl Iterator<Item = NodeId> + 'a {
    let ids = if sites.merges.is_empty() { 0..0 } else { 0..tree.nodes.len() as NodeId };
    let is_mapping = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Mapping(_));
    ids.filter(is_mapping).filter(|id| tree.entries(*id).any(|(key, _)| tree.node(key).value == "<<"))
}

/// Returns the values that merge keys bring into a mapping: those of keys that nothing before them has.
fn merged_values(tree: &Tree<'_>, mapping: NodeId) -> Vec<NodeId> {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut values = Vec::new();
    let mut seen: BTreeSet<NodeId> = BTreeSet::new();
    let mut waiting = vec![mapping];
    while let Some(source) = waiting.pop() {
        if !seen.insert(source) || !matches!(tree.node(source).kind, Kind::Mapping(_)) {
            continue;
        }
        let before = waiting.len();
        for (key, value) in tree.entries(source) {
            let text = &*tree.node(tree.resolve(key)).value;
            if text == "<<" {
                waiting.extend(merge_sources(tree, value).map(|id| tree.resolve(id)));
            } else if known.insert(text) && source != mapping {
                values.push(value);
            }
        }
        // The first that is named counts before the others.
        waiting[before..].reverse();
    }
    values
}

/// Returns the subtrees below keys that are there to hold anchors, in the order of the text, none in another.
fn set_apart(tree: &Tree<'_>) -> Vec<Range<NodeId>> {
    let is_apart = |key: &str| key.starts_with("x-") || key.starts_with('.') || key.starts_with('_');
    let is_mapping = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Mapping(_));
    let mappings = (0..tree.nodes.len() as NodeId).filter(is_mapping);
    let entries = mappings.flat_map(|mapping| tree.entries(mapping));
    let apart = entries.filter(|(key, _)| is_apart(&tree.node(*key).value));
    outermost(apart.map(|(_, value)| value..tree.node(value).subtree_end).collect())
}
