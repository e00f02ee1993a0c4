//! Detects whether the change of a scalar would reach another position through an anchor.
//!
//! An alias repeats the node of its anchor, and a merge key (`<<`) repeats the entries of its anchor's map. The bytes of one scalar
//! may therefore stand for several positions. A change is correct only if each position is a site with the same wanted change.
//! These positions are:
//!
//! - the scalar's own position, unless it is below a key that only holds anchors (`x-…`, `.…`, `_…`);
//! - every alias of the scalar;
//! - every alias of a collection around the scalar. If the collection contains the whole site, the copy is the same site. A site
//!   that a marker or rule names is one position without copies;
//! - every map that gets the scalar through a merge key and does not have the key itself. Such a map must be a map of the site.
//!
//! No position may be excluded by `# tagrelay: ignore`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tagrelay_image::Repository;

use super::find::Sites;
use super::slots::merge_sources;
use super::tree::{Kind, NodeId, Tree, is_in, outermost};

/// A scalar that cannot be changed alone.
pub(crate) struct Stray {
    pub(crate) node: NodeId,
    /// The position that would change too.
    pub(crate) place: NodeId,
}

/// Finds a scalar of `changing` that also stands for a position other than a wanted site.
pub(crate) fn stray_use(
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

    // By scalar: the positions that are sites, and the maps of the sites.
    let mut reached: BTreeSet<NodeId> = BTreeSet::new();
    let mut homes: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for found in &sites.found {
        for part in found.parts().filter(|part| shared.contains(&part.node)) {
            let place = found.homes.first().copied().unwrap_or(part.node);
            if !is_wanted(&found.site.repository) {
                return Some(Stray { node: part.node, place });
            }
            // A position belongs to the site if it is in the site's own map. A merged map may have its own meaning.
            let is_own =
                |at: &&NodeId| found.homes.is_empty() || found.homes.iter().any(|home| subtree(*home).contains(at));
            reached.extend(part.reached_by.iter().filter(is_own));
            homes.entry(part.node).or_default().extend(&found.homes);
        }
    }

    // A text with sites changes as a whole, and has the same content in all its positions.
    for embedded in sites.embedded.iter().filter(|embedded| shared.contains(&embedded.node)) {
        reached.extend(&embedded.reached_by);
        let holders = homes.entry(embedded.node).or_default();
        // A rule leads into this text only, and not into its copies.
        holders.extend(embedded.rules.is_empty().then_some(embedded.node));
    }

    let apart = set_apart(tree);
    let is_apart = |id: NodeId| is_in(&apart, id);
    if let Some(node) = shared.iter().find(|node| !reached.contains(node) && !is_apart(**node)) {
        return Some(Stray { node: *node, place: *node });
    }
    let is_whole = |node: &NodeId, target: NodeId| homes[node].iter().any(|home| subtree(target).contains(home));
    let is_ignored = |alias: NodeId| sites.ignored_aliases.binary_search(&alias).is_ok();
    for mapping in merging(tree, sites).filter(|mapping| !is_apart(*mapping)) {
        let merges_ignored = merged_by(tree, mapping).any(is_ignored);
        for value in merged_values(tree, mapping) {
            let target = tree.resolve(value);
            let strays = |node: &&NodeId| match **node == target {
                _ if merges_ignored => true,
                true => !homes[*node].contains(&mapping),
                false => !is_whole(node, target),
            };
            if let Some(node) = shared.range(subtree(target)).find(strays) {
                return Some(Stray { node: *node, place: mapping });
            }
        }
    }
    let is_merge = |alias: NodeId| sites.merges.binary_search(&alias).is_ok();
    if let Some(stray) = ignored_copy(tree, &shared, sites.ignored_aliases.iter().filter(|alias| !is_merge(**alias))) {
        return Some(stray);
    }
    let mut copied = BTreeSet::new();
    for alias in &tree.aliases {
        let target = tree.resolve(*alias);
        if changing.contains(&target) && !reached.contains(alias) {
            return Some(Stray { node: target, place: *alias });
        }
        if !is_merge(*alias) && copied.insert(target) {
            let inside = subtree(target).start + 1..subtree(target).end;
            if let Some(node) = shared.range(inside).find(|node| !is_whole(node, target)) {
                return Some(Stray { node: *node, place: *alias });
            }
        }
    }
    None
}

/// Finds a scalar that one of the `ignored` aliases reaches, directly or through other aliases.
fn ignored_copy<'a>(
    tree: &Tree<'_>,
    shared: &BTreeSet<NodeId>,
    ignored: impl Iterator<Item = &'a NodeId>,
) -> Option<Stray> {
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<(NodeId, NodeId)> = ignored.map(|alias| (*alias, *alias)).collect();
    while let Some((alias, place)) = waiting.pop() {
        let target = tree.resolve(alias);
        if !seen.insert(target) {
            continue;
        }
        let copied = target..tree.node(target).subtree_end;
        if let Some(node) = shared.range(copied.clone()).next() {
            return Some(Stray { node: *node, place });
        }
        let inner = tree.aliases.partition_point(|alias| *alias < copied.start);
        let inner = tree.aliases[inner..].iter().take_while(|alias| copied.contains(alias));
        waiting.extend(inner.map(|alias| (*alias, place)));
    }
    None
}

/// Returns the nodes that the merge keys of a map name.
fn merged_by<'a>(tree: &'a Tree<'_>, mapping: NodeId) -> impl Iterator<Item = NodeId> + 'a {
    let merges = tree.entries(mapping).filter(|(key, _)| tree.node(*key).value == "<<");
    merges.flat_map(|(_, value)| merge_sources(tree, value))
}

