//! Where lines end: at a line feed, at a carriage return, or at both of them, which is one end.
//!
//! That is so in every version of YAML. The first ones had three more (see [`refuse_unclear_ends`]), which are text here.

use granit_parser::ScalarStyle;
use memchr::memchr2_iter;

use super::site::Unreadable;
use super::tree::{Kind, Tree};

/// Returns the length of the first line, without its end.
pub(crate) fn line_length(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

/// Returns what stands behind the last line end.
pub(crate) fn last_line(text: &str) -> &str {
    let start = text.rfind(['\n', '\r']).map_or(0, |end| end + 1);
    &text[start..]
}

/// Returns the line end with which a text begins.
pub(crate) fn first_end(text: &str) -> Option<&'static str> {
    ["\r\n", "\n", "\r"].into_iter().find(|end| text.starts_with(end))
}

/// Returns the line end with which a text ends.
pub(crate) fn last_end(text: &str) -> Option<&'static str> {
    ["\r\n", "\n", "\r"].into_iter().find(|end| text.ends_with(end))
}

/// Counts the line ends, of which the last one is whole.
pub(crate) fn count_ends(bytes: &[u8]) -> u32 {
    let mut counter = LineCounter::new(bytes);
    counter.of(bytes.len()) - 1
}

/// Counts lines from 1 on, as the parser does.
pub(crate) struct LineCounter<'text> {
    bytes: &'text [u8],
    position: usize,
    line: u32,
    /// Where the line begins.
    pub(crate) start: usize,
}

impl<'text> LineCounter<'text> {
    pub(crate) fn new(bytes: &'text [u8]) -> Self {
        Self { bytes, position: 0, line: 1, start: 0 }
    }

    /// Returns the line of a position that is not before the last one.
    pub(crate) fn of(&mut self, position: usize) -> u32 {
        let is_end = |index: &usize| match self.bytes[*index] {
            b'\n' => true,
            b'\r' => self.bytes.get(*index + 1) != Some(&b'\n'),
            _ => false,
        };
        for end in (self.position..position).filter(is_end) {
            self.line += 1;
            self.start = end + 1;
        }
        self.position = position;
        self.line
    }
}

/// Refuses the characters that end a line in YAML 1.1 and are text in YAML 1.2: what stands behind one is the rest of a
/// comment here and a key to the readers of Argo CD and Helm (<https://yaml.org/spec/1.2.2/#54-line-break-characters>).
/// Between quotes they do no harm, and at the end of a line of a comment or of a block scalar neither.
pub(crate) fn refuse_unclear_ends(tree: &Tree<'_>) -> Result<(), Unreadable> {
    let text = tree.text();
    let is_unclear = |character: char| matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}');
    // Up to where it is known that nothing follows on the line, so that no line is gone through again for each of them.
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
    use super::*;

    #[test]
    fn lines_end_in_three_ways() {
        assert_eq!(count_ends(b"a\nb\rc\r\nd\n\re"), 5);
        assert_eq!(["a\nb", "a\rb", "a\r\nb", "a"].map(line_length), [1; 4]);
        assert_eq!(["a\nb", "a\rb", "a\r\nb", "b"].map(last_line), ["b"; 4]);
        assert_eq!(["\na", "\ra", "\r\na", "a"].map(first_end), [Some("\n"), Some("\r"), Some("\r\n"), None]);
        assert_eq!(["a\n", "a\r", "a\r\n", "a"].map(last_end), [Some("\n"), Some("\r"), Some("\r\n"), None]);
        let mut lines = LineCounter::new(b"a\r\nb\rc");
        let mut at = |position| (lines.of(position), lines.start);
        assert_eq!([at(0), at(1), at(3), at(4), at(5)], [(1, 0), (1, 0), (2, 3), (2, 3), (3, 5)]);
    }

    #[test]
    fn line_ends_of_old_readers_are_refused_where_they_count() {
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
