//! Tables that fit the screen.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{HEAD, PLAIN, clean, screen_width};

/// One cell of a table.
#[derive(Clone)]
pub(in crate::cli) struct Cell {
    text: String,
    style: Style,
    link: Option<String>,
}

impl Cell {
    /// Returns a cell with the cleaned text in a style.
    pub(in crate::cli) fn new(text: &str, style: Style) -> Self {
        Self { text: clean(text).into_owned(), style, link: None }
    }

    /// Returns a cell with the cleaned text, without colour.
    pub(in crate::cli) fn plain(text: &str) -> Self {
        Self::new(text, PLAIN)
    }

    /// Makes the text a link, if the terminal shows links.
    pub(in crate::cli) fn linked(self, address: Option<String>) -> Self {
        Self { link: address.filter(|_| super::shows_links()), ..self }
    }

    fn width(&self) -> usize {
        self.text.width()
    }
}

/// A table with aligned columns. A column without content below its heading is left out.
///
/// If it is wider than the screen, the last column is wrapped; then texts are shortened; then each row becomes a block.
pub(in crate::cli) struct Table {
    rows: Vec<Vec<Cell>>,
    has_headings: bool,
    /// Columns that are never shortened, because they are typed again: ids and short versions.
    whole: Vec<usize>,
}

/// The number of blanks between columns.
const GAP: usize = 2;

/// The least width of a wrapped column.
const LEAST_WRAPPED: usize = 20;

/// The least width of a shortened column.
const LEAST_SHORT: usize = 8;

impl Table {
    pub(in crate::cli) fn new(headings: &[&str]) -> Self {
        // Names of repositories stay as they are.
        let written = |heading: &str| if heading.contains('/') { heading.to_owned() } else { heading.to_uppercase() };
        let headings = headings.iter().map(|heading| Cell::new(&written(heading), HEAD)).collect();
        Self { rows: vec![headings], has_headings: true, whole: Vec::new() }
    }

    pub(in crate::cli) fn bare() -> Self {
        Self { rows: Vec::new(), has_headings: false, whole: Vec::new() }
    }

    /// Never shortens these columns.
    pub(in crate::cli) fn keep(self, columns: &[usize]) -> Self {
        Self { whole: columns.to_vec(), ..self }
    }

    pub(in crate::cli) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there is no row below the headings.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.rows.len() == usize::from(self.has_headings)
    }

    /// Returns the width of the widest line, if texts are shortened to `least` columns.
    pub(in crate::cli) fn width_with(&self, least: usize) -> usize {
        let mut widths = self.widths();
        for (_, width) in widths.iter_mut().enumerate().filter(|(column, _)| !self.whole.contains(column)) {
            *width = width.map(|width| width.min(least));
        }
        total(&widths)
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

    /// Returns the lines of the table, indented by `indent` blanks, in the width of the screen.
    pub(in crate::cli) fn render(&self, indent: usize) -> String {
        self.render_in(indent, screen_width())
    }

    /// As [`Self::render`], in a width. `None`: as wide as it is.
    pub(in crate::cli) fn render_in(&self, indent: usize, width: Option<usize>) -> String {
        let natural = self.widths();
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent));
        match self.fit(natural.clone(), room) {
            Some(widths) => self.lines(indent, &widths),
            None => self.blocks(indent, &natural, room),
        }
    }

    /// Returns widths that fit; `None`: there are none.
    fn fit(&self, mut widths: Vec<Option<usize>>, room: usize) -> Option<Vec<Option<usize>>> {
        if total(&widths) <= room {
            return Some(widths);
        }
        let last = widths.iter().rposition(Option::is_some)?;
        let too_wide = |widths: &[Option<usize>]| total(widths).saturating_sub(room);
        if !self.whole.contains(&last)
            && let Some(width) = &mut widths[last]
        {
            let least = LEAST_WRAPPED.min(*width);
            let excess = total(&self.widths()).saturating_sub(room);
            *width = width.saturating_sub(excess).max(least);
        }
        while too_wide(&widths) > 0 {
            let can_shrink = |column: &usize| *column != last && !self.whole.contains(column);
            let widest =
                (0..widths.len()).filter(can_shrink).max_by_key(|column| widths[*column].unwrap_or_default())?;
            let width = widths[widest].filter(|width| *width > LEAST_SHORT)?;
            widths[widest] = Some(width - 1);
        }
        Some(widths)
    }

    fn lines(&self, indent: usize, widths: &[Option<usize>]) -> String {
        let last = widths.iter().rposition(Option::is_some);
        let mut text = String::new();
        for row in &self.rows {
            let wrapped: Vec<Vec<String>> = row
                .iter()
                .zip(widths)
                .enumerate()
                .map(|(column, (cell, width))| match width {
                    Some(width) if Some(column) == last => wrap(&cell.text, *width),
                    Some(width) => vec![shorten(&cell.text, *width)],
                    None => Vec::new(),
                })
                .collect();
            let height = wrapped.iter().map(Vec::len).max().unwrap_or_default().max(1);
            for line in 0..height {
                // Blanks are written before the next cell, so that no line ends with blanks.
                let mut blanks = indent;
                for ((cell, parts), width) in row.iter().zip(&wrapped).zip(widths) {
                    let Some(width) = width else { continue };
                    let part = parts.get(line).map(String::as_str).unwrap_or_default();
                    if !part.is_empty() {
                        let _ = write!(text, "{:blanks$}{}", "", dressed(part, cell));
                        blanks = 0;
                    }
                    blanks += width.saturating_sub(part.width()) + GAP;
                }
                text.push('\n');
            }
        }
        text
    }

    /// Returns each row as a block of lines, for narrow screens.
    fn blocks(&self, indent: usize, widths: &[Option<usize>], room: usize) -> String {
        let (headings, body) = self.rows.split_at(usize::from(self.has_headings));
        let mut text = String::new();
        for row in body {
            let mut is_first = true;
            for (column, cell) in row.iter().enumerate() {
                if cell.text.is_empty() || widths[column].is_none() {
                    continue;
                }
                let heading = headings.first().and_then(|headings| headings.get(column)).map(|cell| cell.text.as_str());
                let label = heading.filter(|_| !is_first).map(|heading| format!("{}: ", heading.to_lowercase()));
                // A label that leaves no room says less than its text.
                let label = label.filter(|label| room >= label.width() + GAP + LEAST_SHORT).unwrap_or_default();
                let shift = indent + if is_first { 0 } else { GAP };
                let width = room.saturating_sub(label.width() + if is_first { 0 } else { GAP }).max(LEAST_SHORT);
                for (index, part) in wrap(&cell.text, width).iter().enumerate() {
                    let label = if index == 0 { label.clone() } else { " ".repeat(label.width()) };
                    let _ = writeln!(text, "{:shift$}{label}{}", "", dressed(part, cell));
                }
                is_first = false;
            }
        }
        text
    }
}

