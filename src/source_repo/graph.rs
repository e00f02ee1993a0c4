use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use tagrelay_git::CommitId;

/// A commit and its parents.
pub(super) type Record = (CommitId, Vec<CommitId>);

/// The number of a parent that was not fetched.
const MISSING: u32 = u32::MAX;

/// The commits of a repository and how they descend from each other. Commits have consecutive numbers.
///
/// Uses about 60 bytes per commit. A query visits only the commits between the two.
#[derive(Debug, Default)]
pub struct CommitGraph {
    ids: BTreeMap<CommitId, u32>,
    /// The parents of all commits, concatenated.
    parents: Vec<u32>,
    /// For each commit the end of its parents in `parents`.
    ends: Vec<u32>,
    /// One more than the highest generation of the parents, so that descendants have higher generations.
    generations: Vec<u32>,
    /// Missing parents, with their positions in `parents`.
    missing: HashMap<CommitId, Vec<u32>>,
    /// Whether a branch contained the commit at the last reading.
    on_branch: Vec<bool>,
}

/// The commit of an abbreviated id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No known commit.
    None,
    /// Exactly one, possibly because only one of several is on a branch.
    One(Commit),
    Several,
}

/// The number of a commit in a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit(u32);

/// The relation of a commit to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    Same,
    Descendant,
    Ancestor,
    /// Neither descends from the other.
    Apart,
    /// The known part of the history does not show it.
    Unknown,
}

impl CommitGraph {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether no parent is missing.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    pub fn has(&self, id: &CommitId) -> bool {
        self.ids.contains_key(id)
    }

    /// Adds commits with their parents, in any order. Known commits are ignored.
    pub fn add(&mut self, records: impl IntoIterator<Item = (CommitId, Vec<CommitId>)>) {
        let first_new = self.len();
        let mut fresh = Vec::new();
        for (id, parents) in records {
            let next = u32::try_from(first_new + fresh.len()).unwrap_or(MISSING);
            if next != MISSING && !self.ids.contains_key(&id) {
                self.ids.insert(id, next);
                fresh.push((id, parents));
            }
        }
        let mut filled_gaps = false;
        for (id, parents) in &fresh {
            for parent in parents {
                let place = self.ids.get(parent).copied().unwrap_or(MISSING);
                if place == MISSING {
                    self.missing.entry(*parent).or_default().push(self.parents.len() as u32);
                }
                self.parents.push(place);
            }
            self.ends.push(self.parents.len() as u32);
            // It may be a missing parent of earlier commits.
            if let (Some(waiting), Some(own)) = (self.missing.remove(id), self.ids.get(id)) {
                waiting.into_iter().for_each(|place| self.parents[place as usize] = *own);
                filled_gaps = true;
            }
        }
        self.generations.resize(self.len(), 0);
        self.on_branch.resize(self.len(), false);
        self.number_generations(if filled_gaps { 0 } else { first_new });
    }

    fn parents_of(&self, commit: u32) -> &[u32] {
        let commit = commit as usize;
        let begin = if commit == 0 { 0 } else { self.ends[commit - 1] as usize };
        &self.parents[begin..self.ends[commit] as usize]
    }

    /// Computes the generations of the commits from `first` on. No earlier commit may descend from them.
    fn number_generations(&mut self, first: usize) {
        self.generations[first..].fill(0);
        let mut waiting = Vec::new();
        for start in first..self.len() {
            waiting.push(start as u32);
            while let Some(commit) = waiting.last().copied() {
                if self.generations[commit as usize] != 0 {
                    waiting.pop();
                    continue;
                }
                let known = self.parents_of(commit).iter().filter(|parent| **parent != MISSING);
                let unnumbered: Vec<u32> =
                    known.clone().filter(|parent| self.generations[**parent as usize] == 0).copied().collect();
                if unnumbered.is_empty() {
                    let highest = known.map(|parent| self.generations[*parent as usize]).max().unwrap_or(0);
                    self.generations[commit as usize] = highest + 1;
                    waiting.pop();
                } else {
                    waiting.extend(unnumbered);
                }
            }
        }
    }

    /// Marks the commits of the branches with these tips.
    pub fn set_tips(&mut self, tips: impl IntoIterator<Item = CommitId>) {
        let mut on_branch = vec![false; self.len()];
        let mut waiting: Vec<u32> = tips.into_iter().filter_map(|tip| self.ids.get(&tip).copied()).collect();
        while let Some(commit) = waiting.pop() {
            if !std::mem::replace(&mut on_branch[commit as usize], true) {
                waiting.extend(self.parents_of(commit).iter().filter(|parent| **parent != MISSING));
            }
        }
        self.on_branch = on_branch;
    }

