//! One task writes. It gathers all writes that are waiting into one transaction.
//!
//! SQLite has one writer at a time anyway, and a commit costs one flush of the disk: 256 webhooks that arrive
//! while a flush runs share the next one.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::decisions::{self, Deciding};
use super::delivery::{self, Delivery};
use super::ended::{self, Told};
use super::ids::IdSource;
use super::order::{self, KeepBuildTime};
use crate::clock::Clock;
use crate::policy::FreezeCalendar;

/// The most writes in one transaction: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;

/// How many writes may wait before the callers do.
const QUEUE: usize = 4096;

/// What a write sees: the open transaction, the time and the source of ids.
pub(super) struct Transaction<'c> {
    pub(super) connection: &'c mut SqliteConnection,
    pub(super) now: Timestamp,
    /// The freezes of the settings in force.
    pub(super) calendar: Arc<FreezeCalendar>,
    ids: &'c mut IdSource,
}

impl Transaction<'_> {
    /// Returns an id behind all earlier ones.
    pub(super) fn next_id(&mut self) -> String {
        self.ids.next()
    }

    /// Returns the time of the transaction as the tables keep it.
    pub(super) fn now_milliseconds(&self) -> i64 {
        self.now.as_millisecond()
    }
}

/// What the writing task needs besides the store itself.
pub(super) struct Surroundings {
    /// Who is told what has ended.
    pub(super) told: Told,
    pub(super) clock: Clock,
    pub(super) calendar: Arc<RwLock<Arc<FreezeCalendar>>>,
}

/// One write: a value that says what to do, so that it can be done again when a batch has to be split.
pub(super) trait Write: Send + 'static {
    type Output: Send + 'static;

    /// Does the write inside the transaction. May run more than once; only the last run is committed.
    fn run(&self, tx: &mut Transaction<'_>) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

/// A write that nobody reads: whether the file can be written to.
pub(super) struct Probe;

impl Write for Probe {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        // A number in the header that is free for the application; writing it needs room on the disk like any other.
        sqlx::query("PRAGMA user_version = 1").execute(&mut *tx.connection).await.map(|_| ())
    }
}

/// The way to the writing task.
#[derive(Clone)]
pub(super) struct Writes {
    jobs: mpsc::Sender<Job>,
    last_failed: Arc<AtomicBool>,
}

impl Writes {
    pub(super) fn start(connection: SqliteConnection, ids: IdSource, seen: Surroundings) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let last_failed = Arc::new(AtomicBool::new(false));
        tokio::spawn(write_all(connection, ids, receiver, Arc::clone(&last_failed), seen));
        Self { jobs: sender, last_failed }
    }

    /// Returns whether the last transaction failed.
    pub(super) fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed)
    }

    /// Returns when the writing task has ended.
    pub(super) async fn closed(&self) {
        self.jobs.closed().await;
    }

    /// Runs a write and returns when it is on disk.
    pub(super) async fn run<W: Write + Sync>(&self, write: W) -> Result<W::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Waiting { write, output: None, reply };
        self.jobs.send(Job::Any(Box::new(job))).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Hands over a delivery, which tells by itself what becomes of it.
    pub(super) async fn deliver(&self, delivery: Delivery) -> Result<(), StoreError> {
        self.jobs.send(Job::Deliver(delivery)).await.map_err(|_| StoreError::Closed)
    }

    /// Hands over a build time, which tells by itself that it is kept.
    pub(super) async fn keep_build_time(&self, time: KeepBuildTime) -> Result<(), StoreError> {
        self.jobs.send(Job::KeepBuildTime(time)).await.map_err(|_| StoreError::Closed)
    }

    /// Hands over a decision, which tells by itself what becomes of it.
    pub(super) async fn decide(&self, deciding: Deciding) -> Result<(), StoreError> {
        self.jobs.send(Job::Decide(deciding)).await.map_err(|_| StoreError::Closed)
    }
}

type JobFuture<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// What is to be written.
enum Job {
    // The three that come in floods, so that those of a transaction are written together.
    Deliver(Delivery),
    Decide(Deciding),
    KeepBuildTime(KeepBuildTime),
    Any(Box<dyn AnyWrite>),
}

impl Job {
    fn committed(self) {
        match self {
            Self::Deliver(delivery) => delivery.committed(),
            Self::Decide(deciding) => deciding.committed(),
            Self::KeepBuildTime(time) => time.tell(Ok(())),
            Self::Any(write) => write.committed(),
        }
    }

