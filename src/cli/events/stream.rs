//! `tagrelay events --follow`: every change as it happens. Resumes after an interruption.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::Selection;
use crate::api::{EventDetailView, RequestView, StreamMessage, StreamSubject};
use crate::cli::api::{Api, ApiError, state_style};
use crate::cli::output::{self, DIM, clean, short_commit, short_version};

/// The pause before a new connection, doubled up to a minute.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Prints changes until the command is interrupted.
///
/// # Errors
///
/// If the server refuses the first connection. Later ones are tried again.
pub(super) async fn follow(api: &Api, selection: &Selection, json: bool) -> anyhow::Result<()> {
    let mut last: Option<String> = None;
    let mut causes = Causes::default();
    let mut pause = PAUSE;
    loop {
        match api.stream(last.as_deref()).await {
            Ok(response) => {
                let mut chunks = response.bytes_stream();
                let mut lines = Lines::default();
                while let Some(Ok(chunk)) = chunks.next().await {
                    for message in lines.add(&chunk) {
                        pause = PAUSE;
                        show(api, selection, &mut causes, &message, json).await?;
                        last = message.id.or(last);
                    }
                }
            }
            Err(error) if last.is_none() && !error.may_pass() => return Err(error.into()),
            Err(error @ ApiError::Refused { .. }) if !error.may_pass() => return Err(error.into()),
            Err(_) => {}
        }
        output::note(&format!("{DIM}connection lost; trying again in {} s{DIM:#}", pause.as_secs()));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

async fn show(
    api: &Api,
    selection: &Selection,
    causes: &mut Causes,
    message: &Message,
    json: bool,
) -> anyhow::Result<()> {
    if message.event == "missed" {
        output::note("changes before this are no longer kept; `tagrelay events` lists them");
        return Ok(());
    }
    let Ok(parsed) = serde_json::from_str::<StreamMessage>(&message.data) else { return Ok(()) };
    if !selection.has(&parsed.subject) {
        return Ok(());
    }
    if let Some(wanted) = &selection.cause
        && causes.of(api, &parsed.subject).await.as_deref() != Some(wanted)
    {
        return Ok(());
    }
    output::print(&if json { format!("{}\n", message.data) } else { line(&parsed) })?;
    Ok(())
}

/// A message of a stream of server-sent events.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    id: Option<String>,
    event: String,
    data: String,
}

/// Collects the lines of messages. A chunk may end anywhere.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    message: Message,
}

impl Lines {
    fn add(&mut self, chunk: &[u8]) -> Vec<Message> {
        self.rest.extend_from_slice(chunk);
        let mut whole = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" if line.is_empty() && !self.message.data.is_empty() => whole.push(std::mem::take(&mut self.message)),
                "id" => self.message.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.message.event),
                "data" => self.message.data.push_str(value),
                // A comment keeps the connection open.
                _ => {}
            }
        }
        whole
    }
}

/// The causes of changes, by the id of their event or request.
#[derive(Default)]
struct Causes(HashMap<String, String>);

impl Causes {
    /// The most causes that are remembered.
    const MOST: usize = 10_000;

    async fn of(&mut self, api: &Api, subject: &StreamSubject) -> Option<String> {
        let id = match subject {
            StreamSubject::Event { id, .. } => id,
            StreamSubject::Update { cause_id, .. } | StreamSubject::Rollout { cause_id, .. } => cause_id,
            StreamSubject::Request { request, .. } => return Some(request.as_str().to_owned()),
            StreamSubject::Hold { .. } | StreamSubject::Freeze { .. } | StreamSubject::Other => return None,
        };
        if let Some(known) = self.0.get(id) {
            return Some(known.clone());
        }
        let found = match api.get(&["events", id], &[]).await {
            Ok(answer) => answer.read::<EventDetailView>().ok()?.event.cause.as_str().to_owned(),
            Err(_) => {
                let request: RequestView = api.get(&["promotions", id], &[]).await.ok()?.read().ok()?;
                request.kind.as_str().to_owned()
            }
        };
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(id.clone(), found.clone());
        Some(found)
    }
}

