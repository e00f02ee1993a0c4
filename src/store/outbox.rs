//! The outbox: every change of state, in the order of the transactions. Subscribers read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::FromRow;
use sqlx::Row as _;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::database::{Connection, Pool, Row, Value};
use super::rows::{json_of, json_text, time};
use super::statements::{statements, values};
use super::{Store, StoreError};
use crate::domain::{Change, Entry, Update};
use tagrelay_image::Version;

/// How many transactions a subscriber may be behind before it reads the table.
const CAPACITY: usize = 64;

/// How many rows a subscriber that is behind reads at once.
const AT_ONCE: u32 = 16;

/// The maximum number of entries in a row.
const ROW: usize = 256;

/// The pause before a failed read is repeated.
const PAUSE: Duration = Duration::from_secs(1);

statements! {
    INSERT = ("INSERT INTO outbox (sequence, first_sequence, at, changes)
        SELECT column1, column2, column3, column4 FROM (VALUES {rows:IIIT}) AS v WHERE column1 IS NOT NULL");
    AFTER = ("SELECT first_sequence, at, changes FROM outbox WHERE sequence > $1 ORDER BY sequence LIMIT $2");
    FIRST = ("SELECT min(first_sequence) FROM outbox WHERE sequence = (SELECT min(sequence) FROM outbox)");
    LAST = ("SELECT max(sequence) FROM outbox");
}

/// The entries of a row.
struct Entries(Vec<Entry>);

impl FromRow<'_, Row> for Entries {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let (first, changes): (i64, String) = (row.try_get("first_sequence")?, row.try_get("changes")?);
        let (at, changes): (Timestamp, Vec<Change>) = (time(row, "at")?, json_of(&changes, "changes")?);
        let entries = (first.unsigned_abs()..).zip(changes).map(|(sequence, change)| Entry { sequence, at, change });
        Ok(Self(entries.collect()))
    }
}

/// Returns the sequence number of the last entry; 0: there is none.
pub(super) async fn last(connection: &mut Connection) -> Result<u64, sqlx::Error> {
    let (last,): (Option<i64>,) = LAST.one(connection, values![]).await?;
    Ok(last.unwrap_or(0).unsigned_abs())
}

