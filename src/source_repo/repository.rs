use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tagrelay_git::{Address, CommitId, Fetched, HistoryReading, HistoryRequest, Remote};
use url::Url;

use super::answer::{Membership, Relation};
use super::disk::{self, Note};
use super::error::SourceError;
use super::graph::{Commit, CommitGraph, Found, Kinship};
use super::settings::SourceSettings;

/// Queries about running commits share a reading of at most this age.
const FRESH: Duration = Duration::from_secs(1);

/// The time between two searches for a running commit that the source lacks.
const UNKNOWN_AGE: Duration = Duration::from_secs(60);

/// The depths of fetches from a server that cannot filter, in order.
const DEPTHS: [u32; 4] = [100, 1_000, 10_000, 100_000];

/// The commits of one source repository.
pub(super) struct SourceRepository {
    url: String,
    folder: PathBuf,
    branches: Branches,
    remote: Remote,
    known: Arc<RwLock<Known>>,
    /// Locked during each conversation with the remote.
    conversation: tokio::sync::Mutex<Conversation>,
}

#[derive(Default)]
struct Known {
    /// Whether the stored history was loaded.
    is_loaded: bool,
    graph: CommitGraph,
    note: Note,
    /// Commits that an environment runs and the source lacks, with the time of the search.
    unknown: Vec<(String, Instant)>,
}

#[derive(Default)]
struct Conversation {
    /// The start of the last reading.
    last: Option<Instant>,
}

/// Patterns of the branches that count. Empty: all branches.
struct Branches {
    globs: GlobSet,
    patterns: Vec<String>,
}

impl Branches {
    fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut globs = GlobSetBuilder::new();
        for pattern in patterns {
            globs.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
        }
        Ok(Self { globs: globs.build()?, patterns: patterns.to_vec() })
    }

    fn matches(&self, branch: &str) -> bool {
        self.patterns.is_empty() || self.globs.is_match(branch)
    }
}

