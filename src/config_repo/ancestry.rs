//! Which commits lie below the tip of the branch: what a mirror one commit deep does not know.
//!
//! Asked only after the answer to a push was lost. Commits alone are read, where the server can leave out the rest, a
//! hundred at first and more where that does not answer the question.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::error::RemoteError;
use super::object::CommitId;
use super::transport::{Fetched, HistoryRequest, Transport};

/// How many commits deep a server is asked, one depth after the other.
const DEPTHS: [u32; 3] = [100, 1_000, 10_000];

/// Whether a commit lies below the tip, or is the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// It does.
    Yes,
    /// The whole history was looked at, and it does not.
    No,
    /// It does not lie within the commits that were looked at, and there are more.
    Unknown,
}

/// What is known of the commits below a tip.
#[derive(Debug, Clone)]
pub(super) struct Ancestry {
    pub(super) tip: CommitId,
    parents: HashMap<CommitId, Vec<CommitId>>,
    /// Commits whose parents the server has left out.
    shallow: Vec<CommitId>,
    /// How often it was asked.
    asked: usize,
}

impl Ancestry {
    pub(super) fn new(tip: CommitId, parents: Vec<CommitId>) -> Self {
        Self { tip, parents: HashMap::from([(tip, parents)]), shallow: vec![tip], asked: 0 }
    }

    /// Tells where commits are, reading as much of the history as that takes. `folder` is used for what comes.
    pub(super) async fn find(
        &mut self,
        commits: &[CommitId],
        transport: &Transport,
        folder: &Path,
    ) -> Result<HashMap<CommitId, Below>, RemoteError> {
        loop {
            let found = self.look(commits);
            let is_open = found.values().any(|below| *below == Below::Unknown);
            let Some(depth) = DEPTHS.get(self.asked).filter(|_| is_open) else { return Ok(found) };
            let mut reading = transport.read_history().await?;
            let request = HistoryRequest {
                wants: vec![self.tip],
                haves: vec![self.tip],
                shallow: self.shallow.clone(),
                depth: Some(*depth),
                filter: reading.can_filter(),
            };
            let fetched = reading.fetch(&request, folder).await?;
            self.take_in(fetched);
        }
    }

    fn look(&self, commits: &[CommitId]) -> HashMap<CommitId, Below> {
        let (below, is_whole) = self.walk();
        let absent = if is_whole { Below::No } else { Below::Unknown };
        commits.iter().map(|commit| (*commit, if below.contains(commit) { Below::Yes } else { absent })).collect()
    }

    /// Returns the commits below the tip, and whether that is all of them.
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

    fn take_in(&mut self, fetched: Fetched) {
        self.asked += 1;
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
    fn what_is_not_reached_is_no_ancestor_only_where_all_is_known() {
        let mut ancestry = Ancestry::new(id(9), vec![id(8), id(7)]);
        assert_eq!(
            ancestry.look(&[id(9), id(7), id(1), id(5)]),
            HashMap::from([
                (id(9), Below::Yes),
                // The parent that a commit names is below it, whether it has been read or not.
                (id(7), Below::Yes),
                (id(1), Below::Unknown),
                (id(5), Below::Unknown),
            ])
        );
        let commits = vec![(id(8), vec![id(1)]), (id(7), vec![id(1)]), (id(1), vec![]), (id(5), vec![id(8)])];
        ancestry.take_in(Fetched { commits, shallow: vec![], unshallow: vec![id(9)] });
        assert_eq!(ancestry.look(&[id(1), id(5)]), HashMap::from([(id(1), Below::Yes), (id(5), Below::No)]));
        assert!(ancestry.shallow.is_empty());
    }
}
