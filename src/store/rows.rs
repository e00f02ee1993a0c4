//! Rows as the values of `domain`.

use std::str::FromStr;

use jiff::Timestamp;
use sqlx::{FromRow, Row as _};

use super::database::{Row, Value};
use crate::domain::{AttemptedUpdate, Block, Event, PushAttempt, Request, SiteChange, Update, Wait};
use tagrelay_image::{Digest, Tag, Version};

/// The columns of an [`Event`].
macro_rules! event_columns {
    () => {
        "id, cause, receiver, repository, tag, announced_digest, pushed_at, received_at, state, reason, matched_rule, \
         verified_digest, verified_at, note, failures, next_attempt_at, finished_at, trace_parent"
    };
}

/// The columns of an [`Update`].
macro_rules! update_columns {
    () => {
        "id, environment, repository, tag, digest, cause, cause_id, actor, state, reason, failures, next_attempt_at, \
         pushed_at, received_at, released_at, commit_id, old_tag, old_digest, changes, finished_at, decided_by, \
         decided_because, compared, trace_parent, override_reason, gate"
    };
}

/// The columns of a [`Request`].
macro_rules! request_columns {
    () => {
        "id, kind, environment, source, actor, reason, created_at, fingerprint, trace_parent, overridden"
    };
}

/// The columns of a [`Block`].
macro_rules! block_columns {
    () => {
        "id, kind, environment, repository, reason, actor, request_id, created_at, expires_at"
    };
}
pub(super) use {block_columns, event_columns, request_columns, update_columns};

impl FromRow<'_, Row> for Event {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            cause: parsed(row, "cause")?,
            receiver: row.try_get("receiver")?,
            repository: parsed(row, "repository")?,
            tag: parsed(row, "tag")?,
            announced_digest: parsed_option(row, "announced_digest")?,
            pushed_at: time_option(row, "pushed_at")?,
            received_at: time(row, "received_at")?,
            state: parsed(row, "state")?,
            reason: row.try_get("reason")?,
            matched_rule: row.try_get("matched_rule")?,
            verified_digest: parsed_option(row, "verified_digest")?,
            verified_at: time_option(row, "verified_at")?,
            note: row.try_get("note")?,
            failures: count(row, "failures")?,
            next_attempt_at: time_option(row, "next_attempt_at")?,
            finished_at: time_option(row, "finished_at")?,
            trace: parsed(row, "trace_parent")?,
        })
    }
}

impl FromRow<'_, Row> for Update {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let cause: crate::domain::Cause = parsed(row, "cause")?;
        let compared: Option<String> = row.try_get("compared")?;
        // Event rows of 0.1.0 have other data in this column.
        let expected = compared.filter(|_| !cause.is_event()).map(|json| json_of(&json, "compared")).transpose()?;
        Ok(Self {
            id: row.try_get("id")?,
            environment: row.try_get("environment")?,
            repository: parsed(row, "repository")?,
            version: version(row, "tag", "digest")?,
            cause,
            cause_id: row.try_get("cause_id")?,
            actor: row.try_get("actor")?,
            state: parsed(row, "state")?,
            reason: row.try_get("reason")?,
            failures: count(row, "failures")?,
            next_attempt_at: time_option(row, "next_attempt_at")?,
            pushed_at: time_option(row, "pushed_at")?,
            received_at: time(row, "received_at")?,
            released_at: time_option(row, "released_at")?,
            commit: row.try_get("commit_id")?,
            old: Version::from_parts(parsed_option(row, "old_tag")?, parsed_option(row, "old_digest")?),
            changes: changes(row)?,
            finished_at: time_option(row, "finished_at")?,
            decided_by: row.try_get("decided_by")?,
            decided_because: row.try_get("decided_because")?,
            expected,
            trace: parsed(row, "trace_parent")?,
            override_reason: row.try_get("override_reason")?,
            gate: parsed_option(row, "gate")?,
        })
    }
}

impl FromRow<'_, Row> for Request {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            kind: parsed(row, "kind")?,
            environment: row.try_get("environment")?,
            source: row.try_get("source")?,
            actor: row.try_get("actor")?,
            reason: row.try_get("reason")?,
            created_at: time(row, "created_at")?,
            fingerprint: row.try_get("fingerprint")?,
            trace: parsed(row, "trace_parent")?,
            overridden: row.try_get("overridden")?,
        })
    }
}

