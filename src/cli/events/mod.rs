//! `tagrelay events`: lists, follows, explains and replays push events.

mod stream;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::api::{Answer, Api, ApiError, ServerOptions, state_style};
use super::names::Prefix;
use super::output::{self, Cell, DIM, HEAD, Table, clean, short_version, shown};
use super::places::is_id;
use crate::api::{
    EventDetailView, EventView, Events, Freezes, Holds, ReplayFilter, ReplayedEvent, ReplayedEvents, StepView,
};

/// Lists push events, newest first; explains and replays them.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  tagrelay events --limit 10
  tagrelay events --repository user-service --state failed
  tagrelay events --environment production --since 2h
  tagrelay events --cause rollback                     push, catch-up, promotion or rollback
  tagrelay events --follow --json | jq .               every change as it happens
  tagrelay events show 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN      the steps of an event, or a promotion, hold or freeze
  tagrelay events replay 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN    replay a refused event, or start
                                                       the next attempt of a queued one
  tagrelay events replay --all                         replay all refused events

The token needs the permission read; for replay, replay."
)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// The id of an event, promotion, hold or freeze: as `events show`
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: Option<String>,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the steps of an event, or a promotion, rollback, hold or freeze
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
    /// With --all: only this repository: the whole name, or the last component
    #[arg(short, long, value_name = "REPOSITORY", requires = "all")]
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
    /// Only this repository: the whole name, or the last component
    #[arg(short, long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Only events in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// Only events that concern this environment
    #[arg(short, long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// Only this cause: push, catch-up, promotion or rollback
    #[arg(long, value_name = "CAUSE", value_parser = ["push", "catch-up", "promotion", "rollback"])]
    cause: Option<String>,
    /// Only events since then: 2h, or 2026-11-20T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print every change as it happens, until Ctrl-C; resumes if the connection is lost. With --json, a line for each
    #[arg(short, long, conflicts_with_all = ["state", "since", "limit"])]
    follow: bool,
    /// At most this many, events and requests together; maximum: 1000
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
    /// The id of an event, promotion, rollback, hold or freeze
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

/// What `--follow` shows.
struct Selection {
    environment: Option<String>,
    repository: Option<String>,
    cause: Option<String>,
}

/// Parses an id. Another word is probably a mistyped subcommand.
fn parse_id(text: &str) -> Result<String, &'static str> {
    if is_id(text) { Ok(text.to_owned()) } else { Err("this is neither an id nor `show` or `replay`") }
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        None => match options.id {
            Some(id) => show(OneOptions { id, json: options.list.json, server: options.list.server }).await,
            None => list(options.list).await,
        },
        Some(Command::Show(options)) => show(options).await,
        Some(Command::Replay(options)) => replay(options).await,
    }
}

