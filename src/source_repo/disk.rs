//! The stored history of a source repository: a file with a line per commit, and a JSON file about it. A cache: an
//! inconsistent history is discarded and fetched again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::graph::{CommitGraph, Record};
use tagrelay_git::CommitId;

/// Describes the stored commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) url: String,
    /// Branches and their tips at the last reading.
    pub(super) tips: Vec<(String, String)>,
    /// Commits whose parents are unknown.
    pub(super) shallow: Vec<String>,
    /// The depth of the fetch from a server that cannot filter; 0: complete.
    pub(super) depth: u32,
    /// The valid length of the file of commits. Bytes after it come from an interrupted write.
    commits_bytes: u64,
}

impl Note {
    /// The note of a source without a known history.
    pub(super) fn of(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

const COMMITS: &str = "commits";
const NOTE: &str = "note.json";

/// Returns the stored history of a URL; `None` if there is none or it is inconsistent.
pub(super) fn load(folder: &Path, url: &str) -> Option<(Note, CommitGraph)> {
    let note: Note = serde_json::from_slice(&fs::read(folder.join(NOTE)).ok()?).ok()?;
    if note.url != url {
        return None;
    }
    let text = fs::read(folder.join(COMMITS)).ok()?;
    let text = std::str::from_utf8(text.get(..usize::try_from(note.commits_bytes).ok()?)?).ok()?;
    let mut graph = CommitGraph::default();
    let records: Option<Vec<Record>> = text.lines().map(parse).collect();
    graph.add(records?);
    let tips: Option<Vec<CommitId>> = note.tips.iter().map(|(_, id)| id.parse().ok()).collect();
    let tips = tips?;
    let whole = tips.iter().all(|tip| graph.has(tip)) && (graph.is_complete() || !note.shallow.is_empty());
    if !whole {
        return None;
    }
    graph.set_tips(tips);
    Some((note, graph))
}

fn parse(line: &str) -> Option<Record> {
    let mut ids = line.split(' ').map(|id| id.parse::<CommitId>().ok());
    let id = ids.next()??;
    Some((id, ids.collect::<Option<_>>()?))
}

/// Appends commits and replaces the note.
pub(super) fn store(folder: &Path, note: &mut Note, records: &[Record]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = File::options().create(true).truncate(false).write(true).open(folder.join(COMMITS))?;
    file.set_len(note.commits_bytes)?;
    io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    let mut text = String::with_capacity(records.len() * 84);
    for (id, parents) in records {
        text.push_str(&id.to_string());
        for parent in parents {
            text.push(' ');
            text.push_str(&parent.to_string());
        }
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    note.commits_bytes += text.len() as u64;
    let new = folder.join("note.new");
    fs::write(&new, serde_json::to_vec(note)?)?;
    fs::rename(new, folder.join(NOTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> CommitId {
        digit.to_string().repeat(40).parse().unwrap()
    }

    #[test]
    fn complete_history_is_loaded_and_partial_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("source");
        let url = "https://git.example.com/a.git";
        let tips = vec![("main".to_owned(), id('2').to_string())];
        let mut note = Note { url: url.to_owned(), tips, ..Note::default() };
        store(&folder, &mut note, &[(id('1'), vec![])]).unwrap();
        assert!(load(&folder, url).is_none(), "the tip is missing");
        store(&folder, &mut note, &[(id('2'), vec![id('1')])]).unwrap();
        let (read, graph) = load(&folder, url).unwrap();
        assert_eq!((read.clone(), graph.len(), graph.is_complete()), (note.clone(), 2, true));
        assert!(load(&folder, "https://git.example.com/b.git").is_none());

        // An interrupted write.
        let path = folder.join(COMMITS);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("3333");
        fs::write(&path, &text).unwrap();
        assert_eq!(load(&folder, url).unwrap().1.len(), 2);
        store(&folder, &mut note, &[(id('3'), vec![id('2')])]).unwrap();
        assert_eq!(load(&folder, url).unwrap().1.len(), 3);
        fs::write(&path, &text[..50]).unwrap();
        assert!(load(&folder, url).is_none());
    }
}
