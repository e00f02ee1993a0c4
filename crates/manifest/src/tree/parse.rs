//! Parses a file into nodes, within limits.

use std::borrow::Cow;

use granit_parser::{ErrorKind, Event, Parser, Span, Tag};

use super::super::lines::count_ends;
use super::super::site::Unreadable;
use super::line_breaks::refuse_unclear_breaks;
use super::nodes::{Document, Kind, MAX_NODES, Node, NodeId, TEMPLATE_HINT, Tree};
use super::quick;

/// Limit of a file, in bytes. The largest real bundles of CRDs have about 4 MiB.
const MAX_BYTES: usize = 16 << 20;

/// Limit of the bytes of explicit tags (`!!str`, `!Ref`) in a file. Allows about 100,000 tags.
const MAX_TAG_BYTES: usize = 8 << 20;

/// Limit of aliases in a file. A hand-written file has a few dozen; a billion-laughs file has millions.
const MAX_ALIASES: usize = 10_000;

/// Limit of nesting in block or flow collections, as in the parser.
const MAX_DEPTH: usize = 255;

impl<'text> Tree<'text> {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// If the bytes are not UTF-8 or not YAML, exceed a limit, or have line breaks that only some readers recognise.
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
        refuse_unclear_breaks(&tree)?;
        Ok(tree)
    }

    /// Parses any YAML text.
    pub(super) fn of_events(text: &'text str) -> Result<Self, Unreadable> {
        let mut builder = Builder::new(text);
        for event in events(text) {
            let (event, span) = event.map_err(|error| not_yaml(text, &error))?;
            builder.take(event, &span)?;
        }
        Ok(builder.tree)
    }
}

/// Returns the events of `text`, within the limits.
fn events(text: &str) -> impl Iterator<Item = Result<(Event<'_>, Span), granit_parser::ScanError>> {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    Parser::new_from_str_with_options(text, options)
}

/// Turns events into nodes.
struct Builder<'text> {
    tree: Tree<'text>,
    /// The open collections, outermost first.
    open: Vec<NodeId>,
    /// The parser's anchor numbers with their nodes, ascending.
    anchors: Vec<(usize, NodeId)>,
    /// The bytes of explicit tags so far.
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
                    reason: "has an alias of an undefined anchor".to_owned(),
                })?;
                if self.tree.aliases.len() == MAX_ALIASES {
                    let reason = format!("has more than {MAX_ALIASES} aliases");
                    return Err(Unreadable { line: line_of(span), reason });
                }
                let id = self.push(Kind::Alias(target), Cow::Borrowed(""), span, 0, None)?;
                self.tree.aliases.push(id);
            }
            // Ends of documents and of the stream have no anchors.
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
            return Err(Unreadable { line, reason: "has a value whose position is unknown".to_owned() });
        };
        if let Some(tag) = &tag {
            // A `%TAG` prefix is written once, and is part of every tag that uses it.
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
