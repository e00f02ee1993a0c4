//! Tables, colours and short forms of versions, commits and times.
//!
//! Text always contains colours. `anstream` removes them if the output is not a terminal or `NO_COLOR` is set.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

use crate::api::VersionView;
use crate::settings::Faults;
use tagrelay_image::{Digest, Tag};

/// Headings.
pub(super) const HEAD: Style = Style::new().bold();
/// Success.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Needs attention.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// Failure.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// Less important details.
pub(super) const DIM: Style = Style::new().dimmed();
/// No colour.
pub(super) const PLAIN: Style = Style::new();

/// Prints a result to standard output.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints a result as a JSON document to standard output.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&format!("{}\n", serde_json::to_string_pretty(value)?))?)
}

/// Prints a message to standard error.
pub(super) fn note(message: &str) {
    // A failure to write to standard error cannot be reported anywhere.
    let _ = writeln!(anstream::stderr(), "{message}");
}

/// Prints the faults in the settings to standard error.
pub(super) fn print_faults(faults: &Faults) {
    for fault in &faults.0 {
        note(&format!("{BAD}error:{BAD:#} {}", clean(&fault.to_string())));
    }
}

/// Replaces control characters, so that text from other sources cannot control the terminal.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { '\u{fffd}' };
    text.chars().map(|c| if c.is_control() { shown(c) } else { c }).collect()
}

/// One cell of a table.
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Returns a cell with the cleaned text in a style.
    pub(super) fn new(text: &str, style: Style) -> Self {
        Self { text: clean(text).into_owned(), style }
    }

    /// Returns a cell with the cleaned text, without colour.
    pub(super) fn plain(text: &str) -> Self {
        Self::new(text, PLAIN)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A table with aligned columns. A column without content below its heading is left out.
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
    has_headings: bool,
}

/// The number of blanks between columns.
const GAP: usize = 2;

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| Cell::new(&heading.to_uppercase(), HEAD)).collect();
        Self { rows: vec![headings], has_headings: true }
    }

    pub(super) fn bare() -> Self {
        Self { rows: Vec::new(), has_headings: false }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Returns the width of the widest line.
    pub(super) fn width(&self) -> usize {
        let widths: Vec<usize> = self.widths().into_iter().flatten().collect();
        widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP
    }

    /// Returns the width of each column; `None`: it is left out.
    fn widths(&self) -> Vec<Option<usize>> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let (headings, body) = self.rows.split_at(usize::from(self.has_headings));
        let widest = |rows: &[Vec<Cell>], column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or_default()
        };
        let width = |column: usize| {
            let below = widest(body, column);
            (below > 0).then(|| below.max(widest(headings, column)))
        };
        (0..columns).map(width).collect()
    }

    /// Returns the lines of the table, indented by `indent` blanks.
    pub(super) fn render(&self, indent: usize) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            // Blanks are written before the next cell, so that no line ends with blanks.
            let mut blanks = indent;
            for (cell, width) in row.iter().zip(&widths) {
                let Some(width) = width else { continue };
                if !cell.text.is_empty() {
                    let _ = write!(text, "{:blanks$}{}{}{:#}", "", cell.style, cell.text, cell.style);
                    blanks = 0;
                }
                blanks += width - cell.width() + GAP;
            }
            text.push('\n');
        }
        text
    }
}

/// Returns an end time relative to now, or `otherwise` if there is none.
pub(super) fn end(at: Option<Timestamp>, otherwise: &str, now: Timestamp) -> String {
    at.map_or_else(|| otherwise.to_owned(), |at| relative(at, now))
}

/// Returns a time relative to now, in its largest unit: `12s ago`, `in 4h`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second());
    let size = seconds.unsigned_abs();
    let amount = match size {
        0..60 => format!("{size}s"),
        60..3600 => format!("{}m", size / 60),
        3600..172_800 => format!("{}h", size / 3600),
        _ => format!("{}d", size / 86_400),
    };
    if seconds < 0 { format!("in {amount}") } else { format!("{amount} ago") }
}