/// Writes changes after the entry `last`.
pub(super) async fn write(
    connection: &mut Connection,
    last: u64,
    at: Timestamp,
    changes: Vec<Change>,
) -> Result<Vec<Entry>, sqlx::Error> {
    let entries: Vec<Entry> =
        changes.into_iter().zip(last + 1..).map(|(change, sequence)| Entry { sequence, at, change }).collect();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for part in entries.chunks(ROW) {
        let changes: Vec<&Change> = part.iter().map(|entry| &entry.change).collect();
        let [first, last] = [part.first(), part.last()].map(|entry| entry.map(|entry| number(entry.sequence)));
        rows.push(values![last, first, at, json_text(changes)?]);
    }
    INSERT.execute_rows(connection, values![], rows).await?;
    Ok(entries)
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// Returns the change that announces the new state of an update.
pub(super) fn of_update(update: &Update, reason: Option<String>) -> Change {
    Change::Update {
        id: update.id.clone(),
        cause_id: update.cause_id.clone(),
        environment: update.environment.clone(),
        repository: update.repository.to_string(),
        version: name(&update.version),
        state: update.state.to_string(),
        commit: update.commit.clone(),
        reason,
    }
}

/// Returns the tag, or the digest of a version without a tag.
pub(super) fn name(version: &Version) -> String {
    let tag = version.tag().map(ToString::to_string);
    tag.or_else(|| version.digest().map(ToString::to_string)).unwrap_or_default()
}

/// Sends committed entries to the subscribers.
#[derive(Clone)]
pub(super) struct Publisher {
    last: Arc<AtomicU64>,
    sender: broadcast::Sender<Arc<[Entry]>>,
}

impl Publisher {
    pub(super) fn after(last: u64) -> Self {
        Self { last: Arc::new(AtomicU64::new(last)), sender: broadcast::Sender::new(CAPACITY) }
    }

    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    pub(super) fn publish(&self, entries: Vec<Entry>) {
        if let Some(last) = entries.last() {
            self.last.store(last.sequence, Ordering::Release);
            // Fails without subscribers.
            let _ = self.sender.send(entries.into());
        }
    }
}

/// Reads the entries of the outbox in order, each entry once.
pub struct Subscriber {
    receiver: broadcast::Receiver<Arc<[Entry]>>,
    reads: Pool,
    /// The last entry that was returned.
    cursor: u64,
    /// Whether entries were missed and have to be read from the table.
    behind: bool,
}

impl Subscriber {
    /// Waits for the next entries. Never returns an empty list.
    pub async fn next(&mut self) -> Arc<[Entry]> {
        loop {
            if self.behind {
                match after(&self.reads, self.cursor, AT_ONCE).await {
                    Ok(entries) if entries.is_empty() => self.behind = false,
                    Ok(entries) => return self.advance(entries.into()),
                    Err(error) => {
                        tracing::warn!(%error, "reading the outbox failed; trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                continue;
            }
            match self.receiver.recv().await {
                Ok(entries) => {
                    if let Some(entries) = self.unseen(entries) {
                        return entries;
                    }
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                // The store is closed: no entry follows.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Returns the next entries if there are any already; otherwise `None`.
    ///
    /// # Errors
    ///
    /// If the table cannot be read.
    pub async fn next_if_any(&mut self) -> Result<Option<Arc<[Entry]>>, StoreError> {
        loop {
            if self.behind {
                let entries = after(&self.reads, self.cursor, AT_ONCE).await?;
                self.behind = !entries.is_empty();
                if self.behind {
                    return Ok(Some(self.advance(entries.into())));
                }
                continue;
            }
            match self.receiver.try_recv() {
                Ok(entries) => {
                    if let Some(entries) = self.unseen(entries) {
                        return Ok(Some(entries));
                    }
                }
                Err(TryRecvError::Lagged(_)) => self.behind = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(None),
            }
        }
    }

    fn unseen(&mut self, entries: Arc<[Entry]>) -> Option<Arc<[Entry]>> {
        let seen = entries.iter().take_while(|entry| entry.sequence <= self.cursor).count();
        match seen {
            0 => Some(self.advance(entries)),
            seen if seen < entries.len() => Some(self.advance(entries[seen..].into())),
            _ => None,
        }
    }

    fn advance(&mut self, entries: Arc<[Entry]>) -> Arc<[Entry]> {
        self.cursor = entries.last().map_or(self.cursor, |entry| entry.sequence);
        entries
    }
}

/// Reads the entries after a sequence number from the table, from at most `limit` rows.
async fn after(reads: &Pool, sequence: u64, limit: u32) -> Result<Vec<Entry>, sqlx::Error> {
    let rows: Vec<Entries> = AFTER.all(&mut *reads.acquire().await?, values![number(sequence), limit]).await?;
    let entries = rows.into_iter().flat_map(|Entries(entries)| entries);
    Ok(entries.filter(|entry| entry.sequence > sequence).collect())
}

impl Store {
    /// Returns a subscriber that starts with the next entry.
    pub fn subscribe(&self) -> Subscriber {
        // In this order, because an entry that is published in between then counts as old and is skipped.
        let receiver = self.published.sender.subscribe();
        Subscriber { receiver, reads: self.reads.clone(), cursor: self.published.last(), behind: false }
    }

    /// Returns a subscriber that starts after a sequence number.
    pub fn subscribe_after(&self, sequence: u64) -> Subscriber {
        Subscriber { cursor: sequence, behind: true, ..self.subscribe() }
    }

    /// Returns the sequence number of the oldest entry in the table; `None`: the outbox is empty.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn first_sequence(&self) -> Result<Option<u64>, StoreError> {
        let (first,): (Option<i64>,) = FIRST.one(&mut *self.reads.acquire().await?, values![]).await?;
        Ok(first.map(i64::unsigned_abs))
    }

    /// Returns the entries after a sequence number, in order.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    #[cfg(test)]
    pub(super) async fn outbox_after(&self, sequence: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        Ok(after(&self.reads, sequence, limit).await?)
    }

    /// Returns the sequence number of the last entry; 0: there is none.
    pub fn last_sequence(&self) -> u64 {
        self.published.last()
    }
}