/// Shows whatever has this id.
async fn show(OneOptions { id, json, server }: OneOptions) -> anyhow::Result<ExitCode> {
    let api = Api::new(server)?;
    let unknown = match api.get(&["events", &id], &[]).await {
        Ok(answer) => return print_one(&answer, json),
        Err(error) if error.is_not_found() => error,
        Err(error) => return Err(error.into()),
    };
    match api.get(&["promotions", &id], &[]).await {
        Ok(answer) if json => answer.print()?,
        Ok(answer) => output::print(&super::promotions::details(&answer.read()?))?,
        Err(error) if error.is_not_found() => return show_block(&api, &id, json, unknown).await,
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows an active hold or freeze.
async fn show_block(api: &Api, id: &str, json: bool, unknown: ApiError) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let holds: Holds = api.get(&["holds"], &[]).await?.read()?;
    if let Some(hold) = holds.holds.iter().find(|hold| hold.id == id) {
        match json {
            true => output::print_json(hold)?,
            false => output::print(&super::holds::table(&[hold], now).render(0))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let freezes: Freezes = api.get(&["freezes"], &[]).await?.read()?;
    match freezes.freezes.into_iter().find(|freeze| freeze.id == id) {
        Some(freeze) if json => output::print_json(&freeze)?,
        Some(freeze) => {
            let one = Freezes { freezes: vec![freeze], windows: Vec::new() };
            output::print(&super::freezes::render(&one, now))?;
        }
        None => return Err(unknown.into()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(options: ReplayOptions) -> anyhow::Result<ExitCode> {
    let ReplayOptions { id, all: _, repository, state, json, server } = options;
    let api = Api::new(server)?;
    if let Some(id) = id {
        let answer = api.post(&["events", &id, "replay"], &serde_json::Map::new()).await?;
        let ReplayedEvent { replayed, event, hastened } = answer.read()?;
        match hastened {
            Some(hastened) => output::note(&clean(&hastened)),
            None => output::note("replayed; `tagrelay events show` shows its state"),
        }
        if event.is_none() && !json {
            output::print(&format!("{}\n", clean(&replayed)))?;
            return Ok(ExitCode::SUCCESS);
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
    let ListOptions { repository, state, environment, cause, since, follow, limit, json, server } = options;
    if follow {
        stream::follow(&Api::new(server)?, &Selection { environment, repository, cause }, json).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut query = vec![("limit", limit.to_string())];
    query.extend(repository.map(|repository| ("repository", repository)));
    query.extend(environment.map(|environment| ("environment", environment)));
    query.extend(cause.map(|cause| ("cause", cause)));
    query.extend(since.map(|since| ("since", since)));
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
    output::print(&table(&events, Timestamp::now()).render_in(0, output::screen_width()))?;
    Ok(ExitCode::SUCCESS)
}

fn table(Events { events, requests }: &Events, now: Timestamp) -> Table {
    let prefix = Prefix::of(events.iter().map(|event| event.repository.as_str()));
    let heading = if events.is_empty() { "what".to_owned() } else { prefix.heading() };
    let mut rows = Vec::new();
    for event in events {
        let image = format!("{}:{}", prefix.strip(&event.repository), short_version(Some(&event.tag), None));
        rows.push((&event.id, event.received_at, image, event.state.as_str(), because(event)));
    }
    for request in requests.iter().flatten() {
        let because = request.reason.clone().unwrap_or_default();
        let what = format!("{} in {}", request.kind, request.to);
        rows.push((&request.id, request.created_at, what, request.state.as_str(), because));
    }
    // Ids sort by arrival.
    rows.sort_by(|a, b| b.0.cmp(a.0));
    let mut table = Table::new(&["id", "received", heading.as_str(), "state", "because"]).keep(&[0]);
    for (id, at, image, state, because) in rows {
        table.row(vec![
            Cell::new(id, DIM),
            Cell::plain(&shown(at, now)),
            Cell::plain(&image),
            Cell::new(state, state_style(state)),
            Cell::plain(&because),
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
    for step in in_order(explanation) {
        let at = step.at.map(output::exact).unwrap_or_default();
        steps.row(vec![Cell::new(&at, DIM), Cell::new(&step.step, state_style(&step.step)), Cell::plain(&step.text)]);
    }
    text.push_str(&steps.render(2));
    if !attempt_log.is_empty() {
        let _ = writeln!(text, "{DIM}failed attempts{DIM:#}");
        let mut attempts = Table::bare();
        for attempt in attempt_log {
            let at = output::exact(attempt.at);
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

/// Sorts steps by time. A step without a time stays behind its predecessor.
fn in_order(steps: &[StepView]) -> Vec<&StepView> {
    let mut last = None;
    let mut timed: Vec<(Option<Timestamp>, &StepView)> = Vec::with_capacity(steps.len());
    for step in steps {
        last = step.at.or(last);
        timed.push((last, step));
    }
    timed.sort_by_key(|(at, _)| *at);
    timed.into_iter().map(|(_, step)| step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventState;

    /// A replayed event has the refusals of its first run among its updates.
    #[test]
    fn steps_are_shown_in_the_order_of_time() {
        let step = |name: &str, at: Option<&str>| StepView {
            step: name.to_owned(),
            at: at.map(|at| at.parse().unwrap()),
            text: String::new(),
        };
        let steps = [
            step("received", Some("2026-11-20T12:00:00Z")),
            step("matched", None),
            step("verified", Some("2026-11-20T12:05:00Z")),
            step("refused", Some("2026-11-20T12:01:00Z")),
            step("committed", Some("2026-11-20T12:06:00Z")),
        ];
        let names: Vec<&str> = in_order(&steps).iter().map(|step| step.step.as_str()).collect();
        assert_eq!(names, ["received", "matched", "refused", "verified", "committed"]);
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
