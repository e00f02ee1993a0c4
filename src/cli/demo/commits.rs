//! Reads commits of the demo's config repository, from the remote and not from the server's mirror.

use std::path::Path;

use anyhow::Context as _;
use git2::{DiffFormat, DiffOptions, Oid, Repository};

use super::platform::BRANCH;
use super::screen::Commit;

/// Lines of context in a diff. The manifests are known, so one is enough.
const CONTEXT: u32 = 1;

/// A commit of the log.
pub(super) struct Line {
    pub(super) id: String,
    pub(super) subject: String,
}

/// Returns the commit `id` of the bare repository at `path`.
pub(super) async fn read(path: &Path, id: &str) -> anyhow::Result<Commit> {
    let (path, id) = (path.to_owned(), id.to_owned());
    let work = move || show(&path, &id).with_context(|| format!("commit {id} cannot be read from {}", path.display()));
    tokio::task::spawn_blocking(work).await?
}

/// Returns the commits of the branch, the newest first.
pub(super) async fn log(path: &Path) -> anyhow::Result<Vec<Line>> {
    let path = path.to_owned();
    let work = move || walk(&path).with_context(|| format!("{} cannot be read", path.display()));
    tokio::task::spawn_blocking(work).await?
}

fn show(path: &Path, id: &str) -> anyhow::Result<Commit> {
    let repository = Repository::open_bare(path)?;
    let commit = repository.find_commit(Oid::from_str(id)?)?;
    let parent = commit.parents().next().map(|parent| parent.tree()).transpose()?;
    let mut options = DiffOptions::new();
    options.context_lines(CONTEXT);
    let diff = repository.diff_tree_to_tree(parent.as_ref(), Some(&commit.tree()?), Some(&mut options))?;
    let mut text = Vec::new();
    diff.print(DiffFormat::Patch, |_, _, line| {
        if let mark @ ('+' | '-' | ' ') = line.origin() {
            text.push(mark as u8);
        }
        text.extend_from_slice(line.content());
        true
    })?;
    Ok(Commit {
        tree: commit.tree_id().to_string(),
        id: commit.id().to_string(),
        author: commit.author().to_string(),
        message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
        diff: String::from_utf8_lossy(&text).into_owned(),
    })
}

fn walk(path: &Path) -> anyhow::Result<Vec<Line>> {
    let repository = Repository::open_bare(path)?;
    let mut walk = repository.revwalk()?;
    walk.push_ref(&format!("refs/heads/{BRANCH}"))?;
    let mut lines = Vec::new();
    for id in walk {
        let commit = repository.find_commit(id?)?;
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        lines
            .push(Line { id: commit.id().to_string(), subject: message.lines().next().unwrap_or_default().to_owned() });
    }
    Ok(lines)
}
