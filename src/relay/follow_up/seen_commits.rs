//! The order in which commits appeared on a branch.

use std::collections::HashMap;

use jiff::Timestamp;

/// The most commits that are remembered. Beyond this, the older half is forgotten.
const MAX_COMMITS: usize = 10_000;

/// When each commit was first seen on a branch.
///
/// The mirror has depth 1, so ancestry cannot order commits. They are ordered by when we first saw them on the branch, because a
/// branch only grows. If a branch is forced back, it returns to commits that were seen before, which do not count as later.
#[derive(Debug, Default)]
pub(super) struct SeenCommits {
    first_seen: HashMap<String, Timestamp>,
    is_loaded: bool,
}

impl SeenCommits {
    /// Whether the commits of earlier processes have been loaded.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Adds the commits of earlier processes, with the times at which they were on the branch.
    pub(super) fn load(&mut self, commits: Vec<(String, Timestamp)>) {
        self.is_loaded = true;
        commits.into_iter().for_each(|(commit, at)| self.note(&commit, at));
    }

    /// Records that a commit was on the branch at `at`. The earliest time is kept.
    pub(super) fn note(&mut self, commit: &str, at: Timestamp) {
        if let Some(known) = self.first_seen.get_mut(commit) {
            *known = (*known).min(at);
            return;
        }
        if self.first_seen.len() >= MAX_COMMITS {
            let mut times: Vec<Timestamp> = self.first_seen.values().copied().collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.first_seen.retain(|_, seen| *seen > middle);
        }
        self.first_seen.insert(commit.to_owned(), at);
    }

    /// Returns whether `revision` is `commit`, which was on the branch at `since`, or came after it.
    pub(super) fn follows(&self, revision: &str, commit: &str, since: Timestamp) -> bool {
        revision == commit || self.first_seen.get(revision).is_some_and(|seen| *seen >= since)
    }

    /// Whether the commit has been seen.
    pub(super) fn knows(&self, commit: &str) -> bool {
        self.first_seen.contains_key(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn commit_seen_later_is_newer() {
        let mut seen_commits = SeenCommits::default();
        seen_commits.load(vec![("before".to_owned(), at(10)), ("ours".to_owned(), at(20))]);
        seen_commits.note("theirs", at(30));
        let follows = |revision: &str| seen_commits.follows(revision, "ours", at(20));
        assert!(follows("ours") && follows("theirs"));
        assert!(!follows("before") && !follows("never seen"));
        // Two commits of one push: the branch is at the second.
        assert!(seen_commits.follows("ours", "of the same push", at(20)));
    }

    #[test]
    fn commits_seen_before_a_force_push_are_not_newer() {
        let mut seen_commits = SeenCommits::default();
        seen_commits.note("before", at(10));
        seen_commits.note("ours", at(20));
        seen_commits.note("before", at(30));
        assert!(!seen_commits.follows("before", "ours", at(20)));
        // Our own commit may be seen at the tip before the store has recorded the push.
        seen_commits.note("later", at(40));
        seen_commits.note("later", at(39));
        assert!(seen_commits.follows("later", "x", at(39)) && !seen_commits.follows("later", "x", at(40)));
    }

    #[test]
    fn number_of_commits_is_bounded() {
        let mut seen_commits = SeenCommits::default();
        for second in 0..30_000 {
            seen_commits.note(&second.to_string(), at(second));
        }
        assert!(seen_commits.first_seen.len() <= MAX_COMMITS);
        assert!(seen_commits.follows("29999", "x", at(29_990)));
        assert!(!seen_commits.knows("0"));
    }
}
