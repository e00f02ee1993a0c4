//! `tagrelay holds`, `hold` and `release`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::exit::{self, usage};
use super::names::Prefix;
use super::output::{self, Cell, DIM, GOOD, Table, WARN, clean, end, short_version, shown};
use super::places::{Place, PlaceOptions};
use crate::api::{HoldBody, HoldView, Holds};

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
  tagrelay holds add production user-service --hold-for 2d
  tagrelay holds release production/user-service

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

/// Makes holds: the repositories get no automatic updates in this environment.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay hold staging user-service
  tagrelay hold production user-service 'order-*' --hold-for 2d --reason sales
  tagrelay hold production --all --reason 'incident 42'

New versions wait, and the newest is written when the hold ends. Promotions are refused until then.
The token needs the permission hold:ENVIRONMENT.")]
pub(super) struct AddOptions {
    #[command(flatten)]
    places: PlaceOptions,
    /// How long, as 30m, 4h or 2d [default: until it is released]
    #[arg(long, alias = "for", value_name = "TIME")]
    hold_for: Option<String>,
    /// The reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the API's JSON, one document for each repository
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Ends holds: the newest update that waited is written.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay release production/user-service
  tagrelay release production user-service order-service
  tagrelay release production --all
  tagrelay release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN       an id from `tagrelay holds`

The token needs the permission hold:ENVIRONMENT, and read to find holds by name.")]
pub(super) struct ReleaseOptions {
    #[command(flatten)]
    places: PlaceOptions,
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
    let AddOptions { places, hold_for, reason, json, server } = options;
    let places = places.read("hold")?;
    let api = Api::new(server)?;
    let repositories: Vec<String> = if places.are_words() {
        places.repositories.clone()
    } else {
        places.find(&api).await?.into_iter().map(|place| place.cell.repository).collect()
    };
    for repository in repositories {
        let environment = places.environment.clone();
        let body = HoldBody { environment, repository, hold_for: hold_for.clone(), reason: reason.clone() };
        let answer = api.post(&["holds"], &body).await?;
        if json {
            answer.print()?;
            continue;
        }
        let hold: HoldView = answer.read()?;
        let ends = end(hold.expires_at, RELEASED, Timestamp::now());
        let place = format!("{} in {}", hold.repository, hold.environment);
        let name = format!("{}/{}", hold.environment, last_component(&hold.repository));
        output::print(&format!(
            "held  {}  {ends}  {DIM}{}  `tagrelay release {}`{DIM:#}\n",
            clean(&place),
            clean(&hold.id),
            clean(&name)
        ))?;
        warn_of_pushes(&hold.under_way);
    }
    Ok(ExitCode::SUCCESS)
}

/// Names the pushes that a new hold or freeze came too late for.
pub(super) fn warn_of_pushes(repositories: &[String]) {
    for repository in repositories {
        output::note(&format!(
            "{WARN}a push of {} was sent before{WARN:#}, and may still land: see `tagrelay history`",
            clean(repository)
        ));
    }
}

fn last_component(repository: &str) -> &str {
    repository.rsplit('/').next().unwrap_or(repository)
}

pub(super) async fn release(options: ReleaseOptions) -> anyhow::Result<ExitCode> {
    let ReleaseOptions { places, server } = options;
    if places.is_empty() {
        return Err(usage(
            "name what to release, as in `tagrelay release production/user-service`; `tagrelay holds` lists them",
        ));
    }
    if let Some(id) = places.id() {
        Api::new(server)?.delete(&["holds", id]).await?;
        output::print("released\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let places = places.read("release")?;
    let api = Api::new(server)?;
    let found = places.find(&api).await?;
    let held: Vec<&Place> = found.iter().filter(|place| !place.cell.holds.is_empty()).collect();
    if held.is_empty() {
        output::note("nothing to release: there is no such hold; `tagrelay holds` lists them");
        return Ok(ExitCode::from(exit::REFUSED));
    }
    for place in &held {
        for hold in &place.cell.holds {
            api.delete(&["holds", &hold.id]).await?;
        }
        output::print(&released(place))?;
    }
    for place in found.iter().filter(|place| place.cell.holds.is_empty() && places.are_words()) {
        output::note(&format!("{} was not held in {}", clean(&place.cell.repository), clean(&place.environment)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what was released, and what moves now.
fn released(place: &Place) -> String {
    let cell = &place.cell;
    let name = format!("{}/{}", place.environment, last_component(&cell.repository));
    let next = match cell.waiting.last() {
        Some(update) => {
            let version = short_version(update.tag.as_deref(), update.digest.as_deref());
            format!("moves now: {version}, which waited; `tagrelay status {name}` shows it")
        }
        None => "nothing waited".to_owned(),
    };
    format!("{GOOD}released{GOOD:#}  {}  {DIM}{}{DIM:#}\n", clean(&name), clean(&next))
}

pub(super) fn table(holds: &[&HoldView], now: Timestamp) -> Table {
    let prefix = Prefix::of(holds.iter().map(|hold| hold.repository.as_str()));
    let heading = prefix.heading();
    let mut table = Table::new(&["environment", heading.as_str(), "ends", "since", "by", "id", "reason"]).keep(&[5]);
    for hold in holds {
        table.row(vec![
            Cell::plain(&hold.environment),
            Cell::plain(prefix.strip(&hold.repository)),
            Cell::plain(&end(hold.expires_at, RELEASED, now)),
            Cell::plain(&shown(hold.created_at, now)),
            Cell::plain(&hold.actor),
            Cell::new(&hold.id, DIM),
            Cell::plain(hold.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
