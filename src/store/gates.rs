//! Updates that wait for the gate of their source.

use std::collections::{HashMap, HashSet};

use super::apply::{Step, apply};
use super::claims::OPEN_STATES;
use super::database::Value;
use super::rows::{WaitRow, update_columns};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError, block_rows, explain, pushes, wait_rows};
use crate::domain::{Cause, Party, Update, UpdateGate, UpdateInput, UpdateState, Wait, may_go};
use tagrelay_image::Repository;

statements! {
    GATED = ("SELECT ", update_columns!(), " FROM updates WHERE state IN ($1, $2, $3) AND gate IS NOT NULL ORDER BY id");
    BY_ID = ("SELECT ", update_columns!(), " FROM updates WHERE id IN {list} ORDER BY id");
    SET = ("UPDATE updates SET gate = v.column2 FROM (VALUES {rows:TT}) AS v WHERE updates.id = v.column1");
    LAST_OF_CAUSE = ("SELECT ", update_columns!(), " FROM updates WHERE state IN ($1, $2, $3, $4, $5, $6, $7, $8)
        AND environment = $9 AND repository = $10 AND cause = $11 ORDER BY id DESC LIMIT 1");
}

/// Every state, for a statement. A test compares them with the enum.
const STATES: [UpdateState; 8] = [
    UpdateState::Unverified,
    UpdateState::Pending,
    UpdateState::Waiting,
    UpdateState::Committed,
    UpdateState::Unchanged,
    UpdateState::Superseded,
    UpdateState::Refused,
    UpdateState::Cancelled,
];

/// The result of a look at the gate of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateLook {
    pub update_id: String,
    pub result: GateResult,
}

/// What a look at a gate means for its update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateResult {
    /// It may go.
    Open,
    /// It waits for this cause.
    Closed(Wait),
    /// It ends, as superseded or refused.
    End { input: UpdateInput, reason: String },
}

impl Store {
    /// Returns the open updates that wait for a gate or have passed one, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn gated_updates(&self) -> Result<Vec<Update>, StoreError> {
        let [unverified, pending, waiting] = OPEN_STATES.map(UpdateState::as_str);
        let connection = &mut *self.reads.acquire().await?;
        let mut updates: Vec<Update> = GATED.all(connection, values![unverified, pending, waiting]).await?;
        explain::updates(connection, &mut updates, self.calendar(), self.clock.now()).await?;
        Ok(updates)
    }

    /// Returns the last update of a place that a follow rule made.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn last_followed(
        &self,
        environment: &str,
        repository: &Repository,
    ) -> Result<Option<Update>, StoreError> {
        let mut values: Vec<Value> = STATES.iter().map(|state| state.as_str().into()).collect();
        values.extend(values![environment, repository, Cause::Follow.as_str()]);
        Ok(LAST_OF_CAUSE.optional(&mut *self.reads.acquire().await?, values).await?)
    }

    /// Records looks at gates. Updates whose gate has opened go on, unless they wait for something else.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
    pub async fn record_gates(&self, looks: Vec<GateLook>) -> Result<(), StoreError> {
        if looks.is_empty() { Ok(()) } else { self.writes.run(RecordGates(looks)).await }
    }
}

struct RecordGates(Vec<GateLook>);

impl Write for RecordGates {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let ids: HashSet<&str> = self.0.iter().map(|look| look.update_id.as_str()).collect();
        let found: Vec<Update> = BY_ID.all_of(tx.connection, values![], ids.iter().copied()).await?;
        let updates: HashMap<&str, &Update> = found.iter().map(|update| (update.id.as_str(), update)).collect();
        let rows = wait_rows::of(tx.connection, ids).await?;
        let blocks = block_rows::current(tx).await?;
        let (mut gates, mut steps) = (Vec::<Vec<Value>>::new(), Vec::new());
        let mut waits: Vec<WaitRow> = Vec::new();
        let mut moves_fence = false;
        for GateLook { update_id, result } in &self.0 {
            let Some(update) = updates.get(update_id.as_str()) else { continue };
            let (gate, of_gate) = match result {
                GateResult::Open => (UpdateGate::Open, None),
                GateResult::Closed(wait) => (UpdateGate::Closed, Some(wait.clone())),
                GateResult::End { input, reason } => {
                    // An update that is being pushed may be on the branch already.
                    if pushes::carries_any(tx, &[update_id.as_str()]).await? {
                        continue;
                    }
                    moves_fence |= update.state == UpdateState::Pending;
                    let step = Step::new(update_id, *input).because(reason.clone());
                    steps.push(Step { party: Some(Party::Rules), ..step });
                    continue;
                }
            };
            if update.gate != Some(gate) {
                gates.push(values![update_id, gate.as_str()]);
            }
            match update.state {
                UpdateState::Waiting => {
                    let rows = rows.get(update_id).map(Vec::as_slice).unwrap_or_default();
                    let others = wait_rows::active(rows).into_iter().filter(|wait| !wait.cause.is_of_gate());
                    let all: Vec<Wait> = others.chain(of_gate).collect();
                    waits.extend(wait_rows::wait_for(update_id, rows, &all, tx.now));
                    if all.is_empty() {
                        steps.push(Step::new(update_id, UpdateInput::Resume));
                    }
                }
                UpdateState::Pending if of_gate.is_some() => {
                    moves_fence = true;
                    let all = may_go(update, &blocks, tx.now).into_iter().chain(of_gate).collect();
                    steps.push(Step { waits: all, ..Step::new(update_id, UpdateInput::Wait) });
                }
                // The branch writer looks at the gate when the registry has confirmed the image.
                _ => {}
            }
        }
        if moves_fence {
            // A push that was decided, but is not recorded yet, is decided again.
            block_rows::move_fence(tx).await?;
        }
        SET.execute_rows(tx.connection, values![], gates).await?;
        wait_rows::write(tx.connection, &waits).await?;
        apply(tx, steps).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_reads_every_state() {
        assert_eq!(STATES.as_slice(), UpdateState::ALL);
    }
}
