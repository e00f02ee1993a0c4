//! The table of versions: repositories below each other, environments side by side.
//!
//! With one environment, each repository has a line with everything about it. With several, remarks are shortened until the table
//! fits, and then the environments are spread over several tables.

use std::collections::{BTreeMap, BTreeSet};

use super::View;
use crate::api::{CellView, Direction, DriftView, EnvironmentView, Word};
use crate::cli::names::Prefix;
use crate::cli::output::{BAD, Cell, DIM, PLAIN, Table, WARN, age, short, short_commit, short_version, shown};
use crate::domain::Cause;
use crate::store::RolloutState;

/// How much is said about a version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Since when, by whom, and in what state.
    Full,
    /// Only what is unusual, in words.
    Words,
    /// Only what is unusual, in signs.
    Signs,
}

/// Names are shortened to this width before remarks are.
const NAME_WIDTH: usize = 24;

/// The environments and their cells by repository.
struct Rows<'a> {
    environments: Vec<(&'a EnvironmentView, BTreeMap<&'a str, &'a CellView>)>,
    repositories: BTreeSet<&'a str>,
    prefix: Prefix,
}

pub(super) fn render(environments: &[&EnvironmentView], view: View) -> String {
    let cells = |environment: &'_ EnvironmentView| !environment.repositories.is_empty();
    let shown: Vec<&EnvironmentView> = environments.iter().copied().filter(|environment| cells(environment)).collect();
    if let [only] = shown.as_slice() {
        return one(only, view);
    }
    let rows = Rows::of(&shown);
    let fits = |table: &Table| view.width.is_none_or(|width| table.width_with(NAME_WIDTH) <= width);
    for detail in [Detail::Full, Detail::Words, Detail::Signs] {
        let table = rows.table(0..shown.len(), detail, view);
        if fits(&table) {
            return finished(&table, detail, view);
        }
    }
    // As many environments beside each other as fit.
    let mut parts = Vec::new();
    let mut begin = 0;
    while begin < shown.len() {
        let mut end = begin + 1;
        while end < shown.len() && fits(&rows.table(begin..end + 1, Detail::Signs, view)) {
            end += 1;
        }
        parts.push(rows.table(begin..end, Detail::Signs, view).render_in(0, view.width));
        begin = end;
    }
    format!("{}{}", parts.join("\n"), legend(view))
}

fn finished(table: &Table, detail: Detail, view: View) -> String {
    let legend = if detail == Detail::Signs { legend(view) } else { String::new() };
    format!("{}{legend}", table.render_in(0, view.width))
}

fn legend(view: View) -> String {
    let mut table = Table::bare();
    table.row(vec![Cell::new("▲ behind, ▼ ahead, ≠ differs, ! held, … waits, ✗ rollout failed", DIM)]);
    table.render_in(0, view.width)
}

impl<'a> Rows<'a> {
    fn of(environments: &[&'a EnvironmentView]) -> Self {
        let by_repository = |environment: &'a EnvironmentView| -> BTreeMap<&'a str, &'a CellView> {
            environment.repositories.iter().map(|cell| (cell.repository.as_str(), cell)).collect()
        };
        let environments: Vec<_> =
            environments.iter().map(|environment| (*environment, by_repository(environment))).collect();
        let repositories: BTreeSet<&str> = environments.iter().flat_map(|(_, cells)| cells.keys().copied()).collect();
        let prefix = Prefix::of(repositories.iter().copied());
        Self { environments, repositories, prefix }
    }

    fn table(&self, columns: std::ops::Range<usize>, detail: Detail, view: View) -> Table {
        let environments = &self.environments[columns];
        let heading = self.prefix.heading();
        let mut headings = vec![heading.as_str()];
        for (environment, _) in environments {
            headings.extend([environment.name.as_str(), ""]);
        }
        let versions: Vec<usize> = (0..environments.len()).flat_map(|index| [1 + 2 * index, 2 + 2 * index]).collect();
        let mut table = Table::new(&headings).keep(&versions);
        for repository in &self.repositories {
            let mut row = vec![Cell::plain(self.prefix.strip(repository))];
            for (_, cells) in environments {
                match cells.get(repository) {
                    Some(cell) => row.extend([version_cell(cell), remark_cell(cell, detail, view)]),
                    None => row.extend([Cell::new("-", DIM), Cell::plain("")]),
                }
            }
            table.row(row);
        }
        table
    }
}

