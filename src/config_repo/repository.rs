use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tagrelay_git::tree::{Cause, Unreadable};
use tagrelay_git::{
    Ancestry, Below, BranchName, CommitId, Mirror, MirrorError, NewObject, PackReceiver, Push, PushError, Remote,
    RemoteError,
};
use url::Url;

use super::error::{OpenError, PrepareError};
use super::files::Known;
use super::index::{self, Snapshot};
use super::paths::{EnvironmentPaths, Territory};
use super::plan::{Plan, PlannedCommit, Prepared};
use super::prepare;
use super::settings::{CommitSettings, RemoteSettings};

mod past;

/// How long reading the remote may take in all. A server may say every second that it is still there.
const READ_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// One branch of one config repository: what is on it, and the way to change it.
///
/// A handle that is cheap to clone. Reading and pushing wait for each other; preparing waits for neither.
#[derive(Clone)]
pub struct ConfigRepository {
    inner: Arc<Inner>,
}

struct Inner {
    commits: CommitSettings,
    remote: Remote,
    branch: BranchName,
    local: Arc<Local>,
    /// Held while the remote is spoken to, so that what is learnt is noted in the order in which it happened.
    conversation: Arc<tokio::sync::Mutex<()>>,
    /// Set while the mirror is being made small.
    compacting: Arc<AtomicBool>,
    /// The history below a tip that somebody has asked for.
    ancestry: Mutex<Option<Ancestry>>,
    url: Url,
    mirror: PathBuf,
}

/// Everything on this side of the wire.
struct Local {
    territory: Territory,
    /// Shared by all that work with the same mirror.
    state: Arc<Mutex<State>>,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    past: past::Past,
}

/// What all have in common that work with the same mirror.
struct Shared {
    state: Arc<Mutex<State>>,
    conversation: Arc<tokio::sync::Mutex<()>>,
    compacting: Arc<AtomicBool>,
}

struct State {
    mirror: Mirror,
    /// Set when something that has to be in the mirror is not: the next refresh starts over.
    damage: Option<String>,
}

impl std::fmt::Debug for ConfigRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigRepository").field("tip", &self.tip()).finish_non_exhaustive()
    }
}

impl ConfigRepository {
    /// Opens the mirror, or makes an empty one. Needs no network: [`refresh`](Self::refresh) is the first that does.
    ///
    /// # Errors
    ///
    /// When the settings cannot be used, or the folder of the mirror cannot.
    pub async fn open(settings: RemoteSettings, environments: Vec<EnvironmentPaths>) -> Result<Self, OpenError> {
        let territory = Territory::new(&environments)?;
        let (remote, branch) = remote_of(&settings)?;
        let folder = settings.mirror.clone();
        let mirror = blocking(move || Mirror::open(&folder)).await.map_err(MirrorError::from)??;
        let state = Arc::new(Mutex::new(State { mirror, damage: None }));
        Ok(Self::join(
            settings,
            (remote, branch),
            territory,
            Shared { state, conversation: Arc::default(), compacting: Arc::default() },
        ))
    }

    /// Opens a branch with the mirror that this one has, while this one is still in use. Where it is the same branch of the
    /// same remote, what the mirror holds is known at once.
    ///
    /// # Errors
    ///
    /// When the settings cannot be used.
    pub async fn reopen(
        &self,
        settings: RemoteSettings,
        environments: Vec<EnvironmentPaths>,
    ) -> Result<Self, OpenError> {
        let territory = Territory::new(&environments)?;
        let (remote, branch) = remote_of(&settings)?;
        let shared = Shared {
            state: self.inner.local.state.clone(),
            conversation: self.inner.conversation.clone(),
            compacting: self.inner.compacting.clone(),
        };
        let is_same = self.inner.url == settings.url && self.inner.branch == branch;
        let new = Self::join(settings, (remote, branch), territory, shared);
        if is_same {
            // What we pushed since the last fetch is in memory alone, which the new one has too.
            let (local, tip) = (new.inner.local.clone(), self.tip());
            if let Err(error) = blocking(move || local.read_mirror(tip)).await.map_err(MirrorError::from)? {
                tracing::debug!(%error, "what the mirror holds cannot be told before the remote is read");
            }
        }
        Ok(new)
    }

