use jiff::Timestamp;

use super::{Store, StoreError};

/// What has not come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Updates in no final state, also those that a hold or freeze makes wait.
    pub open_updates: u64,
    /// When the cause of the oldest update arrived that nothing holds back.
    pub oldest_update: Option<Timestamp>,
    /// When the oldest event arrived that no registry has confirmed.
    pub oldest_event: Option<Timestamp>,
}

impl Store {
    /// Returns what has not come to an end.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (open_updates, oldest_update, oldest_event): (i64, Option<i64>, Option<i64>) = sqlx::query_as(
            // One look for each state, because a list of them would not use the index.
            "SELECT (SELECT count(*) FROM updates WHERE state = 'unverified')
                    + (SELECT count(*) FROM updates WHERE state = 'pending')
                    + (SELECT count(*) FROM updates WHERE state = 'waiting'),
                (SELECT min(at) FROM (
                    SELECT min(coalesce(released_at, received_at)) AS at FROM updates WHERE state = 'unverified'
                    UNION ALL SELECT min(coalesce(released_at, received_at)) FROM updates WHERE state = 'pending')),
                (SELECT min(received_at) FROM events WHERE state = 'queued')",
        )
        .fetch_one(&self.reads)
        .await?;
        let time = |at: Option<i64>| at.and_then(|at| Timestamp::from_millisecond(at).ok());
        Ok(Backlog {
            open_updates: u64::try_from(open_updates).unwrap_or_default(),
            oldest_update: time(oldest_update),
            oldest_event: time(oldest_event),
        })
    }
}