    /// Whether a branch contained the commit at the last reading.
    pub fn is_on_branch(&self, commit: Commit) -> bool {
        self.on_branch.get(commit.0 as usize).copied().unwrap_or(false)
    }

    /// Finds the commit whose id begins with these hexadecimal digits.
    pub fn find(&self, digits: &str) -> Found {
        let bound = |fill: char| -> Option<CommitId> {
            let missing = 40_usize.checked_sub(digits.len())?;
            format!("{digits}{}", fill.to_string().repeat(missing)).parse().ok()
        };
        let (Some(first), Some(last)) = (bound('0'), bound('f')) else { return Found::None };
        let mut candidates = self.ids.range(first..=last).map(|(_, commit)| Commit(*commit));
        match (candidates.next(), candidates.next()) {
            (None, _) => Found::None,
            (Some(only), None) => Found::One(only),
            (Some(one), Some(two)) => {
                let mut reached = [one, two].into_iter().chain(candidates).filter(|commit| self.is_on_branch(*commit));
                match (reached.next(), reached.next()) {
                    (Some(only), None) => Found::One(only),
                    _ => Found::Several,
                }
            }
        }
    }

    pub fn kinship(&self, commit: Commit, other: Commit) -> Kinship {
        if commit == other {
            return Kinship::Same;
        }
        match (self.descends(commit.0, other.0), self.descends(other.0, commit.0)) {
            (Some(true), _) => Kinship::Descendant,
            (_, Some(true)) => Kinship::Ancestor,
            (Some(false), Some(false)) => Kinship::Apart,
            (None, _) | (_, None) => Kinship::Unknown,
        }
    }

    /// Returns the number of commits that `commit` reaches and `from` does not. `None`: `commit` does not descend from `from`, or a
    /// missing parent hides it.
    pub fn between(&self, commit: Commit, from: Commit) -> Option<usize> {
        if self.kinship(commit, from) != Kinship::Descendant {
            return None;
        }
        // Commits come out in the order of their generations, so all descendants of a commit came out before it.
        let mut waiting = BTreeMap::new();
        let key = |commit: u32| (Reverse(self.generations[commit as usize]), commit);
        waiting.insert(key(commit.0), false);
        waiting.insert(key(from.0), true);
        let (mut open, mut count) = (1_usize, 0);
        while open > 0 {
            let ((_, commit), is_old) = waiting.pop_first()?;
            if !is_old {
                (open, count) = (open - 1, count + 1);
            }
            for parent in self.parents_of(commit) {
                if *parent == MISSING {
                    return None;
                }
                match waiting.get_mut(&key(*parent)) {
                    None => {
                        waiting.insert(key(*parent), is_old);
                        open += usize::from(!is_old);
                    }
                    Some(was_old) if is_old && !*was_old => {
                        *was_old = true;
                        open -= 1;
                    }
                    Some(_) => {}
                }
            }
        }
        Some(count)
    }

