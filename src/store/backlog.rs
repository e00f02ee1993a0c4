use jiff::Timestamp;

use super::claims::OPEN_STATES;
use super::statements::{statements, values};
use super::{Store, StoreError};
use crate::domain::{EventState, UpdateState};

statements! {
    OPEN = ("SELECT count(*) FROM updates WHERE state IN ($1, $2, $3)");
    OLDEST_UPDATE = ("SELECT min(coalesce(released_at, received_at)) FROM updates WHERE state IN ($1, $2)");
    OLDEST_EVENT = ("SELECT min(received_at) FROM events WHERE state = $1");
}

/// Open updates and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Open updates, including waiting ones.
    pub open_updates: u64,
    /// When the cause of the oldest update that does not wait arrived, or when its last wait ended.
    pub oldest_update: Option<Timestamp>,
    /// When the oldest queued event arrived.
    pub oldest_event: Option<Timestamp>,
}

impl Store {
    /// Counts open updates, and finds the oldest update and event.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let [unverified, pending, waiting] = OPEN_STATES.map(UpdateState::as_str);
        let (open,): (i64,) = OPEN.one(connection, values![unverified, pending, waiting]).await?;
        let (update,): (Option<i64>,) = OLDEST_UPDATE.one(connection, values![unverified, pending]).await?;
        let (event,): (Option<i64>,) = OLDEST_EVENT.one(connection, values![EventState::Queued.as_str()]).await?;
        let time = |at: Option<i64>| at.and_then(|at| Timestamp::from_millisecond(at).ok());
        Ok(Backlog { open_updates: open.unsigned_abs(), oldest_update: time(update), oldest_event: time(event) })
    }
}
