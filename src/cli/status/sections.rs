//! What stands below the table: freezes, holds, waiting updates, rollouts and problems.

use super::View;
use crate::api::{EnvironmentView, HoldView, Matrix, RegistryView};
use crate::cli::names::Prefix;
use crate::cli::output::{BAD, Cell, DIM, HEAD, Table, WARN, end, short_version};

/// All sections that are not empty.
pub(super) fn all(matrix: &Matrix, environments: &[&EnvironmentView], view: View) -> Vec<String> {
    let sections = [
        freezes(environments, view),
        holds(environments, view),
        waiting(environments, view),
        rollouts(environments, view),
        ill_applications(environments, view),
        not_caught_up(matrix, view),
        unread(environments, view),
        problems(environments, view),
    ];
    sections.into_iter().flatten().collect()
}

/// Returns a table below its heading; `None`: it is empty.
fn section(heading: &str, table: &Table, view: View) -> Option<String> {
    (!table.is_empty()).then(|| format!("{HEAD}{heading}{HEAD:#}\n{}", table.render_in(2, view.width)))
}

/// The frozen environments. Each freeze has its own end.
fn freezes(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let mut table = Table::new(&["environment", "ends", "by", "id", "reason"]).keep(&[3]);
    for environment in environments {
        for by in environment.freeze.iter().flat_map(|frozen| &frozen.by) {
            let who = by.actor.as_deref().or(by.window.as_deref()).unwrap_or_default();
            table.row(vec![
                Cell::plain(&environment.name),
                Cell::new(&format!("ends {}", end(by.until, "when thawed", view.now)), WARN),
                Cell::plain(who),
                Cell::new(by.id.as_deref().unwrap_or_default(), DIM),
                Cell::plain(by.reason.as_deref().unwrap_or_default()),
            ]);
        }
    }
    section("Frozen", &table, view)
}

fn holds(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let cells = environments.iter().flat_map(|environment| &environment.repositories);
    let holds: Vec<&HoldView> = cells.flat_map(|cell| &cell.holds).collect();
    section("Holds", &crate::cli::holds::table(&holds, view.now), view)
}

fn waiting(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let cells = || environments.iter().flat_map(|environment| &environment.repositories);
    let names = cells().filter(|cell| !cell.waiting.is_empty()).map(|cell| cell.repository.as_str());
    let prefix = Prefix::of(names);
    let mut table = Table::bare();
    for cell in cells() {
        // Only the newest will be written.
        let Some((newest, older)) = cell.waiting.split_last() else { continue };
        let reason = newest.reason.as_deref().unwrap_or_default();
        let before = if older.is_empty() { String::new() } else { format!(" (and {} older)", older.len()) };
        table.row(vec![
            Cell::plain(&newest.environment),
            Cell::plain(prefix.strip(&newest.repository)),
            Cell::new(&short_version(newest.tag.as_deref(), newest.digest.as_deref()), WARN),
            Cell::plain(&format!("{reason}{before}")),
        ]);
    }
    section("Waiting", &table, view)
}

/// The rollouts that are not healthy.
fn rollouts(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let cells = environments.iter().flat_map(|environment| &environment.repositories);
    let prefix = Prefix::of(cells.filter(|cell| cell.rollout.is_some()).map(|cell| cell.repository.as_str()));
    let mut table = Table::bare();
    for environment in environments {
        for cell in &environment.repositories {
            let Some(rollout) = &cell.rollout else { continue };
            let style = match rollout.state.as_str() {
                "healthy" | "told" => continue,
                "degraded" | "timed_out" => BAD,
                _ => WARN,
            };
            table.row(vec![
                Cell::plain(&environment.name),
                Cell::plain(prefix.strip(&cell.repository)),
                Cell::new(rollout_word(rollout.state.as_str()), style),
                Cell::plain(rollout.reason.as_deref().unwrap_or_default()),
            ]);
        }
    }
    section("Rollouts", &table, view)
}

/// Returns the state of a rollout in words.
pub(in crate::cli) fn rollout_word(state: &str) -> &str {
    match state {
        "waiting" => "Argo CD not notified yet",
        "following" => "rolling out",
        "told" => "Argo CD notified",
        "timed_out" => "timed out",
        "untracked" => "no application",
        other => other,
    }
}

fn ill_applications(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let mut table = Table::bare();
    for environment in environments {
        let applications = environment.health.iter().flat_map(|health| &health.applications);
        for app in applications.filter(|app| app.healthy_since.is_none()) {
            table.row(vec![
                Cell::plain(&environment.name),
                Cell::plain(&app.name),
                Cell::new(&format!("{}, {}", app.sync, app.health), BAD),
                Cell::plain(app.message.as_deref().unwrap_or_default()),
            ]);
        }
    }
    section("Applications that are not healthy", &table, view)
}

/// The registries whose tags catch-up cannot list: a lost webhook there goes unnoticed.
fn not_caught_up(matrix: &Matrix, view: View) -> Option<String> {
    let mut table = Table::bare();
    for RegistryView { registry, catch_up } in &matrix.registries {
        let word = match catch_up.state.as_str() {
            "listed" | "waiting" if catch_up.reason.is_none() => continue,
            "listed" | "waiting" => "lists not all",
            "unsupported" => "lists no tags",
            "no_list" => "gives no list of tags",
            "not_allowed" => "may not be listed",
            "not_now" => "does not answer now",
            other => other,
        };
        let reason = Cell::plain(catch_up.reason.as_deref().unwrap_or_default());
        table.row(vec![Cell::plain(registry), Cell::new(word, WARN), reason]);
    }
    section("Registries that catch-up leaves out", &table, view)
}

fn unread(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let mut table = Table::bare();
    for environment in environments {
        if let Some(reason) = &environment.unread_because {
            table.row(vec![Cell::plain(&environment.name), Cell::new(reason, BAD)]);
        }
    }
    section("Branches that cannot be read", &table, view)
}

fn problems(environments: &[&EnvironmentView], view: View) -> Option<String> {
    let mut table = Table::bare();
    for environment in environments {
        for problem in &environment.problems {
            let place = Cell::plain(&problem.path);
            table.row(vec![Cell::plain(&environment.name), place, Cell::new(&problem.reason, WARN)]);
        }
    }
    section("Files that cannot be read", &table, view)
}
