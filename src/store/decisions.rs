//! What the registry and the policy make of events.
//!
//! A burst of events is decided in few transactions, and those of one are written together, as deliveries are.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::updates::{self, NewUpdate, Place};
use super::writer::Transaction;
use super::{Event, Store, StoreError, UpdateState, freezes, json_text};
use crate::image::{Digest, Repository, Version};

/// What the registry and the policy made of an event.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The event.
    pub event_id: String,
    /// The pattern of the image rule that takes it.
    pub matched_rule: String,
    /// What the registry confirmed.
    pub version: Version,
    /// What else there is to say.
    pub note: Option<String>,
    /// One update for each environment that takes it.
    pub updates: Vec<PlannedUpdate>,
}

/// What the policy made of an event for one environment, before holds and freezes are looked at.
#[derive(Debug, Clone)]
pub struct PlannedUpdate {
    /// The environment.
    pub environment: String,
    /// The [`Standing::mark`](super::Standing::mark) of what the version was compared with.
    pub mark: Option<String>,
    /// What shall become of it.
    pub verdict: Verdict,
    /// The criterion that decided which build is newer.
    pub decided_by: &'static str,
    /// What it was compared with and how that came out, for people.
    pub decided_because: String,
    /// The versions that it is not older than. Where something else runs, it has to be compared anew.
    pub compared: Vec<Version>,
}

/// What shall become of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be written, or waits for a hold or freeze.
    Go,
    /// There is nothing to do.
    Unchanged {
        /// Why.
        reason: String,
    },
    /// A final no.
    Refuse {
        /// Why.
        reason: String,
    },
}

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// It is stored, with these environments and the states of their updates. Empty when it had been stored before.
    Done(Vec<(String, UpdateState)>),
    /// Something else was stored for one of the places after it was compared: compare again.
    Outrun,
}

/// A decision, and whoever waits for what becomes of it.
pub(super) struct Deciding {
    decision: Decision,
    /// Filled inside the transaction; told when it is on disk.
    decided: Decided,
    reply: oneshot::Sender<Result<Decided, StoreError>>,
}

impl Store {
    /// Records that the registry confirmed an event, and makes its updates.
    ///
    /// Inside the transaction it is looked at whether each place still is as it was compared with, and whether it is
    /// held or frozen: what was stored a moment ago counts. An environment that has an update of the event keeps it.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn decide(&self, decision: Decision) -> Result<Decided, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writes.decide(Deciding { decision, decided: Decided::Outrun, reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Deciding {
    /// Tells that it is on disk.
    pub(super) fn committed(self) {
        // Nobody waits any more when the caller was cancelled; what is written stays written.
        let _ = self.reply.send(Ok(self.decided));
    }