/// One environment: everything about each repository in one line.
fn one(environment: &EnvironmentView, view: View) -> String {
    let prefix = Prefix::of(environment.repositories.iter().map(|cell| cell.repository.as_str()));
    let heading = prefix.heading();
    let mut table =
        Table::new(&[heading.as_str(), environment.name.as_str(), "", "since", "commit", "by", "state", "reason"])
            .keep(&[1, 2, 4]);
    for cell in &environment.repositories {
        let drift = cell.drifts.first().map(|drift| Cell::new(&drift_text(drift), WARN));
        let mut state = flags(cell, Detail::Words);
        state.extend(rollout(cell).map(str::to_owned));
        table.row(vec![
            Cell::plain(prefix.strip(&cell.repository)),
            version_cell(cell),
            drift.unwrap_or_else(|| Cell::plain("")),
            Cell::plain(&cell.when.map(|at| shown(at, view.now)).unwrap_or_default()),
            Cell::new(cell.commit.as_deref().map(short_commit).unwrap_or_default(), DIM),
            Cell::plain(&author(cell)),
            Cell::plain(&state.join(", ")),
            Cell::plain(cell.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table.render_in(0, view.width)
}

fn drift_text(drift: &DriftView) -> String {
    let sign = sign(drift);
    format!("{sign} {}: {} runs {}", word(drift), drift.environment, short(&drift.version))
}

fn sign(drift: &DriftView) -> &'static str {
    match drift.direction {
        Word::Known(Direction::Newer) => "▲",
        Word::Known(Direction::Older) => "▼",
        Word::Known(Direction::Unknown) | Word::Other(_) => "≠",
    }
}

fn word(drift: &DriftView) -> &'static str {
    match drift.direction {
        Word::Known(Direction::Newer) => "behind",
        Word::Known(Direction::Older) => "ahead",
        Word::Known(Direction::Unknown) | Word::Other(_) => "differs",
    }
}

/// The version: yellow if it differs from its source, red if the sites name different ones.
fn version_cell(cell: &CellView) -> Cell {
    let Some(version) = &cell.version else {
        let versions: Vec<String> = cell.versions.iter().map(short).collect();
        return Cell::new(&versions.join(" and "), BAD);
    };
    Cell::new(&short(version), if cell.drifts.is_empty() { PLAIN } else { WARN })
}

fn remark_cell(cell: &CellView, detail: Detail, view: View) -> Cell {
    let mut remarks = Vec::new();
    let drift = cell.drifts.first();
    match detail {
        Detail::Signs => {
            let drift = drift.map(sign).unwrap_or_default();
            return Cell::new(&format!("{drift}{}", flags(cell, detail).concat()), style(cell));
        }
        Detail::Words | Detail::Full => remarks.extend(drift.map(|drift| format!("{} {}", sign(drift), word(drift)))),
    }
    remarks.extend(flags(cell, detail));
    if detail == Detail::Full {
        let by = author(cell);
        let by = if by.is_empty() { by } else { format!(" by {by}") };
        remarks.extend(cell.when.map(|at| format!("{} ago{by}", age(at, view.now))));
        remarks.extend(rollout(cell).map(str::to_owned));
    }
    Cell::new(&remarks.join(", "), style(cell))
}

fn style(cell: &CellView) -> anstyle::Style {
    let is_unusual = !(cell.drifts.is_empty() && cell.holds.is_empty() && cell.waiting.is_empty());
    match failed(cell) {
        true => BAD,
        false if is_unusual => WARN,
        false => DIM,
    }
}

/// What is unusual: held, waiting, a failed rollout.
fn flags(cell: &CellView, detail: Detail) -> Vec<String> {
    let mut flags = Vec::new();
    let in_words = detail != Detail::Signs;
    if !cell.holds.is_empty() {
        flags.push(if in_words { "held" } else { "!" }.to_owned());
    }
    if let Some(update) = cell.waiting.last() {
        let version = short_version(update.tag.as_deref(), update.digest.as_deref());
        flags.push(if in_words { format!("{version} waits") } else { "…".to_owned() });
    }
    if failed(cell) && !in_words {
        flags.push("✗".to_owned());
    }
    flags
}

fn failed(cell: &CellView) -> bool {
    let states = [RolloutState::Degraded, RolloutState::TimedOut];
    cell.rollout.as_ref().is_some_and(|rollout| states.iter().any(|state| rollout.state == *state))
}

fn rollout(cell: &CellView) -> Option<&str> {
    let rollout = cell.rollout.as_ref().filter(|rollout| rollout.state != RolloutState::Untracked)?;
    Some(super::rollout_word(rollout.state.as_str()))
}

/// Who brought the version. Empty: it was written by other means.
fn author(cell: &CellView) -> String {
    let actor = cell.actor.as_deref().unwrap_or_default();
    match &cell.cause {
        None => String::new(),
        Some(Word::Known(Cause::Push)) => "push".to_owned(),
        Some(Word::Known(Cause::CatchUp)) => "catch-up".to_owned(),
        Some(Word::Known(Cause::Rollback)) => format!("{actor}, rollback"),
        Some(_) => actor.to_owned(),
    }
}
