//! Updates whose push the remote rejected. They wait and are tried again, with growing pauses, and are finally refused.

use std::time::Duration;

use jiff::Timestamp;

use super::apply::{Step, apply};
use super::failures::{self, NewFailure};
use super::rows::{WaitRow, update_columns};
use super::statements::{statements, values};
use super::wait_rows;
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Party, Update, UpdateInput, UpdateState, Wait, WaitCause};

statements! {
    PENDING = ("SELECT ", update_columns!(), " FROM updates WHERE state = $1 AND id IN {list} ORDER BY id");
    REASONS = ("SELECT updates.environment, min(waits.detail) FROM waits JOIN updates ON updates.id = waits.update_id
        WHERE updates.state = $1 AND waits.active = 1 AND waits.cause = $2
        GROUP BY updates.environment ORDER BY updates.environment");
    WAITING_IN = ("SELECT id FROM (SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $2) AS w CROSS JOIN updates
        WHERE updates.id = w.update_id AND state = $1 AND environment IN {list}");
}

/// The pauses after a rejected push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The pause after the first rejection. Each further rejection doubles the pause, up to `longest`.
    pub first: Duration,
    pub longest: Duration,
    /// An update is refused this long after its first rejection.
    pub give_up_after: Duration,
}

impl Store {
    /// Makes updates wait because the remote rejected their push. An update that has been rejected for too long is refused.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn reject(&self, ids: Vec<String>, reason: String, retry: Retry) -> Result<(), StoreError> {
        if ids.is_empty() { Ok(()) } else { self.writes.run(Rejected { ids, reason, retry }).await }
    }

    /// Returns the environments with rejected updates, each with the reason of one rejection.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn rejections(&self) -> Result<Vec<(String, String)>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let values = values![UpdateState::Waiting.as_str(), WaitCause::RejectedPush.as_str()];
        let rows: Vec<(String, Option<String>)> = REASONS.all(connection, values).await?;
        Ok(rows.into_iter().map(|(environment, reason)| (environment, reason.unwrap_or_default())).collect())
    }

    /// Makes rejected updates due at once, because the settings were reloaded or the branch moved.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_rejections(&self, environments: &[String]) -> Result<(), StoreError> {
        let waiting = {
            let connection = &mut *self.reads.acquire().await?;
            let values = values![UpdateState::Waiting.as_str(), WaitCause::RejectedPush.as_str()];
            WAITING_IN.all_of_whole::<(String,), _>(connection, values, environments).await?
        };
        // Read first, so that an idle daemon writes nothing.
        if waiting.is_empty() {
            return Ok(());
        }
        self.writes.run(Ended(waiting.into_iter().map(|(id,)| id).collect())).await
    }
}

struct Rejected {
    ids: Vec<String>,
    reason: String,
    retry: Retry,
}

impl Write for Rejected {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let pending = values![UpdateState::Pending.as_str()];
        let updates: Vec<Update> = PENDING.all_of(tx.connection, pending, &self.ids).await?;
        let rows = wait_rows::of(tx.connection, updates.iter().map(|update| &update.id)).await?;
        let (mut written, mut steps, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for update in &updates {
            let rows = rows.get(&update.id).map(Vec::as_slice).unwrap_or_default();
            let blocked_since = rows.iter().filter(|row| row.wait.cause.is_block()).map(|row| row.since).max();
            // The time under a hold or freeze does not count as time of rejection, so a later block restarts the count.
            let known = rows.iter().find(|row| {
                row.wait.cause == WaitCause::RejectedPush && blocked_since.is_none_or(|since| since <= row.since)
            });
            // An early try, after a foreign commit or a reload, does not lengthen the pauses.
            let is_early = |row: &WaitRow| row.wait.until.is_some_and(|until| tx.now < until);
            let (since, failures) = known
                .map_or((tx.now, 1), |row| (row.since, if is_early(row) { row.failures } else { row.failures + 1 }));
            if tx.now.duration_since(since).unsigned_abs() >= self.retry.give_up_after {
                let reason = format!("the remote has rejected the push since {since:.0}: {}", self.reason);
                let refusal = Step::new(&update.id, UpdateInput::Refuse).because(reason);
                steps.push(Step { party: Some(Party::Branch), ..refusal });
                continue;
            }
            let until = self.retry.until(failures, tx.now);
            let wait = Wait { cause: WaitCause::RejectedPush, detail: Some(self.reason.clone()), until };
            written.push(WaitRow { update_id: update.id.clone(), wait: wait.clone(), since, failures, active: true });
            steps.push(Step { waits: vec![wait], ..Step::new(&update.id, UpdateInput::Wait) });
            failed.push(NewFailure {
                cause_id: update.cause_id.clone(),
                environment: Some(update.environment.clone()),
                asked: Party::Branch.as_str(),
                answered: self.reason.clone(),
            });
        }
        // The rows are written first: the transition keeps `since` and `failures` of an existing row.
        wait_rows::write(tx.connection, &written).await?;
        failures::record(tx, &failed).await?;
        apply(tx, steps).await.map(|_| ())
    }
}

impl Retry {
    fn until(&self, failures: u32, now: Timestamp) -> Option<Timestamp> {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        now.checked_add(doubled.min(self.longest)).ok()
    }
}

struct Ended(Vec<String>);

impl Write for Ended {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let steps = end(tx, &self.0).await?;
        apply(tx, steps).await.map(|_| ())
    }
}

/// Ends the rejections of updates. Returns the inputs of the updates that have no wait cause left.
pub(super) async fn end(tx: &mut Transaction<'_>, update_ids: &[String]) -> Result<Vec<Step>, sqlx::Error> {
    let rows = wait_rows::of(tx.connection, update_ids).await?;
    let (mut ended, mut steps) = (Vec::new(), Vec::new());
    for id in update_ids {
        let rows = rows.get(id).map(Vec::as_slice).unwrap_or_default();
        let rejection = rows.iter().find(|row| row.active && row.wait.cause == WaitCause::RejectedPush);
        let Some(rejection) = rejection else { continue };
        ended.push(WaitRow { active: false, ..rejection.clone() });
        if wait_rows::active(rows).len() == 1 {
            steps.push(Step::new(id, UpdateInput::Resume));
        }
    }
    wait_rows::write(tx.connection, &ended).await?;
    Ok(steps)
}
