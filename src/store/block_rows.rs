//! Rows of holds and freezes, and the fence.

use std::sync::Arc;

use jiff::Timestamp;

use super::database::Connection;
use super::rows::block_columns;
use super::statements::{statements, values};
use super::writer::Transaction;
use crate::domain::{Block, BlockKind, Blocks, Change, NewBlock};
use crate::policy::FreezeCalendar;

statements! {
    OPEN = ("SELECT ", block_columns!(), " FROM blocks WHERE ended_at IS NULL ORDER BY id");
    OF_REQUESTS = ("SELECT ", block_columns!(), " FROM blocks WHERE ended_at IS NULL AND request_id IN {list}");
    EARLIER_OF_ROLLBACKS = ("SELECT ", block_columns!(), " FROM (VALUES {rows:TTT}) AS v CROSS JOIN blocks
        WHERE environment = v.column1 AND repository = v.column2 AND ended_at IS NULL AND request_id < v.column3
            AND kind = $1");
    INSERT = ("INSERT INTO blocks (id, kind, environment, repository, reason, actor, request_id, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    END = ("UPDATE blocks SET ended_at = $1, ended_by = $2 WHERE id IN {list}");
    MOVE_FENCE = ("UPDATE turn SET fence = fence + 1 WHERE id = 1");
    FENCE = ("SELECT fence FROM turn WHERE id = 1");
}

/// Returns the rows that have not been ended; some may have expired.
pub(super) async fn open(connection: &mut Connection) -> Result<Vec<Block>, sqlx::Error> {
    OPEN.all(connection, values![]).await
}

/// Returns the blocks that are active at `now`, with the freeze windows.
pub(super) async fn active(
    connection: &mut Connection,
    calendar: Arc<FreezeCalendar>,
    now: Timestamp,
) -> Result<Blocks, sqlx::Error> {
    let mut rows = open(connection).await?;
    rows.retain(|block| block.is_active(now));
    Ok(Blocks { rows, calendar })
}

/// Returns the blocks that are active at the time of the transaction.
pub(super) async fn current(tx: &mut Transaction<'_>) -> Result<Blocks, sqlx::Error> {
    active(tx.connection, Arc::clone(&tx.calendar), tx.now).await
}

/// Returns the open holds of rollbacks.
pub(super) async fn of_requests(
    connection: &mut Connection,
    request_ids: impl IntoIterator<Item = &String>,
) -> Result<Vec<Block>, sqlx::Error> {
    OF_REQUESTS.all_of(connection, values![], request_ids).await
}

/// Returns the open holds of earlier rollbacks at places. Each place is (environment, repository, id of a rollback).
pub(super) async fn earlier_of_rollbacks(
    connection: &mut Connection,
    places: &[(String, String, String)],
) -> Result<Vec<Block>, sqlx::Error> {
    let rows = places.iter().map(|(environment, repository, id)| values![environment, repository, id]);
    EARLIER_OF_ROLLBACKS.all_rows(connection, values![BlockKind::Hold.as_str()], rows.collect()).await
}

/// Makes a block, and moves the fence, so that pushes that were decided before are decided again.
pub(super) async fn insert(
    tx: &mut Transaction<'_>,
    block: &NewBlock,
    request_id: Option<&str>,
) -> Result<Block, sqlx::Error> {
    let made = Block {
        id: tx.next_id(),
        kind: block.kind,
        environment: block.environment.clone(),
        repository: block.repository.clone(),
        reason: block.reason.clone(),
        actor: block.actor.clone(),
        request_id: request_id.map(str::to_owned),
        created_at: tx.now,
        expires_at: block.expires_at,
    };
    let values = values![
        &made.id,
        made.kind.as_str(),
        &made.environment,
        made.repository.as_ref(),
        &made.reason,
        &made.actor,
        &made.request_id,
        made.created_at,
        made.expires_at,
    ];
    INSERT.execute(tx.connection, values).await?;
    move_fence(tx).await?;
    match made.kind {
        BlockKind::Hold => tx.record(of_hold(&made, "made")),
        BlockKind::Freeze => {
            let frozen = current(tx).await?.frozen(&made.environment, tx.now);
            let reason = frozen.map(|frozen| frozen.explanation());
            tx.record(Change::Freeze { environment: made.environment.clone(), state: "frozen".to_owned(), reason });
        }
    }
    Ok(made)
}

/// Ends blocks. The caller resumes the updates that wait for them.
pub(super) async fn end(tx: &mut Transaction<'_>, blocks: &[Block], by: &str) -> Result<(), sqlx::Error> {
    if blocks.is_empty() {
        return Ok(());
    }
    END.execute_of(tx.connection, values![tx.now, by], blocks.iter().map(|block| &block.id)).await?;
    move_fence(tx).await?;
    let left = current(tx).await?;
    for block in blocks {
        match block.kind {
            BlockKind::Hold => tx.record(of_hold(block, "released")),
            BlockKind::Freeze if left.frozen(&block.environment, tx.now).is_none() => {
                let (environment, state) = (block.environment.clone(), "thawed".to_owned());
                tx.record(Change::Freeze { environment, state, reason: None });
            }
            BlockKind::Freeze => {}
        }
    }
    Ok(())
}

fn of_hold(block: &Block, state: &str) -> Change {
    Change::Hold {
        id: block.id.clone(),
        environment: block.environment.clone(),
        repository: block.repository.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: state.to_owned(),
    }
}

/// Moves the fence, so that pushes that were decided before are decided again.
pub(super) async fn move_fence(tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
    MOVE_FENCE.execute(tx.connection, values![]).await.map(|_| ())
}

/// Whether the fence has not moved.
pub(super) async fn is_fence_at(tx: &mut Transaction<'_>, fence: u64) -> Result<bool, sqlx::Error> {
    let (now,): (i64,) = FENCE.one(tx.connection, values![]).await?;
    Ok(now.unsigned_abs() == fence)
}
