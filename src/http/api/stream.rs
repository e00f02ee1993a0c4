use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, StatusCode};

use super::{App, Caller, Problem};
use crate::api::{StreamMessage, StreamSubject, Word};
use crate::domain::{Change, Entry};

/// The most open streams of a token. Each holds a connection.
const MAX_STREAMS: usize = 16;

/// The number of open streams of each token. Clones share it.
#[derive(Clone, Default)]
pub(in crate::http) struct OpenStreams(Arc<Mutex<HashMap<String, usize>>>);

/// An open stream. Dropping it takes it out of the count.
struct OpenStream {
    all: OpenStreams,
    token: String,
}

impl OpenStreams {
    fn open(&self, token: &str) -> Result<OpenStream, Problem> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(token.to_owned()).or_default();
        if *count >= MAX_STREAMS {
            let detail = format!("the token `{token}` has {MAX_STREAMS} open streams: close one first");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(RETRY));
        }
        *count += 1;
        Ok(OpenStream { all: self.clone(), token: token.to_owned() })
    }
}

/// When a client may ask for another stream.
const RETRY: Duration = Duration::from_secs(10);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.token);
            }
        }
    }
}

/// Every change of state from now on, as server-sent events. Each has an id; with `Last-Event-ID` the stream begins after it.
///
/// The stream ends when the server stops or a reload revokes the token. The server keeps changes for a day. If `Last-Event-ID` is older, the stream begins with an event `missed`.
#[utoipa::path(get, path = "/stream",
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the client has")),
    responses(
        (status = 200, content_type = "text/event-stream"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The token has too many open streams", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn watch(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    caller.must_read()?;
    let open = app.0.streams.open(caller.name())?;
    let store = app.0.relay.store();
    let last: Option<u64> = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    // An id of another store, or from the future, says nothing about this one.
    let last = last.filter(|last| *last <= store.last_sequence());
    let (subscriber, missed) = match last {
        Some(last) => {
            let first = store.first_sequence().await?;
            (store.subscribe_after(last), first.is_some_and(|first| first > last + 1))
        }
        None => (store.subscribe(), false),
    };
    let missed = missed.then(|| Ok(Event::default().event("missed").data("changes are kept for a day")));
    let entries = stream::unfold(subscriber, async |mut subscriber| {
        let entries: Vec<Result<Event, Infallible>> =
            subscriber.next().await.iter().map(|entry| Ok(event(entry.clone()))).collect();
        Some((stream::iter(entries), subscriber))
    });
    // An open stream must not delay the stop: the client connects again, and continues after its last id.
    let end = async move {
        let _open = open;
        tokio::select! {
            () = app.clone().stopped() => {}
            () = caller.loses_read(app.clone()) => {}
        }
    };
    let entries = entries.flatten().take_until(Box::pin(end));
    Ok(Sse::new(stream::iter(missed).chain(entries)).keep_alive(KeepAlive::default()))
}

fn event(entry: Entry) -> Event {
    let (id, kind) = (entry.sequence.to_string(), entry.change.kind());
    // Plain data: writing it as JSON cannot fail.
    let data = serde_json::to_string(&message(entry)).unwrap_or_default();
    Event::default().id(id).event(kind).data(data)
}

fn message(entry: Entry) -> StreamMessage {
    let subject = match entry.change {
        Change::Event { id, repository, tag, state, reason } => {
            StreamSubject::Event { id, repository, tag, state: Word::read(&state), reason }
        }
        Change::Update { id, cause_id, environment, repository, version, state, commit, reason } => {
            let state = Word::read(&state);
            StreamSubject::Update { id, cause_id, environment, repository, version, state, commit, reason }
        }
        Change::Rollout { update, cause_id, environment, repository, version, commit, state, reason } => {
            let state = Word::read(&state);
            StreamSubject::Rollout { update, cause_id, environment, repository, version, commit, state, reason }
        }
        Change::Request { id, request, environment, actor } => {
            StreamSubject::Request { id, request: Word::read(&request), environment, actor }
        }
        Change::Hold { id, environment, repository, state } => {
            StreamSubject::Hold { id, environment, repository, state }
        }
        Change::Freeze { environment, state, reason } => StreamSubject::Freeze { environment, state, reason },
    };
    StreamMessage { at: entry.at, subject }
}