    /// Tells that nothing of it has been kept.
    pub(super) fn failed(self, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

/// Writes decisions, each as if it were alone and they came one after the other. May run more than once; only the last
/// run is committed.
pub(super) async fn write(tx: &mut Transaction<'_>, deciding: &mut [&mut Deciding]) -> Result<(), sqlx::Error> {
    let events = queued(tx, deciding).await?;
    let stored = Stored::read(tx, deciding, &events).await?;
    // What this transaction has decided itself, which the questions above could not see.
    let (mut decided, mut changed) = (HashSet::new(), HashSet::new());
    let mut rows = Vec::new();
    let mut verified = Vec::new();
    for deciding in deciding.iter_mut() {
        let decision = &deciding.decision;
        let event = events.get(&decision.event_id).filter(|event| !decided.contains(event.id.as_str()));
        // Decided already: a second run of the same work is harmless.
        let Some(event) = event else {
            deciding.decided = Decided::Done(Vec::new());
            continue;
        };
        let place = |planned: &PlannedUpdate| (planned.environment.clone(), event.repository.clone());
        let is_outrun = |planned: &PlannedUpdate| {
            changed.contains(&place(planned)) || stored.marks.get(&place(planned)) != planned.mark.as_ref()
        };
        if decision.updates.iter().any(is_outrun) {
            deciding.decided = Decided::Outrun;
            continue;
        }
        let mut states = Vec::with_capacity(decision.updates.len());
        for planned in &decision.updates {
            if stored.has_update(&event.id, &planned.environment) {
                continue;
            }
            let (state, reason) = match &planned.verdict {
                Verdict::Refuse { reason } => (UpdateState::Refused, Some(reason.clone())),
                Verdict::Unchanged { reason } => (UpdateState::Unchanged, Some(reason.clone())),
                Verdict::Go => match stored.kept_back.get(&place(planned)) {
                    Some(reason) => (UpdateState::Waiting, Some(reason.clone())),
                    None => (UpdateState::Pending, None),
                },
            };
            if state != UpdateState::Refused {
                changed.insert(place(planned));
            }
            rows.push(row(event, decision, planned, state, reason));
            states.push((planned.environment.clone(), state));
        }
        decided.insert(event.id.as_str());
        verified.push(decision);
        deciding.decided = Decided::Done(states);
    }
    note(tx, &verified).await?;
    updates::insert(tx, &rows).await?;
    updates::settle_events(tx, &decided.into_iter().collect::<Vec<_>>()).await
}

/// Returns those of the events that wait to be decided.
async fn queued(tx: &mut Transaction<'_>, deciding: &[&mut Deciding]) -> Result<HashMap<String, Event>, sqlx::Error> {
    let ids: Vec<&str> = deciding.iter().map(|deciding| deciding.decision.event_id.as_str()).collect();
    let events: Vec<Event> =
        sqlx::query_as("SELECT * FROM events WHERE id IN (SELECT value FROM json_each(?)) AND state = 'queued'")
            .bind(json_text(ids)?)
            .fetch_all(&mut *tx.connection)
            .await?;
    Ok(events.into_iter().map(|event| (event.id.clone(), event)).collect())
}

/// An environment and a repository.
type OwnedPlace = (String, Repository);

/// What is stored for the places of decisions.
struct Stored {
    /// The newest update that was not refused, where there is one.
    marks: HashMap<OwnedPlace, String>,
    /// Why what comes by itself has to wait, where it has.
    kept_back: HashMap<OwnedPlace, String>,
    /// The environments that have an update of an event that counts.
    updates: HashSet<(String, String)>,
}

impl Stored {
    async fn read(
        tx: &mut Transaction<'_>,
        deciding: &[&mut Deciding],
        events: &HashMap<String, Event>,
    ) -> Result<Self, sqlx::Error> {
        let planned = deciding.iter().filter_map(|deciding| {
            let event = events.get(&deciding.decision.event_id)?;
            Some((event, &deciding.decision.updates))
        });
        let places: HashSet<Place<'_>> = planned
            .flat_map(|(event, updates)| {
                updates.iter().map(|planned| Place { environment: &planned.environment, repository: &event.repository })
            })
            .collect();
        let places: Vec<Place<'_>> = places.into_iter().collect();
        let owned = |place: &Place<'_>| (place.environment.to_owned(), place.repository.clone());
        let kept_back = freezes::kept_back_at(tx, &places).await?;
        let wanted: Vec<_> = places.iter().map(|place| (place.environment, place.repository.as_str())).collect();
        let marks: Vec<Option<String>> = sqlx::query_scalar(
            "SELECT (SELECT max(id) FROM updates WHERE environment = wanted.value ->> 0
                AND repository = wanted.value ->> 1 AND state != 'refused') FROM json_each(?) AS wanted ORDER BY key",
        )
        .bind(json_text(wanted)?)
        .fetch_all(&mut *tx.connection)
        .await?;
        let updates: Vec<(String, String)> = sqlx::query_as(
            "SELECT cause_id, environment FROM updates WHERE cause_id IN (SELECT value FROM json_each(?))
                AND NOT (state = 'superseded' AND coalesce(reason, '') LIKE 'replayed; before: %')",
        )
        .bind(json_text(events.keys().collect::<Vec<_>>())?)
        .fetch_all(&mut *tx.connection)
        .await?;
        Ok(Self {
            marks: places.iter().zip(marks).filter_map(|(place, mark)| Some((owned(place), mark?))).collect(),
            kept_back: kept_back.into_iter().map(|(place, reason)| (owned(&place), reason)).collect(),
            updates: updates.into_iter().collect(),
        })
    }

    fn has_update(&self, event_id: &str, environment: &str) -> bool {
        self.updates.contains(&(event_id.to_owned(), environment.to_owned()))
    }
}

fn row<'a>(
    event: &'a Event,
    decision: &'a Decision,
    planned: &'a PlannedUpdate,
    state: UpdateState,
    reason: Option<String>,
) -> NewUpdate<'a> {
    NewUpdate {
        place: Place { environment: &planned.environment, repository: &event.repository },
        version: &decision.version,
        cause: event.cause,
        cause_id: &event.id,
        actor: &event.receiver,
        state,
        reason,
        pushed_at: event.pushed_at,
        received_at: event.received_at,
        trace: &event.trace,
        override_reason: None,
        decided: Some(planned),
        compared: None,
    }
}

/// Notes with the events what the registry and the rules said. They are queued no more, so that they can be settled.
async fn note(tx: &mut Transaction<'_>, decisions: &[&Decision]) -> Result<(), sqlx::Error> {
    let row = |decision: &&Decision| {
        let digest = decision.version.digest().map(Digest::as_str);
        serde_json::json!([decision.event_id, decision.matched_rule, digest, decision.note])
    };
    sqlx::query(
        "UPDATE events SET state = 'pending', matched_rule = new.value ->> 1, verified_digest = new.value ->> 2, verified_at = ?2,
            note = new.value ->> 3, reason = NULL, next_attempt_at = NULL
         FROM json_each(?1) AS new WHERE events.id = new.value ->> 0",
    )
    .bind(json_text(decisions.iter().map(row).collect::<Vec<_>>())?)
    .bind(tx.now_milliseconds())
    .execute(&mut *tx.connection)
    .await
    .map(|_| ())
}
