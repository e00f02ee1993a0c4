//! Proves that entries were added to a kustomization, and that nothing else changed.

use granit_parser::ScalarStyle;

use super::super::plain::reads_as_string;
use super::super::tree::{Kind, NodeId, Tree};
use super::base::Kustomization;
use super::entry::{Entry, NewEntry};

/// Nodes that are inserted into a text.
pub(super) struct Insertion<'a> {
    /// The byte position of the insertion.
    pub(super) at: usize,
    pub(super) text: String,
    /// The node after the insertion.
    pub(super) before: NodeId,
    /// The collections that contain the insertion.
    pub(super) around: Vec<NodeId>,
    /// The inserted nodes.
    pub(super) expected: Vec<Expected<'a>>,
}

/// An inserted node.
///
/// A sequence extends to the end of the insertion. A map extends over a number of pairs of scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected<'a> {
    Sequence,
    Mapping(NodeId),
    Scalar(&'a str),
}

impl Insertion<'_> {
    /// Returns the text with the insertion.
    pub(super) fn applied_to(&self, text: &str) -> String {
        let (before, behind) = text.split_at(self.at);
        [before, &self.text, behind].concat()
    }
}

/// Proves that an insertion is the only change to a kustomization, and returns the nodes of `new`.
///
/// `new` is the old text with the expected nodes in one position. kustomize reads `new` as the old kustomization with additional
/// `entries` at the end.
///
/// # Errors
///
/// The first difference, as a sentence.
pub(super) fn proof_of_insertion<'new>(
    old: &Tree<'_>,
    new: &'new str,
    insertion: &Insertion<'_>,
    entries: &[NewEntry<'_>],
) -> Result<(Tree<'new>, Kustomization), String> {
    // 1. Around the insertion, every byte is equal.
    let before = old.text().get(..insertion.at).ok_or("the insertion is after the file")?;
    let behind = new.strip_prefix(before).and_then(|rest| rest.strip_prefix(insertion.text.as_str()));
    if behind != old.text().get(insertion.at..) {
        return Err("bytes around the insertion changed".to_owned());
    }

    // 2. Parsed again, the new text has the old nodes, and the expected nodes before `insertion.before`.
    let new = Tree::parse(new.as_bytes()).map_err(|error| format!("the new text cannot be read: {error}"))?;
    let (start, count) = (insertion.before, insertion.expected.len() as NodeId);
    if old.documents.len() != 1 || old.documents != new.documents || new.nodes.len() != old.nodes.len() + count as usize
    {
        return Err("the new text has other documents, keys or values".to_owned());
    }
    let moved = |id: NodeId| if id < start { id } else { id + count };
    for (id, old_node) in (0..).zip(&old.nodes) {
        let new_node = new.node(moved(id));
        let kind = match old_node.kind {
            Kind::Alias(target) => Kind::Alias(moved(target)),
            other => other,
        };
        let grown = if id >= start || insertion.around.contains(&id) { count } else { 0 };
        let is_same = kind == new_node.kind && old_node.value == new_node.value && old_node.is_marked_like(new_node);
        if !is_same || old_node.subtree_end + grown != new_node.subtree_end {
            return Err(format!("line {} reads differently", old_node.line));
        }
    }
    for (id, expected) in (start..).zip(&insertion.expected) {
        let node = new.node(id);
        let is_expected = match (expected, node.kind) {
            (Expected::Sequence, Kind::Sequence(_)) => node.subtree_end == start + count,
            (Expected::Mapping(pairs), Kind::Mapping(_)) => node.subtree_end == id + 1 + 2 * pairs,
            (Expected::Scalar(value), Kind::Scalar(style)) => {
                node.value == *value && (style != ScalarStyle::Plain || reads_as_string(value))
            }
            _ => false,
        };
        if !is_expected || !node.is_bare() {
            return Err(format!("{expected:?} reads back as something else"));
        }
    }

    // 3. A second reader agrees about the inserted text.
    match serde_yaml::from_str::<serde_yaml::Value>(&insertion.text) {
        Ok(second) if second == second_reading(&insertion.expected) => {}
        _ => return Err("the inserted text is read back differently".to_owned()),
    }

    // 4. Read as a kustomization, the new text has exactly these additional entries.
    let (Some(before), Some(after)) = (Kustomization::of(old), Kustomization::of(&new)) else {
        return Err("it is not a kustomization".to_owned());
    };
    let is_same = |(old, new): (&Entry, &Entry)| old.says_like(new);
    let (kept, added) = after.entries.split_at_checked(before.entries.len()).ok_or("an entry is gone")?;
    let is_kept = kept.iter().zip(&before.entries).all(is_same) && after.builds_upon_like(&before);
    let is_added = added.len() == entries.len() && added.iter().zip(entries).all(|(added, wanted)| added.is(wanted));
    if !is_kept || !is_added {
        return Err("the kustomization has other entries or resources than it should".to_owned());
    }
    Ok((new, after))
}

/// Returns the expected nodes in the form that the second reader returns.
fn second_reading(expected: &[Expected<'_>]) -> serde_yaml::Value {
    let text = |text: &str| serde_yaml::Value::String(text.to_owned());
    let mut items = Vec::new();
    let mut rest = expected;
    loop {
        match rest {
            [Expected::Scalar(key), Expected::Sequence, list @ ..] => {
                return serde_yaml::Value::Mapping([(text(key), second_reading(list))].into_iter().collect());
            }
            [Expected::Mapping(pairs), behind @ ..] => {
                let (own, behind) = behind.split_at((2 * *pairs as usize).min(behind.len()));
                let pair = |pair: &[Expected<'_>]| match pair {
                    [Expected::Scalar(key), Expected::Scalar(value)] => Some((text(key), text(value))),
                    _ => None,
                };
                items.push(serde_yaml::Value::Mapping(own.chunks_exact(2).filter_map(pair).collect()));
                rest = behind;
            }
            _ => return serde_yaml::Value::Sequence(items),
        }
    }
}
