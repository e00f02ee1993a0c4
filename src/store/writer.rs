//! The writing task. It gathers all waiting writes into one transaction.
//!
//! SQLite has only one writer at a time, and each commit costs a flush of the disk. Up to 256 webhooks that arrive during a flush
//! share the next one.

use std::any::{Any, TypeId};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::database::{self, Connection};
use super::ids::IdSource;
use super::outbox::{self, Publisher};
use super::statements::{statements, values};
use crate::clock::Clock;
use crate::domain::Change;
use crate::policy::FreezeCalendar;

/// The maximum number of writes in one transaction. Limits the time that the first write waits.
const MAX_BATCH: usize = 256;

/// The maximum number of queued writes. If the queue is full, callers wait.
const QUEUE: usize = 4096;

statements! {
    PROBE = ("UPDATE turn SET fence = fence WHERE id = 1");
}

/// The open transaction, its time, and the source of ids.
pub(super) struct Transaction<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) now: Timestamp,
    /// The freeze windows of the settings.
    pub(super) calendar: Arc<FreezeCalendar>,
    ids: &'c mut IdSource,
    changes: Vec<Change>,
}

impl Transaction<'_> {
    /// Returns an id that sorts after all earlier ids.
    pub(super) fn next_id(&mut self) -> String {
        self.ids.next(self.now)
    }

    /// Adds an entry to the outbox.
    pub(super) fn record(&mut self, change: Change) {
        self.changes.push(change);
    }
}

/// One write: a value that can run again if a batch has to be split.
pub(super) trait Write: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Writes inside the transaction. May run more than once; only the last run is committed.
    fn run(&self, tx: &mut Transaction<'_>) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

/// A kind of write that is batched: all writes of this kind in a transaction run in a few statements.
pub(super) trait Flood: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Writes all values, and returns one output for each. May run more than once; only the last run is committed.
    fn run_all(
        tx: &mut Transaction<'_>,
        all: &[&Self],
    ) -> impl Future<Output = Result<Vec<Self::Output>, sqlx::Error>> + Send;
}

/// A write that changes nothing, to check whether the store can be written to.
pub(super) struct Probe;

impl Write for Probe {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        PROBE.execute(tx.connection, values![]).await.map(|_| ())
    }
}

/// The surroundings of the writing task: outbox, clock, freeze windows.
pub(super) struct Surroundings {
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
    pub(super) calendar: Arc<RwLock<Arc<FreezeCalendar>>>,
}

/// A handle to the writing task.
#[derive(Clone)]
pub(super) struct Writes {
    jobs: mpsc::Sender<Box<dyn Job>>,
    last_failed: Arc<AtomicBool>,
}

