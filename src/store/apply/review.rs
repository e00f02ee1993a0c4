use crate::domain::{Block, BlockKind, Update, UpdateState, WaitCause, may_go};
use crate::store::rows::{WaitRow, update_columns};
use crate::store::statements::{statements, values};
use crate::store::writer::Transaction;
use crate::store::{block_rows, wait_rows};

statements! {
    WAITING_FOR = ("SELECT ", update_columns!(), " FROM
        (SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $2) AS w CROSS JOIN updates
        WHERE updates.id = w.update_id AND state = $1 ORDER BY id");
    WAITING_AT = ("SELECT ", update_columns!(), " FROM
        (SELECT update_id FROM waits WHERE active = 1 AND waits.cause = $3) AS w CROSS JOIN updates
        WHERE updates.id = w.update_id AND state = $1 AND environment = $2 ORDER BY id");
}

/// The waiting updates that are reviewed.
pub(in crate::store) enum Scope<'a> {
    /// Updates that wait for a block.
    All,
    /// Updates that one of these blocks covers, and that wait for a block of its kind.
    Of(&'a [Block]),
}

/// The result of a review.
#[derive(Default)]
pub(in crate::store) struct Reviewed {
    /// Updates that have no cause left.
    pub(in crate::store) free: Vec<String>,
    /// Whether a cause began or ended.
    pub(in crate::store) changed: bool,
}

/// Determines again which blocks each waiting update waits for.
///
/// The caller has to resume the updates that are free.
pub(in crate::store) async fn review(tx: &mut Transaction<'_>, scope: Scope<'_>) -> Result<Reviewed, sqlx::Error> {
    let waiting = waiting(tx, scope).await?;
    if waiting.is_empty() {
        return Ok(Reviewed::default());
    }
    let blocks = block_rows::current(tx).await?;
    let rows = wait_rows::of(tx.connection, waiting.iter().map(|update| &update.id)).await?;
    let mut free = Vec::new();
    let mut changed: Vec<WaitRow> = Vec::new();
    for update in &waiting {
        let rows = rows.get(&update.id).map(Vec::as_slice).unwrap_or_default();
        let mut waits = may_go(update, &blocks, tx.now);
        waits.extend(wait_rows::active(rows).into_iter().filter(|wait| !wait.cause.is_block()));
        changed.extend(wait_rows::wait_for(&update.id, rows, &waits, tx.now));
        if waits.is_empty() {
            free.push(update.id.clone());
        }
    }
    wait_rows::write(tx.connection, &changed).await?;
    Ok(Reviewed { free, changed: !changed.is_empty() })
}

async fn waiting(tx: &mut Transaction<'_>, scope: Scope<'_>) -> Result<Vec<Update>, sqlx::Error> {
    let state = UpdateState::Waiting.as_str();
    let mut found: Vec<Update> = Vec::new();
    match scope {
        Scope::All => {
            for cause in WaitCause::ALL.iter().filter(|cause| cause.is_block()) {
                found.append(&mut WAITING_FOR.all(tx.connection, values![state, cause.as_str()]).await?);
            }
        }
        Scope::Of(blocks) => {
            for block in blocks {
                let cause = match block.kind {
                    BlockKind::Hold => WaitCause::Hold,
                    BlockKind::Freeze => WaitCause::Freeze,
                };
                let values = values![state, &block.environment, cause.as_str()];
                let waiting: Vec<Update> = WAITING_AT.all(tx.connection, values).await?;
                let covered = |update: &Update| block.covers(&update.environment, &update.repository);
                found.extend(waiting.into_iter().filter(covered));
            }
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup_by(|a, b| a.id == b.id);
    Ok(found)
}
