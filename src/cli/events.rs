//! `tagrelay events`: lists, explains and replays push events.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::api::{Answer, Api, ServerOptions, state_style};
use super::output::{self, Cell, DIM, HEAD, Table, clean, relative, short_version};
use crate::api::{EventDetailView, EventView, Events, ReplayFilter, ReplayedEvent, ReplayedEvents};

/// Lists push events, newest first; explains and replays them.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  tagrelay events --limit 10
  tagrelay events --repository docker.io/uyou/user-service --state failed
  tagrelay events show 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN      the steps of one event
  tagrelay events replay 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN    replay a refused event, or start
                                                       the next attempt of a queued one
  tagrelay events replay --all                         replay all refused events

The token from TAGRELAY_TOKEN or --token-file needs the permission read; for replay, replay."
)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the steps of one event
    #[command(after_help = "\
Example:
  tagrelay events show 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN      an id from `tagrelay events`")]
    Show(OneOptions),
    /// Replays refused events, for instance because the registry has the image now
    #[command(after_help = "\
Examples:
  tagrelay events replay 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN    an id from `tagrelay events --state failed`
  tagrelay events replay --all --repository docker.io/uyou/user-service

Nothing is written twice: environments that run the version already stay unchanged, and older builds are refused again.")]
    Replay(ReplayOptions),
}

#[derive(Args)]
struct ReplayOptions {
    /// The id of the event
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "repository", "state"])]
    id: Option<String>,
    /// All refused events, at most the newest 1000
    #[arg(long)]
    all: bool,
    /// With --all: only this repository, with its whole name: docker.io/uyou/user-service
    #[arg(long, value_name = "REPOSITORY", requires = "all", value_parser = super::holds::parse_whole_repository)]
    repository: Option<String>,
    /// With --all: only events in this state
    #[arg(long, value_enum, value_name = "STATE", requires = "all", default_value = "failed")]
    state: FinalState,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// The states of events that can be replayed.
#[derive(Clone, Copy, ValueEnum)]
enum FinalState {
    /// Refused, at least in one environment
    Failed,
    /// Refused in all environments
    Refused,
}

#[derive(Args)]
struct ListOptions {
    /// Only this repository, with its whole name: docker.io/uyou/user-service
    #[arg(long, value_name = "REPOSITORY", value_parser = super::holds::parse_whole_repository)]
    repository: Option<String>,
    /// Only events in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// At most this many; maximum: 1000
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

#[derive(Args)]
struct OneOptions {
    /// The id of the event, from `tagrelay events` or the response to the webhook
    id: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// The states of an event, and `failed`.
#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// The registry has not confirmed the image yet
    Queued,
    /// On its way to the branch
    Pending,
    /// Waits, for example for a hold or freeze to end
    Waiting,
    /// On the branch
    Committed,
    /// The environments run the version already
    Unchanged,
    /// A newer version took its place
    Superseded,
    /// Ended with a reason
    Refused,
    /// Refused, at least in one environment
    Failed,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        None => list(options.list).await,
        Some(Command::Show(options)) => {
            let answer = Api::new(options.server)?.get(&["events", &options.id], &[]).await?;
            print_one(&answer, options.json)
        }
        Some(Command::Replay(options)) => replay(options).await,
    }
}

async fn replay(options: ReplayOptions) -> anyhow::Result<ExitCode> {
    let ReplayOptions { id, all: _, repository, state, json, server } = options;
    let api = Api::new(server)?;
    if let Some(id) = id {
        let answer = api.post(&["events", &id, "replay"], &serde_json::Map::new()).await?;
        match answer.read::<ReplayedEvent>()?.hastened {
            Some(hastened) => output::note(&clean(&hastened)),
            None => output::note("replayed; `tagrelay events show` shows its state"),
        }
        return print_one(&answer, json);
    }
    let state = match state {
        FinalState::Failed => "failed",
        FinalState::Refused => "refused",
    };
    let filter = ReplayFilter { repository, state: Some(state.to_owned()), limit: None };
    let answer = api.post(&["events", "replay"], &filter).await?;
    if json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let replayed = answer.read::<ReplayedEvents>()?.replayed;
    match replayed.len() {
        0 => output::note("no events to replay"),
        count => output::note(&format!("{count} replayed; `tagrelay events` shows their state")),
    }
    replayed.iter().try_for_each(|id| output::print(&format!("{}\n", clean(id))))?;
    Ok(ExitCode::SUCCESS)
}