impl Writes {
    pub(super) fn start(connection: Connection, ids: IdSource, surroundings: Surroundings) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let last_failed = Arc::new(AtomicBool::new(false));
        tokio::spawn(write_all(connection, ids, receiver, Arc::clone(&last_failed), surroundings));
        Self { jobs: sender, last_failed }
    }

    /// Returns whether the last transaction failed.
    pub(super) fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed)
    }

    /// Waits until the writing task has ended.
    pub(super) async fn closed(&self) {
        self.jobs.closed().await;
    }

    /// Runs a write and returns when it is on disk.
    pub(super) async fn run<W: Write>(&self, write: W) -> Result<W::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(Box::new(Single(Waiting { write, output: None, reply })), answer).await
    }

    /// Runs a write together with others of its kind, and returns when it is on disk.
    pub(super) async fn flood<F: Flood>(&self, write: F) -> Result<F::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(Box::new(Flooding(Waiting { write, output: None, reply })), answer).await
    }

    async fn hand_over<O>(
        &self,
        job: Box<dyn Job>,
        answer: oneshot::Receiver<Result<O, StoreError>>,
    ) -> Result<O, StoreError> {
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// A write and its caller.
struct Waiting<W, O> {
    write: W,
    output: Option<O>,
    reply: oneshot::Sender<Result<O, StoreError>>,
}

impl<W, O> Waiting<W, O> {
    fn committed(self) {
        if let Some(output) = self.output {
            // Fails if the caller was cancelled; the write stays.
            let _ = self.reply.send(Ok(output));
        }
    }

    fn failed(self, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

struct Single<W: Write>(Waiting<W, W::Output>);
struct Flooding<F: Flood>(Waiting<F, F::Output>);

type JobFuture<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// A write without its type.
trait Job: Any + Send {
    /// Equal for writes that run together; `None`: the write runs alone.
    fn flood(&self) -> Option<TypeId>;
    /// Runs this write, and `others` of the same flood.
    fn run<'a>(&'a mut self, others: Vec<&'a mut dyn Job>, tx: &'a mut Transaction<'_>) -> JobFuture<'a>;
    fn committed(self: Box<Self>);
    fn failed(self: Box<Self>, error: StoreError);
}

impl<W: Write> Job for Single<W> {
    fn flood(&self) -> Option<TypeId> {
        None
    }

    fn run<'a>(&'a mut self, _: Vec<&'a mut dyn Job>, tx: &'a mut Transaction<'_>) -> JobFuture<'a> {
        Box::pin(async move {
            self.0.output = Some(self.0.write.run(tx).await?);
            Ok(())
        })
    }

    fn committed(self: Box<Self>) {
        self.0.committed();
    }

    fn failed(self: Box<Self>, error: StoreError) {
        self.0.failed(error);
    }
}

impl<F: Flood> Job for Flooding<F> {
    fn flood(&self) -> Option<TypeId> {
        Some(TypeId::of::<Self>())
    }

    fn run<'a>(&'a mut self, others: Vec<&'a mut dyn Job>, tx: &'a mut Transaction<'_>) -> JobFuture<'a> {
        Box::pin(async move {
            let others = others.into_iter().filter_map(|job| {
                let job: &mut dyn Any = job;
                job.downcast_mut::<Self>()
            });
            let mut all: Vec<&mut Waiting<F, F::Output>> = vec![&mut self.0];
            all.extend(others.map(|job| &mut job.0));
            let writes: Vec<&F> = all.iter().map(|waiting| &waiting.write).collect();
            let outputs = F::run_all(tx, &writes).await?;
            for (waiting, output) in all.into_iter().zip(outputs) {
                waiting.output = Some(output);
            }
            Ok(())
        })
    }

    fn committed(self: Box<Self>) {
        self.0.committed();
    }

    fn failed(self: Box<Self>, error: StoreError) {
        self.0.failed(error);
    }
}

async fn write_all(
    mut connection: Connection,
    mut ids: IdSource,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    last_failed: Arc<AtomicBool>,
    surroundings: Surroundings,
) {
    let mut batch: Vec<Box<dyn Job>> = Vec::new();
    while jobs.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let alone = batch.len() == 1;
        let result = commit(&mut connection, &mut ids, &mut batch, &surroundings).await;
        last_failed.store(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) => batch.drain(..).for_each(|job| job.committed()),
            Err(error) if alone => {
                if let Some(job) = batch.pop() {
                    job.failed(StoreError::Database(error));
                }
            }
            // One failing write must not fail the others, so each write gets its own transaction.
            Err(_) => {
                for job in batch.drain(..) {
                    let mut single = [job];
                    let result = commit(&mut connection, &mut ids, &mut single, &surroundings).await;
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
    connection: &mut Connection,
    ids: &mut IdSource,
    jobs: &mut [Box<dyn Job>],
    surroundings: &Surroundings,
) -> Result<(), sqlx::Error> {
    database::begin(connection).await?;
    let result = async {
        let mut tx = Transaction {
            connection: &mut *connection,
            now: in_milliseconds(surroundings.clock.now()),
            calendar: Arc::clone(&surroundings.calendar.read().unwrap_or_else(PoisonError::into_inner)),
            ids: &mut *ids,
            changes: Vec::new(),
        };
        run_all(&mut tx, jobs).await?;
        let (at, changes) = (tx.now, tx.changes);
        let entries = if changes.is_empty() {
            Vec::new()
        } else {
            outbox::write(connection, surroundings.publisher.last(), at, changes).await?
        };
        database::commit(connection).await?;
        Ok(entries)
    }
    .await;
    match result {
        Ok(entries) => {
            surroundings.publisher.publish(entries);
            Ok(())
        }
        Err(error) => {
            database::roll_back(connection).await;
            Err(error)
        }
    }
}

/// Runs the floods, and then the other writes in their order.
async fn run_all(tx: &mut Transaction<'_>, jobs: &mut [Box<dyn Job>]) -> Result<(), sqlx::Error> {
    let mut floods: Vec<(TypeId, Vec<&mut dyn Job>)> = Vec::new();
    let mut others: Vec<&mut dyn Job> = Vec::new();
    for job in jobs {
        let job = job.as_mut();
        match job.flood() {
            None => others.push(job),
            Some(kind) => match floods.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, flood)) => flood.push(job),
                None => floods.push((kind, vec![job])),
            },
        }
    }
    for (_, mut flood) in floods {
        let first = flood.remove(0);
        first.run(flood, tx).await?;
    }
    for job in others {
        job.run(Vec::new(), tx).await?;
    }
    Ok(())
}

/// Rounds a time down to milliseconds, the precision of the tables.
///
/// Without this, a write would return another time than a later read.
fn in_milliseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}
