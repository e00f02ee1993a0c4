//! Sends promotions and rollbacks, and waits until they have ended.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;
use ulid::Ulid;

use super::super::output::{
    self, BAD, Cell, DIM, GOOD, HEAD, PLAIN, Table, WARN, clean, short, short_commit, short_version,
};
use super::{Answer, Api};
use crate::api::{ChangeView, RequestView, UpdateView};
use crate::domain::{RequestState, UpdateState};

/// How long one request may wait: proxies cut off connections that are silent for a minute.
const ONE_WAIT: Duration = Duration::from_secs(30);

/// The least time from one request to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// The maximum of `--wait`: a day.
const MAX_WAIT_SECONDS: u64 = 86_400;

/// How to send and wait.
#[derive(Args)]
pub(in crate::cli) struct FollowOptions {
    /// Return as soon as Tagrelay has stored the request, before the commit
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// How long to wait for the commit
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(..=MAX_WAIT_SECONDS))]
    wait: u64,
    /// Commands with the same key and the same request act only once [default: a new key for each command]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Sends a promotion or rollback, waits for its end and prints the result.
pub(in crate::cli) async fn follow(
    api: &Api,
    route: &str,
    body: &impl Serialize,
    options: FollowOptions,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let FollowOptions { no_wait, wait, idempotency_key } = options;
    let key = idempotency_key.unwrap_or_else(|| Ulid::new().to_string());
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
    let answer = if no_wait || request.state != RequestState::Pending {
        accepted
    } else {
        let (kind, id) = (clean(request.kind.as_str()), clean(&request.id));
        output::note(&format!("{kind} {id} accepted; waiting for the commit …"));
        wait_for(api, &request.id, accepted, Duration::from_secs(wait)).await?
    };
    let request: RequestView = answer.read()?;
    if json {
        answer.print()?;
    } else {
        output::print(&render(&request))?;
    }
    if request.state == RequestState::Pending && !no_wait {
        output::note(&format!(
            "{WARN}not done within {wait} s{WARN:#}; Tagrelay continues without this command. To wait longer, run it again \
             with --idempotency-key {key}"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(if is_refused(&request) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits until the request is no longer pending, and returns the last response.
async fn wait_for(api: &Api, id: &str, accepted: Answer, limit: Duration) -> anyhow::Result<Answer> {
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
        if is_over || last.read::<RequestView>()?.state != RequestState::Pending {
            return Ok(last);
        }
        // Also if the server answers at once or is unreachable.
        tokio::time::sleep_until(deadline.min(begun + PAUSE)).await;
    }
}

/// Rounds a waiting time up to seconds, the unit of the API.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// Returns whether a part of the request was refused or waits.
fn is_refused(request: &RequestView) -> bool {
    let refused = |update: &UpdateView| {
        let states = [UpdateState::Refused, UpdateState::Superseded, UpdateState::Waiting];
        states.iter().any(|state| update.state == *state)
    };
    let states = [RequestState::Refused, RequestState::Waiting];
    states.iter().any(|state| request.state == *state) || request.updates.iter().any(refused)
}

/// Returns the result as text.
fn render(request: &RequestView) -> String {
    let mut text = String::new();
    let style = state_style(request.state.as_str());
    let from = request.from.as_deref().map(|from| format!(" from {}", clean(from))).unwrap_or_default();
    let commit =
        request.commit.as_deref().map(|commit| format!(" {}", clean(short_commit(commit)))).unwrap_or_default();
    let (state, to) = (clean(request.state.as_str()), clean(&request.to));
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
        "pending" | "queued" | "waiting" | "unverified" => WARN,
        "unchanged" | "superseded" => DIM,
        _ => PLAIN,
    }
}
