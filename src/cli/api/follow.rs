//! Sends promotions and rollbacks, and waits until they have ended.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;
use ulid::Ulid;

use super::super::exit;
use super::super::output::{
    self, BAD, Cell, DIM, GOOD, HEAD, PLAIN, Table, WARN, clean, short, short_commit, short_version,
};
use super::{Answer, Api};
use crate::api::{ChangeView, RequestView, UpdateView, Word};
use crate::domain::{RequestState, UpdateState};
use crate::store::RolloutState;

/// How long one request may wait: proxies cut off connections that are silent for a minute.
const ONE_WAIT: Duration = Duration::from_secs(30);

/// The least time from one request to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// The maximum of `--wait`: a day.
const MAX_WAIT_SECONDS: u64 = 86_400;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Goal {
    /// The commit is on the branch
    Committed,
    /// Argo CD has rolled the commit out, and its applications are healthy
    Healthy,
}

/// How to send and wait.
#[derive(Args)]
pub(in crate::cli) struct FollowOptions {
    /// Return as soon as Tagrelay has stored the request, before the commit
    #[arg(long, conflicts_with_all = ["wait", "wait_for"])]
    no_wait: bool,
    /// How long to wait: seconds, or a duration such as 10m [default: 2m, and 15m for healthy]
    #[arg(short, long, alias = "timeout", value_name = "TIME", value_parser = parse_wait)]
    wait: Option<u64>,
    /// What to wait for
    #[arg(long, value_enum, value_name = "STATE", default_value = "committed")]
    wait_for: Goal,
    /// Commands with the same key and the same request act only once [default: a new key for each command]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

fn parse_wait(text: &str) -> Result<u64, String> {
    match output::read_seconds(text)? {
        seconds if seconds > MAX_WAIT_SECONDS => Err("a day is the longest".to_owned()),
        seconds => Ok(seconds),
    }
}

impl FollowOptions {
    fn limit(&self) -> Duration {
        let default = match self.wait_for {
            Goal::Committed => 120,
            Goal::Healthy => 900,
        };
        Duration::from_secs(self.wait.unwrap_or(default))
    }
}

/// A request and how it ended.
pub(in crate::cli) struct Followed {
    pub(in crate::cli) request: RequestView,
    pub(in crate::cli) code: u8,
}

/// Sends a promotion or rollback, waits for its end and prints the result.
pub(in crate::cli) async fn follow(
    api: &Api,
    route: &str,
    body: &impl Serialize,
    options: &FollowOptions,
    json: bool,
) -> anyhow::Result<Followed> {
    let key = options.idempotency_key.clone().unwrap_or_else(|| Ulid::new().to_string());
    let accepted = api.post_once(&[route], body, &key).await.map_err(|error| {
        let may_be_stored = error.is_transient();
        let error = anyhow::Error::from(error);
        if !may_be_stored {
            return error;
        }
        error.context(format!(
            "the request may or may not be stored; to make sure, run the command again with --idempotency-key {key}"
        ))
    })?;
    let request: RequestView = accepted.read()?;
    let limit = options.limit();
    let answer = if options.no_wait || is_done(&request, options.wait_for) {
        accepted
    } else {
        let (kind, id) = (clean(request.kind.as_str()), clean(&request.id));
        let goal = match options.wait_for {
            Goal::Committed => "the commit",
            Goal::Healthy => "the rollout",
        };
        output::note(&format!("{kind} {id} accepted; waiting for {goal} …"));
        wait_for(api, &request.id, accepted, limit, options.wait_for).await?
    };
    let request: RequestView = answer.read()?;
    if json {
        answer.print()?;
    } else {
        output::print(&render(&request))?;
    }
    let code = if options.no_wait { exit_code_at_once(&request) } else { exit_code(&request, options.wait_for) };
    if code == exit::WAITING && !options.no_wait {
        output::note(&explain_waiting(&request, limit, &key));
    }
    Ok(Followed { request, code })
}

/// Waits until the request has reached its goal or cannot reach it, and returns the last response.
async fn wait_for(api: &Api, id: &str, accepted: Answer, limit: Duration, goal: Goal) -> anyhow::Result<Answer> {
    let deadline = Instant::now() + limit;
    let mut last = accepted;
    loop {
        let begun = Instant::now();
        let wait = deadline.saturating_duration_since(begun).min(ONE_WAIT);
        let answer = api.get_when_done(&["promotions", id], whole_seconds(wait)).await;
        let is_over = Instant::now() >= deadline;
        match answer {
            Ok(answer) => last = answer,
            // The request is stored: a server that restarts continues with it.
            Err(error) if error.may_pass() && !is_over => {}
            Err(error) => return Err(error.into()),
        }
        if is_over || is_done(&last.read::<RequestView>()?, goal) {
            return Ok(last);
        }
        // Also if the server answers at once or is unreachable.
        tokio::time::sleep_until(deadline.min(begun + PAUSE)).await;
    }
}

/// Whether waiting longer is of no use.
fn is_done(request: &RequestView, goal: Goal) -> bool {
    match goal {
        Goal::Committed => request.state != RequestState::Pending,
        Goal::Healthy => request.state != RequestState::Pending && !is_rolling_out(request),
    }
}

/// Whether Argo CD is still at work.
fn is_rolling_out(request: &RequestView) -> bool {
    let states = [RolloutState::Waiting, RolloutState::Following];
    request.rollout.as_ref().is_some_and(|rollout| states.iter().any(|state| rollout.state == *state))
}

fn exit_code_at_once(request: &RequestView) -> u8 {
    match request.state {
        Word::Known(RequestState::Pending | RequestState::Waiting) => exit::DONE,
        _ => exit_code(request, Goal::Committed),
    }
}

/// Returns the exit code of a request.
pub(in crate::cli) fn exit_code(request: &RequestView, goal: Goal) -> u8 {
    let code = |update: &UpdateView| match update.state {
        Word::Known(UpdateState::Committed | UpdateState::Unchanged) => exit::DONE,
        Word::Known(UpdateState::Unverified | UpdateState::Pending | UpdateState::Waiting) => exit::WAITING,
        Word::Known(UpdateState::Refused | UpdateState::Superseded | UpdateState::Cancelled) | Word::Other(_) => {
            exit::REFUSED
        }
    };
    let of_request = match request.state {
        Word::Known(RequestState::Committed) => exit::DONE,
        Word::Known(RequestState::Pending | RequestState::Waiting) => exit::WAITING,
        Word::Known(RequestState::Refused | RequestState::Superseded | RequestState::Cancelled) => exit::REFUSED,
        // Of a newer server, which waits for something that this version does not know.
        Word::Other(_) => exit::WAITING,
    };
    let joined = if request.updates.is_empty() { of_request } else { exit::join(request.updates.iter().map(code)) };
    if joined != exit::DONE || goal == Goal::Committed {
        return joined;
    }
    match request.rollout.as_ref().map(|rollout| &rollout.state) {
        Some(Word::Known(RolloutState::Degraded | RolloutState::TimedOut | RolloutState::Superseded)) => exit::REFUSED,
        Some(Word::Known(RolloutState::Waiting | RolloutState::Following)) => exit::WAITING,
        _ => exit::DONE,
    }
}

fn explain_waiting(request: &RequestView, limit: Duration, key: &str) -> String {
    let id = clean(&request.id);
    let how = format!(
        "`tagrelay promotions show {id}` shows its state, `tagrelay promotions cancel {id}` cancels what is not written yet"
    );
    if request.state == RequestState::Waiting {
        return format!("{WARN}it waits{WARN:#}, and goes on without this command; {how}");
    }
    format!(
        "{WARN}not done within {} s{WARN:#}; Tagrelay continues without this command. To wait longer, run it again with \
         --idempotency-key {key}; {how}",
        limit.as_secs()
    )
}

/// Rounds a waiting time up to seconds, the unit of the API.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// Returns the word for the state: a request that changed nothing is `unchanged`.
pub(in crate::cli) fn state_word(request: &RequestView) -> &str {
    let is_idle = request.updates.iter().all(|update| update.state == UpdateState::Unchanged);
    if request.state == RequestState::Committed && is_idle && request.commit.is_none() {
        UpdateState::Unchanged.as_str()
    } else {
        request.state.as_str()
    }
}

/// Returns the result as text.
pub(in crate::cli) fn render(request: &RequestView) -> String {
    let mut text = String::new();
    let word = state_word(request);
    let style = state_style(word);
    let from = request.from.as_deref().map(|from| format!(" from {}", clean(from))).unwrap_or_default();
    let commit =
        request.commit.as_deref().map(|commit| format!(" {}", clean(short_commit(commit)))).unwrap_or_default();
    let (state, to) = (clean(word), clean(&request.to));
    let _ = writeln!(
        text,
        "{style}{state}{style:#}{commit}  {HEAD}{to}{HEAD:#}{from}  {DIM}{} {}{DIM:#}",
        clean(request.kind.as_str()),
        clean(&request.id)
    );
    for update in &request.updates {
        text.push_str(&render_update(update));
    }
    if let Some(overridden) = &request.overridden {
        let _ = writeln!(text, "  {WARN}overridden{WARN:#}: {}", clean(overridden));
    }
    if let Some(rollout) = &request.rollout {
        let reason = rollout.reason.as_deref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
        let _ = writeln!(text, "  {DIM}rollout{DIM:#} {}{reason}", clean(rollout.state.as_str()));
    }
    if !request.skipped.is_empty() {
        let skipped: Vec<_> = request.skipped.iter().map(|name| clean(name)).collect();
        let _ = writeln!(text, "  {DIM}skipped, because {to} does not name them:{DIM:#} {}", skipped.join(", "));
    }
    // The request's reason repeats the reasons of its updates.
    let is_explained = request.updates.iter().any(|update| update.reason.is_some());
    if let Some(reason) = request.reason.as_deref().filter(|_| !is_explained) {
        let _ = writeln!(text, "  {}", clean(reason));
    }
    text
}

fn render_update(update: &UpdateView) -> String {
    let mut table = Table::bare();
    let (repository, version) = (&update.repository, short_version(update.tag.as_deref(), update.digest.as_deref()));
    let moved = match update.changes.first() {
        Some(ChangeView { old, .. }) => {
            format!("{} -> {version}", short(old))
        }
        None => version,
    };
    let state = if update.state == UpdateState::Committed { "" } else { update.state.as_str() };
    table.row(vec![Cell::plain(repository), Cell::plain(&moved), Cell::new(state, state_style(state))]);
    let mut text = table.render(2);
    if let Some(reason) = &update.reason {
        let _ = writeln!(text, "    {}", clean(reason));
    }
    for change in &update.changes {
        let _ = writeln!(text, "    {}:{}", clean(&change.path), change.line);
    }
    text
}

/// Returns the colour of a state.
pub(in crate::cli) fn state_style(state: &str) -> anstyle::Style {
    match state {
        "committed" | "changed" => GOOD,
        "refused" => BAD,
        "pending" | "queued" | "waiting" | "unverified" | "proposed" => WARN,
        "unchanged" | "superseded" | "cancelled" => DIM,
        _ => PLAIN,
    }
}
