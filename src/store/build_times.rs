use jiff::Timestamp;

use super::statements::{statements, values};
use super::writer::{Flood, Transaction};
use super::{Store, StoreError};
use tagrelay_image::{Digest, Repository};

statements! {
    OF = ("SELECT built_at FROM build_times WHERE repository = $1 AND digest = $2");
    INSERT = ("INSERT INTO build_times (repository, digest, built_at)
        SELECT column1, column2, column3 FROM (VALUES {rows:TTI}) AS v WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING");
}

impl Store {
    /// Returns when an image was built.
    ///
    /// `None`: not known yet. `Some(None)`: the image has no build time.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn build_time(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Option<Timestamp>>, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        let found: Option<(Option<i64>,)> = OF.optional(connection, values![repository, digest]).await?;
        Ok(found.map(|(at,)| at.and_then(|at| Timestamp::from_nanosecond(i128::from(at)).ok())))
    }

    /// Stores when an image was built. The time never changes, because a digest identifies the content.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn keep_build_time(
        &self,
        repository: &Repository,
        digest: &Digest,
        at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.writes.flood(BuiltAt { repository: repository.clone(), digest: digest.clone(), at }).await
    }
}

struct BuiltAt {
    repository: Repository,
    digest: Digest,
    at: Option<Timestamp>,
}

impl Flood for BuiltAt {
    type Output = ();

    async fn run_all(tx: &mut Transaction<'_>, all: &[&Self]) -> Result<Vec<()>, sqlx::Error> {
        let row = |built: &&Self| {
            // Nanoseconds, because two builds can be less than a millisecond apart. The range ends in the year 2262.
            let at = built.at.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
            values![&built.repository, &built.digest, at]
        };
        INSERT.execute_rows(tx.connection, values![], all.iter().map(row).collect()).await?;
        Ok(vec![(); all.len()])
    }
}
