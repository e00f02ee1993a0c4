//! A YAML file as a flat list of nodes, each with its bytes, its line and the end of its subtree.
//!
//! A list and no tree of boxes: one allocation holds a whole file, walking it needs no recursion (so depth
//! cannot overflow a stack), and an alias is a number that is followed where needed and never expanded.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StructureStyle, Tag, YamlVersion};

use super::lines::{count_ends, refuse_unclear_ends};
use super::site::Unreadable;

mod quick;

/// The largest file that is read, in bytes. The largest bundles of CRDs in the field have about 4 MiB.
const MAX_BYTES: usize = 16 << 20;

/// The most nodes of one file, which bounds the memory that a hostile file can take: an edit of such a file, which holds it
/// before and after, was seen to take 220 MB.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// The most bytes that the explicit tags (`!!str`, `!Ref`) of one file take: enough for some 100,000 of them.
const MAX_TAG_BYTES: usize = 8 << 20;

/// The most aliases of one file. A hand-written file has a few dozen; a billion-laughs file has millions.
const MAX_ALIASES: usize = 10_000;

/// The deepest nesting of block or of flow collections, which is what the parser's own stack takes.
const MAX_DEPTH: usize = 255;

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
    start: u32,
    /// The byte behind the node's last one, for scalars and aliases.
    end: u32,
    /// The line of the first byte, counted from 1.
    pub(crate) line: u32,
    /// The id behind the last node of the subtree.
    pub(crate) subtree_end: NodeId,
    /// Whether the node has an anchor.
    is_anchored: bool,
    /// The explicit tag of the node. Rare, so it is kept small where there is none.
    tag: Option<Box<Tag>>,
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
    is_explicit: bool,
    /// What a `%YAML` line says.
    version: Option<YamlVersion>,
}

/// A file that parsed.
#[derive(Debug, PartialEq)]
pub(crate) struct Tree<'text> {
    /// The text of the file.
    text: &'text str,
    /// Every node of every document, parents before children, in the order of the text.
    pub(crate) nodes: Vec<Node<'text>>,
    /// The documents in the order of the text.
    pub(crate) documents: Vec<Document>,
    /// The ids of all aliases, ascending.
    pub(crate) aliases: Vec<NodeId>,
}

/// Returns the events of `text`, within the limits of this room.
fn events(text: &str) -> impl Iterator<Item = Result<(Event<'_>, Span), granit_parser::ScanError>> {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    Parser::new_from_str_with_options(text, options)
}

impl<'text> Tree<'text> {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// When the bytes are no UTF-8, no YAML, beyond a limit, or lines to some readers that they are not to others.
    pub(crate) fn parse(bytes: &'text [u8]) -> Result<Self, Unreadable> {
        if bytes.len() > MAX_BYTES {
            let reason = format!("has {} bytes, and files of at most {MAX_BYTES} are read", bytes.len());
            return Err(Unreadable { line: None, reason });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to()))?;
        let tree = match quick::read(text) {
            Some(tree) => {
                debug_assert_eq!(Ok(&tree), Self::of_events(text).as_ref(), "not what the parser reads");
                tree
            }
            None => Self::of_events(text)?,
        };
        refuse_unclear_ends(&tree)?;
        Ok(tree)
    }

    /// Parses a text that is any YAML.
    fn of_events(text: &'text str) -> Result<Self, Unreadable> {
        let mut builder = Builder::new(text);
        for event in events(text) {
            let (event, span) = event.map_err(|error| not_yaml(text, &error))?;
            builder.take(event, &span)?;
        }
        Ok(builder.tree)
    }

    fn new(text: &'text str) -> Self {
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

/// Turns events into nodes.
struct Builder<'text> {
    tree: Tree<'text>,
    /// The collections that are open, outermost first.
    open: Vec<NodeId>,
    /// The parser's numbers of anchors with their nodes; the numbers ascend.
    anchors: Vec<(usize, NodeId)>,
    /// The bytes of the explicit tags so far.
    tag_bytes: usize,
}

