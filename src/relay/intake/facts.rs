//! The cache of facts about images: the intake fills it, the branch writer reads it without
//! network.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::{BuildTime, Descent, Fact, Facts, Missing};
use crate::source_repo::{Relation, Sources};
use tagrelay_image::{Digest, Repository, Tag};

/// How long facts that may change are cached: an unknown descent, an unreadable build time, the
/// digest of a tag.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The most cached facts of one kind, 40 MB in all. Above this, the cache of that kind is cleared.
const MAX_FACTS: usize = 50_000;

/// The facts of one generation. A cache: lost facts are fetched again from the store, the registry or the source.
pub(in crate::relay) struct FactBase {
    sources: Arc<Sources>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    descents: HashMap<(usize, Repository, String, String), Cached<Descent>>,
    build_times: HashMap<(Repository, Digest), Cached<BuildTime>>,
    tag_digests: HashMap<(Repository, Tag), Cached<Option<Digest>>>,
    announced_before: HashMap<(String, Repository, Digest, Tag), Cached<bool>>,
}

struct Cached<T> {
    value: T,
    at: Instant,
}

impl FactBase {
    pub(in crate::relay) fn new(sources: Arc<Sources>) -> Self {
        Self { sources, known: Mutex::default() }
    }

    pub(super) fn remember_descent(&self, missing: (usize, Repository, String, String), descent: Descent) {
        keep(&mut self.known().descents, missing, descent);
    }

    pub(super) fn remember_build_time(&self, repository: &Repository, digest: &Digest, time: BuildTime) {
        keep(&mut self.known().build_times, (repository.clone(), digest.clone()), time);
    }

    pub(super) fn remember_tag_digest(&self, repository: &Repository, tag: &Tag, digest: Option<Digest>) {
        keep(&mut self.known().tag_digests, (repository.clone(), tag.clone()), digest);
    }

    pub(super) fn remember_announced_before(&self, key: (String, Repository, Digest, Tag), before: bool) {
        keep(&mut self.known().announced_before, key, before);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts for FactBase {
    fn descent(&self, source: usize, repository: &Repository, new: &str, old: &str) -> Fact<Descent> {
        // The graph comes first: it may have grown since the relation was cached as unknown.
        if let Some(relation) = self.sources.known_relation(source, repository, new, old) {
            return Fact::Known(descent(relation));
        }
        let key = (source, repository.clone(), new.to_owned(), old.to_owned());
        let learned = recall(&self.known().descents, &key, |_| true);
        let (source, repository, new, old) = key;
        learned.map_or(Fact::Missing(Missing::Descent { source, repository, new, old }), Fact::Known)
    }

    fn build_time(&self, repository: &Repository, digest: &Digest) -> Fact<BuildTime> {
        let key = (repository.clone(), digest.clone());
        let passes = |time: &BuildTime| matches!(time, BuildTime::Unreadable { .. });
        let learned = recall(&self.known().build_times, &key, passes);
        let (repository, digest) = key;
        learned.map_or(Fact::Missing(Missing::BuildTime { repository, digest }), Fact::Known)
    }

    fn tag_digest(&self, repository: &Repository, tag: &Tag) -> Fact<Option<Digest>> {
        let key = (repository.clone(), tag.clone());
        let learned = recall(&self.known().tag_digests, &key, |_| true);
        let (repository, tag) = key;
        learned.map_or(Fact::Missing(Missing::TagDigest { repository, tag }), Fact::Known)
    }

    fn announced_before(&self, event_id: &str, repository: &Repository, digest: &Digest, tag: &Tag) -> Fact<bool> {
        let key = (event_id.to_owned(), repository.clone(), digest.clone(), tag.clone());
        let learned = recall(&self.known().announced_before, &key, |_| false);
        let (event_id, repository, digest, tag) = key;
        learned.map_or(Fact::Missing(Missing::AnnouncedBefore { event_id, repository, digest, tag }), Fact::Known)
    }
}

pub(super) fn descent(relation: Relation) -> Descent {
    match relation {
        Relation::Same => Descent::Same,
        Relation::Descendant => Descent::Descendant,
        Relation::Ancestor => Descent::Ancestor,
        Relation::Unknown { reason } => Descent::Unknown { reason },
    }
}

fn keep<K: Hash + Eq, T>(known: &mut HashMap<K, Cached<T>>, key: K, value: T) {
    if known.len() >= MAX_FACTS {
        known.clear();
    }
    known.insert(key, Cached { value, at: Instant::now() });
}

/// Returns a cached value, unless it may have changed and is older than [`MAX_AGE`].
fn recall<K: Hash + Eq, T: Clone>(known: &HashMap<K, Cached<T>>, key: &K, passes: impl Fn(&T) -> bool) -> Option<T> {
    let learned = known.get(key)?;
    let is_over = passes(&learned.value) && learned.at.elapsed() > MAX_AGE;
    (!is_over).then(|| learned.value.clone())
}