impl SourceRepository {
    /// Uses neither network nor disk.
    pub(super) fn new(url: String, settings: &SourceSettings, folder: PathBuf) -> Result<Self, SourceError> {
        let parsed = Url::parse(&url).map_err(|error| SourceError::settings(&url, error))?;
        let (authentication, ca_bundle) = (settings.authentication.clone(), settings.ca_bundle.clone());
        let remote = Remote::new(&Address { url: parsed, authentication, ca_bundle })
            .map_err(|error| SourceError::address(&url, &error))?;
        let branches = Branches::new(&settings.branches).map_err(|error| SourceError::settings(&url, error))?;
        Ok(Self { url, folder, branches, remote, known: Arc::default(), conversation: tokio::sync::Mutex::default() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Lists the branches of the remote that count.
    pub(super) async fn branches(&self) -> Result<Vec<String>, SourceError> {
        let mut reading = self.read().await?;
        let heads = reading.branches().await.map_err(|error| SourceError::remote(&self.url, error))?;
        Ok(heads.into_iter().map(|(branch, _)| branch).filter(|branch| self.branches.matches(branch)).collect())
    }

    async fn read(&self) -> Result<HistoryReading<'_>, SourceError> {
        self.remote.read_history().await.map_err(|error| SourceError::remote(&self.url, error))
    }

    /// Whether a branch that counts contains the commit.
    ///
    /// If the settings name branches, the remote is always asked, because a force-push may have removed the commit.
    /// Otherwise it is asked only about unknown commits. The reading must begin after the question, because the branch may
    /// have moved just before; concurrent questions share it.
    pub(super) async fn membership(&self, sha: &str) -> Result<Membership, SourceError> {
        let asked = Instant::now();
        self.load().await?;
        if self.branches.patterns.is_empty() && self.is_on_branch(sha) {
            return Ok(Membership::OnBranch);
        }
        self.refresh(Some(asked)).await?;
        while !self.is_on_branch(sha) {
            if !self.deepen().await? {
                return Ok(Membership::Elsewhere { reason: self.why_not(sha) });
            }
        }
        Ok(Membership::OnBranch)
    }

    /// Returns the relation of the commit `new` to `old`. Asks the remote only about unknown commits.
    pub(super) async fn relation(&self, new: &str, old: &str) -> Result<Relation, SourceError> {
        self.load().await?;
        if matches!(self.find(old), Found::None) && !self.was_looked_for(old) {
            self.refresh(None).await?;
            if matches!(self.find(old), Found::None) {
                self.record_unknown(old);
            }
        }
        loop {
            let (kinship, reason) = self.kinship(new, old);
            match kinship {
                Kinship::Same => return Ok(Relation::Same),
                Kinship::Descendant => return Ok(Relation::Descendant),
                Kinship::Ancestor => return Ok(Relation::Ancestor),
                Kinship::Apart => return Ok(Relation::Unknown { reason }),
                Kinship::Unknown => {
                    if !self.deepen().await? {
                        return Ok(Relation::Unknown { reason });
                    }
                }
            }
        }
    }

    /// Returns how the commit `new` relates to `old` according to the history in memory; `None`: [`Self::relation`] may
    /// find more.
    pub(super) fn known_relation(&self, new: &str, old: &str) -> Option<Relation> {
        match self.kinship(new, old) {
            (Kinship::Same, _) => Some(Relation::Same),
            (Kinship::Descendant, _) => Some(Relation::Descendant),
            (Kinship::Ancestor, _) => Some(Relation::Ancestor),
            (Kinship::Apart, reason) => Some(Relation::Unknown { reason }),
            (Kinship::Unknown, _) => None,
        }
    }

    /// Returns the number of commits that `new` has and `old` lacks, according to the history in
    /// memory.
    pub(super) fn commits_between(&self, new: &str, old: &str) -> Option<usize> {
        let known = self.known();
        match (known.graph.find(new), known.graph.find(old)) {
            (Found::One(new), Found::One(old)) => known.graph.between(new, old),
            _ => None,
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, sha: &str) -> Found {
        self.known().graph.find(sha)
    }

    fn is_on_branch(&self, sha: &str) -> bool {
        let known = self.known();
        matches!(known.graph.find(sha), Found::One(commit) if known.graph.is_on_branch(commit))
    }

    fn kinship(&self, new: &str, old: &str) -> (Kinship, String) {
        let known = self.known();
        let commit = |sha: &str| -> Result<Commit, String> {
            match known.graph.find(sha) {
                Found::One(commit) => Ok(commit),
                Found::None => Err(format!("{} has no commit {}", self.url, short(sha))),
                Found::Several => Err(format!("{} is ambiguous in {}", short(sha), self.url)),
            }
        };
        match (commit(new), commit(old)) {
            (Ok(new_commit), Ok(old_commit)) => {
                let text = format!("neither {} nor {} descends from the other", short(new), short(old));
                (known.graph.kinship(new_commit, old_commit), text)
            }
            (Err(reason), _) | (_, Err(reason)) => (Kinship::Unknown, reason),
        }
    }

    fn why_not(&self, sha: &str) -> String {
        let (short, url) = (short(sha), &self.url);
        match (self.find(sha), self.branches.patterns.as_slice()) {
            (Found::Several, _) => format!("the commit id {short} is ambiguous in {url}: use more digits in tags"),
            (Found::None | Found::One(_), []) => format!("the commit {short} is on no branch of {url}"),
            (Found::None | Found::One(_), patterns) => {
                let patterns: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
                format!("the commit {short} is on none of the branches {} of {url}", patterns.join(", "))
            }
        }
    }

    fn was_looked_for(&self, sha: &str) -> bool {
        self.known().unknown.iter().any(|(unknown, at)| unknown == sha && at.elapsed() < UNKNOWN_AGE)
    }

    fn record_unknown(&self, sha: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.unknown.retain(|(_, at)| at.elapsed() < UNKNOWN_AGE);
        known.unknown.push((sha.to_owned(), Instant::now()));
    }

    /// Fetches the new commits of the remote, unless a reading began after `since`; `None`: unless the last one is fresh.
    async fn refresh(&self, since: Option<Instant>) -> Result<(), SourceError> {
        let begun = Instant::now();
        let mut conversation = self.conversation.lock().await;
        // A reading that began while we waited for the lock is recent enough.
        let is_fresh = |last: Instant| match since {
            Some(since) => last > since,
            None => last > begun || last.elapsed() < FRESH,
        };
        if conversation.last.is_some_and(is_fresh) {
            return Ok(());
        }
        let began = Instant::now();
        let mut reading = self.read().await?;
        let heads = reading.branches().await.map_err(|error| SourceError::remote(&self.url, error))?;
        let heads: Vec<(String, CommitId)> =
            heads.into_iter().filter(|(branch, _)| self.branches.matches(branch)).collect();
        let request = self.request(&heads, reading.can_filter());
        if let Some(request) = request {
            let fetched = reading.fetch(&request, &self.incoming()).await;
            let fetched = fetched.map_err(|error| SourceError::remote(&self.url, error))?;
            self.record(heads, fetched, request.depth).await?;
        } else {
            self.record(heads, Fetched::default(), None).await?;
        }
        conversation.last = Some(began);
        Ok(())
    }

    /// Fetches the next depth from a server that cannot filter. Returns `false` if there is nothing more to fetch.
    async fn deepen(&self) -> Result<bool, SourceError> {
        let _conversation = self.conversation.lock().await;
        let (tips, request) = {
            let known = self.known();
            let next = DEPTHS.into_iter().find(|depth| *depth > known.note.depth);
            let (Some(depth), false) = (next, known.graph.is_complete()) else { return Ok(false) };
            let tips = tips(&known.note);
            let wants: Vec<CommitId> = tips.iter().map(|(_, id)| *id).collect();
            let shallow = known.note.shallow.iter().filter_map(|id| id.parse().ok()).collect();
            let request = HistoryRequest { haves: wants.clone(), wants, shallow, depth: Some(depth), filter: false };
            (tips, request)
        };
        let mut reading = self.read().await?;
        let fetched = reading.fetch(&request, &self.incoming()).await;
        let fetched = fetched.map_err(|error| SourceError::remote(&self.url, error))?;
        self.record(tips, fetched, request.depth).await?;
        Ok(true)
    }

    /// Returns the request for the commits of these heads; `None` if all are known.
    fn request(&self, heads: &[(String, CommitId)], can_filter: bool) -> Option<HistoryRequest> {
        let known = self.known();
        let mut wants: Vec<CommitId> = heads.iter().map(|(_, id)| *id).filter(|id| !known.graph.has(id)).collect();
        wants.sort_unstable();
        wants.dedup();
        if wants.is_empty() {
            return None;
        }
        let haves: Vec<CommitId> = tips(&known.note).into_iter().map(|(_, id)| id).collect();
        let shallow: Vec<CommitId> = known.note.shallow.iter().filter_map(|id| id.parse().ok()).collect();
        // A history that began as shallow stays shallow: the request names its boundary.
        let filter = can_filter && shallow.is_empty();
        let depth = (!filter && haves.is_empty()).then_some(DEPTHS[0]);
        Some(HistoryRequest { wants, haves, shallow, depth, filter })
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// Loads the stored history once.
    async fn load(&self) -> Result<(), SourceError> {
        if self.known().is_loaded {
            return Ok(());
        }
        let _conversation = self.conversation.lock().await;
        if self.known().is_loaded {
            return Ok(());
        }
        let (folder, url) = (self.folder.clone(), self.url.clone());
        let loaded = blocking(&self.url, move || {
            // From an interrupted fetch.
            let _ = std::fs::remove_dir_all(folder.join("incoming"));
            disk::load(&folder, &url)
        });
        let (note, graph) = loaded.await?.unwrap_or_else(|| (Note::of(&self.url), CommitGraph::default()));
        *write(&self.known) = Known { is_loaded: true, graph, note, unknown: Vec::new() };
        Ok(())
    }

    /// Records the result of a reading, in memory and on disk.
    async fn record(
        &self,
        heads: Vec<(String, CommitId)>,
        fetched: Fetched,
        depth: Option<u32>,
    ) -> Result<(), SourceError> {
        let (known, folder) = (Arc::clone(&self.known), self.folder.clone());
        let kept = blocking(&self.url, move || {
            let tips: Vec<(String, String)> =
                heads.iter().map(|(branch, id)| (branch.clone(), id.to_string())).collect();
            let (mut note, fresh) = {
                let known = known.read().unwrap_or_else(PoisonError::into_inner);
                let fresh = fetched.commits.into_iter().filter(|(id, _)| !known.graph.has(id)).collect::<Vec<_>>();
                (known.note.clone(), fresh)
            };
            if fresh.is_empty() && note.tips == tips && depth.is_none() {
                return Ok(());
            }
            note.tips = tips;
            note.depth = depth.unwrap_or(note.depth);
            note.shallow.retain(|id| fetched.unshallow.iter().all(|gone| gone.to_string() != *id));
            for id in fetched.shallow.iter().map(CommitId::to_string) {
                if !note.shallow.contains(&id) {
                    note.shallow.push(id);
                }
            }
            let result = disk::store(&folder, &mut note, &fresh);
            let mut known = write(&known);
            known.graph.add(fresh);
            known.graph.set_tips(heads.into_iter().map(|(_, id)| id));
            known.note = note;
            result
        });
        kept.await?.map_err(|error| SourceError::disk(&self.url, error))
    }
}

fn write(known: &RwLock<Known>) -> RwLockWriteGuard<'_, Known> {
    known.write().unwrap_or_else(PoisonError::into_inner)
}

fn tips(note: &Note) -> Vec<(String, CommitId)> {
    note.tips.iter().filter_map(|(branch, id)| Some((branch.clone(), id.parse().ok()?))).collect()
}

fn short(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

async fn blocking<T: Send + 'static>(url: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SourceError::disk(url, error))
}

/// Returns the name of the folder of a source. Different sources have different names.
pub(super) fn folder_name(url: &str, branches: &[String]) -> String {
    let digest = tagrelay_image::Digest::of(format!("{url}\n{}", branches.join("\n")).as_bytes());
    let name = Path::new(url).file_stem().and_then(|name| name.to_str()).unwrap_or("source");
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(60).collect();
    format!("{name}-{}", digest.as_str().trim_start_matches("sha256:").chars().take(16).collect::<String>())
}
