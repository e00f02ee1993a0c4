//! Prints numbered steps, facts, times, commits and diffs, in colours on a terminal.

use std::io::{Result, Write};

use anstyle::{AnsiColor, Style};

use crate::cli::output::{BAD, DIM, GOOD, HEAD, PLAIN, Table};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const COMMIT: Style = AnsiColor::Yellow.on_default();
const HUNK: Style = AnsiColor::Cyan.on_default();

/// The indentation of everything except titles.
const INDENT: usize = 3;

/// The width of the first column of facts and times.
const NAME_WIDTH: usize = 19;

/// The longest line of text.
const SENTENCE_WIDTH: usize = 76;

/// Writes to standard output.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    /// The columns of the terminal; `None`: not a terminal, nothing is cut.
    width: Option<usize>,
    steps: usize,
}

/// A commit to show.
pub(super) struct Commit {
    pub(super) id: String,
    pub(super) author: String,
    pub(super) message: String,
    /// The id of its tree.
    pub(super) tree: String,
    /// Unified.
    pub(super) diff: String,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self { out: Box::new(anstream::stdout()), width, steps: 0 }
    }

    /// Opens the tour.
    pub(super) fn title(&mut self, title: &str, subtitle: &str) -> Result<()> {
        writeln!(self.out, "\n{TITLE}{title}{TITLE:#}")?;
        wrap(subtitle).iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }

    /// Whether a step has been shown.
    pub(super) fn has_begun(&self) -> bool {
        self.steps > 0
    }

    /// Returns the columns for the output of commands.
    pub(super) fn columns(&self) -> usize {
        self.width.unwrap_or(100).saturating_sub(INDENT).max(20)
    }

    /// Asks for something, below an empty line.
    pub(super) fn prompt(&mut self, text: &str) -> Result<()> {
        write!(self.out, "\n   {DIM}{text}{DIM:#} ")?;
        self.out.flush()
    }

    /// Begins the next step. `why` explains it in a sentence.
    pub(super) fn step(&mut self, title: &str, why: &str) -> Result<()> {
        self.steps += 1;
        writeln!(self.out, "\n{TITLE}{}. {title}{TITLE:#}", self.steps)?;
        for line in wrap(why) {
            writeln!(self.out, "   {DIM}{line}{DIM:#}")?;
        }
        writeln!(self.out)
    }

    /// Begins a part without a number.
    pub(super) fn heading(&mut self, title: &str) -> Result<()> {
        writeln!(self.out, "\n{TITLE}{title}{TITLE:#}\n")
    }

    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "   {text}")
    }

    pub(super) fn gap(&mut self) -> Result<()> {
        writeln!(self.out)
    }

    pub(super) fn fact(&mut self, name: &str, value: &str) -> Result<()> {
        writeln!(self.out, "   {HEAD}{name:NAME_WIDTH$}{HEAD:#}{value}")
    }

    /// Prints what happened after `millis` milliseconds.
    pub(super) fn moment(&mut self, millis: i64, what: &str, text: &str) -> Result<()> {
        self.happened(&format!("+{millis} ms"), what, text)
    }

    /// Prints what happened at an unknown time.
    pub(super) fn unmeasured(&mut self, what: &str, text: &str) -> Result<()> {
        self.happened("", what, text)
    }

    fn happened(&mut self, at: &str, what: &str, text: &str) -> Result<()> {
        writeln!(self.out, "   {DIM}{at:>9}{DIM:#}  {GOOD}{what:10}{GOOD:#} {text}")
    }

    /// Prints what happened at a time of day.
    pub(super) fn live(&mut self, time: &str, what: &str, text: &str) -> Result<()> {
        writeln!(self.out, "   {DIM}{time}{DIM:#}  {GOOD}{what:10}{GOOD:#} {text}")
    }

    /// Prints a command to copy. `why` explains it.
    pub(super) fn command(&mut self, why: &str, command: &str) -> Result<()> {
        for line in wrap(why) {
            writeln!(self.out, "   {DIM}# {line}{DIM:#}")?;
        }
        writeln!(self.out, "   {command}\n")
    }

    /// Prints a line of Git's log.
    pub(super) fn log_line(&mut self, id: &str, subject: &str) -> Result<()> {
        writeln!(self.out, "   {COMMIT}{id:.7}{COMMIT:#} {subject}")
    }

    /// Prints a commit without its diff, as `git show --no-patch`.
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<()> {
        writeln!(self.out, "   {COMMIT}commit {}{COMMIT:#}\n   Author: {}\n", commit.id, commit.author)?;
        for line in commit.message.trim_end().lines() {
            let line = self.cut(line, 7);
            let end = if line.is_empty() { "" } else { "       " };
            writeln!(self.out, "{end}{line}")?;
        }
        writeln!(self.out)
    }

    /// Prints a unified diff. In a pair of old and new line, the difference is bold.
    pub(super) fn diff(&mut self, diff: &str) -> Result<()> {
        let lines: Vec<&str> = diff.lines().collect();
        let mut in_hunk = false;
        for (index, line) in lines.iter().enumerate() {
            in_hunk = line.starts_with("@@") || in_hunk && !line.starts_with("diff ");
            let neighbour = |index: Option<usize>, mark: char| {
                index.and_then(|index| lines.get(index)).filter(|line| in_hunk && line.starts_with(mark))
            };
            let (style, partner) = match line.chars().next() {
                Some('-') if in_hunk => (BAD, neighbour(Some(index + 1), '+')),
                Some('+') if in_hunk => (GOOD, neighbour(index.checked_sub(1), '-')),
                Some('@') => (HUNK, None),
                _ if in_hunk => (PLAIN, None),
                _ => (DIM, None),
            };
            let (before, differs, after) = split_by(line, partner.copied());
            let room = self.room(INDENT);
            let (before, room) = cut(before, room);
            let (differs, room) = cut(differs, room);
            let (after, _) = cut(after, room);
            let bold = style.bold();
            writeln!(self.out, "   {style}{before}{style:#}{bold}{differs}{bold:#}{style}{after}{style:#}")?;
        }
        Ok(())
    }

    pub(super) fn table(&mut self, table: &Table) -> Result<()> {
        self.out.write_all(table.render(INDENT).as_bytes())
    }

    fn cut<'a>(&self, line: &'a str, indent: usize) -> std::borrow::Cow<'a, str> {
        cut(line, self.room(indent)).0
    }

    fn room(&self, indent: usize) -> usize {
        self.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(1))
    }
}

