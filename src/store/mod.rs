//! Durable events, updates, requests, blocks, push attempts, outbox and history, in SQLite.
//!
//! In: values of `domain` and inputs to their state machines. Out: rows as values of `domain`, and the outbox.
//!
//! Everything that is answered with a 2xx is committed here first (WAL, `synchronous=FULL`). One task does all writes. It gathers
//! waiting writes into one transaction, so that a burst pays for one disk flush. Reads use a small pool of their own and never wait
//! for a write.
//!
//! The store decides nothing: every change of state goes through the transition tables of `domain`, in `apply`.
//!
//! In reading order:
//!
//! - `database`, `statements`, `rows`, `ids`: the driver, the SQL texts, and the conversion of rows to values;
//! - `outbox`, `writer`: the changes that subscribers read, and the writing task;
//! - `wait_rows`, `block_rows`, `failures`, `explain`: parts of transactions;
//! - `apply`: transitions and their effects;
//! - one file for each topic of the API.

mod apply;
mod backlog;
mod block_rows;
mod blocks;
mod build_times;
mod catch_up;
mod claims;
mod database;
mod decisions;
mod deliveries;
mod due;
mod events;
mod explain;
mod facts;
mod failures;
mod follow_ups;
mod gates;
mod history;
mod ids;
mod missing_facts;
mod outbox;
mod pushes;
mod receivers;
mod rejections;
mod requests;
mod retention;
mod rows;
mod settings;
mod starts;
mod statements;
mod updates;
mod version_runs;
mod wait_rows;
mod waits;
mod writer;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::policy::FreezeCalendar;

pub use backlog::Backlog;
pub use blocks::BlockMade;
pub use catch_up::{CaughtUp, FoundEvent, FoundTag, SeenRepository, SeenTags};
pub use claims::{Claim, PendingCount};
pub use deliveries::{NewEvent, Received, ReceivedState};
pub use events::{EventFilter, EventRefusal, Replayed};
pub use facts::EventFacts;
pub use failures::FailedAttempt;
pub use follow_ups::{ApplicationHealth, FollowedApplication, Rollout, RolloutState};
pub use gates::{GateLook, GateResult};
pub use history::HistoryFilter;
pub use outbox::Subscriber;
pub use pushes::{NewPush, Outdone};
pub use receivers::ReceiverHeard;
pub use rejections::Retry;
pub use requests::{Cancelled, NewRequest, NewRequestedUpdate, RequestFilter, RequestMade};
pub use retention::Retention;
pub use rows::WaitRow;
pub use settings::StoreSettings;
pub use starts::{IntakeWork, Suspect};
pub use updates::EndedUpdate;
pub use waits::NextWait;

/// The store. Cheap to clone; all clones share one writer.
#[derive(Clone)]
pub struct Store {
    writes: writer::Writes,
    reads: database::Pool,
    published: outbox::Publisher,
    clock: Clock,
    /// The freeze windows of the settings.
    calendar: Arc<RwLock<Arc<FreezeCalendar>>>,
    /// Held as long as the store is open.
    _lock: Arc<File>,
}

/// Why a read or write of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, or is not a store.
    #[error("the store {path} cannot be opened: {reason}")]
    Open { path: String, reason: String },
    /// A write or read failed, for example because the disk is full. No part of the write was stored.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The writing task has ended, because the process is stopping.
    #[error("the store is closed")]
    Closed,
}

impl Store {
    /// Opens the store; creates it if it does not exist, and applies migrations.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] names the file and the fault.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        Self::open_with(settings, Clock::system()).await
    }

    /// Opens the store as [`open`](Self::open) does, with another clock.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with(settings: &StoreSettings, clock: Clock) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Open { path: settings.path.display().to_string(), reason };
        if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.map_err(|error| failed(error.to_string()))?;
        }
        let lock = lock(&settings.path).await.map_err(failed)?;
        // SQLite gives its other files, such as the WAL, the same mode.
        private(&settings.path).map_err(failed)?;
        let (mut connection, reads) =
            database::open(&settings.path).await.map_err(|error| failed(error.to_string()))?;
        let last_id = ids::last_id(&mut connection).await?;
        let published = outbox::Publisher::after(outbox::last(&mut connection).await?);
        let calendar = Arc::<RwLock<Arc<FreezeCalendar>>>::default();
        let surroundings = writer::Surroundings {
            publisher: published.clone(),
            clock: clock.clone(),
            calendar: Arc::clone(&calendar),
        };
        let writes = writer::Writes::start(connection, ids::IdSource::after(last_id), surroundings);
        // Finds a full or read-only file system at the start instead of at the first webhook.
        writes.run(writer::Probe).await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { writes, reads, published, clock, calendar, _lock: Arc::new(lock) })
    }

    /// Returns when the writing task has ended. Later writes fail.
    pub async fn closed(&self) {
        self.writes.closed().await;
    }

    /// Checks that the store can be read and written.
    ///
    /// Writes only if the last write failed, so that an idle daemon does not write.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub async fn check(&self) -> Result<(), StoreError> {
        outbox::last(&mut *self.reads.acquire().await?).await?;
        if self.writes.last_failed() { self.writes.run(writer::Probe).await } else { Ok(()) }
    }

    /// Returns the clock that gives transactions their time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sets the freeze windows. They affect waiting updates from the next [review](Self::review_waits) on.
    pub fn set_freeze_calendar(&self, calendar: FreezeCalendar) {
        *self.calendar.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(calendar);
    }

    fn calendar(&self) -> Arc<FreezeCalendar> {
        Arc::clone(&self.calendar.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens a file that only its owner can read, and creates it if it does not exist.
///
/// The store contains the names of repositories and people, and reasons.
fn private(path: &Path) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Release 0.1.0 made the store readable for everyone.
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(mode & 0o700)).map_err(failed)?;
        }
    }
    Ok(file)
}

/// Locks a file next to the store. Without the lock, two processes with one store would both write to the same branches.
async fn lock(path: &Path) -> Result<File, String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = private(Path::new(&beside))?;
    // A child process that is being started has a copy of every open file for a moment, so the lock may be free soon.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(25)).await,
            Err(TryLockError::Error(error)) => return Err(error.to_string()),
        }
    }
    Err("another process has it open: stop that one, or give this one a store of its own".to_owned())
}

#[cfg(test)]
mod tests;
