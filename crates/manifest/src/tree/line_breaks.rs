//! Refuses characters that are line breaks for some YAML readers only.

use granit_parser::ScalarStyle;
use memchr::memchr2_iter;

use super::super::lines::LineCounter;
use super::super::site::Unreadable;
use super::nodes::{Kind, Tree};

/// Refuses characters that are line breaks in YAML 1.1 and text in YAML 1.2.
///
/// The text after such a character is part of a comment here, and a key for Argo CD and Helm
/// (<https://yaml.org/spec/1.2.2/#54-line-break-characters>). In quotes, and at the end of a line in a comment or block scalar,
/// these characters are harmless.
pub(super) fn refuse_unclear_breaks(tree: &Tree<'_>) -> Result<(), Unreadable> {
    let text = tree.text();
    let is_unclear = |character: char| matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}');
    // The end of the part that is known to be harmless, so that no line is searched repeatedly.
    let mut harmless_to = 0;
    for start in memchr2_iter(0xc2, 0xe2, text.as_bytes()) {
        if start < harmless_to {
            continue;
        }
        let Some(found) = text.get(start..).and_then(|rest| rest.chars().next()).filter(|next| is_unclear(*next))
        else {
            continue;
        };
        let behind = tree.nodes.partition_point(|node| node.span().start <= start);
        let around = behind.checked_sub(1).map(|id| &tree.nodes[id]).filter(|node| node.span().contains(&start));
        let is_harmless = match around.map(|node| node.kind) {
            Some(Kind::Scalar(ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted)) => true,
            Some(Kind::Scalar(ScalarStyle::Plain)) => false,
            _ => {
                let rest = text[start..].trim_start_matches(|next| is_unclear(next) || matches!(next, ' ' | '\t'));
                harmless_to = text.len() - rest.len();
                rest.is_empty() || rest.starts_with(['\n', '\r'])
            }
        };
        if !is_harmless {
            let line = LineCounter::new(text.as_bytes()).of(start);
            let reason = format!(
                "holds the character U+{:04X} outside of quotes, which ends a line to some readers and not to others: \
                 remove it",
                u32::from(found)
            );
            return Err(Unreadable { line: Some(line), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::lines::count_ends;
    use super::*;

    #[test]
    fn yaml_1_1_line_breaks_are_refused_in_relevant_positions() {
        for end in ["\u{85}", "\u{2028}", "\u{2029}"] {
            for (before, behind) in
                [("a: b\n# c", "image: a:1\n"), ("a: b", "c d\n"), ("a: |\n  b", "c\n"), ("a: b", "")]
            {
                let text = format!("{before}{end}{behind}");
                let unreadable = Tree::parse(text.as_bytes()).unwrap_err();
                assert_eq!(unreadable.line, Some(count_ends(before.as_bytes()) + 1), "{text:?}");
                assert!(unreadable.reason.contains("outside of quotes"), "{}", unreadable.reason);
            }
            for (before, behind) in
                [("a: \"b", "c\"\n"), ("a: 'b", "c'"), ("a: b # c", " \r\nd: e"), ("a: |\n  b", "\n  c")]
            {
                assert!(Tree::parse(format!("{before}{end}{behind}").as_bytes()).is_ok(), "{before:?}");
            }
        }
        assert!(Tree::parse("a: “b” ©\n".as_bytes()).is_ok());
    }
}
