//! Work of the intake that was started and did not end, because the process ended.
//!
//! The start of the work is counted before the work, and the count is reset at its end. Work that ends the process again and again
//! is therefore found after a few restarts, and is then called a *suspect*.

use jiff::Timestamp;
use sqlx::{FromRow, Row as _};

use super::database::Row;
use super::rows::{event_columns, update_columns};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Event, EventState, Update, UpdateState, WaitCause};

statements! {
    COUNT_EVENTS = ("UPDATE events SET started_attempts = started_attempts + 1 WHERE id IN {list}");
    COUNT_UPDATES = ("UPDATE updates SET started_attempts = started_attempts + 1 WHERE id IN {list}");
    COUNT_EVENT_ALONE = ("UPDATE events SET alone_attempts = alone_attempts + 1 WHERE id = $1");
    COUNT_UPDATE_ALONE = ("UPDATE updates SET alone_attempts = alone_attempts + 1 WHERE id = $1");
    STARTED = ("SELECT count(*) FROM (
        SELECT id FROM events WHERE state = $1 AND finished_at IS NULL AND started_attempts > 0
        UNION ALL SELECT id FROM updates WHERE state IN ($2, $3) AND finished_at IS NULL AND started_attempts > 0) AS started");
    FORGET_EVENTS = ("UPDATE events SET started_attempts = 0, alone_attempts = 0
        WHERE state = $1 AND finished_at IS NULL AND started_attempts > 0");
    FORGET_UPDATES = ("UPDATE updates SET started_attempts = 0, alone_attempts = 0
        WHERE state IN ($1, $2) AND finished_at IS NULL AND started_attempts > 0");
    FORGET_UPDATE = ("UPDATE updates SET started_attempts = 0, alone_attempts = 0 WHERE id = $1 AND started_attempts > 0");
    SUSPECT_EVENT = ("SELECT ", event_columns!(), ", alone_attempts FROM events WHERE state = $1 AND finished_at IS NULL
        AND started_attempts >= 2 AND (next_attempt_at IS NULL OR next_attempt_at <= $2) ORDER BY id LIMIT 1");
    SUSPECT_UPDATE = ("SELECT ", update_columns!(), ", alone_attempts FROM updates WHERE state = $1 AND finished_at IS NULL
        AND started_attempts >= 2 AND (next_attempt_at IS NULL OR next_attempt_at <= $2) ORDER BY id LIMIT 1");
    SUSPECT_MISSING_FACT = ("SELECT ", update_columns!(), ", alone_attempts FROM
        (SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $2 AND (until IS NULL OR until <= $3)) AS w
        CROSS JOIN updates WHERE updates.id = w.update_id AND state = $1 AND started_attempts >= 2 ORDER BY id LIMIT 1");
}

/// Work of the intake.
#[derive(Debug, Clone)]
pub enum IntakeWork {
    /// A queued event.
    Event(Event),
    /// An unverified update of a request.
    Update(Update),
    /// An update that waits for a missing fact.
    MissingFact(Update),
}

impl IntakeWork {
    /// Returns the id of the event or update.
    pub fn id(&self) -> &str {
        match self {
            Self::Event(event) => &event.id,
            Self::Update(update) | Self::MissingFact(update) => &update.id,
        }
    }

    /// Returns the host of the registry.
    pub fn registry(&self) -> &str {
        match self {
            Self::Event(event) => event.repository.registry(),
            Self::Update(update) | Self::MissingFact(update) => update.repository.registry(),
        }
    }
}

/// Work that was started at least twice without an end.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub work: IntakeWork,
    /// How often the work was started alone.
    pub alone: u32,
}

struct Alone<T> {
    row: T,
    alone: u32,
}

impl<'r, T: FromRow<'r, Row>> FromRow<'r, Row> for Alone<T> {
    fn from_row(row: &'r Row) -> Result<Self, sqlx::Error> {
        let alone: i64 = row.try_get("alone_attempts")?;
        Ok(Self { row: T::from_row(row)?, alone: u32::try_from(alone).unwrap_or(u32::MAX) })
    }
}

impl<T> Alone<T> {
    fn suspect(self, work: fn(T) -> IntakeWork) -> Suspect {
        Suspect { work: work(self.row), alone: self.alone }
    }
}

impl Store {
    /// Counts a start of each piece of work. Returns when the counts are on disk.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to. The work must not start then.
    pub async fn count_starts(&self, work: &[IntakeWork]) -> Result<(), StoreError> {
        let (events, updates): (Vec<&IntakeWork>, _) =
            work.iter().partition(|work| matches!(work, IntakeWork::Event(_)));
        let ids = |work: Vec<&IntakeWork>| work.into_iter().map(|work| work.id().to_owned()).collect();
        if work.is_empty() {
            return Ok(());
        }
        self.writes.run(Count { events: ids(events), updates: ids(updates), alone: false }).await
    }

    /// Counts a start of a suspect that runs alone. Returns when the count is on disk.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to. The work must not start then.
    pub async fn count_start_alone(&self, work: &IntakeWork) -> Result<(), StoreError> {
        let id = vec![work.id().to_owned()];
        let is_event = matches!(work, IntakeWork::Event(_));
        let (events, updates) = if is_event { (id, Vec::new()) } else { (Vec::new(), id) };
        self.writes.run(Count { events, updates, alone: true }).await
    }

    /// Resets the counts of all starts, because the work was stopped and did not end the process.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn forget_starts(&self) -> Result<(), StoreError> {
        let [queued, unverified, waiting] = started_states();
        // Read first, so that an idle daemon writes nothing.
        let started: (i64,) =
            STARTED.one(&mut *self.reads.acquire().await?, values![queued, unverified, waiting]).await?;
        if started.0 == 0 { Ok(()) } else { self.writes.run(Forget).await }
    }

    /// Returns a suspect that is due at `now`: the oldest event, or else the oldest update.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn suspect(&self, now: Timestamp) -> Result<Option<Suspect>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let [queued, unverified, waiting] = started_states();
        let event: Option<Alone<Event>> = SUSPECT_EVENT.optional(connection, values![queued, now]).await?;
        if let Some(event) = event {
            return Ok(Some(event.suspect(IntakeWork::Event)));
        }
        let update: Option<Alone<Update>> = SUSPECT_UPDATE.optional(connection, values![unverified, now]).await?;
        if let Some(update) = update {
            return Ok(Some(update.suspect(IntakeWork::Update)));
        }
        let values = values![waiting, WaitCause::MissingFact.as_str(), now];
        let update: Option<Alone<Update>> = SUSPECT_MISSING_FACT.optional(connection, values).await?;
        Ok(update.map(|update| update.suspect(IntakeWork::MissingFact)))
    }
}

fn started_states() -> [&'static str; 3] {
    [EventState::Queued.as_str(), UpdateState::Unverified.as_str(), UpdateState::Waiting.as_str()]
}

struct Count {
    events: Vec<String>,
    updates: Vec<String>,
    alone: bool,
}

impl Write for Count {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        if self.alone {
            for id in &self.events {
                COUNT_EVENT_ALONE.execute(tx.connection, values![id]).await?;
            }
            for id in &self.updates {
                COUNT_UPDATE_ALONE.execute(tx.connection, values![id]).await?;
            }
            return Ok(());
        }
        COUNT_EVENTS.execute_of(tx.connection, values![], &self.events).await?;
        COUNT_UPDATES.execute_of(tx.connection, values![], &self.updates).await.map(|_| ())
    }
}

struct Forget;

impl Write for Forget {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let [queued, unverified, waiting] = started_states();
        FORGET_EVENTS.execute(tx.connection, values![queued]).await?;
        FORGET_UPDATES.execute(tx.connection, values![unverified, waiting]).await.map(|_| ())
    }
}

/// Resets the count of starts of an update, because the request for its missing fact has ended.
pub(super) async fn forget(tx: &mut Transaction<'_>, update_id: &str) -> Result<(), sqlx::Error> {
    FORGET_UPDATE.execute(tx.connection, values![update_id]).await.map(|_| ())
}
