//! A YAML file as a flat list of nodes, each with its bytes, its line and the end of its subtree.
//!
//! A flat list needs one allocation for the file. It is traversed without recursion, so depth cannot overflow the stack, and
//! aliases are numbers that are never expanded.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use granit_parser::{ScalarStyle, StructureStyle, Tag, YamlVersion};

/// Limit of nodes in a file. Limits the memory: an edit of such a file, which holds the file twice, used 220 MB.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// The advice after the message "it holds `{{`".
pub(crate) const TEMPLATE_HINT: &str =
    ", so it may be a template, which is not YAML until it is rendered: leave it out of the environment's paths";

/// The index of a node in the list of its file.
pub(crate) type NodeId = u32;

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A scalar with its style.
    Scalar(ScalarStyle),
    /// A sequence, followed by its items.
    Sequence(StructureStyle),
    /// A map, followed by its keys and values in turn.
    Mapping(StructureStyle),
    /// An alias of the node with this index.
    Alias(NodeId),
}

/// One node.
#[derive(Debug, PartialEq)]
pub(crate) struct Node<'text> {
    pub(crate) kind: Kind,
    /// The value of a scalar without escapes; empty for other kinds.
    pub(crate) value: Cow<'text, str>,
    /// The first byte of the node.
    ///
    /// The bytes of a quoted scalar include its quotes. The bytes of a block scalar are its content, without the line of the
    /// indicator.
    pub(super) start: u32,
    /// The byte after the node, for scalars and aliases.
    pub(super) end: u32,
    /// The line of the first byte, from 1.
    pub(crate) line: u32,
    /// The index after the node's subtree.
    pub(crate) subtree_end: NodeId,
    /// Whether the node has an anchor.
    pub(super) is_anchored: bool,
    /// The explicit tag. Boxed, because tags are rare.
    pub(super) tag: Option<Box<Tag>>,
}

impl Node<'_> {
    /// Returns the node's bytes; see [`Node::start`].
    pub(crate) fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Returns whether an explicit tag other than `!!str` gives the node another type.
    pub(crate) fn is_retyped(&self) -> bool {
        self.tag.as_ref().is_some_and(|tag| !tag.is_yaml_core_schema_tag("str"))
    }

    /// Returns whether a node of another text is equal except for its position and bytes.
    pub(crate) fn reads_like(&self, other: &Node<'_>) -> bool {
        self.kind == other.kind && self.value == other.value && self.is_framed_like(other)
    }

    /// Returns whether the other node has the same anchor, tag and size of the subtree.
    pub(crate) fn is_framed_like(&self, other: &Node<'_>) -> bool {
        self.is_marked_like(other) && self.subtree_end == other.subtree_end
    }

    /// Returns whether the other node has the same anchor and tag.
    pub(crate) fn is_marked_like(&self, other: &Node<'_>) -> bool {
        self.is_anchored == other.is_anchored && self.tag == other.tag
    }

    /// Returns whether the node has neither anchor nor tag.
    pub(crate) fn is_bare(&self) -> bool {
        !self.is_anchored && self.tag.is_none()
    }

    /// Returns whether the node is a plain null: `null`, `~` or empty.
    pub(crate) fn is_null(&self) -> bool {
        self.kind == Kind::Scalar(ScalarStyle::Plain)
            && (self.start == self.end || matches!(&*self.value, "null" | "Null" | "NULL" | "~" | ""))
    }
}

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document {
    /// The root node. An empty document is an empty scalar.
    pub(crate) root: NodeId,
    /// Whether the document begins with `---`.
    pub(super) is_explicit: bool,
    /// The version in a `%YAML` line.
    pub(super) version: Option<YamlVersion>,
}

/// A parsed file.
#[derive(Debug, PartialEq)]
pub(crate) struct Tree<'text> {
    pub(super) text: &'text str,
    /// The nodes of all documents in the order of the text, parents before children.
    pub(crate) nodes: Vec<Node<'text>>,
    /// The documents in the order of the text.
    pub(crate) documents: Vec<Document>,
    /// The indexes of all aliases, ascending.
    pub(crate) aliases: Vec<NodeId>,
}

impl<'text> Tree<'text> {
    pub(super) fn new(text: &'text str) -> Self {
        // Manifests have one node per 10 to 20 bytes. A wrong estimate costs one more allocation.
        let nodes = Vec::with_capacity((text.len() / 10).clamp(16, 4096));
        Self { text, nodes, documents: Vec::new(), aliases: Vec::new() }
    }

    /// Returns the text of the file.
    pub(crate) fn text(&self) -> &'text str {
        self.text
    }

    /// Returns a node. Indexes come from this tree, so the node exists.
    pub(crate) fn node(&self, id: NodeId) -> &Node<'text> {
        &self.nodes[id as usize]
    }

    /// Returns the target of an alias, or the node itself.
    pub(crate) fn resolve(&self, id: NodeId) -> NodeId {
        match self.node(id).kind {
            Kind::Alias(target) => target,
            Kind::Scalar(_) | Kind::Sequence(_) | Kind::Mapping(_) => id,
        }
    }

    /// Returns the direct children of a collection: items, or keys and values in turn.
    pub(crate) fn children(&self, parent: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let end = self.node(parent).subtree_end;
        let mut next = parent + 1;
        std::iter::from_fn(move || {
            let child = next;
            (child < end).then(|| {
                next = self.node(child).subtree_end;
                child
            })
        })
    }

    /// Returns the value of a key, the last one of several; `None`: no such key, or not a map.
    pub(crate) fn value_of(&self, id: NodeId, key: &str) -> Option<NodeId> {
        if !matches!(self.node(id).kind, Kind::Mapping(_)) {
            return None;
        }
        let is_key = |node: &Node<'_>| matches!(node.kind, Kind::Scalar(_)) && node.value == *key;
        self.entries(id).filter(|(id, _)| is_key(self.node(*id))).map(|(_, value)| value).last()
    }

    /// Returns the keys and values of a map.
    pub(crate) fn entries(&self, mapping: NodeId) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        let mut children = self.children(mapping);
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }
}

/// Returns the ranges that are not inside another range, in the order of the text. Subtrees do not overlap.
pub(crate) fn outermost(mut ranges: Vec<Range<NodeId>>) -> Vec<Range<NodeId>> {
    ranges.sort_unstable_by_key(|range| (range.start, Reverse(range.end)));
    ranges.dedup_by(|inner, outer| inner.end <= outer.end);
    ranges
}

/// Returns whether a node is in one of the [`outermost`] ranges.
pub(crate) fn is_in(ranges: &[Range<NodeId>], id: NodeId) -> bool {
    let before = ranges.partition_point(|range| range.start <= id);
    before > 0 && ranges[before - 1].contains(&id)
}
