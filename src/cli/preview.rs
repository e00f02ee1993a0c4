//! The result of a dry run, for promotions and rollbacks.

use super::api::state_style;
use super::exit;
use super::names::Prefix;
use super::output::{BAD, Cell, DIM, GOOD, PLAIN, Table, WARN, clean, colour_diff, short, short_commit, short_version};
use crate::api::{Direction, PreviewState, PreviewView, PreviewedView, VersionView, Word};

/// Renders the table of moves, then the diff of the files.
pub(super) fn render(preview: &PreviewView, environment: &str, width: Option<usize>) -> String {
    let prefix = Prefix::of(preview.updates.iter().map(|update| update.repository.as_str()));
    let heading = prefix.heading();
    let mut table = Table::new(&[heading.as_str(), "runs", "", "would run", "", "would be", "because"]).keep(&[1, 3]);
    for update in &preview.updates {
        table.row(vec![
            Cell::plain(prefix.strip(&update.repository)),
            Cell::plain(&versions(&update.old)),
            Cell::new(if changes(update) { "→" } else { "" }, DIM),
            Cell::plain(&short_version(update.tag.as_deref(), update.digest.as_deref())),
            direction_cell(Some(&update.direction).filter(|_| changes(update))),
            Cell::new(update.state.as_str(), state_style(update.state.as_str())),
            Cell::plain(update.reason.as_deref().unwrap_or_default()),
        ]);
    }
    let mut text = table.render_in(0, width);
    if !preview.skipped.is_empty() {
        let skipped: Vec<&str> = preview.skipped.iter().map(|name| prefix.strip(name)).collect();
        let line = format!("skipped, because {environment} does not name them: {}", skipped.join(", "));
        text.push_str(&format!("{DIM}{}{DIM:#}\n", clean(&line)));
    }
    match &preview.diff {
        Some(diff) if !diff.is_empty() => text.push_str(&format!("\n{}", colour_diff(diff))),
        Some(_) => {}
        None => text.push_str(&format!("{DIM}no diff: the token lacks the permission read{DIM:#}\n")),
    }
    let parent = clean(short_commit(&preview.parent)).into_owned();
    text.push_str(&format!("{DIM}dry run on top of commit {parent}: nothing was changed{DIM:#}\n"));
    text
}

fn changes(update: &PreviewedView) -> bool {
    update.state != PreviewState::Unchanged
}

/// Returns several versions as one text.
pub(super) fn versions(versions: &[VersionView]) -> String {
    if versions.is_empty() { "-".to_owned() } else { versions.iter().map(short).collect::<Vec<_>>().join(", ") }
}

/// Returns newer or older, with a sign.
pub(super) fn direction_cell(direction: Option<&Word<Direction>>) -> Cell {
    match direction {
        None => Cell::plain(""),
        Some(Word::Known(Direction::Newer)) => Cell::new("▲ newer", GOOD),
        Some(Word::Known(Direction::Older)) => Cell::new("▼ OLDER", BAD),
        Some(Word::Known(Direction::Unknown)) => Cell::new("? order unknown", WARN),
        Some(Word::Other(word)) => Cell::new(word, PLAIN),
    }
}

/// Returns the exit code: 1 if everything was refused, 5 if a part.
pub(super) fn exit_code(preview: &PreviewView) -> u8 {
    exit::join(
        preview.updates.iter().map(
            |update| {
                if update.state == PreviewState::Refused { exit::REFUSED } else { exit::DONE }
            },
        ),
    )
}
