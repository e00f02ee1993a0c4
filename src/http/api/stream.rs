use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::{App, Caller, Problem};
use crate::api::{StreamMessage, StreamSubject, Word};
use crate::relay::{Notice, Subject};

/// All changes from now on, as server-sent events.
///
/// A client that reads too slowly gets an event `missed` with the number of missed messages.
#[utoipa::path(get, path = "/stream", responses((status = 200, content_type = "text/event-stream")))]
pub(super) async fn watch(
    State(app): State<App>,
    caller: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    caller.must_read()?;
    let notices = BroadcastStream::new(app.0.relay.notices()).map(|notice| Ok(event(notice)));
    Ok(Sse::new(notices).keep_alive(KeepAlive::default()))
}

fn event(notice: Result<Notice, BroadcastStreamRecvError>) -> Event {
    match notice {
        Ok(notice) => {
            let kind = notice.kind();
            // Plain data: writing it as JSON cannot fail.
            Event::default().event(kind).data(serde_json::to_string(&message(notice)).unwrap_or_default())
        }
        Err(BroadcastStreamRecvError::Lagged(missed)) => Event::default().event("missed").data(missed.to_string()),
    }
}

fn message(notice: Notice) -> StreamMessage {
    let subject = match notice.subject {
        Subject::Event { id, repository, tag, state, reason } => {
            StreamSubject::Event { id, repository, tag, state: Word::read(&state), reason }
        }
        Subject::Update { id, cause_id, environment, repository, version, state, commit, reason } => {
            let state = Word::read(&state);
            StreamSubject::Update { id, cause_id, environment, repository, version, state, commit, reason }
        }
        Subject::Rollout { update, cause_id, environment, repository, version, commit, state, reason } => {
            let state = Word::read(&state);
            StreamSubject::Rollout { update, cause_id, environment, repository, version, commit, state, reason }
        }
        Subject::Request { id, request, environment, actor } => {
            StreamSubject::Request { id, request: Word::read(&request), environment, actor }
        }
        Subject::Hold { id, environment, repository, state } => {
            StreamSubject::Hold { id, environment, repository, state }
        }
        Subject::Freeze { environment, state, reason } => StreamSubject::Freeze { environment, state, reason },
    };
    StreamMessage { at: notice.at, subject }
}
