//! The reasons of waiting updates. They follow from the wait causes and are not stored.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::database::Connection;
use super::rows::update_columns;
use super::statements::{statements, values};
use super::{block_rows, wait_rows};
use crate::domain::{Event, EventState, Update, UpdateState, explain_waiting};
use crate::policy::FreezeCalendar;

statements! {
    WAITING_OF = ("SELECT ", update_columns!(), " FROM updates WHERE state = $1 AND cause_id IN {list} ORDER BY id");
}

/// Sets the reason of each waiting update.
pub(super) async fn updates<'u>(
    connection: &mut Connection,
    updates: impl IntoIterator<Item = &'u mut Update>,
    calendar: Arc<FreezeCalendar>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let waiting: Vec<&mut Update> = updates.into_iter().filter(|update| update.state == UpdateState::Waiting).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let rows = wait_rows::of(connection, waiting.iter().map(|update| &update.id)).await?;
    let blocks = block_rows::active(connection, calendar, now).await?;
    for update in waiting {
        let waits = rows.get(&update.id).map(|rows| wait_rows::active(rows)).unwrap_or_default();
        update.reason = explain_waiting(update, &waits, &blocks, now);
    }
    Ok(())
}

/// Returns the reasons of waiting events, by their ids. An event has the reason of its latest waiting update.
pub(super) async fn of_causes(
    connection: &mut Connection,
    event_ids: &[&str],
    calendar: Arc<FreezeCalendar>,
    now: Timestamp,
) -> Result<HashMap<String, String>, sqlx::Error> {
    if event_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let values = values![UpdateState::Waiting.as_str()];
    let mut waiting: Vec<Update> = WAITING_OF.all_of(connection, values, event_ids.iter().copied()).await?;
    updates(connection, &mut waiting, calendar, now).await?;
    Ok(waiting.into_iter().filter_map(|update| Some((update.cause_id, update.reason?))).collect())
}

/// Sets the reason of each waiting event.
pub(super) async fn events(
    connection: &mut Connection,
    events: &mut [Event],
    calendar: Arc<FreezeCalendar>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let waiting = events.iter().filter(|event| event.state == EventState::Waiting);
    let ids: Vec<&str> = waiting.map(|event| event.id.as_str()).collect();
    let mut reasons = of_causes(connection, &ids, calendar, now).await?;
    for event in events.iter_mut().filter(|event| event.state == EventState::Waiting) {
        event.reason = reasons.remove(&event.id);
    }
    Ok(())
}
