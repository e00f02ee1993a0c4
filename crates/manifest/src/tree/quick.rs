//! A reader for the YAML of most manifests, several times as fast as a full parser.
//!
//! It supports block maps and sequences of one-line scalars (plain, or quoted without escapes), literal blocks, one-line flow
//! collections, comments, and documents separated by `---`. A file with other YAML, or with an unclear part, is left to the parser
//! as a whole: this reader never guesses and never refuses. Builds with debug assertions, including tests and fuzz targets, check
//! for every text that the result equals the parser's.
//!
//! The syntax follows <https://yaml.org/spec/1.2.2/>, chapters 6 to 9.

use std::borrow::Cow;

use granit_parser::{ScalarStyle, StructureStyle};
use memchr::memchr;

use super::nodes::{Document, Kind, MAX_NODES, Node, NodeId, Tree};

/// Limit of nesting for this reader. The parser has its own limit.
const MAX_DEPTH: usize = 100;

/// Limit of nesting in flow collections, which are read by recursion.
const MAX_FLOW_DEPTH: usize = 16;

/// Limit of a key, in bytes. YAML limits a one-line key to 1,024 characters.
const MAX_KEY: usize = 1_000;

/// Reads a text; `None`: this reader does not support the text.
pub(super) fn read(text: &str) -> Option<Tree<'_>> {
    if !is_of_clear_characters(text) {
        return None;
    }
    let mut reader = Reader::new(text);
    while let Some(column) = reader.next_content() {
        reader.content(column)?;
    }
    reader.end_document()?;
    Some(reader.tree)
}

/// Returns whether all characters have the same meaning for every reader.
///
/// False for tabs, carriage returns, byte order marks, special line breaks and unprintable characters.
fn is_of_clear_characters(text: &str) -> bool {
    let is_control = |byte: u8| (byte < b' ') & (byte != b'\n') | (byte == 0x7f);
    let (control, high) =
        text.bytes().fold((false, 0), |(control, high), byte| (control | is_control(byte), high | byte));
    let is_clear = |character: char| {
        character.is_ascii()
            || (character >= '\u{a0}'
                && !matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
    };
    !control && (high < 0x80 || text.chars().all(is_clear))
}

/// An open block collection.
struct Open {
    id: NodeId,
    /// The column of the entries, from 0.
    column: usize,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Mapping,
    Sequence,
    /// A sequence whose entries are in the column of its key.
    Indentless,
}

/// A key that has no value yet.
struct Pending {
    /// The byte position of the colon after the key.
    colon: usize,
    line: u32,
}

struct Reader<'text> {
    text: &'text str,
    bytes: &'text [u8],
    position: usize,
    /// The current line, from 1.
    line: u32,
    tree: Tree<'text>,
    /// The open collections, outermost first.
    open: Vec<Open>,
    /// The last key of the innermost collection, if it has no value yet.
    pending: Option<Pending>,
    /// Whether the current document has its root node; `None`: no document has begun.
    document: Option<bool>,
}

impl<'text> Reader<'text> {
    fn new(text: &'text str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            position: 0,
            line: 1,
            tree: Tree::new(text),
            open: Vec::with_capacity(16),
            pending: None,
            document: None,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    /// Returns whether the byte at a position is a space or the end of the line.
    fn is_space_at(&self, position: usize) -> bool {
        matches!(self.bytes.get(position), None | Some(b' ' | b'\n'))
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.position += 1;
        }
    }

    fn skip_line(&mut self) {
        match memchr(b'\n', &self.bytes[self.position..]) {
            Some(length) => {
                self.position += length + 1;
                self.line += 1;
            }
            None => self.position = self.bytes.len(),
        }
    }

    /// Skips blanks and comments from the start of a line, and returns the column of the next token.
    ///
    /// `None`: the end of the text.
    fn next_content(&mut self) -> Option<usize> {
        loop {
            let start = self.position;
            self.skip_spaces();
            match self.peek()? {
                b'\n' | b'#' => self.skip_line(),
                _ => return Some(self.position - start),
            }
        }
    }

    /// Skips the rest of a line: blanks, or a comment after a space.
    fn end_line(&mut self) -> Option<()> {
        self.skip_spaces();
        match self.peek() {
            None | Some(b'\n') => self.skip_line(),
            Some(b'#') if self.bytes.get(self.position.checked_sub(1)?) == Some(&b' ') => self.skip_line(),
            Some(_) => return None,
        }
        Some(())
    }

