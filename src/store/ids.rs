use jiff::Timestamp;
use ulid::Ulid;

use super::database::Connection;
use super::statements::{statements, values};

/// Creates ids that sort in the order of creation, across restarts and clock steps.
pub(super) struct IdSource {
    last: Ulid,
}

impl IdSource {
    /// Returns a source whose ids all sort after `last`.
    pub(super) fn after(last: Option<Ulid>) -> Self {
        Self { last: last.unwrap_or(Ulid::nil()) }
    }

    /// Returns the next id.
    ///
    /// If the clock has not moved on, or was set back, the last id is incremented, so that the order of arrival is kept.
    pub(super) fn next(&mut self, now: Timestamp) -> String {
        let fresh = Ulid::from_datetime(now.into());
        self.last = if fresh > self.last { fresh } else { Ulid(self.last.0.saturating_add(1)) };
        self.last.to_string()
    }
}

statements! {
    LAST_ID = ("SELECT max(id) FROM (SELECT max(id) AS id FROM events UNION ALL SELECT max(id) FROM requests
        UNION ALL SELECT max(id) FROM updates UNION ALL SELECT max(id) FROM blocks
        UNION ALL SELECT max(id) FROM push_attempts) AS ids");
}

/// Returns the highest id in the store.
pub(super) async fn last_id(connection: &mut Connection) -> Result<Option<Ulid>, sqlx::Error> {
    let (last,): (Option<String>,) = LAST_ID.one(connection, values![]).await?;
    Ok(last.and_then(|id| Ulid::from_string(&id).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_creation_even_after_one_from_the_future() {
        let future = Ulid::from_parts(u64::MAX >> 17, 7);
        let mut ids = IdSource::after(Some(future));
        let mut made = vec![future.to_string()];
        made.extend((0..100).map(|_| ids.next(Timestamp::now())));
        let mut fresh = IdSource::after(None);
        let many: Vec<_> = (0..1000).map(|_| fresh.next(Timestamp::now())).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(many.is_sorted_by(|a, b| a < b));
    }
}
