use jiff::Timestamp;

use crate::domain::{Cause, Change, UpdateGate, UpdateState};
use crate::store::database::Value;
use crate::store::outbox::name;
use crate::store::rows::json_text;
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;
use crate::telemetry::TraceContext;
use tagrelay_image::{Repository, Version};

statements! {
    INSERT = ("INSERT INTO updates (id, environment, registry, repository, tag, digest, cause, cause_id, actor, state, pushed_at,
            received_at, trace_parent, override_reason, compared, gate)
        SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
            column13, column14, column15, column16 FROM (VALUES {rows:TTTTTTTTTTIITTTT}) AS v WHERE column1 IS NOT NULL");
}

/// An update before it has an id.
pub(in crate::store) struct NewUpdate<'a> {
    pub(in crate::store) environment: &'a str,
    pub(in crate::store) repository: &'a Repository,
    pub(in crate::store) version: &'a Version,
    pub(in crate::store) cause: Cause,
    pub(in crate::store) cause_id: &'a str,
    pub(in crate::store) actor: &'a str,
    /// An open state.
    pub(in crate::store) state: UpdateState,
    pub(in crate::store) pushed_at: Option<Timestamp>,
    pub(in crate::store) received_at: Timestamp,
    pub(in crate::store) trace: &'a TraceContext,
    pub(in crate::store) override_reason: Option<&'a str>,
    /// The versions that the environment ran; only for requests.
    pub(in crate::store) expected: Option<&'a [Version]>,
    /// The gate that it waits for; `None`: none.
    pub(in crate::store) gate: Option<UpdateGate>,
    /// Whether the outbox gets an entry; false if the update ends in the same transaction.
    pub(in crate::store) announced: bool,
}

/// Inserts updates, in this order. Returns their ids.
pub(in crate::store) async fn insert(
    tx: &mut Transaction<'_>,
    updates: &[NewUpdate<'_>],
) -> Result<Vec<String>, sqlx::Error> {
    let mut ids = Vec::with_capacity(updates.len());
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(updates.len());
    for update in updates {
        let id = tx.next_id();
        rows.push(values![
            &id,
            update.environment,
            update.repository.registry(),
            update.repository,
            update.version.tag(),
            update.version.digest(),
            update.cause.as_str(),
            update.cause_id,
            update.actor,
            update.state.as_str(),
            update.pushed_at,
            update.received_at,
            update.trace.to_string(),
            update.override_reason,
            update.expected.map(json_text).transpose()?,
            update.gate.map(UpdateGate::as_str),
        ]);
        if update.announced {
            tx.record(made(&id, update));
        }
        ids.push(id);
    }
    INSERT.execute_rows(tx.connection, values![], rows).await?;
    Ok(ids)
}

fn made(id: &str, update: &NewUpdate<'_>) -> Change {
    Change::Update {
        id: id.to_owned(),
        cause_id: update.cause_id.to_owned(),
        environment: update.environment.to_owned(),
        repository: update.repository.to_string(),
        version: name(update.version),
        state: update.state.to_string(),
        commit: None,
        reason: None,
    }
}
