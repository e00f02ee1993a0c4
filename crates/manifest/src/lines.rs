//! Line endings: a line feed, a carriage return, or both together.
//!
//! These line endings apply in every version of YAML. YAML 1.1 has three more (`tree/line_breaks.rs`), which are text here.

/// Returns the length of the first line without its ending.
pub(crate) fn line_length(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

/// Returns the text after the last line ending.
pub(crate) fn last_line(text: &str) -> &str {
    let start = text.rfind(['\n', '\r']).map_or(0, |end| end + 1);
    &text[start..]
}

/// Returns the line ending at the start of a text.
pub(crate) fn first_end(text: &str) -> Option<&'static str> {
    ["\r\n", "\n", "\r"].into_iter().find(|end| text.starts_with(end))
}

/// Returns the line ending at the end of a text.
pub(crate) fn last_end(text: &str) -> Option<&'static str> {
    ["\r\n", "\n", "\r"].into_iter().find(|end| text.ends_with(end))
}

/// Counts line endings. The text must not end between a carriage return and its line feed.
pub(crate) fn count_ends(bytes: &[u8]) -> u32 {
    let mut counter = LineCounter::new(bytes);
    counter.of(bytes.len()) - 1
}

/// Counts lines from 1, as the parser does.
pub(crate) struct LineCounter<'text> {
    bytes: &'text [u8],
    position: usize,
    line: u32,
    /// The byte at which the current line starts.
    pub(crate) start: usize,
}

impl<'text> LineCounter<'text> {
    pub(crate) fn new(bytes: &'text [u8]) -> Self {
        Self { bytes, position: 0, line: 1, start: 0 }
    }

    /// Returns the line of a position. Positions must be ascending.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_line_endings_are_recognised() {
        assert_eq!(count_ends(b"a\nb\rc\r\nd\n\re"), 5);
        assert_eq!(["a\nb", "a\rb", "a\r\nb", "a"].map(line_length), [1; 4]);
        assert_eq!(["a\nb", "a\rb", "a\r\nb", "b"].map(last_line), ["b"; 4]);
        assert_eq!(["\na", "\ra", "\r\na", "a"].map(first_end), [Some("\n"), Some("\r"), Some("\r\n"), None]);
        assert_eq!(["a\n", "a\r", "a\r\n", "a"].map(last_end), [Some("\n"), Some("\r"), Some("\r\n"), None]);
        let mut lines = LineCounter::new(b"a\r\nb\rc");
        let mut at = |position| (lines.of(position), lines.start);
        assert_eq!([at(0), at(1), at(3), at(4), at(5)], [(1, 0), (1, 0), (2, 3), (2, 3), (3, 5)]);
    }
}
