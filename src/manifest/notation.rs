//! Writes a scalar anew in the style in which it stands.
//!
//! The rule for quotes: a quoted scalar keeps its quotes, a block scalar its form; a plain scalar stays plain
//! unless [`reads_as_string`] says that a reader could take the new text for something else. Then it gets the
//! quotes that most of the quoted values of the file have, and double quotes where there is no majority,
//! because that is how Helm's and kustomize's own documents write a tag.

use std::ops::Range;

use granit_parser::ScalarStyle;

use super::plain::reads_as_string;
use super::tree::{Kind, Node, Tree};

/// A scalar that is written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replacement {
    /// The bytes of the scalar in the old text, as the parser gives them: quotes included.
    pub(super) span: Range<usize>,
    /// What stands there in the new text.
    pub(super) token: String,
    /// The string that the token is.
    pub(super) value: String,
}

/// Returns the scalar `node` with the value `value`, or `None` where its notation leaves no room for it.
pub(super) fn write(tree: &Tree<'_>, node: &Node<'_>, value: String) -> Option<Replacement> {
    let Kind::Scalar(style) = node.kind else { return None };
    let span = node.span();
    let token = match style {
        ScalarStyle::Plain if reads_as_string(&value) => value.clone(),
        ScalarStyle::Plain if tree.prefers_single_quotes() => format!("'{value}'"),
        ScalarStyle::Plain => format!("\"{value}\""),
        ScalarStyle::SingleQuoted => format!("'{value}'"),
        ScalarStyle::DoubleQuoted => format!("\"{value}\""),
        // The value has no line break in it, so the content is the value with blanks around it.
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let content = tree.text().get(span.clone())?;
            let start = content.find(&*node.value)?;
            let is_alone = content.trim() == node.value;
            is_alone.then(|| format!("{}{value}{}", &content[..start], &content[start + node.value.len()..]))?
        }
    };
    let needs_no_escape = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    value.bytes().all(needs_no_escape).then_some(Replacement { span, token, value })
}