    /// Reads a line with content, and the lines that belong to it.
    fn content(&mut self, column: usize) -> Option<()> {
        let rest = &self.bytes[self.position..];
        if column == 0 && (rest.starts_with(b"---") || rest.starts_with(b"...") || rest.starts_with(b"%")) {
            return self.begin_document();
        }
        let is_entry = self.is_entry();
        self.collection_of(column, is_entry)?;
        if is_entry { self.entry(column) } else { self.key_and_value() }
    }

    /// Starts a document at `---`.
    fn begin_document(&mut self) -> Option<()> {
        if !self.bytes[self.position..].starts_with(b"---") || !self.is_space_at(self.position + 3) {
            return None;
        }
        self.end_document()?;
        let root = self.tree.nodes.len() as NodeId;
        self.tree.documents.push(Document { root, is_explicit: true, version: None });
        self.document = Some(false);
        self.position += 3;
        self.end_line()
    }

    /// Closes all collections. A document without a node is left to the parser.
    fn end_document(&mut self) -> Option<()> {
        self.end_pending()?;
        while let Some(open) = self.open.pop() {
            self.close(open.id);
        }
        (self.document != Some(false)).then_some(())
    }

    /// Returns whether an entry of a block sequence starts here.
    fn is_entry(&self) -> bool {
        self.peek() == Some(b'-') && self.is_space_at(self.position + 1)
    }

    /// Closes and opens collections until the innermost one matches a column.
    fn collection_of(&mut self, column: usize, is_entry: bool) -> Option<()> {
        if self.pending.is_some() {
            let parent = self.open.last()?.column;
            if column > parent || (column == parent && is_entry) {
                self.pending = None;
                let form = match is_entry {
                    false => Form::Mapping,
                    true if column == parent => Form::Indentless,
                    true => Form::Sequence,
                };
                return self.begin(form, column);
            }
            self.end_pending()?;
        }
        let is_over = |open: &mut Open| {
            open.column > column || (open.column == column && open.form == Form::Indentless && !is_entry)
        };
        while let Some(open) = self.open.pop_if(is_over) {
            self.close(open.id);
        }
        match self.open.last() {
            Some(open) => (open.column == column && (open.form != Form::Mapping) == is_entry).then_some(()),
            None if column > 0 || self.document == Some(true) => None,
            None => {
                if self.document.is_none() {
                    let root = self.tree.nodes.len() as NodeId;
                    self.tree.documents.push(Document { root, is_explicit: false, version: None });
                }
                self.document = Some(true);
                self.begin(if is_entry { Form::Sequence } else { Form::Mapping }, column)
            }
        }
    }

    /// Opens a block collection.
    fn begin(&mut self, form: Form, column: usize) -> Option<()> {
        let kind = match form {
            Form::Mapping => Kind::Mapping(StructureStyle::Block),
            Form::Sequence | Form::Indentless => Kind::Sequence(StructureStyle::Block),
        };
        let id = self.push(kind, Cow::Borrowed(""), self.position, self.position)?;
        self.open.push(Open { id, column, form });
        (self.open.len() <= MAX_DEPTH).then_some(())
    }

    fn close(&mut self, id: NodeId) {
        let end = self.tree.nodes.len() as NodeId;
        self.tree.nodes[id as usize].subtree_end = end;
    }

    /// Gives the last key a null value, if the key has no value.
    fn end_pending(&mut self) -> Option<()> {
        if let Some(Pending { colon, line }) = self.pending.take() {
            let id = self.push(Kind::Scalar(ScalarStyle::Plain), Cow::Borrowed("~"), colon, colon)?;
            self.tree.nodes[id as usize].line = line;
        }
        Some(())
    }

    /// Reads an entry of the innermost sequence. The position is at its `-`.
    fn entry(&mut self, mut column: usize) -> Option<()> {
        loop {
            let start = self.position;
            self.position += 1;
            self.skip_spaces();
            column += self.position - start;
            if matches!(self.peek(), None | Some(b'\n' | b'#')) {
                return None;
            }
            self.place_indentless();
            if !self.is_entry() {
                break;
            }
            self.begin(Form::Sequence, column)?;
        }
        if self.key_ends_at().is_some() {
            self.begin(Form::Mapping, column)?;
            return self.key_and_value();
        }
        self.value()
    }

