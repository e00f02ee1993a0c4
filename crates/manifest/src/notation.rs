//! Writes a scalar anew in the style in which it stands.
//!
//! The rule for quotes: a quoted scalar keeps its quotes, a block scalar its form; a plain scalar stays plain
//! unless [`reads_as_string`] says that a reader could take the new text for something else. Then it gets the
//! quotes that most of the quoted values of the file have, and double quotes where there is no majority,
//! because that is how Helm's and kustomize's own documents write a tag.

use std::ops::Range;

use granit_parser::ScalarStyle;

use super::embedded::write_lines;
use super::plain::reads_as_string;
use super::tree::{Kind, Node, Tree};

/// A scalar that is written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// The bytes of the scalar in the old text, as the parser gives them: quotes included.
    pub(crate) span: Range<usize>,
    /// What stands there in the new text.
    pub(crate) token: String,
    /// The string that the token is.
    pub(crate) value: String,
    /// Where the value is a text with sites: what changes in it, with spans in the old value. Empty everywhere else.
    pub(crate) inside: Vec<Replacement>,
}

/// Which quotes a file wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quotes {
    quote: char,
    /// Whether every string has them, as in JSON.
    always: bool,
}

impl Quotes {
    pub(crate) const JSON: Self = Self { quote: '"', always: true };

    /// Returns the quote that most of the quoted scalars of the file have; the double quote where there is no majority.
    pub(crate) fn of(tree: &Tree<'_>) -> Self {
        let count = |style| tree.nodes.iter().filter(|node| node.kind == Kind::Scalar(style)).count();
        let prefers_single = count(ScalarStyle::SingleQuoted) > count(ScalarStyle::DoubleQuoted);
        Self { quote: if prefers_single { '\'' } else { '"' }, always: false }
    }
}

/// Returns the literal scalar `node` of `text` with the text `value`, in which `inside` is what changes; `None` where it
/// is no literal scalar, or the lines do not fit.
pub(crate) fn write_text(text: &str, node: &Node<'_>, value: String, inside: Vec<Replacement>) -> Option<Replacement> {
    if node.kind != Kind::Scalar(ScalarStyle::Literal) {
        return None;
    }
    let span = node.span();
    let token = write_lines(text.get(span.clone())?, &node.value, &value)?;
    Some(Replacement { span, token, value, inside })
}

/// Returns the scalar `node` of `text` with the value `value`, put between quotes where it needs some and has
/// none; `None` where its notation leaves no room for the value.
pub(crate) fn write(text: &str, node: &Node<'_>, value: String, quotes: Quotes) -> Option<Replacement> {
    let Kind::Scalar(style) = node.kind else { return None };
    let in_line = token(&value, style, quotes)?;
    let span = node.span();
    let token = match style {
        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => in_line,
        // The value has no line break in it, so the content is the value with blanks around it.
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let content = text.get(span.clone())?;
            let (before, after) = content.split_once(&*node.value)?;
            let is_alone = before.trim().is_empty() && after.trim().is_empty();
            is_alone.then(|| format!("{before}{value}{after}"))?
        }
    };
    Some(Replacement { span, token, value, inside: Vec::new() })
}

/// Returns how a value is written in one line: as scalars of `style` are, or plain where that is a block. `None` where
/// it would need escapes.
pub(crate) fn token(value: &str, style: ScalarStyle, quotes: Quotes) -> Option<String> {
    // References, tags and digests are written with these.
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

    /// Writes `value` in place of the value of `text`, which is one key with a scalar.
    fn written(text: &str, value: &str) -> Option<String> {
        let tree = Tree::parse(text.as_bytes()).unwrap();
        let replacement = write(text, tree.node(2), value.to_owned(), Quotes::of(&tree))?;
        let mut new = text.to_owned();
        new.replace_range(replacement.span, &replacement.token);
        Some(new)
    }

    #[test]
    fn keeps_the_style() {
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
        // A value of several lines has no place for one of a single line.
        assert_eq!(written("a: |\n  b\r\n  c\n", "v2"), None);
    }

    #[test]
    fn quotes_where_it_must() {
        assert_eq!(written("a: b", "1e5").unwrap(), "a: \"1e5\"");
        assert_eq!(written("'a': b", "1e5").unwrap(), "'a': '1e5'");
        assert_eq!(written("a: |-\n  b", "1e5").unwrap(), "a: |-\n  1e5");
        for value in ["it's", "a\"", "a\\", "a b", "ä", "a\n"] {
            assert_eq!(written("a: 'b'", value), None);
        }
    }
}
