use std::collections::{BTreeSet, HashSet};

use super::review::{Scope, review};
use super::step::Step;
use crate::domain::{Block, Cause, Effect, Update, UpdateInput, UpdateState, overtaken};
use crate::store::database::Value;
use crate::store::failures::{self, NewFailure};
use crate::store::outbox::name;
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;
use crate::store::{block_rows, follow_ups};

statements! {
    /// Open updates of a state that are older than another one at their places, and in no open push attempt.
    OLDER = ("SELECT updates.id, v.column5 FROM (VALUES {rows:TTTTT}) AS v CROSS JOIN updates
        WHERE updates.state = v.column1 AND updates.environment = v.column2 AND updates.repository = v.column3
            AND updates.cause_id < v.column4
            AND NOT EXISTS (SELECT 1 FROM push_attempt_updates WHERE push_attempt_updates.update_id = updates.id)");
    OPEN_IN = ("SELECT DISTINCT state, environment FROM updates WHERE state IN ($1, $2) AND environment IN {list}");
}

/// Effects of transitions that are executed together.
#[derive(Default)]
pub(super) struct Effects {
    /// Events whose states follow from their updates.
    pub(super) causes: BTreeSet<String>,
    failures: Vec<NewFailure>,
    rollouts: Vec<String>,
    landed: Vec<Update>,
    /// Places of rollbacks that happened: environment, repository, request.
    rolled_back: Vec<(String, String, String)>,
    /// Rollbacks that did not happen.
    not_rolled_back: BTreeSet<String>,
}

impl Effects {
    /// Adds the effects of a transition from `before` to the state of `update`.
    pub(super) fn add(&mut self, effects: &[Effect], before: UpdateState, update: &Update, step: &Step) {
        for effect in effects {
            match effect {
                Effect::SettleCause if update.cause.is_event() => drop(self.causes.insert(update.cause_id.clone())),
                Effect::RecordFailure => self.failures.push(failure(before, update, step)),
                Effect::BeginRollout if step.follow => self.rollouts.push(update.id.clone()),
                Effect::SupersedeOlder => self.landed.push(update.clone()),
                Effect::ReplaceHolds if update.cause == Cause::Rollback => {
                    let place = (update.environment.clone(), update.repository.to_string(), update.cause_id.clone());
                    self.rolled_back.push(place);
                }
                Effect::EndHold if update.cause == Cause::Rollback => {
                    self.not_rolled_back.insert(update.cause_id.clone());
                }
                // Requests have no state of their own; the conditions of the others do not hold.
                Effect::SettleCause | Effect::BeginRollout | Effect::ReplaceHolds | Effect::EndHold => {}
                // Only events have it.
                Effect::ReplayUpdates => {}
            }
        }
    }

    /// Executes everything but the states of events. Returns the inputs that follow.
    pub(super) async fn execute(&mut self, tx: &mut Transaction<'_>) -> Result<Vec<Step>, sqlx::Error> {
        if !self.failures.is_empty() {
            failures::record(tx, &std::mem::take(&mut self.failures)).await?;
        }
        follow_ups::begin(tx, &std::mem::take(&mut self.rollouts)).await?;
        let mut steps = older(tx, &std::mem::take(&mut self.landed)).await?;
        let not_rolled_back = std::mem::take(&mut self.not_rolled_back);
        let holds = block_rows::of_requests(tx.connection, &not_rolled_back).await?;
        steps.append(&mut end(tx, &holds, "the rollback did not happen").await?);
        let rolled_back = std::mem::take(&mut self.rolled_back);
        let holds = block_rows::earlier_of_rollbacks(tx.connection, &rolled_back).await?;
        steps.append(&mut end(tx, &holds, "a later rollback").await?);
        Ok(steps)
    }
}

fn failure(before: UpdateState, update: &Update, step: &Step) -> NewFailure {
    let reason = update.reason.clone().unwrap_or_default();
    let by_state = if before == UpdateState::Unverified { "registry" } else { "branch" };
    NewFailure {
        cause_id: update.cause_id.clone(),
        environment: Some(update.environment.clone()),
        asked: step.party.map_or(by_state, |party| party.as_str()),
        answered: if step.input == UpdateInput::Refuse { format!("refused: {reason}") } else { reason },
    }
}

/// Returns the ends of updates that are older than those that landed: they could not be written any more.
async fn older(tx: &mut Transaction<'_>, landed: &[Update]) -> Result<Vec<Step>, sqlx::Error> {
    if landed.is_empty() {
        return Ok(Vec::new());
    }
    // Rarely does anything wait where updates land, and a burst lands a thousand.
    let states = values![UpdateState::Waiting.as_str(), UpdateState::Pending.as_str()];
    let environments: BTreeSet<&String> = landed.iter().map(|update| &update.environment).collect();
    let open: Vec<(String, String)> = OPEN_IN.all_of(tx.connection, states, environments).await?;
    let open: HashSet<(&str, &str)> =
        open.iter().map(|(state, environment)| (state.as_str(), environment.as_str())).collect();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for update in landed {
        // A rollback also ends pending updates.
        let states: &[UpdateState] = match update.cause {
            Cause::Rollback => &[UpdateState::Waiting, UpdateState::Pending],
            Cause::Push | Cause::CatchUp | Cause::Promotion => &[UpdateState::Waiting],
        };
        for state in states.iter().filter(|state| open.contains(&(state.as_str(), update.environment.as_str()))) {
            let reason = overtaken(&name(&update.version), &update.environment);
            rows.push(values![state.as_str(), &update.environment, &update.repository, &update.cause_id, reason]);
        }
    }
    let found: Vec<(String, String)> = OLDER.all_rows(tx.connection, values![], rows).await?;
    let step = |(id, reason): (String, String)| Step::new(id, UpdateInput::Supersede).because(reason);
    Ok(found.into_iter().map(step).collect())
}

/// Ends holds, and returns the inputs of the updates that are free then.
async fn end(tx: &mut Transaction<'_>, holds: &[Block], by: &str) -> Result<Vec<Step>, sqlx::Error> {
    if holds.is_empty() {
        return Ok(Vec::new());
    }
    block_rows::end(tx, holds, by).await?;
    let reviewed = review(tx, Scope::Of(holds)).await?;
    Ok(reviewed.free.into_iter().map(|id| Step::new(id, UpdateInput::Resume)).collect())
}