    /// For the parser, a sequence in the column of its key starts at the content of its first entry.
    fn place_indentless(&mut self) {
        let next = self.tree.nodes.len() as NodeId;
        if let Some(open) = self.open.last().filter(|open| open.form == Form::Indentless && open.id + 1 == next) {
            let node = &mut self.tree.nodes[open.id as usize];
            (node.start, node.end) = (self.position as u32, self.position as u32);
        }
    }

    /// Reads a key of the innermost map and the rest of its line.
    fn key_and_value(&mut self) -> Option<()> {
        let colon = self.key_ends_at()?;
        let start = self.position;
        self.scalar(start, colon)?;
        self.position = colon + 1;
        self.skip_spaces();
        if !matches!(self.peek(), None | Some(b'\n' | b'#')) {
            return self.value();
        }
        self.pending = Some(Pending { colon, line: self.line });
        self.end_line()
    }

    /// Returns the position of the colon after the key that starts here; `None`: no supported key.
    fn key_ends_at(&self) -> Option<usize> {
        let colon = match self.peek()? {
            b'"' | b'\'' => self.quoted_to()?,
            _ => match self.plain_to()? {
                (_, None) => return None,
                (end, Some(colon)) => (end == colon).then_some(colon)?,
            },
        };
        let is_key = self.bytes.get(colon) == Some(&b':') && self.is_space_at(colon + 1);
        (is_key && colon - self.position <= MAX_KEY).then_some(colon)
    }

