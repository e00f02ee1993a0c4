//! The wait causes of updates.

use std::collections::HashMap;

use jiff::Timestamp;

use super::database::{Connection, Value};
use super::rows::WaitRow;
use super::statements::{statements, values};
use crate::domain::Wait;

statements! {
    OF = ("SELECT update_id, cause, detail, since, until, failures, active FROM waits WHERE update_id IN {list}");
    WRITE = ("INSERT INTO waits (update_id, cause, detail, since, until, failures, active)
        SELECT column1, column2, column3, column4, column5, column6, column7 FROM (VALUES {rows:TTTIIII}) AS v
        WHERE column1 IS NOT NULL
        ON CONFLICT (update_id, cause) DO UPDATE SET detail = excluded.detail, since = excluded.since,
            until = excluded.until, failures = excluded.failures, active = excluded.active");
    DELETE = ("DELETE FROM waits WHERE update_id IN {list}");
}

/// Returns the wait causes of each update, including those that have ended.
pub(super) async fn of<V: Into<Value>>(
    connection: &mut Connection,
    update_ids: impl IntoIterator<Item = V>,
) -> Result<HashMap<String, Vec<WaitRow>>, sqlx::Error> {
    let rows: Vec<WaitRow> = OF.all_of(connection, values![], update_ids).await?;
    let mut by_update: HashMap<String, Vec<WaitRow>> = HashMap::new();
    for row in rows {
        by_update.entry(row.update_id.clone()).or_default().push(row);
    }
    for rows in by_update.values_mut() {
        rows.sort_by_key(|row| row.wait.cause);
    }
    Ok(by_update)
}

/// Returns the wait causes that have not ended.
pub(super) fn active(rows: &[WaitRow]) -> Vec<Wait> {
    rows.iter().filter(|row| row.active).map(|row| row.wait.clone()).collect()
}

/// Writes wait causes. An earlier row of the same update and cause is replaced.
pub(super) async fn write(connection: &mut Connection, rows: &[WaitRow]) -> Result<(), sqlx::Error> {
    let row = |row: &WaitRow| {
        let wait = &row.wait;
        values![&row.update_id, wait.cause.as_str(), &wait.detail, row.since, wait.until, row.failures, row.active]
    };
    WRITE.execute_rows(connection, values![], rows.iter().map(row).collect()).await
}

/// Returns the rows that must change so that an update waits for exactly these causes. `rows` are its current rows.
pub(super) fn wait_for(update_id: &str, rows: &[WaitRow], waits: &[Wait], now: Timestamp) -> Vec<WaitRow> {
    let mut changed = Vec::new();
    for row in rows.iter().filter(|row| row.active) {
        if waits.iter().all(|wait| wait.cause != row.wait.cause) {
            changed.push(WaitRow { active: false, ..row.clone() });
        }
    }
    for wait in waits {
        let known = rows.iter().find(|row| row.wait.cause == wait.cause);
        let wanted = WaitRow {
            update_id: update_id.to_owned(),
            wait: wait.clone(),
            since: known.filter(|row| row.active).map_or(now, |row| row.since),
            failures: known.map_or(0, |row| row.failures),
            active: true,
        };
        if known != Some(&wanted) {
            changed.push(wanted);
        }
    }
    changed
}

/// Deletes the wait causes of updates that have ended.
pub(super) async fn delete(connection: &mut Connection, update_ids: &[&str]) -> Result<(), sqlx::Error> {
    DELETE.execute_of(connection, values![], update_ids.iter().copied()).await.map(|_| ())
}
