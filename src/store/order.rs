//! What the order of builds is decided by: what is under way for a place, what brought a version, build times.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::writer::{Transaction, Write};
use super::{Cause, Store, StoreError, Update, UpdateState, json_text};
use crate::image::{Digest, Repository, Tag, Version};

/// What is under way for a repository in an environment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The newest update that was not refused: as long as it is the same, nothing has been added.
    pub mark: Option<String>,
    /// The updates that are on their way to the branch, oldest first. A promotion that waits for the registry is not
    /// yet; a rollback is from the beginning.
    pub open: Vec<Update>,
    /// Promotions that wait for the registry: nobody knows yet whether there is anything to compare with.
    pub unconfirmed: Vec<Update>,
    /// The update that is the mark, where it has come to an end.
    newest_ended: Option<Update>,
}

impl Standing {
    /// Returns what [`Store::brought`] would, where that can be told from what is here; else `None`.
    pub fn brought(&self, version: &Version) -> Option<Option<&Update>> {
        if self.mark.is_none() {
            return Some(None);
        }
        // The newest of all is the newest of those that brought it, too.
        let newest = self.newest_ended.as_ref()?;
        let is_there = matches!(newest.state, UpdateState::Committed | UpdateState::Unchanged);
        let is_tag = version.tag().is_none() || version.tag() == newest.version.tag();
        let digests = version.digest().zip(newest.version.digest());
        let is_digest = digests.is_none_or(|(wanted, brought)| wanted == brought);
        (is_there && is_tag && is_digest).then_some(Some(newest))
    }
}

impl Store {
    /// Returns what is under way for a place.
    ///
    /// Read it before the snapshot of the branch: an update that is no longer open by then is in the snapshot.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn standing(&self, environment: &str, repository: &Repository) -> Result<Standing, StoreError> {
        // One statement, so that both parts are of the same moment.
        let updates: Vec<Update> = sqlx::query_as(
            "SELECT * FROM updates WHERE environment = ?1 AND repository = ?2 AND (
                state IN ('unverified', 'pending', 'waiting')
                OR id = (SELECT max(id) FROM updates WHERE environment = ?1 AND repository = ?2 AND state != 'refused'))
             ORDER BY id",
        )
        .bind(environment)
        .bind(repository.as_str())
        .fetch_all(&self.reads)
        .await?;
        let mark = updates.last().map(|update| update.id.clone());
        let mut standing = Standing { mark, open: Vec::new(), unconfirmed: Vec::new(), newest_ended: None };
        for update in updates {
            match update.state {
                UpdateState::Unverified if update.cause != Cause::Rollback => standing.unconfirmed.push(update),
                UpdateState::Unverified | UpdateState::Pending | UpdateState::Waiting => standing.open.push(update),
                UpdateState::Committed | UpdateState::Unchanged | UpdateState::Superseded | UpdateState::Refused => {
                    standing.newest_ended = Some(update);
                }
            }
        }
        Ok(standing)
    }

    /// Returns the last update that gave a place this version, or found that it has it. A version without a digest
    /// is found by its tag.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn brought(
        &self,
        environment: &str,
        repository: &Repository,
        version: &Version,
    ) -> Result<Option<Update>, StoreError> {
        let update = sqlx::query_as(
            "SELECT * FROM updates WHERE environment = ?1 AND repository = ?2 AND state IN ('committed', 'unchanged')
                AND (?3 IS NULL OR tag = ?3) AND (?4 IS NULL OR digest IS NULL OR digest = ?4)
             ORDER BY id DESC LIMIT 1",
        )
        .bind(environment)
        .bind(repository.as_str())
        .bind(version.tag().map(Tag::as_str))
        .bind(version.digest().map(Digest::as_str))
        .fetch_optional(&self.reads)
        .await?;
        Ok(update)
    }

    /// Returns when an image was built: `None` when nobody has asked yet, `Some(None)` when it does not say.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn build_time(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Option<Timestamp>>, StoreError> {
        let found: Option<Option<i64>> =
            sqlx::query_scalar("SELECT built_at FROM build_times WHERE repository = ? AND digest = ?")
                .bind(repository.as_str())
                .bind(digest.as_str())
                .fetch_optional(&self.reads)
                .await?;
        Ok(found.map(|at| at.and_then(|at| Timestamp::from_nanosecond(i128::from(at)).ok())))
    }

    /// Keeps for ever when an image was built.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn keep_build_time(
        &self,
        repository: &Repository,
        digest: &Digest,
        at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let (repository, digest) = (repository.clone(), digest.clone());
        self.writes.keep_build_time(KeepBuildTime { repository, digest, at, reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Takes pending updates of events back, because what runs is no longer what they were compared with: their
    /// events are decided again.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn decide_again(&self, update_ids: Vec<String>) -> Result<(), StoreError> {
        self.writes.run(DecideAgain(update_ids)).await
    }
}

/// When an image was built, on its way to the disk.
pub(super) struct KeepBuildTime {
    repository: Repository,
    digest: Digest,
    at: Option<Timestamp>,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl KeepBuildTime {
    /// Tells whether it is on disk. Nobody waits any more when the caller was cancelled.
    pub(super) fn tell(self, result: Result<(), StoreError>) {
        let _ = self.reply.send(result);
    }
}

/// Writes build times. May run more than once; only the last run is committed.
pub(super) async fn write(tx: &mut Transaction<'_>, times: &[&KeepBuildTime]) -> Result<(), sqlx::Error> {
    let row = |time: &&KeepBuildTime| {
        // Nanoseconds: two builds can be less than a millisecond apart. They reach to the year 2262.
        let at = time.at.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
        (time.repository.as_str().to_owned(), time.digest.as_str().to_owned(), at)
    };
    sqlx::query(
        "INSERT INTO build_times (repository, digest, built_at)
         SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(json_text(times.iter().map(row).collect::<Vec<_>>())?)
    .execute(&mut *tx.connection)
    .await
    .map(|_| ())
}

/// How many milliseconds the intake may take to let go of an event that it has just decided. What it still has in its
/// hands it does not begin a second time.
const INTAKE_LETS_GO_MS: i64 = 20;

struct DecideAgain(Vec<String>);

impl Write for DecideAgain {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        for id in &self.0 {
            let event: Option<String> = sqlx::query_scalar(
                "DELETE FROM updates WHERE id = ? AND state = 'pending' AND cause IN ('push', 'catch-up') RETURNING cause_id",
            )
            .bind(id)
            .fetch_optional(&mut *tx.connection)
            .await?;
            let Some(event) = event else { continue };
            sqlx::query(
                "UPDATE events SET state = 'queued', attempts = 0, next_attempt_at = ?, finished_at = NULL,
                    reason = 'somebody else changed what runs: it is compared again' WHERE id = ?",
            )
            .bind(tx.now_milliseconds() + INTAKE_LETS_GO_MS)
            .bind(&event)
            .execute(&mut *tx.connection)
            .await?;
        }
        Ok(())
    }
}