    fn join(
        settings: RemoteSettings,
        (remote, branch): (Remote, BranchName),
        territory: Territory,
        shared: Shared,
    ) -> Self {
        let RemoteSettings { commits, mirror, url, .. } = settings;
        let Shared { state, conversation, compacting } = shared;
        let local = Arc::new(Local { territory, state, snapshot: RwLock::new(None), past: past::Past::default() });
        let ancestry = Mutex::default();
        let inner = Inner { commits, remote, branch, local, conversation, compacting, ancestry, url, mirror };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the folder of its mirror, which no other may open meanwhile but by [`reopen`](Self::reopen).
    pub fn mirror(&self) -> &Path {
        &self.inner.mirror
    }

    /// Asks the remote where the branch is, fetches it if it moved, and brings the index up to date.
    ///
    /// A branch that was forced elsewhere, or deleted and made again, is followed like any other move.
    ///
    /// # Errors
    ///
    /// What was known before stays known.
    pub async fn refresh(&self) -> Result<CommitId, RemoteError> {
        // In a task of its own: a caller who stops waiting must neither undo what was fetched so far nor let
        // what was learnt be noted after what came later.
        let repository = self.clone();
        let refreshing = tokio::spawn(async move { repository.refresh_now().await });
        refreshing.await.unwrap_or_else(|error| Err(MirrorError::from(error).into()))
    }

    async fn refresh_now(&self) -> Result<CommitId, RemoteError> {
        let _conversation = self.inner.conversation.lock().await;
        let damage = match self.read_remote().await {
            Err(Failed::Damaged(reason)) => reason,
            other => return other.map_err(Failed::into_error),
        };
        let local = self.inner.local.clone();
        blocking(move || local.state().reset(&damage)).await.map_err(MirrorError::from)??;
        self.read_remote().await.map_err(Failed::into_error)
    }

    /// Returns the index at the commit that is known; `None` before the first refresh.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.local.snapshot()
    }

    /// Returns the commit that is known; `None` before the first refresh.
    pub fn tip(&self) -> Option<CommitId> {
        self.snapshot().map(|snapshot| snapshot.tip)
    }

