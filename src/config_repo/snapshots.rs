use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tagrelay_git::CommitId;

use super::index::Snapshot;

/// The number of kept snapshots. They share their equal parts.
const MAX_KEPT: usize = 32;

/// The latest snapshots of commits that are not the tip, oldest first.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<VecDeque<Arc<Snapshot>>>);

impl Snapshots {
    pub(super) fn find(&self, commit: CommitId) -> Option<Arc<Snapshot>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|snapshot| snapshot.tip == commit).cloned()
    }

    pub(super) fn keep(&self, snapshot: Arc<Snapshot>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(snapshot);
    }
}
