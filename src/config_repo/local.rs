//! The local half of a config repository: its mirror and its index.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use tagrelay_git::tree::{Cause, Unreadable};
use tagrelay_git::{CommitId, Compacted, Compaction, Mirror, MirrorError, NewObject, PackReceiver, RemoteError};

use super::error::PrepareError;
use super::files::Known;
use super::index::{self, Snapshot};
use super::paths::Territory;
use super::plan::{Plan, Prepared};
use super::prepare::{self, Render};
use super::settings::CommitSettings;
use super::snapshots::Snapshots;

/// The mirror and the index of one branch. All methods block.
pub(super) struct Local {
    territory: Territory,
    state: Arc<Mutex<State>>,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    others: Snapshots,
}

/// The part that all handles of a mirror share.
pub(super) struct State {
    mirror: Mirror,
    /// Set if the mirror lacks a necessary object. The next refresh resets the mirror.
    damage: Option<String>,
}

/// The work that is necessary to index a commit of the remote.
pub(super) enum Need {
    Nothing,
    /// Index the commit.
    Index,
    /// Fetch the commit. Objects of `have` are not needed.
    Objects {
        have: Option<CommitId>,
        receiver: PackReceiver,
    },
}

/// Why a refresh failed.
pub(super) enum RefreshError {
    /// The mirror is damaged. A reset may help.
    Damaged(String),
    /// Any other failure.
    Remote(RemoteError),
}

impl RefreshError {
    pub(super) fn into_remote_error(self) -> RemoteError {
        match self {
            Self::Damaged(reason) => RemoteError::Protocol { reason },
            Self::Remote(error) => error,
        }
    }
}

impl From<RemoteError> for RefreshError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<MirrorError> for RefreshError {
    fn from(error: MirrorError) -> Self {
        Self::Remote(error.into())
    }
}

impl From<Unreadable> for RefreshError {
    fn from(error: Unreadable) -> Self {
        match error.cause {
            Cause::Mirror => Self::Damaged(error.to_string()),
            Cause::Content => Self::Remote(RemoteError::Protocol { reason: error.to_string() }),
        }
    }
}

impl State {
    pub(super) fn new(mirror: Mirror) -> Self {
        Self { mirror, damage: None }
    }
}

impl Local {
    pub(super) fn new(territory: Territory, state: Arc<Mutex<State>>) -> Self {
        Self { territory, state, snapshot: RwLock::new(None), others: Snapshots::default() }
    }

