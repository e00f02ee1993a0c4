//! Facts about events. The events of a burst are recorded together, in few transactions.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::apply::{EventStep, NewUpdate, apply_loaded_events, insert};
use super::rows::event_columns;
use super::statements::{statements, values};
use super::writer::{Flood, Transaction};
use super::{Store, StoreError};
use crate::domain::{Event, EventState, UpdateState};
use tagrelay_image::Version;

statements! {
    QUEUED = ("SELECT ", event_columns!(), " FROM events WHERE state = $1 AND id IN {list}");
    ENVIRONMENTS = ("SELECT cause_id, environment FROM updates WHERE replayed = 0 AND cause_id IN {list}");
}

/// The facts about a confirmed event.
#[derive(Debug, Clone)]
pub struct EventFacts {
    pub event_id: String,
    /// The pattern of the image rule that matches.
    pub matched_rule: String,
    /// The version that the registry confirmed.
    pub version: Version,
    /// A remark, such as a digest that differs from the announced one.
    pub note: Option<String>,
    /// The automatic environments whose manifests name the repository.
    pub environments: Vec<String>,
}

impl Store {
    /// Confirms an event, and makes a pending update for each environment that has no update of the event.
    ///
    /// Returns the environments and states of the new updates; none if the event is no longer queued.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn record_facts(&self, facts: EventFacts) -> Result<Vec<(String, UpdateState)>, StoreError> {
        self.writes.flood(facts).await
    }
}

impl Flood for EventFacts {
    type Output = Vec<(String, UpdateState)>;

    async fn run_all(tx: &mut Transaction<'_>, all: &[&Self]) -> Result<Vec<Self::Output>, sqlx::Error> {
        let ids: HashSet<&String> = all.iter().map(|facts| &facts.event_id).collect();
        let queued = values![EventState::Queued.as_str()];
        let events: Vec<Event> = QUEUED.all_of(tx.connection, queued, ids.iter().copied()).await?;
        let by_id: HashMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
        let known: Vec<(String, String)> = ENVIRONMENTS.all_of(tx.connection, values![], ids).await?;
        let known: HashSet<(String, String)> = known.into_iter().collect();
        let mut steps = BTreeMap::new();
        let mut new = Vec::new();
        let mut answers = Vec::with_capacity(all.len());
        for facts in all {
            let mut made = Vec::new();
            // The event was recorded already: a second run of the same work is harmless.
            if let Some(&event) = by_id.get(facts.event_id.as_str())
                && !steps.contains_key(&facts.event_id)
            {
                let is_new = |environment: &&String| !known.contains(&(event.id.clone(), (*environment).clone()));
                for environment in facts.environments.iter().filter(is_new) {
                    new.push(update(event, facts, environment));
                    made.push((environment.clone(), UpdateState::Pending));
                }
                steps.insert(facts.event_id.clone(), confirm(facts));
            }
            answers.push(made);
        }
        insert(tx, &new).await?;
        apply_loaded_events(tx, events, &steps).await?;
        Ok(answers)
    }
}

fn update<'a>(event: &'a Event, facts: &'a EventFacts, environment: &'a str) -> NewUpdate<'a> {
    NewUpdate {
        environment,
        repository: &event.repository,
        version: &facts.version,
        cause: event.cause,
        cause_id: &event.id,
        actor: &event.receiver,
        state: UpdateState::Pending,
        pushed_at: event.pushed_at,
        received_at: event.received_at,
        trace: &event.trace,
        override_reason: None,
        gate: None,
        expected: None,
        announced: true,
    }
}

fn confirm(facts: &EventFacts) -> EventStep {
    EventStep::Confirm {
        matched_rule: facts.matched_rule.clone(),
        digest: facts.version.digest().cloned(),
        note: facts.note.clone(),
    }
}
