//! A YAML file as a flat list of nodes, each with its bytes, its line and the end of its subtree.
//!
//! A list and no tree of boxes: one allocation holds a whole file, walking it needs no recursion (so depth
//! cannot overflow a stack), and an alias is a number that is followed where needed and never expanded.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use granit_parser::{ScalarStyle, StructureStyle, Tag, YamlVersion};

/// The most nodes of one file, which bounds the memory that a hostile file can take: an edit of such a file, which holds it
/// before and after, was seen to take 220 MB.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// What to say behind "it holds `{{`".
pub(crate) const TEMPLATE_HINT: &str =
    ", so it may be a template, which is not YAML until it is rendered: leave it out of the environment's paths";

/// The place of a node in the list of its file.
pub(crate) type NodeId = u32;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A scalar in the style in which it is written.
    Scalar(ScalarStyle),
    /// A sequence; its items follow.
    Sequence(StructureStyle),
    /// A mapping; its keys and values follow in turn.
    Mapping(StructureStyle),
    /// An alias of the node with this id.
    Alias(NodeId),
}

/// One node.
#[derive(Debug, PartialEq)]
pub(crate) struct Node<'text> {
    /// What the node is.
    pub(crate) kind: Kind,
    /// The value of a scalar with its escapes resolved; empty for everything else.
    pub(crate) value: Cow<'text, str>,
    /// The first byte of the node. The bytes of a quoted scalar include its quotes, those of a block scalar
    /// are its content without the line of the indicator.
    pub(super) start: u32,
    /// The byte behind the node's last one, for scalars and aliases.
    pub(super) end: u32,
    /// The line of the first byte, counted from 1.
    pub(crate) line: u32,
    /// The id behind the last node of the subtree.
    pub(crate) subtree_end: NodeId,
    /// Whether the node has an anchor.
    pub(super) is_anchored: bool,
    /// The explicit tag of the node. Rare, so it is kept small where there is none.
    pub(super) tag: Option<Box<Tag>>,
}

impl Node<'_> {
    /// Returns the node's bytes. See [`Node::start`] for what belongs to them.
    pub(crate) fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Returns whether an explicit tag other than `!!str` says that the node is something else than its text.
    pub(crate) fn is_retyped(&self) -> bool {
        self.tag.as_ref().is_some_and(|tag| !tag.is_yaml_core_schema_tag("str"))
    }

    /// Returns whether the other node, of another text, is this one in everything but its place and its bytes.
    pub(crate) fn reads_like(&self, other: &Node<'_>) -> bool {
        self.kind == other.kind && self.value == other.value && self.is_framed_like(other)
    }

    /// Returns whether the other node has the same anchor, the same tag and a subtree of the same size.
    pub(crate) fn is_framed_like(&self, other: &Node<'_>) -> bool {
        self.is_marked_like(other) && self.subtree_end == other.subtree_end
    }

    /// Returns whether the other node has the same anchor and the same tag.
    pub(crate) fn is_marked_like(&self, other: &Node<'_>) -> bool {
        self.is_anchored == other.is_anchored && self.tag == other.tag
    }

    /// Returns whether the node has neither anchor nor tag.
    pub(crate) fn is_bare(&self) -> bool {
        !self.is_anchored && self.tag.is_none()
    }

    /// Returns whether the node is a plain scalar that stands for nothing: `null`, `~` or no text at all.
    pub(crate) fn is_null(&self) -> bool {
        self.kind == Kind::Scalar(ScalarStyle::Plain)
            && (self.start == self.end || matches!(&*self.value, "null" | "Null" | "NULL" | "~" | ""))
    }
}

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document {
    /// The node that the document is. An empty document is an empty scalar.
    pub(crate) root: NodeId,
    /// Whether it begins with `---`.
    pub(super) is_explicit: bool,
    /// What a `%YAML` line says.
    pub(super) version: Option<YamlVersion>,
}

/// A file that parsed.
#[derive(Debug, PartialEq)]
pub(crate) struct Tree<'text> {
    /// The text of the file.
    pub(super) text: &'text str,
    /// Every node of every document, parents before children, in the order of the text.
    pub(crate) nodes: Vec<Node<'text>>,
    /// The documents in the order of the text.
    pub(crate) documents: Vec<Document>,
    /// The ids of all aliases, ascending.
    pub(crate) aliases: Vec<NodeId>,
}

impl<'text> Tree<'text> {
    pub(super) fn new(text: &'text str) -> Self {
        // Manifests have a node for every 10 to 20 bytes; a bad guess costs one more allocation.
        let nodes = Vec::with_capacity((text.len() / 10).clamp(16, 4096));
        Self { text, nodes, documents: Vec::new(), aliases: Vec::new() }
    }

    /// Returns the text of the file.
    pub(crate) fn text(&self) -> &'text str {
        self.text
    }

    /// Returns a node. Ids come from this tree, so each has its node.
    pub(crate) fn node(&self, id: NodeId) -> &Node<'text> {
        &self.nodes[id as usize]
    }

    /// Returns the id that stands for the value of `id`: the target of an alias, and any other node itself.
    pub(crate) fn resolve(&self, id: NodeId) -> NodeId {
        match self.node(id).kind {
            Kind::Alias(target) => target,
            Kind::Scalar(_) | Kind::Sequence(_) | Kind::Mapping(_) => id,
        }
    }

    /// Returns the ids of the direct children of a collection, keys and values alike.
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

    /// Returns the value of a key of a node, the last where there are several; `None` when the node is no mapping.
    pub(crate) fn value_of(&self, id: NodeId, key: &str) -> Option<NodeId> {
        if !matches!(self.node(id).kind, Kind::Mapping(_)) {
            return None;
        }
        let is_key = |node: &Node<'_>| matches!(node.kind, Kind::Scalar(_)) && node.value == *key;
        self.entries(id).filter(|(id, _)| is_key(self.node(*id))).map(|(_, value)| value).last()
    }

    /// Returns the keys and values of a mapping.
    pub(crate) fn entries(&self, mapping: NodeId) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        let mut children = self.children(mapping);
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }
}

/// Returns the ranges that are in no other one, in the order of the text. They are subtrees, so none overlaps another.
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