    /// Whether one commit descends from another; `None` if a missing parent might lead there.
    fn descends(&self, commit: u32, from: u32) -> Option<bool> {
        let floor = self.generations[from as usize];
        let is_complete = self.is_complete();
        if is_complete && self.generations[commit as usize] <= floor {
            return Some(false);
        }
        let mut seen = vec![0_u64; self.len().div_ceil(64)];
        let mut waiting = vec![commit];
        let mut met_missing = false;
        while let Some(commit) = waiting.pop() {
            for parent in self.parents_of(commit) {
                if *parent == from {
                    return Some(true);
                }
                if *parent == MISSING {
                    met_missing = true;
                    continue;
                }
                // With missing parents a low generation proves nothing.
                if is_complete && self.generations[*parent as usize] <= floor {
                    continue;
                }
                let (word, bit) = (*parent as usize / 64, 1 << (parent % 64));
                if seen[word] & bit == 0 {
                    seen[word] |= bit;
                    waiting.push(*parent);
                }
            }
        }
        if met_missing { None } else { Some(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> CommitId {
        format!("{number:08x}{}", "0".repeat(32)).parse().unwrap()
    }

    fn record(number: u32, parents: &[u32]) -> Record {
        (id(number), parents.iter().map(|parent| id(*parent)).collect())
    }

    fn kinship(graph: &CommitGraph, a: u32, b: u32) -> Kinship {
        let find = |number: u32| match graph.find(&id(number).to_string()) {
            Found::One(commit) => commit,
            other => panic!("{number}: {other:?}"),
        };
        graph.kinship(find(a), find(b))
    }

    /// 1 - 2 - 3 - 6 (merge of 5), 2 - 4 - 5, and the unrelated 9.
    fn forked() -> Vec<Record> {
        vec![
            record(6, &[3, 5]),
            record(5, &[4]),
            record(3, &[2]),
            record(4, &[2]),
            record(2, &[1]),
            record(9, &[]),
            record(1, &[]),
        ]
    }

    #[test]
    fn ancestry_follows_forks_and_merges() {
        let mut whole = CommitGraph::default();
        whole.add(forked());
        // One by one, children first.
        let mut parts = CommitGraph::default();
        for one in forked() {
            parts.add([one]);
        }
        for graph in [&whole, &parts] {
            assert!(graph.is_complete());
            for (a, b, expected) in [
                (6, 1, Kinship::Descendant),
                (6, 5, Kinship::Descendant),
                (1, 5, Kinship::Ancestor),
                (3, 4, Kinship::Apart),
                (3, 5, Kinship::Apart),
                (9, 6, Kinship::Apart),
                (2, 2, Kinship::Same),
            ] {
                assert_eq!(kinship(graph, a, b), expected, "{a} {b}");
            }
        }
    }

    #[test]
    fn ancestry_across_missing_parents_is_unknown() {
        let mut graph = CommitGraph::default();
        graph.add([record(6, &[5]), record(5, &[4]), record(3, &[2])]);
        assert!(!graph.is_complete());
        assert_eq!(kinship(&graph, 6, 5), Kinship::Descendant);
        assert_eq!(kinship(&graph, 6, 3), Kinship::Unknown);
        graph.add([record(4, &[3]), record(2, &[])]);
        assert!(graph.is_complete());
        assert_eq!(kinship(&graph, 6, 3), Kinship::Descendant);
        assert_eq!(kinship(&graph, 2, 6), Kinship::Ancestor);
    }

    #[test]
    fn commits_between_two_are_counted_with_merged_branches() {
        let mut graph = CommitGraph::default();
        graph.add(forked());
        let between = |graph: &CommitGraph, a: u32, b: u32| match (
            graph.find(&id(a).to_string()),
            graph.find(&id(b).to_string()),
        ) {
            (Found::One(a), Found::One(b)) => graph.between(a, b),
            other => panic!("{other:?}"),
        };
        // 6 and what it merged: 5 and 4.
        assert_eq!(between(&graph, 6, 3), Some(3));
        assert_eq!(between(&graph, 6, 1), Some(5));
        assert_eq!(between(&graph, 3, 2), Some(1));
        assert_eq!(between(&graph, 3, 5), None);
        assert_eq!(between(&graph, 1, 6), None);
        let mut shallow = CommitGraph::default();
        shallow.add([record(7, &[6]), record(6, &[5, 3]), record(5, &[4]), record(3, &[2])]);
        assert_eq!(between(&shallow, 7, 6), Some(1));
        assert_eq!(between(&shallow, 7, 5), None, "the merged branch is not known to its end");
    }

    #[test]
    fn short_id_must_be_unique_on_branches() {
        let mut graph = CommitGraph::default();
        graph.add([record(0x1234_5671, &[]), record(0x1234_5672, &[]), record(7, &[])]);
        assert!(matches!(graph.find("0000000"), Found::One(_)));
        assert_eq!(graph.find("1234567"), Found::Several);
        assert_eq!(graph.find("7654321"), Found::None);
        assert_eq!(graph.find("no-hex!"), Found::None);
        graph.set_tips([id(0x1234_5672)]);
        assert!(matches!(graph.find("1234567"), Found::One(commit) if graph.is_on_branch(commit)));
    }

    #[test]
    fn branch_contains_its_history() {
        let mut graph = CommitGraph::default();
        graph.add(forked());
        graph.set_tips([id(3), id(77)]);
        let on = |number: u32| match graph.find(&id(number).to_string()) {
            Found::One(commit) => graph.is_on_branch(commit),
            _ => false,
        };
        assert!(on(3) && on(2) && on(1));
        assert!(!on(4) && !on(6) && !on(9));
    }
}