/// Returns the maps with a merge key. The search for sites has limited the size of these maps.
fn merging<'a>(tree: &'a Tree<'_>, sites: &Sites<'_>) -> impl Iterator<Item = NodeId> + 'a {
    let ids = if sites.merges.is_empty() { 0..0 } else { 0..tree.nodes.len() as NodeId };
    let is_mapping = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Mapping(_));
    ids.filter(is_mapping).filter(|id| tree.entries(*id).any(|(key, _)| tree.node(key).value == "<<"))
}

/// Returns the values that merge keys add to a map: values of keys that the map does not have.
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
        // Of several maps, the first one takes precedence.
        waiting[before..].reverse();
    }
    values
}

/// Returns the subtrees below keys that only hold anchors, in the order of the text, not nested.
fn set_apart(tree: &Tree<'_>) -> Vec<Range<NodeId>> {
    let is_apart = |key: &str| key.starts_with("x-") || key.starts_with('.') || key.starts_with('_');
    let is_mapping = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Mapping(_));
    let mappings = (0..tree.nodes.len() as NodeId).filter(is_mapping);
    let entries = mappings.flat_map(|mapping| tree.entries(mapping));
    let apart = entries.filter(|(key, _)| is_apart(&tree.node(*key).value));
    outermost(apart.map(|(_, value)| value..tree.node(value).subtree_end).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{ManifestSettings, Refused, RulePart, SiteRule, Wanted, edit_with};

    /// Sets `a` to `v2`, perhaps named by a rule at a path. Returns the new text, or the two lines of the refusal.
    fn set(text: &str, path: Option<&str>) -> Result<String, (u32, u32)> {
        let rule = |path| SiteRule::new("*.yaml", path, Some("a".parse().unwrap()), RulePart::Tag).unwrap();
        let settings = ManifestSettings { rules: path.map(rule).into_iter().collect(), ..ManifestSettings::default() };
        let version = tagrelay_image::Version::tagged("v2".parse().unwrap(), None);
        let wanted = [Wanted { repository: "a".parse().unwrap(), version }];
        match edit_with("a.yaml", text.as_bytes(), &wanted, &settings) {
            Ok(edited) => Ok(String::from_utf8(edited.bytes).unwrap()),
            Err(Refused::Shared { line, other_line, .. }) => Err((line, other_line)),
            Err(refused) => panic!("{refused}\n{text}"),
        }
    }

    #[test]
    fn named_position_has_no_copies() {
        for (text, path, lines) in [
            ("a: &e\n  v: v1 # tagrelay: docker.io/library/a\nb: *e\n", None, (2, 3)),
            ("a: &e [v1] # tagrelay: docker.io/library/a\nb: *e\n", None, (1, 2)),
            ("a: &e\n  c: {v: v1} # tagrelay: docker.io/library/a\nb:\n  <<: *e\n", None, (2, 4)),
            ("r: [&e {name: e, v: v1}]\no: *e\n", Some("$.r[?name=='e'].v"), (1, 2)),
            ("r: &e\n  t: |\n    v: v1\no: *e\n", Some("$.r.t.v"), (3, 4)),
        ] {
            assert_eq!(set(text, path), Err(lines), "{text}");
        }
        for (text, path) in [
            ("a: &e\n  v: v1 # tagrelay: docker.io/library/a\n", None),
            ("a: &e {name: e}\nr: {v: v1, e: *e}\n", Some("$.r.v")),
            ("v: &v v1 # tagrelay: docker.io/library/a\nw: *v # tagrelay: docker.io/library/a\n", None),
        ] {
            assert_eq!(set(text, path), Ok(text.replace("v1", "v2")), "{text}");
        }
    }

    #[test]
    fn ignored_positions_never_change() {
        for (text, lines) in [
            ("a: &x {repository: a, tag: v1}\nc: *x # tagrelay: ignore\n", (1, 2)),
            ("a: &x {repository: a, tag: v1}\nb: # tagrelay: ignore\n  <<: *x\n", (1, 3)),
            ("a: &x {repository: a, tag: v1}\nb: {<<: *x} # tagrelay: ignore\n", (1, 2)),
            ("a: &x {repository: a, tag: v1}\nb: {<<: *x, repository: b} # tagrelay: ignore\n", (1, 2)),
            ("a: &x {repository: a, tag: v1}\nb:\n- # tagrelay: ignore\n  <<: *x\n  repository: b\n", (1, 4)),
            ("a: &x {repository: a, tag: v1}\nb: &y {<<: *x}\nc:\n  <<: [*y] # tagrelay: ignore\n", (1, 4)),
            ("a: &x {repository: a, tag: v1}\nb: &y [*x]\nc: *y # tagrelay: ignore\n", (1, 3)),
        ] {
            assert_eq!(set(text, None), Err(lines), "{text}");
        }
        for text in [
            "a: &x {repository: a, tag: v1}\nb: *x\n",
            "a: &x {repository: a, tag: v1}\nb: {<<: *x, tag: v9} # tagrelay: ignore\n",
            "a: &x {repository: a, tag: v1}\nb: *x\nc: &y {image: b:1}\nd: *y # tagrelay: ignore\n",
        ] {
            assert_eq!(set(text, None), Ok(text.replace("v1", "v2")), "{text}");
        }
    }
}
