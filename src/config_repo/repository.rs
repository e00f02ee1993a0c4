use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tagrelay_git::tree::Unreadable;
use tagrelay_git::{Ancestry, Below, BranchName, CommitId, Mirror, MirrorError, Push, PushError, Remote, RemoteError};
use url::Url;

use super::error::{OpenError, PrepareError};
use super::index::Snapshot;
use super::local::{Local, Need, RefreshError, State};
use super::paths::{EnvironmentPaths, Territory};
use super::plan::{Plan, PlannedCommit, Prepared};
use super::settings::{CommitSettings, RemoteSettings};

/// The longest duration of a refresh. Ends a fetch whose server sends keep-alive packets forever.
const REFRESH_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The longest duration of a fetch of a single commit that is not the tip.
const COMMIT_LIMIT: Duration = Duration::from_secs(60);

/// One branch of one config repository.
///
/// A handle that is cheap to clone. Reading and pushing exclude each other; preparing can run at the same time as both.
#[derive(Clone)]
pub struct ConfigRepository {
    inner: Arc<Inner>,
}

struct Inner {
    commits: CommitSettings,
    remote: Remote,
    branch: BranchName,
    local: Arc<Local>,
    /// Locked during each conversation with the remote.
    ///
    /// The lock makes sure that results are recorded in the order in which the remote produced them.
    conversation: Arc<tokio::sync::Mutex<()>>,
    /// Set while the mirror is being repacked.
    compacting: Arc<AtomicBool>,
    /// The history below the tip of the last [`ConfigRepository::below_tip`].
    ancestry: Mutex<Option<Ancestry>>,
    url: Url,
    mirror: PathBuf,
}

/// The parts that all handles of a mirror share.
struct Shared {
    state: Arc<Mutex<State>>,
    conversation: Arc<tokio::sync::Mutex<()>>,
    compacting: Arc<AtomicBool>,
}

impl std::fmt::Debug for ConfigRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigRepository").field("tip", &self.tip()).finish_non_exhaustive()
    }
}

impl ConfigRepository {
    /// Opens the mirror, or creates an empty one. Uses no network before [`refresh`](Self::refresh).
    ///
    /// # Errors
    ///
    /// If the settings or the folder of the mirror cannot be used.
    pub async fn open(settings: RemoteSettings, environments: Vec<EnvironmentPaths>) -> Result<Self, OpenError> {
        let territory = Territory::new(&environments)?;
        let remote = remote_of(&settings)?;
        let folder = settings.mirror.clone();
        let mirror = blocking(move || Mirror::open(&folder)).await.map_err(MirrorError::from)??;
        let state = Arc::new(Mutex::new(State::new(mirror)));
        let shared = Shared { state, conversation: Arc::default(), compacting: Arc::default() };
        Ok(Self::assemble(settings, remote, territory, shared))
    }

    /// Opens a branch with the mirror of this handle, which stays in use.
    ///
    /// The index is available at once if the URL and the branch are the same.
    ///
    /// # Errors
    ///
    /// If the settings cannot be used.
    pub async fn reopen(
        &self,
        settings: RemoteSettings,
        environments: Vec<EnvironmentPaths>,
    ) -> Result<Self, OpenError> {
        let territory = Territory::new(&environments)?;
        let remote = remote_of(&settings)?;
        let shared = Shared {
            state: self.inner.local.shared_state(),
            conversation: self.inner.conversation.clone(),
            compacting: self.inner.compacting.clone(),
        };
        let is_same = self.inner.url == settings.url && self.inner.branch == remote.1;
        let new = Self::assemble(settings, remote, territory, shared);
        if is_same {
            // The tip may exist only in memory, which both handles share.
            let (local, tip) = (new.inner.local.clone(), self.tip());
            if let Err(error) = blocking(move || local.index_mirror(tip)).await.map_err(MirrorError::from)? {
                tracing::debug!(%error, "the mirror cannot be indexed before the next refresh");
            }
        }
        Ok(new)
    }

