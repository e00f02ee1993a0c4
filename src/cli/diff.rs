//! `tagrelay diff`: what a promotion would move.

use std::process::ExitCode;

use clap::Args;

use super::api::{Api, ServerOptions};
use super::exit;
use super::names::Prefix;
use super::output::{self, Cell, DIM, Table, WARN, clean};
use super::preview::{direction_cell, versions};
use crate::api::{DiffState, DiffView, DiffedView, Direction};

/// Shows what a promotion would move: old and new version, newer or older, commits in between, and what it skips.
///
/// Exit code 0: the environments run the same versions, or some would move.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay diff staging production
  tagrelay diff staging production --all       also what both run
  tagrelay diff staging production --json | jq -r '.repositories[] | select(.state == \"moves\") | .repository'

`tagrelay promote production --dry-run` shows the diff of the files, too. The token needs the permission read.")]
pub(super) struct Options {
    /// The environment whose versions would be taken
    from: String,
    /// The environment that would change
    to: String,
    /// Also show repositories of which both run the same version
    #[arg(long)]
    all: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { from, to, all, json, server } = options;
    let answer = Api::new(server)?.get(&["diff"], &[("from", from), ("to", to)]).await?;
    if json {
        answer.print()?;
    } else {
        output::print(&render(&answer.read()?, all, output::screen_width()))?;
    }
    Ok(ExitCode::from(exit::DONE))
}

fn render(diff: &DiffView, all: bool, width: Option<usize>) -> String {
    let shown: Vec<&DiffedView> = diff.repositories.iter().filter(|row| all || row.state != DiffState::Same).collect();
    let prefix = Prefix::of(diff.repositories.iter().map(|row| row.repository.as_str()));
    let heading = prefix.heading();
    let mut table =
        Table::new(&[heading.as_str(), diff.to.as_str(), "", diff.from.as_str(), "", "commits", "note"]).keep(&[1, 3]);
    for row in &shown {
        let moves = row.state == DiffState::Moves;
        table.row(vec![
            Cell::plain(prefix.strip(&row.repository)),
            Cell::plain(&versions(&row.old)),
            Cell::new(if moves { "←" } else { "" }, DIM),
            Cell::plain(&versions(&row.new)).linked(compare_page(row)),
            direction_cell(row.direction.as_ref()),
            Cell::plain(&row.commits.map(|count| count.to_string()).unwrap_or_default()),
            note(row),
        ]);
    }
    let mut text = if shown.is_empty() { String::new() } else { table.render_in(0, width) };
    text.push_str(&format!("{DIM}{}{DIM:#}\n", clean(&summary(diff))));
    if !diff.allowed {
        text.push_str(&format!(
            "{WARN}promote_from of {} does not allow promotions from {}{WARN:#}\n",
            clean(&diff.to),
            clean(&diff.from)
        ));
    }
    text
}

fn note(row: &DiffedView) -> Cell {
    match (&row.reason, row.state == DiffState::Same) {
        (Some(reason), _) => Cell::new(&format!("skipped: {reason}"), WARN),
        (None, true) => Cell::new("same", DIM),
        (None, false) => Cell::plain(""),
    }
}

/// Counts: `3 would move, 1 of them to an older version; 1 skipped, 5 the same`.
fn summary(diff: &DiffView) -> String {
    let count = |state: DiffState| diff.repositories.iter().filter(|row| row.state == state).count();
    let is_older = |row: &&DiffedView| row.direction.as_ref().is_some_and(|direction| *direction == Direction::Older);
    let older = diff.repositories.iter().filter(is_older).count();
    let older = if older == 0 { String::new() } else { format!(", {older} of them to an OLDER version") };
    format!(
        "{} would move from {} to {}{older}; {} skipped, {} the same",
        count(DiffState::Moves),
        diff.from,
        diff.to,
        count(DiffState::Skipped),
        count(DiffState::Same)
    )
}

/// Returns the page of the source repository that compares the two commits.
pub(super) fn compare_page(row: &DiffedView) -> Option<String> {
    let (source, [old], [new]) = (row.source.as_deref()?, row.old.as_slice(), row.new.as_slice()) else { return None };
    super::links::compare(source, old.tag.as_deref()?, new.tag.as_deref()?)
}
