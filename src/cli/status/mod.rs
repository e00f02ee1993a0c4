//! `tagrelay status`: the versions that every environment runs.
//!
//! `matrix` draws the table of versions, `sections` what stands below it.

mod matrix;
mod sections;

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::output::{self, BAD, Cell, DIM, GOOD, Table, WARN, age, short_commit};
use crate::api::{EnvironmentView, HealthState, Matrix};

pub(super) use sections::rollout_word;

/// Shows the versions, holds, freezes, waiting updates and problems of every environment.
///
/// A version with ≠ differs from the environment that it is promoted from: `behind` if that one runs a newer version, `ahead`
/// if it runs an older one.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay status
  tagrelay status production                        with author, reason and rollout
  tagrelay status production 'user-*'
  tagrelay status --differs                         what a promotion would move
  tagrelay status --held --waiting
  tagrelay status --json | jq -r '.environments[].repositories[] | \"\\(.repository) \\(.version.tag)\"'

Exit code 1: a branch cannot be read, so its environments are unknown. The token needs the permission read.")]
pub(super) struct Options {
    /// Only this environment: a name, a glob, or a list with commas
    #[arg(value_name = "ENVIRONMENT")]
    first: Option<String>,
    /// Only this repository: a whole name, a last component, a glob, or a list with commas
    #[arg(value_name = "REPOSITORY")]
    second: Option<String>,
    /// Only this environment (may be given several times)
    #[arg(short, long = "environment", value_name = "ENVIRONMENT")]
    environments: Vec<String>,
    /// Only this repository (may be given several times)
    #[arg(short, long = "repository", value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// Only repositories that run another version than the environment that they are promoted from
    #[arg(long)]
    differs: bool,
    /// Only repositories with a hold
    #[arg(long)]
    held: bool,
    /// Only repositories with a waiting update
    #[arg(long)]
    waiting: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// How the output is drawn.
#[derive(Clone, Copy)]
struct View {
    now: Timestamp,
    /// `None`: as wide as it is.
    width: Option<usize>,
}

/// Sorts `ENVIRONMENT [REPOSITORY]`, `ENVIRONMENT/REPOSITORY` and the options of both.
pub(super) fn place(
    names: Vec<String>,
    environment: Option<String>,
    repository: Option<String>,
) -> (Option<String>, Option<String>) {
    let mut names = names.into_iter();
    let first = if environment.is_some() { None } else { names.next() };
    let (environment, split) = match first {
        Some(first) => match first.split_once('/') {
            Some((environment, repository)) => (Some(environment.to_owned()), Some(repository.to_owned())),
            None => (Some(first), None),
        },
        None => (environment, None),
    };
    (environment, repository.or(split).or_else(|| names.next()))
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { first, second, environments, repositories, differs, held, waiting, json, server } = options;
    let list = |names: Vec<String>| (!names.is_empty()).then(|| names.join(","));
    let (environment, repository) =
        place(first.into_iter().chain(second).collect(), list(environments), list(repositories));
    let mut query = Vec::new();
    query.extend(environment.map(|names| ("environment", names)));
    query.extend(repository.map(|names| ("repository", names)));
    for (name, is_set) in [("differs", differs), ("held", held), ("waiting", waiting)] {
        query.extend(is_set.then(|| (name, true.to_string())));
    }
    // The text shows no sites.
    query.extend((!json).then(|| ("sites", false.to_string())));
    let answer = Api::new(server)?.get(&["environments"], &query).await?;
    if json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Matrix = answer.read()?;
    let is_filtered = differs || held || waiting;
    output::print(&render(&shown, is_filtered, View { now: Timestamp::now(), width: output::screen_width() }))?;
    let is_unread = shown.environments.iter().any(|environment| environment.tip.is_none());
    Ok(if is_unread { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn render(shown: &Matrix, is_filtered: bool, view: View) -> String {
    let environments: Vec<&EnvironmentView> = shown.environments.iter().collect();
    let mut parts = vec![overview(&environments, view).render_in(0, view.width)];
    let is_empty = environments.iter().all(|environment| environment.repositories.is_empty());
    parts.push(match (is_empty, is_filtered) {
        (true, true) => format!("{DIM}no repository is like that{DIM:#}\n"),
        (true, false) => format!("{DIM}no managed image; `tagrelay check` shows why{DIM:#}\n"),
        (false, _) => matrix::render(&environments, view),
    });
    parts.extend(sections::all(shown, &environments, view));
    parts.join("\n")
}

/// The branch, the tip and the kind of updates of each environment.
fn overview(environments: &[&EnvironmentView], view: View) -> Table {
    let is_watched = environments.iter().any(|environment| environment.health.is_some());
    let mut headings = vec!["environment", "at", "branch", "moves by"];
    headings.extend(is_watched.then_some("health"));
    let mut table = Table::new(&headings).keep(&[1]);
    for environment in environments {
        let moves = match environment.promote_from.as_slice() {
            [] if environment.update == "automatic" => "pushes".to_owned(),
            [] => environment.update.clone(),
            from if environment.update == "automatic" => format!("pushes, promotions from {}", from.join(", ")),
            from => format!("promotions from {}", from.join(", ")),
        };
        let at = match &environment.tip {
            Some(tip) => Cell::new(short_commit(tip), DIM),
            None => Cell::new("not read yet", WARN),
        };
        let branch = format!("{} {}", environment.config_repository, environment.branch);
        let mut row = vec![Cell::plain(&environment.name), at, Cell::plain(&branch), Cell::plain(&moves)];
        row.extend(is_watched.then(|| health_cell(environment, view.now)));
        table.row(row);
    }
    table
}

fn health_cell(environment: &EnvironmentView, now: Timestamp) -> Cell {
    match &environment.health {
        None => Cell::new("-", DIM),
        Some(health) => {
            let since = health.since.map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
            let style = if health.state == HealthState::Healthy { GOOD } else { BAD };
            Cell::new(&format!("{}{since}", health.state), style)
        }
    }
}

#[cfg(test)]
mod tests;
