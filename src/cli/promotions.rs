//! `tagrelay promotions`: lists, shows and cancels promotions and rollbacks.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::api::{Api, ServerOptions, render_request, state_style, state_word};
use super::names::Prefix;
use super::output::{self, Cell, DIM, Table, clean, short_commit, short_version, shown};
use crate::api::{Promotions, RequestView};

/// Lists promotions and rollbacks, newest first; shows and cancels them.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  tagrelay promotions production
  tagrelay promotions --state waiting
  tagrelay promotions show 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN
  tagrelay promotions cancel 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN

The token needs the permission read; to cancel, promote:ENVIRONMENT or rollback:ENVIRONMENT."
)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a promotion or rollback with its updates
    #[command(after_help = "Example:\n  tagrelay promotions show 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN")]
    Show(OneOptions),
    /// Cancels what is not written yet
    #[command(
        after_help = "Example:\n  tagrelay promotions cancel 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN\n\nExit code 1: nothing is left to cancel, or it is being pushed."
    )]
    Cancel(OneOptions),
}

#[derive(Args)]
struct ListOptions {
    /// Only those of this environment
    #[arg(value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// Only those of this environment
    #[arg(short = 'e', long = "environment", value_name = "ENVIRONMENT", conflicts_with = "environment")]
    named: Option<String>,
    /// Only those in this state: pending, waiting, proposed, committed, refused, superseded or cancelled
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// At most this many; maximum: 1000
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those that are older than this one
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

#[derive(Args)]
struct OneOptions {
    /// The id, from `tagrelay promotions`
    id: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let (answer, json) = match options.command {
        None => return list(options.list).await,
        Some(Command::Show(OneOptions { id, json, server })) => {
            (Api::new(server)?.get(&["promotions", &id], &[]).await?, json)
        }
        Some(Command::Cancel(OneOptions { id, json, server })) => {
            (Api::new(server)?.delete(&["promotions", &id]).await?, json)
        }
    };
    if json {
        answer.print()?;
    } else {
        output::print(&details(&answer.read()?))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Renders a request with its author and reason.
pub(super) fn details(request: &RequestView) -> String {
    let reason = request.requested_because.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let line = format!("by {} at {}{reason}", request.actor, output::exact(request.created_at));
    format!("{}  {DIM}{}{DIM:#}\n", render_request(request), clean(&line))
}

async fn list(options: ListOptions) -> anyhow::Result<ExitCode> {
    let ListOptions { environment, named, state, limit, before, json, server } = options;
    let mut query = vec![("limit", limit.to_string())];
    query.extend(environment.or(named).map(|name| ("environment", name)));
    query.extend(state.map(|state| ("state", state)));
    query.extend(before.map(|id| ("before", id)));
    let answer = Api::new(server)?.get(&["promotions"], &query).await?;
    if json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let list: Promotions = answer.read()?;
    if list.promotions.is_empty() {
        output::note("no such promotions or rollbacks");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&render(&list, Timestamp::now(), output::screen_width()))?;
    output::note_next_page(list.next.as_deref());
    Ok(ExitCode::SUCCESS)
}

fn render(list: &Promotions, now: Timestamp, width: Option<usize>) -> String {
    let names = list.promotions.iter().flat_map(|request| &request.updates).map(|update| update.repository.as_str());
    let prefix = Prefix::of(names);
    let mut table = Table::new(&["id", "when", "state", "commit", "what", "by", "versions", "because"]).keep(&[0]);
    for request in &list.promotions {
        let from = request.from.as_deref().map(|from| format!(" from {from}")).unwrap_or_default();
        let word = state_word(request);
        table.row(vec![
            Cell::new(&request.id, DIM),
            Cell::plain(&shown(request.created_at, now)),
            Cell::new(word, state_style(word)),
            Cell::plain(request.commit.as_deref().map(short_commit).unwrap_or_default()),
            Cell::plain(&format!("{} of {}{from}", request.kind, request.to)),
            Cell::plain(&request.actor),
            Cell::plain(&versions(request, &prefix)),
            Cell::plain(request.reason.as_deref().or(request.requested_because.as_deref()).unwrap_or_default()),
        ]);
    }
    table.render_in(0, width)
}

/// Names one version, or counts them.
fn versions(request: &RequestView, prefix: &Prefix) -> String {
    match request.updates.as_slice() {
        [] => String::new(),
        [one] => {
            let version = short_version(one.tag.as_deref(), one.digest.as_deref());
            format!("{} {version}", prefix.strip(&one.repository))
        }
        many => format!("{} repositories", many.len()),
    }
}
