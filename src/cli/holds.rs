//! `tagrelay holds`, `hold` and `release`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::output::{self, Cell, DIM, Table, clean, end, relative};
use crate::api::{HoldBody, HoldView, Holds};
use tagrelay_image::Repository;

/// The end of a hold without an end time.
const RELEASED: &str = "when released";

/// Lists the holds. A held repository gets no automatic updates in its environment.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  tagrelay holds
  tagrelay holds add --environment production docker.io/uyou/user-service --hold-for 2d
  tagrelay holds release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN

`tagrelay hold` and `tagrelay release` do the same as the last two."
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

/// Makes a hold: the repository gets no automatic updates in this environment.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay hold --environment staging docker.io/uyou/user-service
  tagrelay hold --environment production docker.io/uyou/user-service --hold-for 2d --reason sales

New versions wait, and the newest is written when the hold ends. Promotions are refused until then.
The token from TAGRELAY_TOKEN or --token-file needs the permission hold:ENVIRONMENT.")]
pub(super) struct AddOptions {
    /// The repository, with its whole name: docker.io/uyou/user-service
    #[arg(value_parser = parse_whole_repository)]
    repository: String,
    /// The environment
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: String,
    /// How long, as 30m, 4h or 2d [default: until it is released]
    #[arg(long, value_name = "TIME")]
    hold_for: Option<String>,
    /// The reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Ends a hold: the newest update that waited for it is written.
#[derive(Args)]
#[command(after_help = "\
Example:
  tagrelay release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN       the id from `tagrelay holds`")]
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
        output::note("no holds");
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

/// Parses a repository for routes that accept only the whole name.
///
/// A last component alone would mean an official image of Docker Hub: `nginx` is `docker.io/library/nginx`.
pub(super) fn parse_whole_repository(text: &str) -> Result<String, String> {
    if !text.contains('/') {
        return Err(format!("write the whole name, as in docker.io/uyou/{text}"));
    }
    text.parse::<Repository>().map(|repository| repository.to_string()).map_err(|error| error.to_string())
}