    fn failed(self, error: StoreError) {
        match self {
            Self::Deliver(delivery) => delivery.failed(error),
            Self::Decide(deciding) => deciding.failed(error),
            Self::KeepBuildTime(time) => time.tell(Err(error)),
            Self::Any(write) => write.failed(error),
        }
    }
}

/// A write whose type is forgotten, together with whoever waits for it.
trait AnyWrite: Send {
    fn run<'a>(&'a mut self, tx: &'a mut Transaction<'_>) -> JobFuture<'a>;
    fn committed(self: Box<Self>);
    fn failed(self: Box<Self>, error: StoreError);
}

struct Waiting<W: Write> {
    write: W,
    output: Option<W::Output>,
    reply: oneshot::Sender<Result<W::Output, StoreError>>,
}

impl<W: Write + Sync> AnyWrite for Waiting<W> {
    fn run<'a>(&'a mut self, tx: &'a mut Transaction<'_>) -> JobFuture<'a> {
        Box::pin(async move {
            self.output = Some(self.write.run(tx).await?);
            Ok(())
        })
    }

    fn committed(self: Box<Self>) {
        if let Some(output) = self.output {
            // Nobody waits any more when the caller was cancelled; what is written stays written.
            let _ = self.reply.send(Ok(output));
        }
    }

    fn failed(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

async fn write_all(
    mut connection: SqliteConnection,
    mut ids: IdSource,
    mut jobs: mpsc::Receiver<Job>,
    last_failed: Arc<AtomicBool>,
    seen: Surroundings,
) {
    let mut batch: Vec<Job> = Vec::new();
    while jobs.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let alone = batch.len() == 1;
        let result = commit(&mut connection, &mut ids, &mut batch, &seen).await;
        last_failed.store(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) => batch.drain(..).for_each(Job::committed),
            Err(error) if alone => {
                if let Some(job) = batch.pop() {
                    job.failed(StoreError::Database(error));
                }
            }
            // One bad write must not fail its neighbours: each gets a transaction of its own.
            Err(_) => {
                for job in batch.drain(..) {
                    let mut single = [job];
                    let result = commit(&mut connection, &mut ids, &mut single, &seen).await;
                    let [job] = single;
                    last_failed.store(result.is_err(), Ordering::Relaxed);
                    match result {
                        Ok(()) => job.committed(),
                        Err(error) => job.failed(StoreError::Database(error)),
                    }
                }
            }
        }
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    ids: &mut IdSource,
    jobs: &mut [Job],
    seen: &Surroundings,
) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let result = async {
        let mut tx = Transaction {
            connection: &mut *connection,
            now: in_milliseconds(seen.clock.now()),
            calendar: Arc::clone(&seen.calendar.read().unwrap_or_else(PoisonError::into_inner)),
            ids: &mut *ids,
        };
        let (mut deliveries, mut decisions, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut build_times: Vec<&KeepBuildTime> = Vec::new();
        for job in jobs {
            match job {
                Job::Deliver(delivery) => deliveries.push(delivery),
                Job::Decide(deciding) => decisions.push(deciding),
                Job::KeepBuildTime(time) => build_times.push(time),
                Job::Any(write) => others.push(write),
            }
        }
        if !deliveries.is_empty() {
            delivery::write(&mut tx, &mut deliveries).await?;
        }
        // What comes in ends nothing, and under a flood each statement counts.
        let may_end = !others.is_empty() || !decisions.is_empty();
        if !build_times.is_empty() {
            order::write(&mut tx, &build_times).await?;
        }
        if !decisions.is_empty() {
            decisions::write(&mut tx, &mut decisions).await?;
        }
        for write in others {
            write.run(&mut tx).await?;
        }
        let endings = if may_end { ended::take(&mut *connection).await? } else { Vec::new() };
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        Ok(endings)
    }
    .await;
    match result {
        Ok(endings) => {
            // Fails when nobody tells: then there is nobody to be told either.
            endings.into_iter().for_each(|ending| drop(seen.told.send(ending)));
            Ok(())
        }
        Err(error) => {
            // Fails when the error has already ended the transaction, which is what we want.
            let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
            Err(error)
        }
    }
}

/// Returns a time as the tables keep it, so that what a write returns equals what is read back later.
fn in_milliseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}
