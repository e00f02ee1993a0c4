//! What the branch said at another commit than the one that is known.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tagrelay_git::tree::Unreadable;
use tagrelay_git::{CommitId, MirrorError, RemoteError};

use super::{ConfigRepository, Local, blocking};
use crate::config_repo::files::Known;
use crate::config_repo::index::{self, Snapshot};

/// The most commits of which it is remembered what they say. What they have in common they share.
const MAX_REMEMBERED: usize = 32;

/// How long a server may take to give a commit that somebody asks for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The indexes of commits that somebody has asked for, oldest first.
#[derive(Debug, Default)]
pub(super) struct Past(Mutex<VecDeque<Arc<Snapshot>>>);

impl Past {
    fn find(&self, commit: CommitId) -> Option<Arc<Snapshot>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.iter().find(|snapshot| snapshot.tip == commit).cloned()
    }

    fn keep(&self, snapshot: Arc<Snapshot>) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(snapshot);
    }
}

impl ConfigRepository {
    /// Returns the index at a commit, wherever the branch is now. The mirror still has most commits that were its tip; another
    /// one is asked of the remote, by itself and without what the mirror has. Servers that speak version 2 of Git's protocol give
    /// out any commit, others may give out tips only
    /// (<https://git-scm.com/docs/protocol-v2>, `want`).
    ///
    /// # Errors
    ///
    /// When nothing is known yet, or the remote does not give it.
    pub async fn snapshot_at(&self, commit: CommitId) -> Result<Arc<Snapshot>, RemoteError> {
        // In a task of its own, as every reading: a caller who stops waiting must leave the mirror whole.
        let repository = self.clone();
        let reading = tokio::spawn(async move {
            // Nothing else is asked of the remote meanwhile.
            let late =
                |_| Err(RemoteError::unavailable(format!("it has not given commit {commit} within {PATIENCE:?}")));
            tokio::time::timeout(PATIENCE, repository.read_at(commit)).await.unwrap_or_else(late)
        });
        reading.await.unwrap_or_else(|error| Err(MirrorError::from(error).into()))
    }

    async fn read_at(&self, commit: CommitId) -> Result<Arc<Snapshot>, RemoteError> {
        if let Ok(found) = self.index_at(commit).await? {
            return Ok(found);
        }
        let _conversation = self.inner.conversation.lock().await;
        // Somebody may have waited for the same.
        if let Ok(found) = self.index_at(commit).await? {
            return Ok(found);
        }
        let local = self.inner.local.clone();
        let prepared = blocking(move || {
            let state = local.state();
            (state.mirror.stored_tip(), state.mirror.receive_pack())
        });
        let (have, mut receiver) = prepared.await.map_err(MirrorError::from)?;
        let mut reading = self.inner.remote.read().await?;
        // Says which version of the protocol the server speaks.
        reading.tip(&self.inner.branch).await?;
        let fetched = reading.fetch(commit, have, &mut receiver).await;
        // First whether our side failed: a disk that is full also breaks the conversation off.
        let finished = receiver.finish(fetched.is_ok()).await;
        finished?;
        fetched?;
        let local = self.inner.local.clone();
        blocking(move || local.state().mirror.find_new_packs()).await.map_err(MirrorError::from)??;
        let found = self.index_at(commit).await?;
        self.compact();
        found.map_err(|error| RemoteError::Protocol { reason: error.to_string() })
    }

    async fn index_at(&self, commit: CommitId) -> Result<Result<Arc<Snapshot>, Unreadable>, RemoteError> {
        let known = self.snapshot().ok_or_else(|| RemoteError::unavailable("it has not been read yet"))?;
        if known.tip == commit {
            return Ok(Ok(known));
        }
        if let Some(found) = self.inner.local.past.find(commit) {
            return Ok(Ok(found));
        }
        let local = self.inner.local.clone();
        Ok(blocking(move || local.make_index_at(commit, &known)).await.map_err(MirrorError::from)?)
    }
}

impl Local {
    /// Makes the index of a commit from that of another, as far as the mirror has both.
    fn make_index_at(&self, commit: CommitId, known: &Snapshot) -> Result<Arc<Snapshot>, Unreadable> {
        let state = self.state();
        let trees = (state.mirror.tree_of(known.tip)?, state.mirror.tree_of(commit)?);
        let update = index::difference(&state.mirror, &self.territory, known, trees, Known::default())?;
        drop(state);
        let mut past = known.clone();
        update.apply(&mut past, &self.territory, commit);
        let past = Arc::new(past);
        self.past.keep(past.clone());
        Ok(past)
    }
}