impl FromRow<'_, Row> for Block {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            kind: parsed(row, "kind")?,
            environment: row.try_get("environment")?,
            repository: parsed_option(row, "repository")?,
            reason: row.try_get("reason")?,
            actor: row.try_get("actor")?,
            request_id: row.try_get("request_id")?,
            created_at: time(row, "created_at")?,
            expires_at: time_option(row, "expires_at")?,
        })
    }
}

/// A wait cause of an update, with its count of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitRow {
    pub update_id: String,
    pub wait: Wait,
    /// When the cause began. A rejected push keeps this time over several tries.
    pub since: Timestamp,
    /// How many tries failed for this cause.
    pub failures: u32,
    /// Whether the update waits for this cause now.
    pub active: bool,
}

impl FromRow<'_, Row> for WaitRow {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            update_id: row.try_get("update_id")?,
            wait: Wait {
                cause: parsed(row, "cause")?,
                detail: row.try_get("detail")?,
                until: time_option(row, "until")?,
            },
            since: time(row, "since")?,
            failures: count(row, "failures")?,
            active: row.try_get::<i64, _>("active")? != 0,
        })
    }
}

impl FromRow<'_, Row> for PushAttempt {
    /// Reads the attempt without its updates.
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            config_repository: row.try_get("config_repository")?,
            branch: row.try_get("branch")?,
            parent: row.try_get("parent")?,
            tip: row.try_get("tip")?,
            state: parsed(row, "state")?,
            created_at: time(row, "created_at")?,
            updates: Vec::new(),
        })
    }
}

impl FromRow<'_, Row> for AttemptedUpdate {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            update_id: row.try_get("update_id")?,
            commit: row.try_get("commit_id")?,
            old: version(row, "old_tag", "old_digest")?,
            changes: changes(row)?,
            basis: row.try_get::<Option<String>, _>("decided_by")?.zip(row.try_get("decided_because")?),
        })
    }
}

fn version(row: &Row, tag: &'static str, digest: &'static str) -> Result<Version, sqlx::Error> {
    let (tag_of, digest): (Option<Tag>, Option<Digest>) = (parsed_option(row, tag)?, parsed_option(row, digest)?);
    Version::from_parts(tag_of, digest).ok_or_else(|| sqlx::Error::ColumnNotFound(tag.to_owned()))
}

fn changes(row: &Row) -> Result<Vec<SiteChange>, sqlx::Error> {
    let changes: Option<String> = row.try_get("changes")?;
    Ok(changes.map(|json| json_of(&json, "changes")).transpose()?.unwrap_or_default())
}

/// Parses a column that this store has written.
pub(super) fn parsed<T>(row: &Row, column: &'static str) -> Result<T, sqlx::Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(column)?;
    parse(&text, column)
}

pub(super) fn parsed_option<T>(row: &Row, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| parse(&text, column)).transpose()
}

/// Parses the text of a column that this store has written.
pub(super) fn parse<T>(text: &str, column: &'static str) -> Result<T, sqlx::Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| decode_error(column, error))
}

pub(super) fn time(row: &Row, column: &'static str) -> Result<Timestamp, sqlx::Error> {
    let milliseconds: i64 = row.try_get(column)?;
    Timestamp::from_millisecond(milliseconds).map_err(|error| decode_error(column, error))
}

pub(super) fn time_option(row: &Row, column: &'static str) -> Result<Option<Timestamp>, sqlx::Error> {
    let milliseconds: Option<i64> = row.try_get(column)?;
    milliseconds
        .map(|value| Timestamp::from_millisecond(value).map_err(|error| decode_error(column, error)))
        .transpose()
}

fn count(row: &Row, column: &'static str) -> Result<u32, sqlx::Error> {
    let count: i64 = row.try_get(column)?;
    u32::try_from(count).map_err(|error| decode_error(column, error))
}

pub(super) fn json_of<T: serde::de::DeserializeOwned>(json: &str, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(json).map_err(|error| decode_error(column, error))
}

pub(super) fn json_text(value: impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(&value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// Returns the JSON of edited sites; `NULL` for none.
pub(super) fn json_changes(changes: &[SiteChange]) -> Result<Value, sqlx::Error> {
    if changes.is_empty() { Ok(Value::Text(None)) } else { Ok(json_text(changes)?.into()) }
}

fn decode_error(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}
