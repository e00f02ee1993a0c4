use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::{App, Caller, Problem};
use crate::relay::Notice;

/// Everything that happens from now on, as server-sent events.
///
/// A client that reads too slowly gets an event `missed` with how many it has missed.
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
            // A notice is plain data: writing it as JSON cannot fail.
            Event::default().event(kind).data(serde_json::to_string(&notice).unwrap_or_default())
        }
        Err(BroadcastStreamRecvError::Lagged(missed)) => Event::default().event("missed").data(missed.to_string()),
    }
}
