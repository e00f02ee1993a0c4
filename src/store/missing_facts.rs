use jiff::Timestamp;

use super::apply::{Step, apply};
use super::rows::{WaitRow, update_columns};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use super::{starts, wait_rows};
use crate::domain::{Update, UpdateInput, UpdateState, WaitCause};

statements! {
    REGISTRIES = ("SELECT DISTINCT updates.registry FROM
        (SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $2 AND (until IS NULL OR until <= $3)) AS w
        CROSS JOIN updates WHERE updates.id = w.update_id AND state = $1 ORDER BY updates.registry");
    DUE = ("SELECT ", update_columns!(), " FROM
        (SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $2 AND (until IS NULL OR until <= $3)) AS w
        CROSS JOIN updates WHERE updates.id = w.update_id AND state = $1 AND registry = $5 AND started_attempts < 2
        ORDER BY id LIMIT $4");
}

impl Store {
    /// Returns updates that wait for a missing fact that is due at `now`.
    ///
    /// At most `per_registry` of each registry; registries in `but` are left out. `failures` of a returned update counts the failed
    /// tries to get the fact.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn missing_facts(
        &self,
        now: Timestamp,
        per_registry: u32,
        but: &[&str],
    ) -> Result<Vec<Update>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let (state, cause) = (UpdateState::Waiting.as_str(), WaitCause::MissingFact.as_str());
        let registries: Vec<(String,)> = REGISTRIES.all(connection, values![state, cause, now]).await?;
        let mut updates: Vec<Update> = Vec::new();
        for (registry,) in registries.iter().filter(|(registry,)| !but.contains(&registry.as_str())) {
            updates.append(&mut DUE.all(connection, values![state, cause, now, per_registry, registry]).await?);
        }
        let rows = wait_rows::of(connection, updates.iter().map(|update| &update.id)).await?;
        for update in &mut updates {
            let row = rows.get(&update.id).and_then(|rows| of_fact(rows));
            update.failures = row.map_or(update.failures, |row| row.failures);
            update.reason = row.and_then(|row| row.wait.detail.clone());
        }
        Ok(updates)
    }

    /// Ends the wait for a missing fact, so that the branch writer decides again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_missing_fact(&self, update_id: &str) -> Result<(), StoreError> {
        self.writes.run(Ended(update_id.to_owned())).await
    }

    /// Records a failed request for a missing fact, and when the next request is due.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn postpone_missing_fact(
        &self,
        update_id: &str,
        until: Timestamp,
        reason: String,
    ) -> Result<(), StoreError> {
        self.writes.run(Postponed { update_id: update_id.to_owned(), until, reason }).await
    }
}

fn of_fact(rows: &[WaitRow]) -> Option<&WaitRow> {
    rows.iter().find(|row| row.active && row.wait.cause == WaitCause::MissingFact)
}

struct Ended(String);

impl Write for Ended {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let rows = wait_rows::of(tx.connection, [&self.0]).await?.remove(&self.0).unwrap_or_default();
        let Some(row) = of_fact(&rows) else { return Ok(()) };
        let mut ended = row.clone();
        // The next missing fact begins without failures.
        (ended.active, ended.failures) = (false, 0);
        wait_rows::write(tx.connection, &[ended]).await?;
        starts::forget(tx, &self.0).await?;
        if wait_rows::active(&rows).len() == 1 {
            apply(tx, vec![Step::new(&self.0, UpdateInput::Resume)]).await?;
        }
        Ok(())
    }
}

struct Postponed {
    update_id: String,
    until: Timestamp,
    reason: String,
}

impl Write for Postponed {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let rows = wait_rows::of(tx.connection, [&self.update_id]).await?.remove(&self.update_id).unwrap_or_default();
        let Some(row) = of_fact(&rows) else { return Ok(()) };
        let mut postponed = row.clone();
        postponed.failures += 1;
        (postponed.wait.until, postponed.wait.detail) = (Some(self.until), Some(self.reason.clone()));
        starts::forget(tx, &self.update_id).await?;
        wait_rows::write(tx.connection, &[postponed]).await
    }
}