    fn assemble(
        settings: RemoteSettings,
        (remote, branch): (Remote, BranchName),
        territory: Territory,
        shared: Shared,
    ) -> Self {
        let RemoteSettings { commits, mirror, url, .. } = settings;
        let Shared { state, conversation, compacting } = shared;
        let local = Arc::new(Local::new(territory, state));
        let ancestry = Mutex::default();
        let inner = Inner { commits, remote, branch, local, conversation, compacting, ancestry, url, mirror };
        Self { inner: Arc::new(inner) }
    }

    /// The folder of the mirror. Another handle may share it only if [`reopen`](Self::reopen) created that handle.
    pub fn mirror(&self) -> &Path {
        &self.inner.mirror
    }

    /// The address of the remote.
    pub fn url(&self) -> &Url {
        &self.inner.url
    }

    /// Reads the tip of the branch, fetches it if it moved, and updates the index.
    ///
    /// A branch that was force-pushed, or deleted and created again, is followed like any other move.
    ///
    /// # Errors
    ///
    /// If the remote or the mirror fails. The known tip stays as it was.
    pub async fn refresh(&self) -> Result<CommitId, RemoteError> {
        // In its own task, so that a cancelled caller neither discards a fetch nor reorders results.
        let repository = self.clone();
        let refreshing = tokio::spawn(async move { repository.refresh_now().await });
        refreshing.await.unwrap_or_else(|error| Err(MirrorError::from(error).into()))
    }

    async fn refresh_now(&self) -> Result<CommitId, RemoteError> {
        let _conversation = self.inner.conversation.lock().await;
        let damage = match self.read_remote().await {
            Err(RefreshError::Damaged(reason)) => reason,
            other => return other.map_err(RefreshError::into_remote_error),
        };
        let local = self.inner.local.clone();
        blocking(move || local.reset(&damage)).await.map_err(MirrorError::from)??;
        self.read_remote().await.map_err(RefreshError::into_remote_error)
    }

    async fn read_remote(&self) -> Result<CommitId, RefreshError> {
        let minutes = REFRESH_LIMIT.as_secs() / 60;
        let timed_out = |_| Err(RemoteError::unavailable(format!("no result after {minutes} minutes")).into());
        tokio::time::timeout(REFRESH_LIMIT, self.read_remote_unlimited()).await.unwrap_or_else(timed_out)
    }

    async fn read_remote_unlimited(&self) -> Result<CommitId, RefreshError> {
        let mut reading = self.inner.remote.read().await?;
        let tip = reading.tip(&self.inner.branch).await?;
        let local = self.inner.local.clone();
        let need = blocking(move || local.need(tip)).await.map_err(MirrorError::from)??;
        match need {
            Need::Nothing => return Ok(tip),
            Need::Index => {}
            Need::Objects { have, mut receiver } => {
                let fetched = reading.fetch(tip, have, &mut receiver).await;
                // Check our side first, because a full disk also ends the conversation.
                match (receiver.finish(fetched.is_ok()).await, fetched) {
                    (Ok(()), Ok(())) => {}
                    (Err(MirrorError::Git { source, .. }), Ok(())) if have.is_some() => {
                        return Err(RefreshError::Damaged(source.message().to_owned()));
                    }
                    // A reset frees space, because most of the mirror is history.
                    (Err(error), _) if have.is_some() && error.is_disk_full() => {
                        return Err(RefreshError::Damaged(error.to_string()));
                    }
                    (Err(error), _) => return Err(error.into()),
                    (Ok(()), Err(error)) => return Err(error.into()),
                }
            }
        }
        let local = self.inner.local.clone();
        blocking(move || local.record_fetch(tip)).await.map_err(MirrorError::from)??;
        self.compact();
        Ok(tip)
    }