/// Breaks text into lines.
fn wrap(sentence: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= SENTENCE_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Cuts text to the available width, with an ellipsis. Returns it with the remaining width.
fn cut(text: &str, room: usize) -> (std::borrow::Cow<'_, str>, usize) {
    let length = text.chars().count();
    if length <= room {
        return (text.into(), room - length);
    }
    match room.checked_sub(1) {
        None => ("".into(), 0),
        Some(kept) => (text.chars().take(kept).chain(['…']).collect::<String>().into(), 0),
    }
}

/// Splits a line of a diff into the common beginning with its partner, the difference, and the common end.
///
/// Without a partner, or if nothing or everything differs, all of it is the beginning.
fn split_by<'a>(line: &'a str, partner: Option<&str>) -> (&'a str, &'a str, &'a str) {
    let Some(partner) = partner else { return (line, "", "") };
    // The marks `+` and `-` always differ.
    let (own, other) = (line.get(1..).unwrap_or_default(), partner.get(1..).unwrap_or_default());
    let same = |pair: &((usize, char), char)| pair.0.1 == pair.1;
    let prefix = own.char_indices().zip(other.chars()).find(|pair| !same(pair));
    let prefix = prefix.map_or(own.len().min(other.len()), |((index, _), _)| index);
    let (own_rest, other_rest) = (&own[prefix..], &other[prefix..]);
    let suffix: usize = own_rest
        .chars()
        .rev()
        .zip(other_rest.chars().rev())
        .take_while(|(own, other)| own == other)
        .map(|(own, _)| own.len_utf8())
        .sum();
    let end = line.len() - suffix;
    (&line[..=prefix], &line[prefix + 1..end], &line[end..])
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn shown(width: Option<usize>, show: impl FnOnce(&mut Screen) -> Result<()>) -> String {
        let paper = Paper::default();
        show(&mut Screen { out: Box::new(paper.clone()), width, steps: 0 }).unwrap();
        let written = paper.0.lock().unwrap().clone();
        anstream::adapter::strip_str(std::str::from_utf8(&written).unwrap()).to_string()
    }

    const DIFF: &str = "diff --git a/a.yaml b/a.yaml\n--- a/a.yaml\n+++ b/a.yaml\n@@ -1,3 +1,3 @@\n spec:\n-  image: r/a:é1 # x\n+  image: r/a:é2 # x\n";

    #[test]
    fn difference_is_bold() {
        assert_eq!(split_by("-  image: é1 # x", Some("+  image: é2 # x")), ("-  image: é", "1", " # x"));
        assert_eq!(split_by("-aa", Some("+a")), ("-a", "a", ""));
        assert_eq!(split_by("-a", Some("+aa")), ("-a", "", ""));
        assert_eq!(split_by("-same", Some("+same")), ("-same", "", ""));
        assert_eq!(split_by("-é", Some("+à")), ("-", "é", ""));
        assert_eq!(split_by("-", None), ("-", "", ""));
        assert_eq!(split_by("-", Some("+")), ("-", "", ""));
    }

    #[test]
    fn diff_is_not_cut_without_a_terminal() {
        let lines: String = DIFF.lines().map(|line| format!("   {line}\n")).collect();
        assert_eq!(shown(None, |screen| screen.diff(DIFF)), lines);
    }

    #[test]
    fn diff_is_cut_to_the_terminal() {
        let shown = shown(Some(20), |screen| screen.diff(DIFF));
        assert!(shown.lines().all(|line| line.chars().count() <= 20), "{shown}");
        assert!(shown.contains("   -  image: r/a:é1…\n"), "{shown}");
    }
}
