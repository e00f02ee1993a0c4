//! Wait causes that end with time.

use jiff::Timestamp;

use super::apply::{Scope, Step, apply, review};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use super::{block_rows, rejections};
use crate::domain::{Blocks, Change, UpdateInput, WaitCause};

statements! {
    DUE = ("SELECT update_id FROM waits WHERE active = 1 AND cause = $1 AND until <= $2 ORDER BY update_id");
    DUE_COUNT = ("SELECT count(*) FROM waits WHERE active = 1 AND cause = $1 AND until <= $2");
    NEXT = ("SELECT min(until) FROM waits WHERE active = 1 AND cause = $1 AND until > $2");
    ENVIRONMENTS = ("SELECT DISTINCT environment FROM updates WHERE id IN (
        SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $1)");
}

/// The next change of a wait cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextWait {
    /// Whether a cause is over now, so that [`Store::review_waits`] must run.
    pub due: bool,
    /// When the next block, freeze window or pause begins or ends; `None`: no time is known.
    pub at: Option<Timestamp>,
}

impl Store {
    /// Ends expired blocks and pauses, and resumes updates without another wait cause.
    ///
    /// All of this happens in one transaction, so that the updates of an environment become one commit. Returns whether anything
    /// changed.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn review_waits(&self) -> Result<bool, StoreError> {
        self.writes.run(Review).await
    }

    /// Returns whether a wait cause is over at `now`, and the time of the next change.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn next_wait_change(&self, now: Timestamp) -> Result<NextWait, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let blocks = Blocks { rows: block_rows::open(connection).await?, calendar: self.calendar() };
        let rejected = WaitCause::RejectedPush.as_str();
        let (over,): (i64,) = DUE_COUNT.one(connection, values![rejected, now]).await?;
        let (next,): (Option<i64>,) = NEXT.one(connection, values![rejected, now]).await?;
        let frozen: Vec<(String,)> = ENVIRONMENTS.all(connection, values![WaitCause::Freeze.as_str()]).await?;
        let is_expired = blocks.rows.iter().any(|block| !block.is_active(now));
        let is_thawed = frozen.iter().any(|(environment,)| blocks.frozen(environment, now).is_none());
        let next = next.and_then(|at| Timestamp::from_millisecond(at).ok());
        Ok(NextWait {
            due: over > 0 || is_expired || is_thawed,
            at: blocks.next_change(now).into_iter().chain(next).min(),
        })
    }

    /// Adds an entry to the outbox, because a freeze window of an environment began or ended.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn record_freeze_change(
        &self,
        environment: &str,
        state: &str,
        reason: Option<String>,
    ) -> Result<(), StoreError> {
        let (environment, state) = (environment.to_owned(), state.to_owned());
        self.writes.run(Window(Change::Freeze { environment, state, reason })).await
    }
}

struct Review;

impl Write for Review {
    type Output = bool;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<bool, sqlx::Error> {
        let mut expired = block_rows::open(tx.connection).await?;
        expired.retain(|block| !block.is_active(tx.now));
        block_rows::end(tx, &expired, "expired").await?;
        let due: Vec<(String,)> = DUE.all(tx.connection, values![WaitCause::RejectedPush.as_str(), tx.now]).await?;
        let due: Vec<String> = due.into_iter().map(|(id,)| id).collect();
        let mut steps = rejections::end(tx, &due).await?;
        let reviewed = review(tx, Scope::All).await?;
        steps.extend(reviewed.free.into_iter().map(|id| Step::new(id, UpdateInput::Resume)));
        apply(tx, steps).await?;
        Ok(!expired.is_empty() || !due.is_empty() || reviewed.changed)
    }
}

struct Window(Change);

impl Write for Window {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        tx.record(self.0.clone());
        Ok(())
    }
}
