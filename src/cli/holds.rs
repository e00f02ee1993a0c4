//! `tagrelay holds`, `hold` and `release`: pins that automation leaves alone.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::output::{self, Cell, DIM, Table, clean, end, relative};
use crate::api::{HoldBody, HoldView, Holds};
use crate::image::Repository;

/// When a hold ends that has no end of its own.
const RELEASED: &str = "when released";

/// Lists the holds: what automation leaves alone, since when and why.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  tagrelay holds
  tagrelay holds add --environment production docker.io/uyou/user-service --hold-for 2d
  tagrelay holds release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN

`tagrelay hold` and `tagrelay release` are short for the last two."
)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Subcommand)]
enum Command {
    Add(AddOptions),
    Release(ReleaseOptions),
}

#[derive(Args)]
struct ListOptions {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Makes a hold: automation leaves the repository alone in this environment.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay hold --environment staging docker.io/uyou/user-service
  tagrelay hold --environment production docker.io/uyou/user-service --hold-for 2d --reason sales

Pushes that come in meanwhile wait, and the newest goes when the hold ends. Promotions are refused until then.
The token from TAGRELAY_TOKEN or --token-file needs the permission hold:ENVIRONMENT.")]
pub(super) struct AddOptions {
    /// Which repository, whole: docker.io/uyou/user-service
    #[arg(value_parser = parse_whole_repository)]
    repository: String,
    /// Where
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: String,
    /// How long, as 30m, 4h or 2d [default: until it is released]
    #[arg(long, value_name = "TIME")]
    hold_for: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Ends a hold: the newest update that waited for it goes.
#[derive(Args)]
#[command(after_help = "\
Example:
  tagrelay release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN       the id that `tagrelay holds` shows")]
pub(super) struct ReleaseOptions {
    /// The id of the hold
    id: String,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        None => list(options.list).await,
        Some(Command::Add(options)) => add(options).await,
        Some(Command::Release(options)) => release(options).await,
    }
}

async fn list(options: ListOptions) -> anyhow::Result<ExitCode> {
    let answer = Api::new(options.server)?.get(&["holds"], &[]).await?;
    if options.json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let holds: Holds = answer.read()?;
    if holds.holds.is_empty() {
        output::note("no holds: automation may move everything");
    } else {
        output::print(&table(&holds.holds.iter().collect::<Vec<_>>(), Timestamp::now()).render(0))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn add(options: AddOptions) -> anyhow::Result<ExitCode> {
    let AddOptions { repository, environment, hold_for, reason, json, server } = options;
    let body = HoldBody { environment, repository, hold_for, reason };
    let answer = Api::new(server)?.post(&["holds"], &body).await?;
    if json {
        answer.print()?;
    } else {
        let hold: HoldView = answer.read()?;
        let (now, place) = (Timestamp::now(), format!("{} in {}", hold.repository, hold.environment));
        output::print(&format!(
            "held  {}  {}  {DIM}{}{DIM:#}\n",
            clean(&place),
            end(hold.expires_at, RELEASED, now),
            clean(&hold.id)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn release(options: ReleaseOptions) -> anyhow::Result<ExitCode> {
    Api::new(options.server)?.delete(&["holds", &options.id]).await?;
    output::print("released\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the holds as a table.
pub(super) fn table(holds: &[&HoldView], now: Timestamp) -> Table {
    let mut table = Table::new(&["environment", "repository", "ends", "since", "by", "id", "reason"]);
    for hold in holds {
        table.row(vec![
            Cell::plain(&hold.environment),
            Cell::plain(&hold.repository),
            Cell::plain(&end(hold.expires_at, RELEASED, now)),
            Cell::plain(&relative(hold.created_at, now)),
            Cell::plain(&hold.actor),
            Cell::new(&hold.id, DIM),
            Cell::plain(hold.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// Parses a repository that the server takes by its whole name only.
///
/// A last part alone would be understood as an official image of Docker Hub, which nobody here runs.
pub(super) fn parse_whole_repository(text: &str) -> Result<String, String> {
    if !text.contains('/') {
        return Err(format!("write it whole, as in docker.io/uyou/{text}"));
    }
    text.parse::<Repository>().map(|repository| repository.to_string()).map_err(|error| error.to_string())
}
