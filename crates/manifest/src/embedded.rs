//! YAML inside a block scalar: `helm.values` of an Argo CD Application and the like.
//!
//! The value of such a scalar is a file of its own, which is found and edited as any other. What is special is the way
//! back: the new value differs from the old one in some lines, and each is written over the end of its line in the file,
//! behind the indentation. Only literal scalars (`|`) have their lines in the file as they are in the value.

use granit_parser::ScalarStyle;

use super::lines::{first_end, line_length};
use super::site_path::Step;
use super::tree::{Kind, Node, NodeId};
use tagrelay_image::Repository;

use super::settings::RulePart;

/// A scalar whose text is YAML with sites.
#[derive(Debug, Clone)]
pub(crate) struct Embedded<'rules> {
    /// The scalar.
    pub(crate) node: NodeId,
    /// Every node through which it is reached: the scalar itself, or aliases of it.
    pub(crate) reached_by: Vec<NodeId>,
    /// What the text is.
    pub(crate) content: Content,
    /// The rules of the settings that lead into it.
    pub(crate) rules: Vec<Rule<'rules>>,
}

/// What a text inside a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Something in which only rules of the settings find sites.
    Unknown,
    /// Helm values.
    Values,
    /// A patch of a kustomization.
    Patch,
    /// A part of an ApplicationSet: the patch of its template, or the elements of a list generator.
    Argocd,
}

/// A rule of the settings, from some place on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'rules> {
    pub(crate) steps: &'rules [Step],
    pub(crate) repository: Option<&'rules Repository>,
    pub(crate) part: RulePart,
}

/// Returns the line of the file on which a line of a scalar's value stands, both from 1.
pub(crate) fn line_in_file(scalar: &Node<'_>, line: u32) -> u32 {
    match scalar.kind {
        // The node begins with the first line that is not blank.
        Kind::Scalar(ScalarStyle::Literal) => {
            (scalar.line + line).saturating_sub(1 + blank_lines(&scalar.value) as u32)
        }
        // The lines are folded or escaped: only where they begin can be told.
        _ => scalar.line,
    }
}

/// Returns the bytes of a literal scalar with the new value, `None` where the lines do not fit.
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
    // Blank lines at the end belong to the bytes even where the value leaves them out.
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
    fn lines_are_written_behind_their_indentation() {
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