/// The width of all columns and the gaps between them.
fn total(widths: &[Option<usize>]) -> usize {
    let shown: Vec<usize> = widths.iter().copied().flatten().collect();
    shown.iter().sum::<usize>() + shown.len().saturating_sub(1) * GAP
}

fn dressed(text: &str, cell: &Cell) -> String {
    let style = cell.style;
    let styled = format!("{style}{text}{style:#}");
    match &cell.link {
        Some(address) => format!("\u{1b}]8;;{address}\u{1b}\\{styled}\u{1b}]8;;\u{1b}\\"),
        None => styled,
    }
}

/// Cuts a text in the middle: names differ at both ends.
pub(in crate::cli) fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let (head, tail) = (room / 3, room - room / 3);
    let mut start = String::new();
    for c in text.chars() {
        if start.width() + c.width().unwrap_or_default() > head {
            break;
        }
        start.push(c);
    }
    let mut end: Vec<char> = Vec::new();
    let mut used = 0;
    for c in text.chars().rev() {
        used += c.width().unwrap_or_default();
        if used > tail {
            break;
        }
        end.push(c);
    }
    format!("{start}…{}", end.iter().rev().collect::<String>())
}

/// Breaks a text between words, and words that are too long anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if line.width() + gap + word.width() <= width {
            line.push_str(&" "[..gap]);
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if line.width() + c.width().unwrap_or_default() > width && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::GOOD;
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut table = Table::new(&["name", "nothing", "state", ""]);
        table.row(vec![Cell::plain("a"), Cell::plain(""), Cell::new("committed", GOOD), Cell::plain("")]);
        table.row(vec![Cell::plain("längeres"), Cell::plain(""), Cell::plain(""), Cell::plain("x")]);
        assert_eq!(table.width_with(100), 8 + 2 + 9 + 2 + 1);
        assert_eq!(table.width_with(5), 5 + 2 + 5 + 2 + 1);
        let text = plain(&table.render(2));
        assert_eq!(text, "  NAME      STATE\n  a         committed\n  längeres             x\n");
    }

    fn wide() -> Table {
        let mut table = Table::new(&["id", "repository", "reason"]).keep(&[0]);
        table.row(vec![
            Cell::plain("01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"),
            Cell::plain("registry.example.com/uyou/a-service-with-a-long-name"),
            Cell::plain("the registry has no such image, and it was looked for during ten seconds"),
        ]);
        table.row(vec![Cell::plain("01K"), Cell::plain("界界界界界界"), Cell::plain("short")]);
        table
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for width in 20..200 {
            let text = plain(&wide().render_in(2, Some(width)));
            for line in text.lines() {
                assert!(line.width() <= width, "{} > {width}: {line}", line.width());
                assert_eq!(line, line.trim_end());
            }
            if width >= 28 {
                assert!(text.contains("01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"), "ids are never shortened: {text}");
            }
        }
    }

    #[test]
    fn last_column_is_wrapped_and_names_are_shortened() {
        insta::assert_snapshot!(plain(&wide().render_in(0, Some(80))), @r"
        ID                          REPOSITORY                      REASON
        01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN  registry.…ice-with-a-long-name  the registry has no
                                                                    such image, and it
                                                                    was looked for
                                                                    during ten seconds
        01K                         界界界界界界                    short
        ");
        assert_eq!(wide().render_in(0, None).lines().count(), 3);
    }

    #[test]
    fn narrow_screen_shows_blocks() {
        insta::assert_snapshot!(plain(&wide().render_in(0, Some(40))), @r"
        01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN
          repository: registry.example.com/uyou/
                      a-service-with-a-long-name
          reason: the registry has no such
                  image, and it was looked for
                  during ten seconds
        01K
          repository: 界界界界界界
          reason: short
        ");
    }

    #[test]
    fn middle_of_a_name_is_cut() {
        assert_eq!(shorten("user-service", 12), "user-service");
        assert_eq!(shorten("user-service", 8), "us…rvice");
        assert_eq!(shorten("界界界界", 5), "…界");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
    }
}
