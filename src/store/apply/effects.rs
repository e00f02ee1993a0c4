use std::collections::{BTreeSet, HashMap, HashSet};

use super::review::{Scope, review};
use super::step::Step;
use crate::domain::{AfterLanding, Block, Cause, Effect, Update, UpdateInput, UpdateState, after_landing, overtaken};
use crate::store::database::Value;
use crate::store::failures::{self, NewFailure};
use crate::store::outbox::name;
use crate::store::rows::parse;
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;
use crate::store::{block_rows, follow_ups, wait_rows};

statements! {
    /// Open updates of state $1 that are older than a landed update of their place.
    ///
    /// Updates in open push attempts are left out.
    EARLIER = ("SELECT updates.id, updates.cause, v.column1, v.column5 FROM (VALUES {rows:TTTTT}) AS v CROSS JOIN updates
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
    /// Rollbacks that were not written.
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
                Effect::ReviewPlace => self.landed.push(update.clone()),
                Effect::ReplaceHolds if update.cause == Cause::Rollback => {
                    let place = (update.environment.clone(), update.repository.to_string(), update.cause_id.clone());
                    self.rolled_back.push(place);
                }
                Effect::EndHold if update.cause == Cause::Rollback => {
                    self.not_rolled_back.insert(update.cause_id.clone());
                }
                // `SettleCause` is for events only; the conditions of the other effects are false.
                Effect::SettleCause | Effect::BeginRollout | Effect::ReplaceHolds | Effect::EndHold => {}
                // Only events have this effect.
                Effect::ReplayUpdates => {}
            }
        }
    }

    /// Executes all effects except the states of events. Returns the inputs that follow.
    pub(super) async fn execute(&mut self, tx: &mut Transaction<'_>) -> Result<Vec<Step>, sqlx::Error> {
        if !self.failures.is_empty() {
            failures::record(tx, &std::mem::take(&mut self.failures)).await?;
        }
        follow_ups::begin(tx, &std::mem::take(&mut self.rollouts)).await?;
        let mut steps = earlier(tx, &std::mem::take(&mut self.landed)).await?;
        let not_rolled_back = std::mem::take(&mut self.not_rolled_back);
        let holds = block_rows::of_requests(tx.connection, &not_rolled_back).await?;
        steps.append(&mut end(tx, &holds, "the rollback was not written").await?);
        let rolled_back = std::mem::take(&mut self.rolled_back);
        let holds = block_rows::earlier_of_rollbacks(tx.connection, &rolled_back).await?;
        steps.append(&mut end(tx, &holds, "replaced by a later rollback").await?);
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

/// Returns the inputs of the updates that were caused before a landed update of their place.
async fn earlier(tx: &mut Transaction<'_>, landed: &[Update]) -> Result<Vec<Step>, sqlx::Error> {
    if landed.is_empty() {
        return Ok(Vec::new());
    }
    // A burst lands a thousand updates, and their environments rarely have open ones. This check saves most rows.
    let states = [UpdateState::Waiting, UpdateState::Pending];
    let environments: BTreeSet<&String> = landed.iter().map(|update| &update.environment).collect();
    let words = values![states[0].as_str(), states[1].as_str()];
    let open: Vec<(String, String)> = OPEN_IN.all_of(tx.connection, words, environments).await?;
    let open: HashSet<(String, String)> = open.into_iter().collect();
    let by_id: HashMap<&str, &Update> = landed.iter().map(|update| (update.id.as_str(), update)).collect();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for update in landed {
        for state in states {
            let can_change =
                Cause::ALL.iter().any(|cause| after_landing_of(update, (*cause, state), false) != AfterLanding::Keep);
            if can_change && open.contains(&(state.to_string(), update.environment.clone())) {
                let (repository, id) = (&update.repository, &update.id);
                rows.push(values![state.as_str(), &update.environment, repository, &update.cause_id, id]);
            }
        }
    }
    let found: Vec<(String, String, String, String)> = EARLIER.all_rows(tx.connection, values![], rows).await?;
    let waits = wait_rows::of(tx.connection, found.iter().map(|(id, ..)| id)).await?;
    let (mut steps, mut ended_waits) = (Vec::new(), Vec::new());
    for (id, cause, state, by) in found {
        let Some(by) = by_id.get(by.as_str()) else { continue };
        let rows = waits.get(&id).map(Vec::as_slice).unwrap_or_default();
        let blocked = wait_rows::active(rows).iter().any(|wait| wait.cause.is_block());
        match after_landing_of(by, (parse(&cause, "cause")?, parse(&state, "state")?), blocked) {
            AfterLanding::Keep => {}
            AfterLanding::End => {
                let reason = overtaken(&name(&by.version), &by.environment);
                steps.push(Step::new(id, UpdateInput::Supersede).because(reason));
            }
            AfterLanding::DecideAgain => {
                ended_waits.extend(wait_rows::wait_for(&id, rows, &[], tx.now));
                steps.push(Step::new(id, UpdateInput::Resume));
            }
        }
    }
    wait_rows::write(tx.connection, &ended_waits).await?;
    Ok(steps)
}

fn after_landing_of(landed: &Update, other: (Cause, UpdateState), blocked: bool) -> AfterLanding {
    after_landing((landed.cause, landed.state), other, blocked)
}

/// Ends holds, and returns the inputs of the updates that have no wait cause left.
async fn end(tx: &mut Transaction<'_>, holds: &[Block], by: &str) -> Result<Vec<Step>, sqlx::Error> {
    if holds.is_empty() {
        return Ok(Vec::new());
    }
    block_rows::end(tx, holds, by).await?;
    let reviewed = review(tx, Scope::Of(holds)).await?;
    Ok(reviewed.free.into_iter().map(|id| Step::new(id, UpdateInput::Resume)).collect())
}
