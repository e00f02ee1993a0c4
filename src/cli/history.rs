//! `tagrelay history`: every version that an environment got, who wanted it and why.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::names::Prefix;
use super::output::{self, BAD, Cell, DIM, GOOD, PLAIN, Table, WARN, short, short_commit, shown};
use crate::api::{History, HistoryView, Word};
use crate::domain::Cause;
use crate::store::RolloutState;

/// Lists the versions that were written: when, by whom, why, with commit and rollout. Newest first.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay history production
  tagrelay history production user-service
  tagrelay history production user-service --limit 100 --json

Versions with ↩ are accepted by `tagrelay rollback ENVIRONMENT REPOSITORY --to TAG`.
The token needs the permission read.")]
pub(super) struct Options {
    /// Only this environment
    #[arg(value_name = "ENVIRONMENT")]
    first: Option<String>,
    /// Only this repository: the whole name, or the last component
    #[arg(value_name = "REPOSITORY")]
    second: Option<String>,
    /// Only this environment
    #[arg(short, long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// Only this repository
    #[arg(short, long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// At most this many; maximum: 1000
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only changes that are older than this one: the next page
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { first, second, environment, repository, limit, before, json, server } = options;
    let (environment, repository) =
        super::status::place(first.into_iter().chain(second).collect(), environment, repository);
    let mut query = vec![("limit", limit.to_string())];
    query.extend(environment.map(|name| ("environment", name)));
    query.extend(repository.map(|name| ("repository", name)));
    query.extend(before.map(|id| ("before", id)));
    let answer = Api::new(server)?.get(&["history"], &query).await?;
    if json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let history: History = answer.read()?;
    if history.changes.is_empty() {
        output::note("no changes yet");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&render(&history, Timestamp::now(), output::screen_width()))?;
    output::note_next_page(history.next.as_deref());
    Ok(ExitCode::SUCCESS)
}

fn render(history: &History, now: Timestamp, width: Option<usize>) -> String {
    let prefix = Prefix::of(history.changes.iter().map(|change| change.repository.as_str()));
    let heading = prefix.heading();
    let mut table = Table::new(&[
        "when",
        "environment",
        heading.as_str(),
        "version",
        "",
        "from",
        "commit",
        "by",
        "rollout",
        "reason",
    ])
    .keep(&[3, 5, 6]);
    for change in &history.changes {
        let at = change.committed_at.unwrap_or(change.received_at);
        table.row(vec![
            Cell::plain(&shown(at, now)),
            Cell::plain(&change.environment),
            Cell::plain(prefix.strip(&change.repository)),
            Cell::plain(&short(&change.to)),
            Cell::new(if change.can_roll_back_to { "↩" } else { "" }, DIM),
            Cell::new(&change.from.as_ref().map(short).unwrap_or_default(), DIM),
            Cell::new(change.commit.as_deref().map(short_commit).unwrap_or_default(), DIM),
            Cell::plain(&author(change)),
            rollout(change),
            Cell::plain(change.reason.as_deref().unwrap_or_default()),
        ]);
    }
    let mut text = table.render_in(0, width);
    if history.changes.iter().any(|change| change.can_roll_back_to) {
        text.push_str(&format!("{DIM}↩ rollback --to accepts it{DIM:#}\n"));
    }
    text
}

fn author(change: &HistoryView) -> String {
    match &change.cause {
        Word::Known(Cause::Push) => format!("push via {}", change.actor),
        Word::Known(Cause::CatchUp) => "catch-up".to_owned(),
        cause => format!("{}, {cause}", change.actor),
    }
}

fn rollout(change: &HistoryView) -> Cell {
    let Some(rollout) = &change.rollout else { return Cell::plain("") };
    let style = match &rollout.state {
        Word::Known(RolloutState::Healthy) => GOOD,
        Word::Known(RolloutState::Degraded | RolloutState::TimedOut) => BAD,
        Word::Known(RolloutState::Waiting | RolloutState::Following) => WARN,
        _ => PLAIN,
    };
    Cell::new(super::status::rollout_word(rollout.state.as_str()), style)
}