async fn list(options: ListOptions) -> anyhow::Result<ExitCode> {
    let ListOptions { repository, state, limit, json, server } = options;
    let mut query = vec![("limit", limit.to_string())];
    query.extend(repository.map(|repository| ("repository", repository)));
    let word = state.and_then(|state| state.to_possible_value()).map(|state| state.get_name().to_owned());
    query.extend(word.map(|word| ("state", word)));
    let answer = Api::new(server)?.get(&["events"], &query).await?;
    if json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let events: Events = answer.read()?;
    if events.events.is_empty() && events.requests.iter().flatten().next().is_none() {
        output::note("no such events; if a registry never appears, check its webhook");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&table(&events, Timestamp::now()).render(0))?;
    Ok(ExitCode::SUCCESS)
}

fn table(Events { events, requests }: &Events, now: Timestamp) -> Table {
    let mut rows = Vec::new();
    for event in events {
        let image = format!("{}:{}", event.repository, short_version(Some(&event.tag), None));
        rows.push((&event.id, event.received_at, image, event.state.as_str(), because(event)));
    }
    for request in requests.iter().flatten() {
        let because = request.reason.clone().unwrap_or_default();
        let what = format!("{} in {}", request.kind, request.to);
        rows.push((&request.id, request.created_at, what, request.state.as_str(), because));
    }
    // Ids sort by arrival.
    rows.sort_by(|a, b| b.0.cmp(a.0));
    let mut table = Table::new(&["id", "received", "image", "state", "because"]);
    for (id, at, image, state, because) in rows {
        table.row(vec![
            Cell::new(id, DIM),
            Cell::plain(&relative(at, now)),
            Cell::plain(&image),
            Cell::new(state, state_style(state)),
            Cell::plain(&one_line(&because)),
        ]);
    }
    table
}

/// Returns the reason for the event's state, otherwise the reasons of the environments that refused it.
fn because(event: &EventView) -> String {
    let refused = event.refused_in.iter().map(|refused| {
        let reason = refused.reason.as_deref().unwrap_or_default();
        format!("refused in {}: {reason}", refused.environment)
    });
    event.reason.clone().unwrap_or_else(|| refused.collect::<Vec<_>>().join("; "))
}

/// The longest reason in the table, in characters. `events show` and `--json` print all of it.
const MAX_REASON: usize = 100;

fn one_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    if line.len() == reason.trim_end().len() && line.chars().count() <= MAX_REASON {
        return line.to_owned();
    }
    let kept: String = line.chars().take(MAX_REASON - 2).collect();
    format!("{} …", kept.trim_end())
}

fn print_one(answer: &Answer, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        answer.print()?;
    } else {
        output::print(&render(&answer.read()?))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(detail: &EventDetailView) -> String {
    let EventDetailView { event, updates: _, explanation, attempt_log } = detail;
    let style = state_style(event.state.as_str());
    let mut text = String::new();
    let (state, repository, tag) = (clean(event.state.as_str()), clean(&event.repository), clean(&event.tag));
    let _ = writeln!(text, "{style}{state}{style:#}  {HEAD}{repository}:{tag}{HEAD:#}");
    let _ = writeln!(text, "{DIM}event {} via {}{DIM:#}", clean(&event.id), clean(&event.receiver));
    let mut steps = Table::bare();
    for step in explanation {
        let at = step.at.map(|at| at.strftime("%F %T%.3fZ").to_string()).unwrap_or_default();
        steps.row(vec![Cell::new(&at, DIM), Cell::new(&step.step, state_style(&step.step)), Cell::plain(&step.text)]);
    }
    text.push_str(&steps.render(2));
    if !attempt_log.is_empty() {
        let _ = writeln!(text, "{DIM}failed attempts{DIM:#}");
        let mut attempts = Table::bare();
        for attempt in attempt_log {
            let at = attempt.at.strftime("%F %T%.3fZ").to_string();
            let environment = attempt.environment.as_deref().unwrap_or_default();
            attempts.row(vec![
                Cell::new(&at, DIM),
                Cell::plain(&attempt.asked),
                Cell::plain(environment),
                Cell::plain(&attempt.answered),
            ]);
        }
        text.push_str(&attempts.render(2));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventState;

    #[test]
    fn reason_is_cut_to_one_line() {
        assert_eq!(one_line("no such image"), "no such image");
        assert_eq!(one_line(&"é".repeat(100)), "é".repeat(100));
        assert_eq!(one_line(&"é".repeat(101)), format!("{} …", "é".repeat(98)));
        assert_eq!(one_line("the first line\nand the second"), "the first line …");
    }

    /// The words of the command line are those of the API.
    #[test]
    fn every_state_option_is_a_state() {
        for state in State::value_variants() {
            let word = state.to_possible_value().unwrap().get_name().to_owned();
            assert!(word == "failed" || word.parse::<EventState>().is_ok(), "{word}");
        }
    }
}
