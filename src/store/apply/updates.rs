use std::collections::{BTreeSet, HashMap, HashSet};

use super::effects::Effects;
use super::settle::settle;
use super::step::Step;
use crate::domain::{Update, UpdateInput, UpdateState, explain_waiting, update_transition, with_note};
use crate::store::database::Value;
use crate::store::outbox::of_update;
use crate::store::rows::{json_changes, update_columns};
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;
use crate::store::{block_rows, wait_rows};
use tagrelay_image::Version;

statements! {
    LOAD = ("SELECT ", update_columns!(), " FROM updates WHERE id IN {list}");
    WRITE = ("UPDATE updates SET state = v.column2, reason = v.column3, failures = v.column4, next_attempt_at = v.column5,
            released_at = v.column6, finished_at = v.column7, digest = v.column8, commit_id = v.column9, old_tag = v.column10,
            old_digest = v.column11, changes = v.column12, replayed = replayed + v.column13, decided_by = v.column14,
            decided_because = v.column15, started_attempts = 0, alone_attempts = 0
        FROM (VALUES {rows:TTTIIIITTTTTITT}) AS v WHERE updates.id = v.column1");
}

/// Applies inputs to updates, and executes the effects.
///
/// Inputs that do not apply in the state of their update are skipped.
///
/// Returns the new states of these updates, and of the updates that changed as an effect.
pub(in crate::store) async fn apply(
    tx: &mut Transaction<'_>,
    steps: Vec<Step>,
) -> Result<HashMap<String, UpdateState>, sqlx::Error> {
    let mut states = HashMap::new();
    let mut effects = Effects::default();
    let mut next = steps;
    while !next.is_empty() {
        for update in transit(tx, next, &mut effects).await? {
            states.insert(update.id, update.state);
        }
        // Each round ends updates or blocks, so the loop terminates.
        next = effects.execute(tx).await?;
    }
    settle(tx, &effects.causes).await?;
    Ok(states)
}

/// Applies inputs, collects their effects, and returns the changed updates.
async fn transit(
    tx: &mut Transaction<'_>,
    steps: Vec<Step>,
    effects: &mut Effects,
) -> Result<Vec<Update>, sqlx::Error> {
    let ids: BTreeSet<&str> = steps.iter().map(|step| step.update_id.as_str()).collect();
    let loaded: Vec<Update> = LOAD.all_of(tx.connection, values![], ids).await?;
    let mut updates: HashMap<String, Update> = loaded.into_iter().map(|update| (update.id.clone(), update)).collect();
    let mut changed: Vec<(String, bool)> = Vec::new();
    let mut waits: Vec<&Step> = Vec::new();
    // The updates that have rows of wait causes.
    let has_waited = |update: &Update| update.state == UpdateState::Waiting || update.released_at.is_some();
    let waited: HashSet<String> =
        updates.values().filter(|update| has_waited(update)).map(|update| update.id.clone()).collect();
    let blocks = match steps.iter().any(|step| step.input == UpdateInput::Wait) {
        true => Some(block_rows::current(tx).await?),
        false => None,
    };
    for step in &steps {
        let Some(update) = updates.get_mut(&step.update_id) else { continue };
        let Some((state, new)) = update_transition(update.state, step.input) else { continue };
        let before = std::mem::replace(&mut update.state, state);
        change(update, step, tx);
        effects.add(new, before, update, step);
        changed.push((update.id.clone(), step.input == UpdateInput::Replay));
        let reason = match (step.input, &blocks) {
            // A failed try changes no state.
            (UpdateInput::Postpone, _) => continue,
            (UpdateInput::Wait, Some(blocks)) => {
                waits.push(step);
                explain_waiting(update, &step.waits, blocks, tx.now)
            }
            _ => update.reason.clone(),
        };
        tx.record(of_update(update, reason));
    }
    write(tx, &updates, &changed).await?;
    write_waits(tx, &waits).await?;
    let has_ended = |update: &&Update| !update.state.is_open() && waited.contains(&update.id);
    let ended = updates.values().filter(has_ended).map(|update| update.id.as_str());
    wait_rows::delete(tx.connection, &ended.collect::<Vec<_>>()).await?;
    let changed: BTreeSet<String> = changed.into_iter().map(|(id, _)| id).collect();
    Ok(updates.into_values().filter(|update| changed.contains(&update.id)).collect())
}

/// Sets the columns that depend on the input, except the state.
fn change(update: &mut Update, step: &Step, tx: &Transaction<'_>) {
    update.reason = match step.input {
        UpdateInput::Replay => Some(format!("replayed; before: {}", update.reason.as_deref().unwrap_or_default())),
        // The reason follows from the wait causes.
        UpdateInput::Wait | UpdateInput::Resume | UpdateInput::Land => with_note(update.reason.as_deref(), None),
        UpdateInput::Postpone => with_note(update.reason.as_deref(), step.reason.clone()),
        UpdateInput::Confirm
        | UpdateInput::FindUnchanged
        | UpdateInput::Supersede
        | UpdateInput::Refuse
        | UpdateInput::Cancel => step.reason.clone(),
    };
    let basis = step.basis.as_ref().or(step.landed.as_ref().and_then(|landed| landed.basis.as_ref()));
    if let Some((by, because)) = basis {
        (update.decided_by, update.decided_because) = (Some(by.clone()), Some(because.clone()));
    }
    match step.input {
        UpdateInput::Replay => return,
        UpdateInput::Postpone => {
            update.failures += 1;
            update.next_attempt_at = step.until;
            return;
        }
        UpdateInput::Resume => update.released_at = Some(tx.now),
        UpdateInput::Confirm => {
            let digest = step.digest.as_ref().or(update.version.digest()).cloned();
            if let Some(version) = Version::from_parts(update.version.tag().cloned(), digest) {
                update.version = version;
            }
        }
        UpdateInput::Land => {
            if let Some(landed) = &step.landed {
                update.commit = Some(landed.commit.clone());
                update.old = Some(landed.old.clone());
                update.changes.clone_from(&landed.changes);
            }
        }
        UpdateInput::Wait
        | UpdateInput::FindUnchanged
        | UpdateInput::Supersede
        | UpdateInput::Refuse
        | UpdateInput::Cancel => {}
    }
    update.next_attempt_at = None;
    update.finished_at = (!update.state.is_open()).then_some(tx.now);
}

async fn write(
    tx: &mut Transaction<'_>,
    updates: &HashMap<String, Update>,
    changed: &[(String, bool)],
) -> Result<(), sqlx::Error> {
    let replayed: HashMap<&str, bool> = changed.iter().map(|(id, replayed)| (id.as_str(), *replayed)).collect();
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(replayed.len());
    for (id, replayed) in replayed {
        let Some(update) = updates.get(id) else { continue };
        let old = update.old.as_ref();
        rows.push(values![
            &update.id,
            update.state.as_str(),
            &update.reason,
            update.failures,
            update.next_attempt_at,
            update.released_at,
            update.finished_at,
            update.version.digest(),
            &update.commit,
            old.and_then(Version::tag),
            old.and_then(Version::digest),
            json_changes(&update.changes)?,
            replayed,
            &update.decided_by,
            &update.decided_because,
        ]);
    }
    WRITE.execute_rows(tx.connection, values![], rows).await
}

async fn write_waits(tx: &mut Transaction<'_>, steps: &[&Step]) -> Result<(), sqlx::Error> {
    let known = wait_rows::of(tx.connection, steps.iter().map(|step| &step.update_id)).await?;
    let changed = steps.iter().flat_map(|step| {
        let rows = known.get(&step.update_id).map(Vec::as_slice).unwrap_or_default();
        wait_rows::wait_for(&step.update_id, rows, &step.waits, tx.now)
    });
    let changed: Vec<_> = changed.collect();
    wait_rows::write(tx.connection, &changed).await
}
