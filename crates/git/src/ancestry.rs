//! Whether a commit is below the tip of a branch, which a mirror of depth 1 does not know.
//!
//! Needed only after the answer to a push was lost. Fetches commits without their trees if the server supports that, at
//! increasing depths until the question is answered.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::RemoteError;
use crate::object::CommitId;
use crate::remote::{Fetched, HistoryRequest, Remote};

/// The depths of the fetches, in order.
const DEPTHS: [u32; 3] = [100, 1_000, 10_000];

/// Whether a commit is at or below the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// It is.
    Yes,
    /// It is not; the whole history was read.
    No,
    /// It was not found at the greatest depth, and the history continues.
    Unknown,
}

/// The known commits below a tip.
#[derive(Debug, Clone)]
pub struct Ancestry {
    tip: CommitId,
    parents: HashMap<CommitId, Vec<CommitId>>,
    /// Commits whose parents are unknown.
    shallow: Vec<CommitId>,
    /// The number of fetches so far.
    fetches: usize,
}

impl Ancestry {
    /// Starts with the tip and its parents.
    pub fn new(tip: CommitId, parents: Vec<CommitId>) -> Self {
        Self { tip, parents: HashMap::from([(tip, parents)]), shallow: vec![tip], fetches: 0 }
    }

    /// The commit whose history this is.
    pub fn tip(&self) -> CommitId {
        self.tip
    }

    /// Looks for commits, and fetches as much of the history as needed. `folder` holds the packs during the call.
    ///
    /// # Errors
    ///
    /// If the remote cannot be read.
    pub async fn find(
        &mut self,
        commits: &[CommitId],
        remote: &Remote,
        folder: &Path,
    ) -> Result<HashMap<CommitId, Below>, RemoteError> {
        loop {
            let found = self.look(commits);
            let is_open = found.values().any(|below| *below == Below::Unknown);
            let Some(depth) = DEPTHS.get(self.fetches).filter(|_| is_open) else { return Ok(found) };
            let mut reading = remote.read_history().await?;
            let request = HistoryRequest {
                wants: vec![self.tip],
                haves: vec![self.tip],
                shallow: self.shallow.clone(),
                depth: Some(*depth),
                filter: reading.can_filter(),
            };
            let fetched = reading.fetch(&request, folder).await?;
            self.add(fetched);
        }
    }

    fn look(&self, commits: &[CommitId]) -> HashMap<CommitId, Below> {
        let (below, is_whole) = self.walk();
        let absent = if is_whole { Below::No } else { Below::Unknown };
        commits.iter().map(|commit| (*commit, if below.contains(commit) { Below::Yes } else { absent })).collect()
    }

    /// Returns the known commits below the tip, and whether the history is complete.
    fn walk(&self) -> (HashSet<CommitId>, bool) {
        let (mut below, mut waiting, mut is_whole) = (HashSet::new(), vec![self.tip], true);
        while let Some(commit) = waiting.pop() {
            if !below.insert(commit) {
                continue;
            }
            match self.parents.get(&commit) {
                Some(parents) => waiting.extend(parents),
                None => is_whole = false,
            }
        }
        (below, is_whole)
    }

    fn add(&mut self, fetched: Fetched) {
        self.fetches += 1;
        self.parents.extend(fetched.commits);
        self.shallow.retain(|commit| !fetched.unshallow.contains(commit));
        let new: Vec<CommitId> = fetched.shallow.into_iter().filter(|commit| !self.shallow.contains(commit)).collect();
        self.shallow.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> CommitId {
        format!("{number:040x}").parse().unwrap()
    }

    #[test]
    fn commit_outside_a_partial_history_is_unknown() {
        let mut ancestry = Ancestry::new(id(9), vec![id(8), id(7)]);
        assert_eq!(
            ancestry.look(&[id(9), id(7), id(1), id(5)]),
            HashMap::from([
                (id(9), Below::Yes),
                // A parent is below its child even if it was not fetched.
                (id(7), Below::Yes),
                (id(1), Below::Unknown),
                (id(5), Below::Unknown),
            ])
        );
        let commits = vec![(id(8), vec![id(1)]), (id(7), vec![id(1)]), (id(1), vec![]), (id(5), vec![id(8)])];
        ancestry.add(Fetched { commits, shallow: vec![], unshallow: vec![id(9)] });
        assert_eq!(ancestry.look(&[id(1), id(5)]), HashMap::from([(id(1), Below::Yes), (id(5), Below::No)]));
        assert!(ancestry.shallow.is_empty());
    }
}
