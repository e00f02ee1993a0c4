use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::settle::{self, ChangedEvent};
use super::step::Step;
use super::updates::apply;
use crate::domain::{Effect, Event, EventInput, EventState, Party, UpdateInput, UpdateState, event_transition};
use crate::store::database::Value;
use crate::store::failures::{self, NewFailure};
use crate::store::rows::event_columns;
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;
use tagrelay_image::Digest;

statements! {
    LOAD = ("SELECT ", event_columns!(), " FROM events WHERE id IN {list}");
    WRITE = ("UPDATE events SET state = v.column2, reason = v.column3, matched_rule = v.column4, verified_digest = v.column5,
            verified_at = v.column6, note = v.column7, failures = v.column8, next_attempt_at = v.column9,
            finished_at = v.column10, redeliverable = v.column11, started_attempts = 0, alone_attempts = 0
        FROM (VALUES {rows:TTTTTITIIII}) AS v WHERE events.id = v.column1");
    REFUSED_UPDATES = ("SELECT id FROM updates WHERE state = $1 AND cause_id IN {list}");
}

/// An input to an event.
#[derive(Debug, Clone)]
pub(in crate::store) enum EventStep {
    /// The registry confirmed the event. Its updates have been made.
    Confirm {
        matched_rule: String,
        digest: Option<Digest>,
        note: Option<String>,
    },
    Postpone {
        until: Timestamp,
        asked: Party,
        reason: String,
    },
    Refuse {
        reason: String,
        matched_rule: Option<String>,
        redeliverable: bool,
        asked: Party,
    },
    Replay,
}

impl EventStep {
    fn input(&self) -> EventInput {
        match self {
            Self::Confirm { .. } => EventInput::Confirm,
            Self::Postpone { .. } => EventInput::Postpone,
            Self::Refuse { .. } => EventInput::Refuse,
            Self::Replay => EventInput::Replay,
        }
    }
}

/// Applies an input to each of some events, and executes the effects.
///
/// An input that does not apply in the state of its event is skipped. Returns the new states of the other events.
pub(in crate::store) async fn apply_events(
    tx: &mut Transaction<'_>,
    steps: &BTreeMap<String, EventStep>,
) -> Result<HashMap<String, EventState>, sqlx::Error> {
    let events: Vec<Event> = LOAD.all_of(tx.connection, values![], steps.keys()).await?;
    apply_loaded_events(tx, events, steps).await
}

/// Does the same as [`apply_events`], for events that this transaction has read.
pub(in crate::store) async fn apply_loaded_events(
    tx: &mut Transaction<'_>,
    mut events: Vec<Event>,
    steps: &BTreeMap<String, EventStep>,
) -> Result<HashMap<String, EventState>, sqlx::Error> {
    events.sort_by(|a, b| a.id.cmp(&b.id));
    let is_confirmed = |step: &EventStep| matches!(step, EventStep::Confirm { .. });
    let confirmed = steps.iter().filter(|(_, step)| is_confirmed(step)).map(|(id, _)| id);
    let updates = settle::updates_of(tx, confirmed).await?;
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(events.len());
    let mut failed = Vec::new();
    let mut replayed = BTreeSet::new();
    let mut changed = Vec::with_capacity(events.len());
    for mut event in events {
        let Some(step) = steps.get(&event.id) else { continue };
        let of_event = updates.get(&event.id).map(Vec::as_slice).unwrap_or_default();
        let (of_updates, reason) = settle::state_of(of_event);
        let Some((state, effects)) = event_transition(event.state, step.input(), of_updates) else { continue };
        event.state = state;
        change(&mut event, step, reason, tx.now);
        for effect in effects {
            match effect {
                Effect::RecordFailure => failed.push(failure(&event, step)),
                Effect::ReplayUpdates => drop(replayed.insert(event.id.clone())),
                // Only updates have these effects.
                Effect::SettleCause
                | Effect::BeginRollout
                | Effect::ReviewPlace
                | Effect::ReplaceHolds
                | Effect::EndHold => {}
            }
        }
        rows.push(row(&event, step));
        changed.push((event, step.input()));
    }
    WRITE.execute_rows(tx.connection, values![], rows).await?;
    let states = changed.iter().map(|(event, _)| (event.id.clone(), event.state)).collect();
    // A failed try changes no state.
    changed.retain(|(_, input)| *input != EventInput::Postpone);
    settle::record(tx, changed.into_iter().map(|(event, _)| changed_event(event)).collect()).await?;
    if !failed.is_empty() {
        failures::record(tx, &failed).await?;
    }
    if !replayed.is_empty() {
        let refused = values![UpdateState::Refused.as_str()];
        let refused: Vec<(String,)> = REFUSED_UPDATES.all_of(tx.connection, refused, &replayed).await?;
        apply(tx, refused.into_iter().map(|(id,)| Step::new(id, UpdateInput::Replay)).collect()).await?;
    }
    Ok(states)
}

fn changed_event(event: Event) -> ChangedEvent {
    let Event { id, repository, tag, state, reason, .. } = event;
    ChangedEvent { id, repository: repository.to_string(), tag: tag.to_string(), state, reason }
}

/// Sets the columns that depend on the input, except the state.
///
/// `reason` is the reason of the update that explains the state of the event.
fn change(event: &mut Event, step: &EventStep, reason: Option<String>, now: Timestamp) {
    match step {
        EventStep::Confirm { matched_rule, digest, note } => {
            event.matched_rule = Some(matched_rule.clone());
            event.verified_digest.clone_from(digest);
            event.verified_at = Some(now);
            event.note.clone_from(note);
            event.reason = reason;
        }
        EventStep::Postpone { until, reason, .. } => {
            event.failures += 1;
            event.next_attempt_at = Some(*until);
            event.reason = Some(reason.clone());
            return;
        }
        EventStep::Refuse { reason, matched_rule, .. } => {
            event.reason = Some(reason.clone());
            event.matched_rule.clone_from(matched_rule);
        }
        EventStep::Replay => {
            event.reason = None;
            event.failures = 0;
        }
    }
    event.next_attempt_at = None;
    event.finished_at = (!event.state.is_open()).then_some(now);
}

fn failure(event: &Event, step: &EventStep) -> NewFailure {
    let (asked, answered) = match step {
        EventStep::Postpone { asked, reason, .. } => (asked.as_str(), reason.clone()),
        EventStep::Refuse { asked, reason, .. } => (asked.as_str(), format!("refused: {reason}")),
        EventStep::Replay | EventStep::Confirm { .. } => ("replay", "queued again".to_owned()),
    };
    NewFailure { cause_id: event.id.clone(), environment: None, asked, answered }
}

fn row(event: &Event, step: &EventStep) -> Vec<Value> {
    values![
        &event.id,
        event.state.as_str(),
        &event.reason,
        &event.matched_rule,
        event.verified_digest.as_ref(),
        event.verified_at,
        &event.note,
        event.failures,
        event.next_attempt_at,
        event.finished_at,
        matches!(step, EventStep::Refuse { redeliverable: true, .. }),
    ]
}