    /// The state that another handle of the same mirror shares.
    pub(super) fn shared_state(&self) -> Arc<Mutex<State>> {
        self.state.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic of the holder the index may be outdated; the next refresh corrects it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the known tip; `None` before the first refresh.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the work that is necessary to index the commit `tip` of the remote.
    pub(super) fn need(&self, tip: CommitId) -> Result<Need, RefreshError> {
        let mut state = self.state();
        let stored = state.mirror.stored_tip();
        // An empty mirror lacks all objects and needs no reset, so its damage is ignored.
        if stored.is_some()
            && let Some(reason) = state.damage.take()
        {
            return Err(RefreshError::Damaged(reason));
        }
        Ok(match self.snapshot() {
            Some(snapshot) if snapshot.tip == tip => match stored {
                Some(_) => Need::Nothing,
                // The mirror was reset, so the commit exists only in memory.
                None => Need::Objects { have: None, receiver: state.mirror.receive_pack() },
            },
            _ if stored == Some(tip) => Need::Index,
            _ => Need::Objects { have: stored, receiver: state.mirror.receive_pack() },
        })
    }

    /// Starts to receive a pack. Also returns the commit that is complete on disk.
    pub(super) fn receive_pack(&self) -> (Option<CommitId>, PackReceiver) {
        let state = self.state();
        (state.mirror.stored_tip(), state.mirror.receive_pack())
    }

    /// Makes the objects of new packs readable.
    pub(super) fn find_new_packs(&self) -> Result<(), MirrorError> {
        self.state().mirror.find_new_packs()
    }

    /// Returns the known tip and its parents.
    pub(super) fn tip_and_parents(&self) -> Result<(CommitId, Vec<CommitId>), String> {
        let state = self.state();
        let tip = self.snapshot().ok_or("the branch has not been read yet")?.tip;
        let parents = state.mirror.parents_of(tip).map_err(|error| error.to_string())?;
        Ok((tip, parents))
    }

    /// Indexes the commit `tip`; `None`: the commit that is complete on disk.
    pub(super) fn index_mirror(&self, tip: Option<CommitId>) -> Result<(), Unreadable> {
        let state = self.state();
        match tip.or_else(|| state.mirror.stored_tip()) {
            Some(tip) => self.move_index(&state.mirror, tip, Known::default()),
            None => Ok(()),
        }
    }

    /// Indexes a fetched commit and makes it the tip.
    pub(super) fn record_fetch(&self, tip: CommitId) -> Result<(), RefreshError> {
        let mut state = self.state();
        state.mirror.find_new_packs()?;
        self.move_index(&state.mirror, tip, Known::default())?;
        state.mirror.store_tip(tip)?;
        state.damage = None;
        Ok(())
    }

    /// Adds the objects of our pushed commits, and makes `tip` the known tip. Returns whether the disk was written.
    pub(super) fn record_push(&self, objects: Vec<NewObject>, known: Known, tip: CommitId) -> bool {
        let mut state = self.state();
        state.mirror.add(objects);
        if let Err(error) = self.move_index(&state.mirror, tip, known) {
            state.damage = Some(error.to_string());
            return false;
        }
        state.mirror.settle(tip).unwrap_or_else(|error| {
            // The remote has all objects that are missing on disk.
            tracing::warn!("the mirror could not be written: {error}");
            false
        })
    }

    /// Builds the commits of a plan on top of the known tip.
    pub(super) fn prepare(
        &self,
        plan: &Plan,
        commits: &CommitSettings,
        render: &Render,
    ) -> Result<Prepared, PrepareError> {
        let mut state = self.state();
        let snapshot = self.snapshot().ok_or(PrepareError::NotRead)?;
        let prepared = prepare::prepare(&state.mirror, &self.territory, &snapshot, commits, plan, render);
        if let Err(PrepareError::Damaged(reason)) = &prepared {
            state.damage = Some(reason.clone());
        }
        prepared
    }

    /// Returns the kept snapshot of a commit that is not the tip.
    pub(super) fn kept_snapshot(&self, commit: CommitId) -> Option<Arc<Snapshot>> {
        self.others.find(commit)
    }

    /// Indexes a commit that is not the tip, starting from another snapshot.
    ///
    /// Fails if the mirror lacks one of the two commits.
    pub(super) fn index_other(&self, commit: CommitId, known: &Snapshot) -> Result<Arc<Snapshot>, Unreadable> {
        let state = self.state();
        let trees = (state.mirror.tree_of(known.tip)?, state.mirror.tree_of(commit)?);
        let difference = index::difference(&state.mirror, &self.territory, known, trees, Known::default())?;
        drop(state);
        let mut snapshot = known.clone();
        difference.apply(&mut snapshot, &self.territory, commit);
        let snapshot = Arc::new(snapshot);
        self.others.keep(snapshot.clone());
        Ok(snapshot)
    }

    /// Deletes all objects of the mirror.
    pub(super) fn reset(&self, reason: &str) -> Result<(), MirrorError> {
        let mut state = self.state();
        state.damage = None;
        state.mirror.reset(reason)
    }

    /// Returns the work that repacks the mirror; `None` if it is within its limits.
    pub(super) fn compaction(&self) -> Option<Compaction> {
        self.state().mirror.compaction()
    }

    /// Replaces the packs of the mirror. `resets`: the number of resets when the work was planned.
    ///
    /// Failed work marks the mirror as damaged, unless the mirror was reset in the meantime.
    pub(super) fn adopt(&self, compacted: Result<Compacted, MirrorError>, resets: u64) -> Result<(), MirrorError> {
        let mut state = self.state();
        let adopted = compacted.and_then(|new| state.mirror.adopt(new));
        if adopted.is_err() && state.mirror.resets() == resets {
            state.damage = Some("repacking failed".to_owned());
        }
        adopted
    }

    fn move_index(&self, mirror: &Mirror, tip: CommitId, files: Known) -> Result<(), Unreadable> {
        let begun = Instant::now();
        let tree = mirror.tree_of(tip)?;
        let known = self.snapshot();
        // After a reset the mirror lacks the old tree, so everything is read.
        let old_tree = known.as_ref().and_then(|snapshot| mirror.tree_of(snapshot.tip).ok());
        match known.as_deref().zip(old_tree) {
            None => {
                let snapshot = index::build(mirror, &self.territory, tree, tip)?;
                *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(snapshot));
            }
            Some((snapshot, old_tree)) => {
                let difference = index::difference(mirror, &self.territory, snapshot, (old_tree, tree), files)?;
                drop(known);
                let mut place = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(snapshot) = place.as_mut() {
                    // Copies only parts that a reader still uses.
                    difference.apply(Arc::make_mut(snapshot), &self.territory, tip);
                }
            }
        }
        tracing::debug!(%tip, seconds = begun.elapsed().as_secs_f64(), "index updated");
        Ok(())
    }
}
