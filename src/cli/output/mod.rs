//! Tables, colours and short forms of versions, commits and times.
//!
//! Text always contains colours. `anstream` removes them if the output is not a terminal or `NO_COLOR` is set.

mod table;
mod time;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};

pub(super) use table::{Cell, Table};
pub(super) use time::{Times, age, end, exact, now, read_future, read_seconds, set_times, shown};

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

/// Prints to standard error how to list the next page of a list, newest first; `None`: this page is the last one.
pub(super) fn note_next_page(next: Option<&str>) {
    if let Some(next) = next {
        note(&format!("{DIM}older: --before {}{DIM:#}", clean(next)));
    }
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

/// As [`clean`], but keeps the lines. All but the first are indented, so that none of them passes for a message of its own.
pub(super) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n  ")
}

/// Returns the width of the screen, in columns; `None`: the output is no terminal, so nothing is wrapped.
///
/// `COLUMNS` counts first. Shells set it without exporting it, so it is there only on request.
pub(super) fn screen_width() -> Option<usize> {
    if cfg!(test) {
        return None;
    }
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let of_terminal = || {
        let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(std::io::stdout())?;
        Some(usize::from(columns))
    };
    asked.or_else(of_terminal).filter(|columns| *columns > 0)
}

/// Whether standard output is a terminal that can show links (OSC 8). Others ignore the sequence, except for the oldest.
pub(super) fn shows_links() -> bool {
    if cfg!(test) {
        return false;
    }
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_dumb && std::env::var_os("NO_COLOR").is_none()
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
