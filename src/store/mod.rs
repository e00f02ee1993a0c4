//! Durable events, updates, promotions, rollbacks, holds, freezes and history, in SQLite.
//!
//! Everything that is answered with a 2xx has been committed here first (WAL, `synchronous=FULL`). All writes
//! go through one task that gathers what is waiting into one transaction (`writer`), so that a burst pays
//! for one disk flush and not for one each. Reads use a small pool of their own and never wait for a write.
//!
//! The store knows states and their transitions; *why* an update is refused is decided in `relay`, except for
//! what must be decided inside the transaction to be right: holds, freezes, and whether a decision is still up to date.

mod attempts;
mod backlog;
mod catch_up;
mod decisions;
mod delivery;
mod due;
mod ended;
mod events;
mod follow_ups;
mod freezes;
mod holds;
mod ids;
mod order;
mod receivers;
mod requests;
mod retention;
mod rows;
mod settings;
mod updates;
mod writer;
mod writing;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::policy::FreezeCalendar;

pub use attempts::{FailedAttempt, Party};
pub use backlog::Backlog;
pub use catch_up::{CaughtUp, FoundEvent, FoundTag, SeenRepository, SeenTags};
pub use decisions::{Decided, Decision, PlannedUpdate, Verdict};
pub use due::Outlook;
pub use ended::Ending;
pub use events::{EventFilter, EventRefusal, NewEvent, Received, ReceivedState, Replayed};
pub use follow_ups::{ApplicationHealth, FollowState, FollowUp, FollowedApplication};
pub use freezes::{Freeze, FreezeReview, Frozen, FrozenBy, NewFreeze};
pub use holds::{Hold, NewHold};
pub use order::Standing;
pub use receivers::ReceiverHeard;
pub use requests::{NewRequest, NewRequestedUpdate, Request, RequestKind, RequestMade, RequestState};
pub use retention::Retention;
pub use rows::{Cause, Event, EventState, SiteChange, UnknownWord, Update, UpdateState};
pub use settings::StoreSettings;
pub use updates::HistoryFilter;
pub use writing::{Attempt, Finish, Outcome, Recording};

/// The store. Cheap to clone; all clones share one writer.
#[derive(Clone)]
pub struct Store {
    writes: writer::Writes,
    reads: SqlitePool,
    /// Until somebody takes it.
    endings: Arc<Mutex<Option<mpsc::UnboundedReceiver<Ending>>>>,
    clock: Clock,
    /// The freezes of the settings in force.
    calendar: Arc<RwLock<Arc<FreezeCalendar>>>,
    /// Held as long as the store is open.
    _lock: Arc<File>,
}

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, or is not ours.
    #[error("the store {path} cannot be opened: {reason}")]
    Open {
        /// The SQLite file.
        path: String,
        /// What SQLite or the operating system says.
        reason: String,
    },
    /// A write or read failed, for instance because the disk is full. Nothing of it has been kept.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The writer has ended, because the process is stopping.
    #[error("the store is closed")]
    Closed,
}

impl Store {
    /// Opens the store, makes it when it is not there, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] names the file and says what is wrong with it.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        Self::open_with(settings, Clock::system()).await
    }

    /// Opens the store as [`open`](Self::open) does, with a clock of somebody's own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with(settings: &StoreSettings, clock: Clock) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Open { path: settings.path.display().to_string(), reason };
        if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.map_err(|error| failed(error.to_string()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&settings.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL would lose the last commits when the machine loses power: answered means durable.
            .synchronous(SqliteSynchronous::Full)
            // Nobody else writes. Should a person's tool, senders do not wait longer than some seconds.
            .busy_timeout(Duration::from_secs(2))
            .disable_statement_logging();
        let lock = lock(&settings.path).await.map_err(failed)?;
        let mut connection =
            sqlx::SqliteConnection::connect_with(&options).await.map_err(|error| failed(error.to_string()))?;
        MIGRATIONS.run(&mut connection).await.map_err(|error| failed(error.to_string()))?;
        let reads = SqlitePoolOptions::new()
            .max_connections(4)
            .idle_timeout(Duration::from_secs(60))
            // There is no server that could have gone away, and each question would cost as much as a read.
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let last_id = ids::last_id(&reads).await?;
        ended::watch(&mut connection).await?;
        let (told, endings) = mpsc::unbounded_channel();
        let calendar = Arc::<RwLock<Arc<FreezeCalendar>>>::default();
        let seen = writer::Surroundings { told, clock: clock.clone(), calendar: Arc::clone(&calendar) };
        let writes = writer::Writes::start(connection, ids::IdSource::after(last_id), seen);
        // A file system that is full or read-only is to be found now, and not by the first webhook.
        writes.run(writer::Probe).await.map_err(|error| failed(error.to_string()))?;
        let endings = Arc::new(Mutex::new(Some(endings)));
        Ok(Self { writes, reads, endings, clock, calendar, _lock: Arc::new(lock) })
    }

    /// Returns what comes to its end from the opening on, in that order. There is one who hears it: the first that asks.
    pub fn endings(&self) -> mpsc::UnboundedReceiver<Ending> {
        let taken = self.endings.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    /// Returns when the task that writes has ended, after which nothing can be stored any more.
    pub async fn closed(&self) {
        self.writes.closed().await;
    }

    /// Returns whether the store answers and can be written to.
    ///
    /// Writes only where the last write has failed: idle costs nothing.
    ///
    /// # Errors
    ///
    /// What the store says when it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.reads).await?;
        if self.writes.last_failed() { self.writes.run(writer::Probe).await } else { Ok(()) }
    }
}

/// Takes the lock beside the file. Two processes with one store would both believe to be the only writer of a branch.
async fn lock(path: &Path) -> Result<File, String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&beside);
    let file = file.map_err(|error| format!("{}: {error}", Path::new(&beside).display()))?;
    // A child process that is just being started holds a copy of every open file for a moment.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(25)).await,
            Err(TryLockError::Error(error)) => return Err(error.to_string()),
        }
    }
    Err("another process has it open: stop that one, or give this one a store of its own".to_owned())
}

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations");

/// Parses a column that this store has written.
fn parsed<T>(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<T, sqlx::Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = sqlx::Row::try_get(row, column)?;
    text.parse().map_err(|error: T::Err| decode_error(column, error))
}

/// Parses a column that this store has written, or returns `None` for `NULL`.
fn parsed_option<T>(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = sqlx::Row::try_get(row, column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| decode_error(column, error))).transpose()
}

fn time(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<jiff::Timestamp, sqlx::Error> {
    let milliseconds: i64 = sqlx::Row::try_get(row, column)?;
    jiff::Timestamp::from_millisecond(milliseconds).map_err(|error| decode_error(column, error))
}

fn time_option(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<Option<jiff::Timestamp>, sqlx::Error> {
    let milliseconds: Option<i64> = sqlx::Row::try_get(row, column)?;
    milliseconds
        .map(|value| jiff::Timestamp::from_millisecond(value).map_err(|error| decode_error(column, error)))
        .transpose()
}

/// Writes values as the one parameter of a statement that is about all of them (<https://sqlite.org/json1.html#jeach>).
fn json_text(values: impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(&values).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

fn decode_error(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests;
