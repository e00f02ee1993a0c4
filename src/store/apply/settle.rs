use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::{Change, EventInput, EventState, UpdateState, event_transition};
use crate::store::explain;
use crate::store::rows::parse;
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;

statements! {
    EVENTS = ("SELECT id, repository, tag, state, reason FROM events WHERE id IN {list} ORDER BY id");
    UPDATES = ("SELECT cause_id, state, reason FROM updates WHERE replayed = 0 AND cause_id IN {list} ORDER BY id");
    WRITE = ("UPDATE events SET state = v.column2, reason = v.column3,
            finished_at = CASE WHEN v.column5 = 1 THEN v.column4 ELSE finished_at END
        FROM (VALUES {rows:TTTII}) AS v WHERE events.id = v.column1");
}

/// Returns the states and reasons of the updates of each event, in the order in which they were made.
///
/// Updates that were replayed are left out.
pub(super) async fn updates_of(
    tx: &mut Transaction<'_>,
    event_ids: impl IntoIterator<Item = &String>,
) -> Result<HashMap<String, Vec<(UpdateState, Option<String>)>>, sqlx::Error> {
    let rows: Vec<(String, String, Option<String>)> = UPDATES.all_of(tx.connection, values![], event_ids).await?;
    let mut by_event: HashMap<String, Vec<(UpdateState, Option<String>)>> = HashMap::new();
    for (cause_id, state, reason) in rows {
        by_event.entry(cause_id).or_default().push((parse(&state, "state")?, reason));
    }
    Ok(by_event)
}

/// Returns the state and the reason of an event that has these updates.
pub(super) fn state_of(updates: &[(UpdateState, Option<String>)]) -> (EventState, Option<String>) {
    let states: Vec<UpdateState> = updates.iter().map(|(state, _)| *state).collect();
    let (state, explained_by) = EventState::of(&states);
    (state, explained_by.and_then(|index| updates.get(index)).and_then(|(_, reason)| reason.clone()))
}

/// Sets the states of events, which follow from their updates.
pub(super) async fn settle(tx: &mut Transaction<'_>, event_ids: &BTreeSet<String>) -> Result<(), sqlx::Error> {
    if event_ids.is_empty() {
        return Ok(());
    }
    let events: Vec<(String, String, String, String, Option<String>)> =
        EVENTS.all_of(tx.connection, values![], event_ids).await?;
    let updates = updates_of(tx, event_ids).await?;
    let mut rows = Vec::new();
    let mut changed = Vec::new();
    for (id, repository, tag, before, before_reason) in events {
        let before: EventState = parse(&before, "state")?;
        let of_event = updates.get(&id).map(Vec::as_slice).unwrap_or_default();
        let (of_updates, reason) = state_of(of_event);
        let Some((state, _)) = event_transition(before, EventInput::Settle, of_updates) else { continue };
        if state == before && reason == before_reason {
            continue;
        }
        let ended_at = (!state.is_open()).then_some(tx.now);
        rows.push(values![&id, state.as_str(), &reason, ended_at, state != before]);
        if state != before {
            changed.push(ChangedEvent { id, repository, tag, state, reason });
        }
    }
    WRITE.execute_rows(tx.connection, values![], rows).await?;
    record(tx, changed).await
}

/// An event whose state has changed.
pub(super) struct ChangedEvent {
    pub(super) id: String,
    pub(super) repository: String,
    pub(super) tag: String,
    pub(super) state: EventState,
    pub(super) reason: Option<String>,
}

/// Writes outbox entries for events whose states have changed.
pub(super) async fn record(tx: &mut Transaction<'_>, events: Vec<ChangedEvent>) -> Result<(), sqlx::Error> {
    let waiting = events.iter().filter(|event| event.state == EventState::Waiting);
    let waiting: Vec<&str> = waiting.map(|event| event.id.as_str()).collect();
    let mut reasons = explain::of_causes(tx.connection, &waiting, Arc::clone(&tx.calendar), tx.now).await?;
    for event in events {
        let ChangedEvent { id, repository, tag, state, reason } = event;
        let reason = reasons.remove(&id).or(reason);
        tx.record(Change::Event { id, repository, tag, state: state.to_string(), reason });
    }
    Ok(())
}
