//! Writes the new value of a scalar in its style.
//!
//! A quoted scalar keeps its quotes, and a block scalar keeps its form. A plain scalar stays plain unless [`reads_as_string`] finds
//! that a reader could read the new text as another type. Then it gets the quotes of most quoted values in the file, by default
//! double quotes, as in the documentation of Helm and kustomize.

use std::ops::Range;

use granit_parser::ScalarStyle;

use super::embedded::write_lines;
use super::plain::reads_as_string;
use super::tree::{Kind, Node, Tree};

/// A rewritten scalar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// The bytes of the scalar in the old text, including quotes.
    pub(crate) span: Range<usize>,
    /// The new bytes.
    pub(crate) token: String,
    /// The new value as a string.
    pub(crate) value: String,
    /// For a text with sites: the changes inside the text, with spans in the old value. Otherwise empty.
    pub(crate) inside: Vec<Replacement>,
}

/// The quotes that a file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quotes {
    quote: char,
    /// Whether every string is quoted, as in JSON.
    always: bool,
}

impl Quotes {
    pub(crate) const JSON: Self = Self { quote: '"', always: true };

    /// Returns the quote of most quoted scalars in the file; double quotes if there is no majority.
    pub(crate) fn of(tree: &Tree<'_>) -> Self {
        let count = |style| tree.nodes.iter().filter(|node| node.kind == Kind::Scalar(style)).count();
        let prefers_single = count(ScalarStyle::SingleQuoted) > count(ScalarStyle::DoubleQuoted);
        Self { quote: if prefers_single { '\'' } else { '"' }, always: false }
    }
}

/// Returns the literal scalar `node` of `text` with the new `value`. `inside`: the changes in the value.
///
/// `None`: `node` is not a literal scalar, or the number of lines differs.
pub(crate) fn write_text(text: &str, node: &Node<'_>, value: String, inside: Vec<Replacement>) -> Option<Replacement> {
    if node.kind != Kind::Scalar(ScalarStyle::Literal) {
        return None;
    }
    let span = node.span();
    let token = write_lines(text.get(span.clone())?, &node.value, &value)?;
    Some(Replacement { span, token, value, inside })
}

/// Returns the scalar `node` of `text` with the new `value`, quoted if necessary.
///
/// `None`: the notation of the scalar cannot hold the value.
pub(crate) fn write(text: &str, node: &Node<'_>, value: String, quotes: Quotes) -> Option<Replacement> {
    let Kind::Scalar(style) = node.kind else { return None };
    let in_line = token(&value, style, quotes)?;
    let span = node.span();
    let token = match style {
        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => in_line,
        // The value is one line, so the content of the block is the value with blanks around it.
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let content = text.get(span.clone())?;
            let (before, after) = content.split_once(&*node.value)?;
            let is_alone = before.trim().is_empty() && after.trim().is_empty();
            is_alone.then(|| format!("{before}{value}{after}"))?
        }
    };
    Some(Replacement { span, token, value, inside: Vec::new() })
}

/// Returns a value in one line in the given style; a block style gives a plain value.
///
/// `None`: the value would need escapes.
pub(crate) fn token(value: &str, style: ScalarStyle, quotes: Quotes) -> Option<String> {
    // The characters of references, tags and digests.
    let needs_no_escape = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    value.bytes().all(needs_no_escape).then(|| match style {
        ScalarStyle::SingleQuoted => format!("'{value}'"),
        ScalarStyle::DoubleQuoted => format!("\"{value}\""),
        _ if !quotes.always && reads_as_string(value) => value.to_owned(),
        _ => format!("{0}{value}{0}", quotes.quote),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replaces the value in `text`, which is one key with a scalar.
    fn written(text: &str, value: &str) -> Option<String> {
        let tree = Tree::parse(text.as_bytes()).unwrap();
        let replacement = write(text, tree.node(2), value.to_owned(), Quotes::of(&tree))?;
        let mut new = text.to_owned();
        new.replace_range(replacement.span, &replacement.token);
        Some(new)
    }

    #[test]
    fn style_is_kept() {
        for (text, expected) in [
            ("a: b # c", "a: v2 # c"),
            ("a: 'b'", "a: 'v2'"),
            ("a: \"b\"", "a: \"v2\""),
            ("a: \"\\\n  \\x62\"", "a: \"v2\""),
            ("a: |-\n  b\n", "a: |-\n  v2\n"),
            ("a: >2-\n  b\n\n\n# c\n", "a: >2-\n  v2\n\n\n# c\n"),
        ] {
            assert_eq!(written(text, "v2").unwrap(), expected);
        }
        // A value of several lines cannot be replaced by a value of one line.
        assert_eq!(written("a: |\n  b\r\n  c\n", "v2"), None);
    }

    #[test]
    fn ambiguous_values_are_quoted() {
        assert_eq!(written("a: b", "1e5").unwrap(), "a: \"1e5\"");
        assert_eq!(written("'a': b", "1e5").unwrap(), "'a': '1e5'");
        assert_eq!(written("a: |-\n  b", "1e5").unwrap(), "a: |-\n  1e5");
        for value in ["it's", "a\"", "a\\", "a b", "ä", "a\n"] {
            assert_eq!(written("a: 'b'", value), None);
        }
    }
}
