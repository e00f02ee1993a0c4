//! YAML inside a block scalar, such as `helm.values` of an Argo CD Application.
//!
//! The value of the scalar is read and edited like a file. Then each changed line replaces the end of its line in the file, after
//! the indentation. Only literal scalars (`|`) have their lines unchanged in the file.

use granit_parser::ScalarStyle;

use super::lines::{first_end, line_length};
use super::site_path::Step;
use super::tree::{Kind, Node, NodeId};
use tagrelay_image::Repository;

use super::settings::RulePart;

/// A scalar whose text is YAML with sites.
#[derive(Debug, Clone)]
pub(crate) struct Embedded<'rules> {
    pub(crate) node: NodeId,
    /// The nodes through which the scalar is reached: the scalar itself, or its aliases.
    pub(crate) reached_by: Vec<NodeId>,
    /// The kind of text.
    pub(crate) content: Content,
    /// The rules in the settings that lead into the text.
    pub(crate) rules: Vec<Rule<'rules>>,
}

/// The kind of a text inside a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A text in which only rules find sites.
    Unknown,
    Values,
    /// A patch of a kustomization.
    Patch,
    /// A part of an ApplicationSet: its template patch, or the elements of a list generator.
    Argocd,
}

/// A rule that leads into a text, with the rest of its path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'rules> {
    pub(crate) steps: &'rules [Step],
    pub(crate) repository: Option<&'rules Repository>,
    pub(crate) part: RulePart,
}

/// Returns the line in the file of a line in a scalar's value, both from 1.
pub(crate) fn line_in_file(scalar: &Node<'_>, line: u32) -> u32 {
    match scalar.kind {
        // The node begins at its first line that is not blank.
        Kind::Scalar(ScalarStyle::Literal) => {
            (scalar.line + line).saturating_sub(1 + blank_lines(&scalar.value) as u32)
        }
        // In folded or escaped texts only the first line is known.
        _ => scalar.line,
    }
}

/// Returns the bytes of a literal scalar with the new value; `None`: the number of lines differs.
pub(crate) fn write_lines(raw: &str, old: &str, new: &str) -> Option<String> {
    let blank = blank_lines(old);
    let (old_lines, new_lines) = (old.split('\n').skip(blank), new.split('\n').skip(blank));
    if old.split('\n').count() != new.split('\n').count() {
        return None;
    }
    let mut written = String::with_capacity(raw.len() + 64);
    let mut rest = raw;
    for (old, new) in old_lines.zip(new_lines) {
        let (line, behind) = rest.split_at(line_length(rest));
        if old == new {
            written.push_str(line);
        } else {
            let indentation = line.strip_suffix(old).filter(|before| before.bytes().all(|byte| byte == b' '))?;
            written.extend([indentation, new]);
        }
        let end = first_end(behind).unwrap_or_default();
        written.push_str(end);
        rest = &behind[end.len()..];
    }
    // Trailing blank lines belong to the bytes even if the value omits them.
    written.push_str(rest);
    Some(written)
}

fn blank_lines(value: &str) -> usize {
    value.len() - value.trim_start_matches('\n').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_after_their_indentation() {
        for (raw, old, new, expected) in [
            ("a: 1\n  b: 2\n", "\n\na: 1\nb: 2\n", "\n\na: 1\nb: 3\n", "a: 1\n  b: 3\n"),
            ("a: 1\r\n  b: 2", "a: 1\nb: 2", "a: x\nb: 2", "a: x\r\n  b: 2"),
            (" a: 1\n\n   b: 2\n\n  ", " a: 1\n\n b: 2\n", " a: 1\n\n b: 3\n", " a: 1\n\n   b: 3\n\n  "),
        ] {
            assert_eq!(write_lines(raw, old, new).as_deref(), Some(expected));
        }
        assert_eq!(write_lines("a\n  b\n", "a\nb\n", "a\n"), None);
        assert_eq!(write_lines("a\n  b\n", "a\nc\n", "a\nd\n"), None);
    }
}