impl<'text> Builder<'text> {
    fn new(text: &'text str) -> Self {
        Self { tree: Tree::new(text), open: Vec::new(), anchors: Vec::new(), tag_bytes: 0 }
    }

    fn take(&mut self, event: Event<'text>, span: &Span) -> Result<(), Unreadable> {
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                self.push(Kind::Scalar(style), value, span, anchor, tag)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                let id = self.push(Kind::Mapping(style), Cow::Borrowed(""), span, anchor, tag)?;
                self.open.push(id);
            }
            Event::SequenceStart(style, anchor, tag) => {
                let id = self.push(Kind::Sequence(style), Cow::Borrowed(""), span, anchor, tag)?;
                self.open.push(id);
            }
            Event::DocumentStart(is_explicit, version) => {
                let root = self.tree.nodes.len() as NodeId;
                self.tree.documents.push(Document { root, is_explicit, version });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                let end = self.tree.nodes.len() as NodeId;
                if let Some(id) = self.open.pop() {
                    self.tree.nodes[id as usize].subtree_end = end;
                }
            }
            Event::Alias(anchor) => {
                let found = self.anchors.binary_search_by_key(&anchor, |(number, _)| *number);
                let target = found.map(|index| self.anchors[index].1).map_err(|_| Unreadable {
                    line: line_of(span),
                    reason: "has an alias of an anchor that is not there".to_owned(),
                })?;
                if self.tree.aliases.len() == MAX_ALIASES {
                    let reason = format!("has more than {MAX_ALIASES} aliases");
                    return Err(Unreadable { line: line_of(span), reason });
                }
                let id = self.push(Kind::Alias(target), Cow::Borrowed(""), span, 0, None)?;
                self.tree.aliases.push(id);
            }
            // The ends of documents and of the stream; anchors are not asked for.
            _ => {}
        }
        Ok(())
    }

    fn push(
        &mut self,
        kind: Kind,
        value: Cow<'text, str>,
        span: &Span,
        anchor: usize,
        tag: Option<Cow<'text, Tag>>,
    ) -> Result<NodeId, Unreadable> {
        let line = line_of(span);
        if self.tree.nodes.len() == MAX_NODES {
            return Err(Unreadable { line, reason: format!("has more than {MAX_NODES} keys and values") });
        }
        let id = self.tree.nodes.len() as NodeId;
        let Some(bytes) = span.byte_range() else {
            return Err(Unreadable { line, reason: "has a place that the parser does not know".to_owned() });
        };
        if let Some(tag) = &tag {
            // A prefix of `%TAG` is written once, and is a part of every tag that uses it.
            self.tag_bytes += size_of::<Tag>() + tag.handle().len() + tag.suffix().len();
            if self.tag_bytes > MAX_TAG_BYTES {
                return Err(Unreadable { line, reason: "has too many explicit tags (`!…`)".to_owned() });
            }
        }
        if anchor != 0 {
            self.anchors.push((anchor, id));
        }
        self.tree.nodes.push(Node {
            kind,
            value,
            start: bytes.start as u32,
            end: bytes.end as u32,
            line: line.unwrap_or(1),
            subtree_end: id + 1,
            is_anchored: anchor != 0,
            tag: tag.map(|tag| Box::new(tag.into_owned())),
        });
        Ok(id)
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

fn line_of(span: &Span) -> Option<u32> {
    u32::try_from(span.start.line()).ok()
}

fn not_utf8(bytes: &[u8], valid_up_to: usize) -> Unreadable {
    let line = 1 + count_ends(&bytes[..valid_up_to]);
    Unreadable { line: Some(line), reason: "is not UTF-8 text; save it as UTF-8".to_owned() }
}

fn not_yaml(text: &str, error: &granit_parser::ScanError) -> Unreadable {
    let line = u32::try_from(error.marker().line()).ok();
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return Unreadable { line, reason: format!("is nested deeper than {MAX_DEPTH} levels") };
    }
    let hint = if text.contains("{{") { format!("; it holds `{{{{`{TEMPLATE_HINT}") } else { String::new() };
    Unreadable { line, reason: format!("is not YAML: {}{hint}", error.info()) }
}