    /// Tells which of these commits lie below the commit that is known, which is asked of the remote where need be:
    /// some commits without what is in them, and never another fetch of the branch.
    ///
    /// # Errors
    ///
    /// When nothing is known yet, or the remote could not be asked.
    pub async fn below_tip(&self, commits: &[CommitId]) -> Result<HashMap<CommitId, Below>, RemoteError> {
        let _conversation = self.inner.conversation.lock().await;
        let (local, folder) = (self.inner.local.clone(), self.inner.mirror.join("history"));
        let place = folder.clone();
        let tip = blocking(move || {
            // What an earlier process was in the middle of.
            let _ = std::fs::remove_dir_all(place);
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

    /// Builds what `plan` asks for on top of the commit that is known, and sends nothing.
    ///
    /// `render` writes the message of each commit. Reads no file but those that name a wanted image.
    ///
    /// # Errors
    ///
    /// When nothing is known yet, the plan names a foreign environment, or the mirror turns out damaged. What is
    /// wrong with a single update is its outcome.
    pub async fn prepare(
        &self,
        plan: Plan,
        render: Arc<dyn Fn(&PlannedCommit) -> String + Send + Sync>,
    ) -> Result<Prepared, PrepareError> {
        let inner = self.inner.clone();
        let prepared = blocking(move || {
            let mut state = inner.local.state();
            let snapshot = inner.local.snapshot().ok_or(PrepareError::NotRead)?;
            let prepared =
                prepare::prepare(&state.mirror, &inner.local.territory, &snapshot, &inner.commits, &plan, &*render);
            if let Err(PrepareError::Damaged(reason)) = &prepared {
                state.damage = Some(reason.clone());
            }
            prepared
        });
        prepared.await.unwrap_or_else(|error| Err(PrepareError::Damaged(error.to_string())))
    }

    /// Sends what was prepared, if the branch is still where it was then. One attempt, without any fetch; afterwards
    /// the new commit is the one that is known.
    ///
    /// # Errors
    ///
    /// The variants tell the caller what to do. After all of them what was known before stays known.
    pub async fn push(&self, prepared: Prepared) -> Result<(), PushError> {
        if prepared.is_empty() {
            return Ok(());
        }
        // In a task of its own: a caller who stops waiting must not leave a moved branch unnoted.
        let repository = self.clone();
        let pushing = tokio::spawn(async move { repository.push_now(prepared).await });
        pushing.await.unwrap_or_else(|error| Err(PushError::unknown(error.to_string())))
    }

    async fn push_now(&self, prepared: Prepared) -> Result<(), PushError> {
        let _conversation = self.inner.conversation.lock().await;
        if self.tip() != Some(prepared.parent) {
            return Err(PushError::Outdated { reason: format!("{} is not the commit we know", prepared.parent) });
        }
        let Prepared { parent, tip, objects, known, .. } = prepared;
        let push = Push { old: parent, new: tip, objects: Arc::new(objects) };
        self.inner.remote.push(&self.inner.branch, &push).await?;
        let objects = Arc::unwrap_or_clone(push.objects);
        let local = self.inner.local.clone();
        match blocking(move || local.note_pushed(objects, known, tip)).await {
            Ok(false) => {}
            Ok(true) => self.compact(),
            Err(error) => tracing::error!("a pushed commit could not be noted: {error}"),
        }
        Ok(())
    }

    async fn read_remote(&self) -> Result<CommitId, Failed> {
        let minutes = READ_PATIENCE.as_secs() / 60;
        let endless =
            |_| Err(RemoteError::unavailable(format!("reading it had no end after {minutes} minutes")).into());
        tokio::time::timeout(READ_PATIENCE, self.read_remote_now()).await.unwrap_or_else(endless)
    }

    async fn read_remote_now(&self) -> Result<CommitId, Failed> {
        let mut reading = self.inner.remote.read().await?;
        let tip = reading.tip(&self.inner.branch).await?;
        let local = self.inner.local.clone();
        let need = blocking(move || local.need(tip)).await.map_err(MirrorError::from)??;
        match need {
            Need::Nothing => return Ok(tip),
            Need::Index => {}
            Need::Objects { have, mut receiver } => {
                let fetched = reading.fetch(tip, have, &mut receiver).await;
                // First whether our side failed: a disk that is full also breaks the conversation off.
                match (receiver.finish(fetched.is_ok()).await, fetched) {
                    (Ok(()), Ok(())) => {}
                    (Err(MirrorError::Git { source, .. }), Ok(())) if have.is_some() => {
                        return Err(Failed::Damaged(source.message().to_owned()));
                    }
                    // What earlier fetches brought lies beside it, and nearly all of that is history.
                    (Err(error), _) if have.is_some() && error.is_disk_full() => {
                        return Err(Failed::Damaged(error.to_string()));
                    }
                    (Err(error), _) => return Err(RemoteError::from(error).into()),
                    (Ok(()), Err(error)) => return Err(error.into()),
                }
            }
        }
        let local = self.inner.local.clone();
        blocking(move || local.note_fetched(tip)).await.map_err(MirrorError::from)??;
        self.compact();
        Ok(tip)
    }

    /// Makes the mirror small again where it has grown, without anybody waiting for that.
    fn compact(&self) {
        if self.inner.compacting.swap(true, Ordering::AcqRel) {
            return;
        }
        let repository = self.clone();
        tokio::spawn(async move {
            let _done = Compacting(repository.inner.compacting.clone());
            repository.compact_now().await;
        });
    }

    async fn compact_now(&self) {
        let local = self.inner.local.clone();
        // The lock is let go before the work begins.
        let Ok(Some(compaction)) = blocking(move || local.state().mirror.compaction()).await else { return };
        let resets = compaction.resets();
        let compacted = blocking(move || compaction.run()).await;
        // Only for the moment in which files change their places: nothing may be fetched meanwhile.
        let _conversation = self.inner.conversation.lock().await;
        let local = self.inner.local.clone();
        let adopting = blocking(move || -> Result<(), MirrorError> {
            let mut state = local.state();
            let adopted = compacted.map_err(MirrorError::from).flatten().and_then(|new| state.mirror.adopt(new));
            // One that was made anew meanwhile is not to blame.
            if adopted.is_err() && state.mirror.resets() == resets {
                state.damage = Some("it has grown".to_owned());
            }
            adopted
        });
        match adopting.await.map_err(MirrorError::from).flatten() {
            Ok(()) => tracing::info!("the packs of the mirror were made one"),
            Err(error) => tracing::warn!("the mirror has grown and could not be packed: {error}"),
        }
    }
}

/// Says, however it ends, that the mirror is no longer being made small.
struct Compacting(Arc<AtomicBool>);

impl Drop for Compacting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl State {
    fn reset(&mut self, reason: &str) -> Result<(), MirrorError> {
        self.damage = None;
        self.mirror.reset(reason)
    }
}

/// What is missing here of a commit of the remote.
enum Need {
    Nothing,
    Index,
    Objects { have: Option<CommitId>, receiver: PackReceiver },
}

/// Why a refresh failed.
enum Failed {
    /// A new mirror may help.
    Damaged(String),
    Error(RemoteError),
}

impl Failed {
    fn into_error(self) -> RemoteError {
        match self {
            Self::Damaged(reason) => RemoteError::Protocol { reason },
            Self::Error(error) => error,
        }
    }
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Self::Error(error)
    }
}

impl From<MirrorError> for Failed {
    fn from(error: MirrorError) -> Self {
        Self::Error(error.into())
    }
}

impl From<Unreadable> for Failed {
    fn from(error: Unreadable) -> Self {
        match error.cause {
            Cause::Mirror => Self::Damaged(error.to_string()),
            Cause::Content => Self::Error(RemoteError::Protocol { reason: error.to_string() }),
        }
    }
}

impl Local {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst an index that a refresh corrects.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what has to be done to know the commit `tip` of the remote.
    fn need(&self, tip: CommitId) -> Result<Need, Failed> {
        let mut state = self.state();
        let stored = state.mirror.stored_tip();
        // An empty mirror misses everything and is not damaged by that.
        if stored.is_some()
            && let Some(reason) = state.damage.take()
        {
            return Err(Failed::Damaged(reason));
        }
        Ok(match self.snapshot() {
            Some(snapshot) if snapshot.tip == tip => match stored {
                Some(_) => Need::Nothing,
                // The mirror has been emptied: what is in memory alone would be lost with us.
                None => Need::Objects { have: None, receiver: state.mirror.receive_pack() },
            },
            _ if stored == Some(tip) => Need::Index,
            _ => Need::Objects { have: stored, receiver: state.mirror.receive_pack() },
        })
    }

    /// Returns the commit that is known, and its parents.
    fn tip_and_parents(&self) -> Result<(CommitId, Vec<CommitId>), String> {
        let state = self.state();
        let tip = self.snapshot().ok_or("it has not been read yet")?.tip;
        let parents = state.mirror.parents_of(tip).map_err(|error| error.to_string())?;
        Ok((tip, parents))
    }

    /// Makes the index of a commit that the mirror holds, or of the one that it has on the disk.
    fn read_mirror(&self, newest: Option<CommitId>) -> Result<(), Unreadable> {
        let state = self.state();
        match newest.or_else(|| state.mirror.stored_tip()) {
            Some(tip) => self.move_index(&state.mirror, tip, Known::default()),
            None => Ok(()),
        }
    }

    /// Notes that all objects of `tip` are on the disk.
    fn note_fetched(&self, tip: CommitId) -> Result<(), Failed> {
        let mut state = self.state();
        state.mirror.find_new_packs()?;
        self.move_index(&state.mirror, tip, Known::default())?;
        state.mirror.store_tip(tip)?;
        state.damage = None;
        Ok(())
    }

    /// Notes that the remote has taken in commits of ours. Returns whether the disk was written to.
    fn note_pushed(&self, objects: Vec<NewObject>, known: Known, tip: CommitId) -> bool {
        let mut state = self.state();
        state.mirror.add(objects);
        if let Err(error) = self.move_index(&state.mirror, tip, known) {
            state.damage = Some(error.to_string());
            return false;
        }
        state.mirror.settle(tip).unwrap_or_else(|error| {
            // Nothing is lost: what is not on the disk is on the remote.
            tracing::warn!("the mirror could not be written: {error}");
            false
        })
    }

    fn move_index(&self, mirror: &Mirror, tip: CommitId, files: Known) -> Result<(), Unreadable> {
        let begun = Instant::now();
        let tree = mirror.tree_of(tip)?;
        let known = self.snapshot();
        // A mirror that was made anew does not have the old tree: then everything is read.
        let old_tree = known.as_ref().and_then(|snapshot| mirror.tree_of(snapshot.tip).ok());
        match known.as_deref().zip(old_tree) {
            None => {
                let snapshot = index::build(mirror, &self.territory, tree, tip)?;
                *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(snapshot));
            }
            Some((snapshot, old_tree)) => {
                let update = index::difference(mirror, &self.territory, snapshot, (old_tree, tree), files)?;
                drop(known);
                let mut place = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(snapshot) = place.as_mut() {
                    // Copies only what somebody is looking at just now.
                    update.apply(Arc::make_mut(snapshot), &self.territory, tip);
                }
            }
        }
        tracing::debug!(%tip, seconds = begun.elapsed().as_secs_f64(), "the index is brought up to date");
        Ok(())
    }
}

fn remote_of(settings: &RemoteSettings) -> Result<(Remote, BranchName), OpenError> {
    let name = || settings.name.clone();
    let remote = Remote::new(&settings.address()).map_err(|source| OpenError::Address { name: name(), source })?;
    let branch = BranchName::parse(&settings.branch).map_err(|source| OpenError::Branch { name: name(), source })?;
    Ok((remote, branch))
}

/// Runs work that would hold up an async thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}