impl Selection {
    fn has(&self, subject: &StreamSubject) -> bool {
        let (environment, repository) = match subject {
            StreamSubject::Event { repository, .. } => (None, Some(repository)),
            StreamSubject::Update { environment, repository, .. }
            | StreamSubject::Rollout { environment, repository, .. }
            | StreamSubject::Hold { environment, repository, .. } => (Some(environment), Some(repository)),
            StreamSubject::Request { environment, .. } | StreamSubject::Freeze { environment, .. } => {
                (Some(environment), None)
            }
            StreamSubject::Other => return false,
        };
        let is_last = |name: &str, wanted: &str| name.rsplit('/').next() == Some(wanted);
        self.environment.as_ref().is_none_or(|wanted| environment == Some(wanted))
            && self.repository.as_ref().is_none_or(|wanted| {
                repository.is_some_and(|name| {
                    name == wanted || name.ends_with(&format!("/{wanted}")) || is_last(name, wanted)
                })
            })
    }
}

/// One line, as in a log: time, kind, place, version, state, reason.
fn line(message: &StreamMessage) -> String {
    let (kind, what, state, rest) = match &message.subject {
        StreamSubject::Event { id, repository, tag, state, reason } => {
            let what = format!("{repository}:{}", short_version(Some(tag), None));
            ("event", what, state.as_str(), format!("{}  {id}", reason.as_deref().unwrap_or_default()))
        }
        StreamSubject::Update { environment, repository, version, state, commit, reason, cause_id, .. } => {
            let what = format!("{environment} {repository} {}", short_version(Some(version), None));
            let commit = commit.as_deref().map(short_commit).unwrap_or_default();
            let rest = [commit, reason.as_deref().unwrap_or_default()].join(" ");
            ("update", what, state.as_str(), format!("{}  {cause_id}", rest.trim()))
        }
        StreamSubject::Rollout { environment, repository, commit, state, reason, cause_id, .. } => {
            let what = format!("{environment} {repository} {}", short_commit(commit));
            ("rollout", what, state.as_str(), format!("{}  {cause_id}", reason.as_deref().unwrap_or_default()))
        }
        StreamSubject::Request { id, request, environment, actor } => {
            ("request", format!("{request} of {environment}"), "requested", format!("by {actor}  {id}"))
        }
        StreamSubject::Hold { id, environment, repository, state } => {
            ("hold", format!("{environment} {repository}"), state.as_str(), id.clone())
        }
        StreamSubject::Freeze { environment, state, reason } => {
            ("freeze", environment.clone(), state.as_str(), reason.clone().unwrap_or_default())
        }
        StreamSubject::Other => return String::new(),
    };
    let style = state_style(state);
    let at = output::exact(message.at);
    format!(
        "{DIM}{at}{DIM:#}  {kind:<7}  {}  {style}{}{style:#}  {DIM}{}{DIM:#}\n",
        clean(&what),
        clean(state),
        clean(rest.trim())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_in_any_chunks() {
        let text = b"id: 7\nevent: hold\ndata: {\"a\":1}\n\n: keep alive\n\nid: 8\r\ndata: x\r\n\r\n";
        for size in [1, 3, 1000] {
            let mut lines = Lines::default();
            let found: Vec<Message> = text.chunks(size).flat_map(|chunk| lines.add(chunk)).collect();
            let message = |id: &str, event: &str, data: &str| Message {
                id: Some(id.to_owned()),
                event: event.to_owned(),
                data: data.to_owned(),
            };
            assert_eq!(found, [message("7", "hold", "{\"a\":1}"), message("8", "", "x")], "{size}");
        }
    }

    #[test]
    fn change_is_one_line() {
        let message: StreamMessage = serde_json::from_value(serde_json::json!({
            "at": "2026-11-20T12:00:00Z", "kind": "update", "id": "01U", "cause_id": "01E", "environment": "staging",
            "repository": "docker.io/uyou/a", "version": "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432", "state": "committed",
            "commit": "c0ffee0123456789c0ffee0123456789c0ffee01" }))
        .unwrap();
        let text = anstream::adapter::strip_str(&line(&message)).to_string();
        assert_eq!(
            text,
            "2026-11-20 12:00:00.000Z  update   staging docker.io/uyou/a 9f8e7d6  committed  c0ffee0  01E\n"
        );
        let select = |environment: Option<&str>, repository: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Selection { environment: owned(environment), repository: owned(repository), cause: None }
                .has(&message.subject)
        };
        assert!(select(None, None) && select(Some("staging"), Some("a")) && select(None, Some("docker.io/uyou/a")));
        assert!(!select(Some("production"), None) && !select(None, Some("b")));
    }
}