    /// Reads a value that ends on its line, or the first line of a longer value.
    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'|' => return self.literal(),
            b'[' | b'{' => self.flow(0)?,
            b'"' | b'\'' => {
                let end = self.quoted_to()?;
                self.scalar(self.position, end)?;
            }
            _ => {
                let (end, colon) = self.plain_to()?;
                if colon.is_some() {
                    return None;
                }
                self.scalar(self.position, end)?;
            }
        }
        self.end_line()
    }

    /// Adds the scalar of these bytes, and moves to its end.
    fn scalar(&mut self, start: usize, end: usize) -> Option<()> {
        let (style, value) = match self.bytes[start] {
            b'"' => (ScalarStyle::DoubleQuoted, &self.text[start + 1..end - 1]),
            b'\'' => (ScalarStyle::SingleQuoted, &self.text[start + 1..end - 1]),
            _ => (ScalarStyle::Plain, &self.text[start..end]),
        };
        self.push(Kind::Scalar(style), Cow::Borrowed(value), start, end)?;
        self.position = end;
        Some(())
    }

    /// Returns the end of the quoted scalar that starts here, after its closing quote.
    ///
    /// `None`: the scalar has an escape, or more than one line.
    fn quoted_to(&self) -> Option<usize> {
        let quote = self.peek()?;
        let inside = self.position + 1;
        for (index, byte) in self.bytes[inside..].iter().enumerate() {
            match byte {
                b'\n' | b'\\' if *byte == b'\n' || quote == b'"' => return None,
                _ if *byte == quote => {
                    let end = inside + index + 1;
                    return (self.bytes.get(end) != Some(&quote)).then_some(end);
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the end of the plain scalar that starts here, and the colon that makes it a key.
    fn plain_to(&self) -> Option<(usize, Option<usize>)> {
        let start = self.position;
        let is_first = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'.' | b'/' | b'~' | b'$' | b'(' | b'<' | b'=' | b'+' | b'^')
        };
        let first = *self.bytes.get(start)?;
        if !is_first(first) && (first != b'-' || self.is_space_at(start + 1)) {
            return None;
        }
        // The end of the scalar: after its last byte that is not a space.
        let mut end = start;
        for (index, byte) in self.bytes.iter().enumerate().skip(start) {
            match byte {
                b'\n' => break,
                b' ' => continue,
                b'#' if end < index => break,
                b':' if self.is_space_at(index + 1) => return Some((end, Some(index))),
                _ => end = index + 1,
            }
        }
        Some((end, None))
    }

    /// Reads a literal block with unambiguous indentation and chomping.
    fn literal(&mut self) -> Option<()> {
        let parent = self.open.last()?.column;
        self.position += 1;
        let chomping = self.peek().filter(|byte| matches!(byte, b'-' | b'+'));
        self.position += usize::from(chomping.is_some());
        self.skip_spaces();
        if self.peek() != Some(b'\n') {
            return None;
        }
        self.skip_line();

        let (mut value, mut breaks) = (String::new(), 0);
        let (mut start, mut first_line, mut column) = (0, 0, None);
        let end = loop {
            let line = self.position;
            self.skip_spaces();
            let indentation = self.position - line;
            match (self.peek(), column) {
                // At the end of the text, the parser treats a last line without line break differently.
                (None, Some(_)) if indentation == 0 => break line,
                (None, _) => return None,
                // A blank line with no more spaces than the content's indentation.
                (Some(b'\n'), column) if indentation <= column.unwrap_or(0) => {
                    breaks += 1;
                    self.skip_line();
                    continue;
                }
                (Some(b'\n'), _) => return None,
                (Some(_), None) if indentation > parent => {
                    (start, first_line, column) = (self.position, self.line, Some(indentation));
                }
                (Some(_), Some(column)) if indentation >= column => self.position = line + column,
                (Some(_), Some(_)) => {
                    self.position = line;
                    break line + indentation;
                }
                (Some(_), None) => return None,
            }
            value.extend(std::iter::repeat_n('\n', breaks));
            let from = self.position;
            self.skip_line();
            value.push_str(self.text[from..self.position].strip_suffix('\n')?);
            breaks = 1;
        };
        match chomping {
            None => value.push('\n'),
            Some(b'+') => value.extend(std::iter::repeat_n('\n', breaks)),
            Some(_) => {}
        }
        let id = self.push(Kind::Scalar(ScalarStyle::Literal), Cow::Owned(value), start, end)?;
        self.tree.nodes[id as usize].line = first_line;
        Some(())
    }

    /// Reads a one-line flow collection.
    fn flow(&mut self, depth: usize) -> Option<()> {
        if depth == MAX_FLOW_DEPTH {
            return None;
        }
        let is_mapping = self.peek()? == b'{';
        let (kind, close) = match is_mapping {
            true => (Kind::Mapping(StructureStyle::Flow), b'}'),
            false => (Kind::Sequence(StructureStyle::Flow), b']'),
        };
        let id = self.push(kind, Cow::Borrowed(""), self.position, self.position + 1)?;
        self.position += 1;
        self.skip_spaces();
        while self.peek()? != close {
            if is_mapping {
                let key = self.position;
                self.flow_scalar()?;
                let is_long = self.position - key > MAX_KEY;
                if is_long || self.peek()? != b':' || self.bytes.get(self.position + 1) != Some(&b' ') {
                    return None;
                }
                self.position += 1;
                self.skip_spaces();
            }
            match self.peek()? {
                b'[' | b'{' => self.flow(depth + 1)?,
                _ => self.flow_scalar()?,
            }
            self.skip_spaces();
            match self.peek()? {
                b',' => {
                    self.position += 1;
                    self.skip_spaces();
                    if self.peek()? == close {
                        return None;
                    }
                }
                byte if byte == close => {}
                _ => return None,
            }
        }
        self.position += 1;
        self.close(id);
        Some(())
    }

    /// Reads a scalar in a flow collection: quoted, or without special characters.
    fn flow_scalar(&mut self) -> Option<()> {
        let start = self.position;
        if matches!(self.peek()?, b'"' | b'\'') {
            let end = self.quoted_to()?;
            return self.scalar(start, end);
        }
        let is_clear = |byte: &u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-' | b'@' | b'=' | b'+' | b'$' | b'~')
        };
        if !self.peek()?.is_ascii_alphanumeric() && !matches!(self.peek()?, b'_' | b'.' | b'/' | b'$' | b'~') {
            return None;
        }
        let rest = &self.bytes[start..];
        let is_inside = |(index, byte): (usize, &u8)| {
            is_clear(byte) || (*byte == b':' && rest.get(index + 1).is_some_and(is_clear))
        };
        let length = rest.iter().enumerate().take_while(|place| is_inside(*place)).count();
        (length <= MAX_KEY).then(|| self.scalar(start, start + length))?
    }

    fn push(&mut self, kind: Kind, value: Cow<'text, str>, start: usize, end: usize) -> Option<NodeId> {
        let id = self.tree.nodes.len() as NodeId;
        self.tree.nodes.push(Node {
            kind,
            value,
            start: start as u32,
            end: end as u32,
            line: self.line,
            subtree_end: id + 1,
            is_anchored: false,
            tag: None,
        });
        (self.tree.nodes.len() < MAX_NODES).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that both readers agree, and returns whether this reader supports the text.
    fn is_read_the_same(text: &str) -> bool {
        let Some(quick) = read(text) else { return false };
        match Tree::of_events(text) {
            Ok(parsed) => assert_eq!(quick, parsed, "{text:?}"),
            Err(unreadable) => panic!("{text:?} {}", unreadable.reason),
        }
        true
    }

    /// Tries every sequence of `length` parts.
    fn combinations(parts: &[&str], length: u32) -> impl Iterator<Item = String> {
        (0..parts.len().pow(length)).map(move |mut number| {
            let mut text = String::new();
            for _ in 0..length {
                text.push_str(parts[number % parts.len()]);
                number /= parts.len();
            }
            text
        })
    }

    #[test]
    fn common_manifests_are_supported() {
        for text in [
            "",
            "# only\n",
            "a: 1\nb:\n  c: d\n  e:\n  - f\n  - g: h\n    i: j\n  - - k\n    - l\nm:\n    - n\n",
            "---\n# c\na: b # d\n---\n\nc:\n# é – \u{1f600}\n",
            "a: 'b' # c\n\"d\": \"e\"\nf: http://x/y#z\ng: a 'b' \"c\"\n",
            "a: {}\nb: []\nc: [\"sh\", '-c', x]\nd: { image: a:v1, args: [b, {c: d}] }\n",
            "a: |\n  x\n\n    y\n\nb: |-\n  z\nc:\n- |+\n  q\n\n# e\n",
            "args:\n- --a=b\n- -c\n- \"*\"\n- $(X)\n",
        ] {
            assert!(is_read_the_same(text), "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_left_to_the_parser() {
        for text in [
            "a:\tb\n",
            "a: b\r\n",
            "\u{feff}a: b\n",
            "a: b\u{85}\n",
            "a: \u{2028}\n",
            "a: \u{7f}\n",
            "%YAML 1.2\n---\na: b\n",
            "a\n",
            "a: b\n  c\n",
            "a: &x b\n",
            "a: *x\n",
            "a: !!str b\n",
            "? a\n: b\n",
            "a: >\n  b\n",
            "a: |2\n    b\n",
            "a: \"b\\n\"\n",
            "a: 'it''s'\n",
            "a: 'b\n  c'\n",
            "a: [b,\n  c]\n",
            "a: {{ b }}\n",
            "{{ a }}: b\n",
            "{{- if b }}\n",
            "a: b: c\n",
            "a: 'b' c\n",
            "a: b\n---\n",
            "a: b\n...\n",
            "- \n  a: b\n",
            "a: b\n c: d\n",
            "a:\n  b\n",
            "--- a\n",
            "a : b\n",
            "a: |\n  b",
            "a: @b\n",
            "a: `b`\n",
            "a: [b: c]\n",
        ] {
            assert!(read(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn long_keys_are_left_to_the_parser() {
        for length in [900, 990, 1_010, 1_020, 1_021, 1_022, 1_023, 1_024, 1_025, 1_026, 2_000] {
            let key = "x".repeat(length);
            for text in [
                "KEY: b\n",
                "- 'KEY': b\n",
                "a: {KEY: b}\n",
                "a: {\"KEY\": b}\n",
                "- {c: d, 'KEY': b}\n",
                "a: [\"KEY\"]\n",
            ] {
                let is_read = is_read_the_same(&text.replace("KEY", &key));
                assert!(is_read == (length < 1_000) || text.contains('['), "{text} {length}");
            }
        }
    }

    #[test]
    fn every_short_text_is_read_as_by_the_parser() {
        let read = combinations(&["a", ":", " ", "-", "\n", "#", "\"", "|"], 6).filter(|text| is_read_the_same(text));
        assert!(read.count() > 5_000);
        let flow = combinations(&["[", "]", "{", "}", ",", "b", ": ", "'", "\n"], 5).map(|text| format!("a: {text}"));
        assert!(flow.filter(|text| is_read_the_same(text)).count() > 50);
    }

    #[test]
    fn lines_in_every_order_are_read_as_by_the_parser() {
        let lines = [
            "a: b\n",
            "c:\n",
            "- a\n",
            "- c: d\n",
            "  e: f\n",
            "  - g\n",
            "    h: |\n",
            "      i\n",
            "---\n",
            "# c\n",
            "\n",
            "  \n",
            "j: |-\n",
            " k\n",
            "  # l\n",
            "m: 'n'\n",
            "- - o\n",
            "  p:\n",
            "- |\n",
            "x",
        ];
        assert!(combinations(&lines, 4).filter(|text| is_read_the_same(text)).count() > 10_000);
    }
}