    /// The index of the known tip; `None` before the first refresh.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.local.snapshot()
    }

    /// The known tip; `None` before the first refresh.
    pub fn tip(&self) -> Option<CommitId> {
        self.snapshot().map(|snapshot| snapshot.tip)
    }

    /// Returns the index of any commit. Fetches the commit if the mirror lacks it.
    ///
    /// Servers with protocol version 2 send any commit, others may send only tips
    /// (<https://git-scm.com/docs/protocol-v2>, `want`).
    ///
    /// # Errors
    ///
    /// If the branch was not read yet, or the remote does not send the commit.
    pub async fn snapshot_at(&self, commit: CommitId) -> Result<Arc<Snapshot>, RemoteError> {
        // In its own task, so that a cancelled caller does not abort a fetch into the mirror.
        let repository = self.clone();
        let reading = tokio::spawn(async move {
            let seconds = COMMIT_LIMIT.as_secs();
            let timed_out =
                |_| Err(RemoteError::unavailable(format!("commit {commit} was not sent within {seconds} seconds")));
            tokio::time::timeout(COMMIT_LIMIT, repository.read_commit(commit)).await.unwrap_or_else(timed_out)
        });
        reading.await.unwrap_or_else(|error| Err(MirrorError::from(error).into()))
    }

    async fn read_commit(&self, commit: CommitId) -> Result<Arc<Snapshot>, RemoteError> {
        if let Ok(found) = self.local_snapshot_at(commit).await? {
            return Ok(found);
        }
        let _conversation = self.inner.conversation.lock().await;
        // Another caller may have fetched the commit in the meantime.
        if let Ok(found) = self.local_snapshot_at(commit).await? {
            return Ok(found);
        }
        let local = self.inner.local.clone();
        let (have, mut receiver) = blocking(move || local.receive_pack()).await.map_err(MirrorError::from)?;
        let mut reading = self.inner.remote.read().await?;
        // Determines the version of the protocol.
        reading.tip(&self.inner.branch).await?;
        let fetched = reading.fetch(commit, have, &mut receiver).await;
        // Check our side first, because a full disk also ends the conversation.
        receiver.finish(fetched.is_ok()).await?;
        fetched?;
        let local = self.inner.local.clone();
        blocking(move || local.find_new_packs()).await.map_err(MirrorError::from)??;
        let found = self.local_snapshot_at(commit).await?;
        self.compact();
        found.map_err(|error| RemoteError::Protocol { reason: error.to_string() })
    }

    /// Returns the index of a commit without the remote. The inner error means that the mirror lacks the commit.
    async fn local_snapshot_at(&self, commit: CommitId) -> Result<Result<Arc<Snapshot>, Unreadable>, RemoteError> {
        let known = self.snapshot().ok_or_else(|| RemoteError::unavailable("the branch has not been read yet"))?;
        if known.tip == commit {
            return Ok(Ok(known));
        }
        if let Some(found) = self.inner.local.kept_snapshot(commit) {
            return Ok(Ok(found));
        }
        let local = self.inner.local.clone();
        Ok(blocking(move || local.index_other(commit, &known)).await.map_err(MirrorError::from)?)
    }

    /// Looks for commits at or below the known tip. Fetches parts of the history if needed, never the branch itself.
    ///
    /// # Errors
    ///
    /// If the branch was not read yet, or the remote fails.
    pub async fn below_tip(&self, commits: &[CommitId]) -> Result<HashMap<CommitId, Below>, RemoteError> {
        let _conversation = self.inner.conversation.lock().await;
        let (local, folder) = (self.inner.local.clone(), self.inner.mirror.join("history"));
        let leftover = folder.clone();
        let tip = blocking(move || {
            // Left by an interrupted fetch of an earlier process.
            let _ = std::fs::remove_dir_all(leftover);
            local.tip_and_parents()
        });
        let (tip, parents) = tip.await.map_err(MirrorError::from)?.map_err(RemoteError::unavailable)?;
        let known = self.inner.ancestry.lock().unwrap_or_else(PoisonError::into_inner).take();
        let known = known.filter(|known| known.tip() == tip);
        let mut ancestry = known.unwrap_or_else(|| Ancestry::new(tip, parents));
        let found = ancestry.find(commits, &self.inner.remote, &folder).await;
        *self.inner.ancestry.lock().unwrap_or_else(PoisonError::into_inner) = Some(ancestry);
        found
    }

    /// Builds the commits of a plan on top of the known tip. Sends nothing.
    ///
    /// `render` writes the message of each commit. Reads only files that name a wanted image.
    ///
    /// # Errors
    ///
    /// If the branch was not read yet, the plan names an unknown environment, the mirror is damaged, or signing fails. A
    /// problem of a single update is its outcome instead.
    pub async fn prepare(
        &self,
        plan: Plan,
        render: Arc<dyn Fn(&PlannedCommit) -> String + Send + Sync>,
    ) -> Result<Prepared, PrepareError> {
        let inner = self.inner.clone();
        let prepared = blocking(move || inner.local.prepare(&plan, &inner.commits, &*render));
        prepared.await.unwrap_or_else(|error| Err(PrepareError::Damaged(error.to_string())))
    }

    /// Pushes prepared commits, unless the branch has moved since they were prepared.
    ///
    /// One attempt, without a fetch. Afterwards the last new commit is the known tip.
    ///
    /// # Errors
    ///
    /// Each variant of [`PushError`] asks for a different reaction of the caller. The known tip stays as it was.
    pub async fn push(&self, prepared: Prepared) -> Result<(), PushError> {
        if prepared.is_empty() {
            return Ok(());
        }
        // In its own task, so that a cancelled caller does not leave a moved branch unrecorded.
        let repository = self.clone();
        let pushing = tokio::spawn(async move { repository.push_now(prepared).await });
        pushing.await.unwrap_or_else(|error| Err(PushError::unknown(error.to_string())))
    }

    async fn push_now(&self, prepared: Prepared) -> Result<(), PushError> {
        let _conversation = self.inner.conversation.lock().await;
        if self.tip() != Some(prepared.parent) {
            return Err(PushError::Outdated { reason: format!("{} is not the known tip", prepared.parent) });
        }
        let Prepared { parent, tip, objects, known, .. } = prepared;
        let push = Push { old: parent, new: tip, objects: Arc::new(objects) };
        self.inner.remote.push(&self.inner.branch, &push).await?;
        let objects = Arc::unwrap_or_clone(push.objects);
        let local = self.inner.local.clone();
        match blocking(move || local.record_push(objects, known, tip)).await {
            Ok(false) => {}
            Ok(true) => self.compact(),
            Err(error) => tracing::error!("a pushed commit could not be recorded: {error}"),
        }
        Ok(())
    }

    /// Repacks the mirror in the background if it exceeds its limits.
    fn compact(&self) {
        if self.inner.compacting.swap(true, Ordering::AcqRel) {
            return;
        }
        let repository = self.clone();
        tokio::spawn(async move {
            let _done = ClearAtEnd(repository.inner.compacting.clone());
            repository.compact_now().await;
        });
    }

    async fn compact_now(&self) {
        let local = self.inner.local.clone();
        let Ok(Some(compaction)) = blocking(move || local.compaction()).await else { return };
        let resets = compaction.resets();
        let compacted = blocking(move || compaction.run()).await.map_err(MirrorError::from).flatten();
        // Locked only while the files are exchanged, because no pack may be received during the exchange.
        let _conversation = self.inner.conversation.lock().await;
        let local = self.inner.local.clone();
        match blocking(move || local.adopt(compacted, resets)).await.map_err(MirrorError::from).flatten() {
            Ok(()) => tracing::info!("mirror repacked"),
            Err(error) => tracing::warn!("repacking the mirror failed: {error}"),
        }
    }
}

/// Clears the flag at the end of the scope, even after a panic.
struct ClearAtEnd(Arc<AtomicBool>);

impl Drop for ClearAtEnd {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn remote_of(settings: &RemoteSettings) -> Result<(Remote, BranchName), OpenError> {
    let name = || settings.name.clone();
    let remote = Remote::new(&settings.address()).map_err(|source| OpenError::Address { name: name(), source })?;
    let branch = BranchName::parse(&settings.branch).map_err(|source| OpenError::Branch { name: name(), source })?;
    Ok((remote, branch))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}