/// Returns the first 7 digits of a commit id.
pub(super) fn short_commit(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// Returns the tag, otherwise the digest. Hashes are shortened.
pub(super) fn short_version(tag: Option<&str>, digest: Option<&str>) -> String {
    let tag = tag.map(|tag| tag.parse::<Tag>().map_or_else(|_| tag.to_owned(), |tag| tag.short().to_owned()));
    tag.or_else(|| digest.map(short_digest)).unwrap_or_else(|| "-".to_owned())
}

/// As [`short_version`], for a version of the API.
pub(super) fn short(version: &VersionView) -> String {
    short_version(version.tag.as_deref(), version.digest.as_deref())
}

/// Shortens a digest.
pub(super) fn short_digest(digest: &str) -> String {
    digest.parse::<Digest>().map_or_else(|_| digest.to_owned(), |digest| digest.short())
}

/// Colours a unified diff as Git does.
pub(super) fn colour_diff(diff: &str) -> String {
    let mut text = String::new();
    for line in diff.lines() {
        let style = match line.as_bytes() {
            [b'+', b'+', b'+', b' ', ..] | [b'-', b'-', b'-', b' ', ..] | [b'd', b'i', b'f', b'f', ..] => HEAD,
            [b'@', b'@', ..] => AnsiColor::Cyan.on_default(),
            [b'+', ..] => GOOD,
            [b'-', ..] => BAD,
            [b'i', b'n', b'd', b'e', b'x', ..] => DIM,
            _ => PLAIN,
        };
        let _ = writeln!(text, "{style}{}{style:#}", clean(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut table = Table::new(&["name", "nothing", "state", ""]);
        table.row(vec![Cell::plain("a"), Cell::plain(""), Cell::new("committed", GOOD), Cell::plain("")]);
        table.row(vec![Cell::plain("längeres"), Cell::plain(""), Cell::plain(""), Cell::plain("x")]);
        assert_eq!(table.width(), 8 + 2 + 9 + 2 + 1);
        let text = anstream::adapter::strip_str(&table.render(2)).to_string();
        assert_eq!(text, "  NAME      STATE\n  a         committed\n  längeres             x\n");
    }

    #[test]
    fn time_is_shown_in_its_largest_unit() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        for (at, told) in [
            ("2026-11-20T12:00:00Z", "0s ago"),
            ("2026-11-20T11:59:01Z", "59s ago"),
            ("2026-11-20T11:58:01Z", "1m ago"),
            ("2026-11-19T11:00:00Z", "25h ago"),
            ("2026-11-01T12:00:00Z", "19d ago"),
            ("2026-11-20T16:00:00Z", "in 4h"),
        ] {
            assert_eq!(relative(at.parse().unwrap(), now), told);
        }
    }

    #[test]
    fn hashes_in_versions_are_shortened() {
        let sha = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(short_version(Some(sha), Some(&digest)), "9f8e7d6");
        assert_eq!(short_version(Some("v1.2.3"), None), "v1.2.3");
        assert_eq!(short_version(None, Some(&digest)), "sha256:abababababab");
        assert_eq!(short_version(None, None), "-");
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(clean("plain"), "plain");
        assert_eq!(clean("a\u{1b}[31mb\r\nc"), "a\u{fffd}[31mb  c");
        assert!(!colour_diff("+\u{1b}]0;title\u{7}").contains("\u{1b}]0"));
    }

    #[test]
    fn diff_is_coloured() {
        let text = colour_diff("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n same\n");
        assert!(text.contains(&format!("{BAD}-old{BAD:#}")) && text.contains(&format!("{GOOD}+new{GOOD:#}")));
        assert!(text.contains(&format!("{HEAD}--- a/x{HEAD:#}")));
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n same\n"
        );
    }
}
