//! Which tags have been seen, and those that nobody told of.
//!
//! A tag counts as seen when it was in the registry's list the last time, or when there is an event of it. Both are read
//! and written in one transaction with the events that are made, so that no tag is lost between the two, whenever the
//! process ends.

use jiff::Timestamp;
use sha2::Digest as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::events::requeue;
use super::writer::{Transaction, Write};
use super::{Cause, Store, StoreError, parsed_option, time};
use crate::image::{Digest, Repository, Tag};
use crate::telemetry::TraceContext;

/// Who seems to have delivered an event that nobody did.
const RECEIVER: &str = "catch-up";

/// Tags, each as eight bytes of its SHA-256. Two of 100,000 are taken for each other once in four billion times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenTags(Vec<u64>);

impl SeenTags {
    /// Returns whether the tag is among them.
    pub fn contains(&self, tag: &Tag) -> bool {
        self.0.binary_search(&hash(tag)).is_ok()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns those that are in one of the two.
    pub fn union(&self, other: &Self) -> Self {
        let mut hashes = [self.0.as_slice(), &other.0].concat();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.to_be_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect())
    }
}

impl<'t> FromIterator<&'t Tag> for SeenTags {
    fn from_iter<I: IntoIterator<Item = &'t Tag>>(tags: I) -> Self {
        let mut hashes: Vec<u64> = tags.into_iter().map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }
}

fn hash(tag: &Tag) -> u64 {
    let digest = sha2::Sha256::digest(tag.as_str());
    let (first, _) = digest.split_at(8);
    first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What is known of a repository from the last time that it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRepository {
    /// When that was.
    pub listed_at: Timestamp,
    /// The tags in the registry's list.
    pub seen: SeenTags,
    /// Where one tag is followed by its digest: the last one.
    pub digest: Option<Digest>,
}

/// What a look at a repository came to.
#[derive(Debug, Clone)]
pub struct CaughtUp {
    /// The repository.
    pub repository: Repository,
    /// What counts as seen from now on.
    pub seen: SeenTags,
    /// Where one tag is followed by its digest: the one it has now.
    pub digest: Option<Digest>,
    /// What becomes events unless somebody has told of it meanwhile, in that order.
    pub found: Vec<FoundTag>,
    /// The span of the look.
    pub trace: TraceContext,
}

/// A tag that nobody seems to have told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTag {
    /// The tag.
    pub tag: Tag,
    /// What it points at, where it is the digest that is new.
    pub digest: Option<Digest>,
}

/// An event of a tag that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEvent {
    /// The id of the event.
    pub id: String,
    /// The tag.
    pub tag: Tag,
}

impl Store {
    /// Returns what is known of a repository; `None` where it was never looked at, or not since `since`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn seen(&self, repository: &Repository, since: Timestamp) -> Result<Option<SeenRepository>, StoreError> {
        let row = sqlx::query("SELECT listed_at, seen, digest FROM catch_up WHERE repository = ? AND listed_at >= ?")
            .bind(repository.as_str())
            .bind(since.as_millisecond())
            .fetch_optional(&self.reads)
            .await?;
        let read = |row: SqliteRow| -> Result<SeenRepository, sqlx::Error> {
            let seen: Vec<u8> = row.try_get("seen")?;
            Ok(SeenRepository {
                listed_at: time(&row, "listed_at")?,
                seen: SeenTags::from_bytes(&seen),
                digest: parsed_option(&row, "digest")?,
            })
        };
        Ok(row.map(read).transpose()?)
    }

    /// Keeps what a look at a repository came to, and makes events of what nobody has told of. Returns those that are
    /// queued now: new ones, and ones that were refused for something that has passed.
    ///
    /// # Errors
    ///
    /// When nothing of it could be stored.
    pub async fn catch_up(&self, caught_up: CaughtUp) -> Result<Vec<FoundEvent>, StoreError> {
        self.writes.run(caught_up).await
    }

    /// Forgets repositories that nobody has looked at since `before`.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn forget_seen(&self, before: Timestamp) -> Result<(), StoreError> {
        let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM catch_up WHERE listed_at < ?)")
            .bind(before.as_millisecond())
            .fetch_one(&self.reads)
            .await?;
        if any { self.writes.run(ForgetSeen(before)).await } else { Ok(()) }
    }
}

/// What becomes of a tag that was found.
enum Fate {
    New,
    /// Its event was refused for something that has passed.
    Again(String),
    Known,
    /// An event of it is about to ask which digest it has: only then it is known whether that is this one.
    Open,
}

impl Write for CaughtUp {
    type Output = Vec<FoundEvent>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<FoundEvent>, sqlx::Error> {
        let mut events = Vec::new();
        let mut digest = self.digest.as_ref();
        for found in &self.found {
            let id = match self.fate(tx, found).await? {
                Fate::Known => continue,
                Fate::Open => {
                    // The next look decides.
                    digest = None;
                    continue;
                }
                Fate::Again(id) => {
                    requeue(tx, &id).await?;
                    id
                }
                Fate::New => self.insert(tx, found).await?,
            };
            events.push(FoundEvent { id, tag: found.tag.clone() });
        }
        sqlx::query(
            "INSERT INTO catch_up (repository, listed_at, seen, digest) VALUES (?, ?, ?, ?)
             ON CONFLICT (repository) DO UPDATE SET listed_at = excluded.listed_at, seen = excluded.seen,
                digest = coalesce(excluded.digest, digest)",
        )
        .bind(self.repository.as_str())
        .bind(tx.now_milliseconds())
        .bind(self.seen.bytes())
        .bind(digest.map(Digest::as_str))
        .execute(&mut *tx.connection)
        .await?;
        Ok(events)
    }
}

impl CaughtUp {
    async fn fate(&self, tx: &mut Transaction<'_>, found: &FoundTag) -> Result<Fate, sqlx::Error> {
        let newest = sqlx::query(
            "SELECT id, state, coalesce(verified_digest, announced_digest) AS digest,
                state = 'refused' AND redeliverable AS runs_again FROM events
             WHERE repository = ? AND tag = ? ORDER BY id DESC LIMIT 1",
        )
        .bind(self.repository.as_str())
        .bind(found.tag.as_str())
        .fetch_optional(&mut *tx.connection)
        .await?;
        let Some(newest) = newest else { return Ok(Fate::New) };
        let digest: Option<Digest> = parsed_option(&newest, "digest")?;
        let is_queued = newest.try_get::<String, _>("state")? == "queued";
        Ok(match &found.digest {
            Some(_) if is_queued => Fate::Open,
            Some(new) if digest.as_ref() != Some(new) => Fate::New,
            _ if newest.try_get("runs_again")? => Fate::Again(newest.try_get("id")?),
            _ => Fate::Known,
        })
    }

    async fn insert(&self, tx: &mut Transaction<'_>, found: &FoundTag) -> Result<String, sqlx::Error> {
        let id = tx.next_id();
        let digest = found.digest.as_ref().map(Digest::as_str);
        // No delivery has this key: those begin with a receiver.
        let key = ["", RECEIVER, self.repository.as_str(), found.tag.as_str(), digest.unwrap_or_default()].join("\n");
        sqlx::query(
            "INSERT INTO events (id, cause, receiver, registry, repository, tag, announced_digest, received_at,
                duplicate_key, trace_parent, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued')",
        )
        .bind(&id)
        .bind(Cause::CatchUp.as_str())
        .bind(RECEIVER)
        .bind(self.repository.registry())
        .bind(self.repository.as_str())
        .bind(found.tag.as_str())
        .bind(digest)
        .bind(tx.now_milliseconds())
        .bind(Digest::of(key.as_bytes()).as_str())
        .bind(self.trace.to_string())
        .execute(&mut *tx.connection)
        .await?;
        Ok(id)
    }
}

struct ForgetSeen(Timestamp);

impl Write for ForgetSeen {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM catch_up WHERE listed_at < ?")
            .bind(self.0.as_millisecond())
            .execute(&mut *tx.connection)
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventRefusal, EventState, NewEvent, StoreSettings};

    struct Fixture {
        store: Store,
        folder: tempfile::TempDir,
    }

    impl Fixture {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { store: Self::open(&folder).await, folder }
        }

        async fn open(folder: &tempfile::TempDir) -> Store {
            Store::open(&StoreSettings { path: folder.path().join("tagrelay.db") }).await.unwrap()
        }

        /// Looks at the repository and finds these. Returns the tags of which there are events now.
        async fn find(&self, found: &[(&str, Option<&str>)]) -> Vec<FoundEvent> {
            let tags: Vec<Tag> = found.iter().map(|(tag, _)| tag.parse().unwrap()).collect();
            let look = CaughtUp {
                repository: repository(),
                seen: tags.iter().collect(),
                digest: found.first().and_then(|(_, digest)| digest.map(digest_of)),
                found: found
                    .iter()
                    .map(|(tag, digest)| FoundTag { tag: tag.parse().unwrap(), digest: digest.map(digest_of) })
                    .collect(),
                trace: TraceContext::random(),
            };
            self.store.catch_up(look).await.unwrap()
        }

        async fn deliver(&self, tag: &str, digest: Option<&str>) -> String {
            let event = NewEvent {
                repository: repository(),
                tag: tag.parse().unwrap(),
                digest: digest.map(digest_of),
                pushed_at: None,
                duplicate_key: format!("{tag}{digest:?}"),
                duplicates_since: Timestamp::UNIX_EPOCH,
                trace: TraceContext::random(),
            };
            self.store.receive("hub", vec![event]).await.unwrap().remove(0).id
        }

        async fn refuse(&self, event_id: &str, redeliverable: bool) {
            let (event_id, reason) = (event_id.to_owned(), "no".to_owned());
            let refusal =
                EventRefusal { event_id, reason, matched_rule: None, redeliverable, asked: crate::store::Party::Rules };
            self.store.refuse_event(refusal).await.unwrap();
        }

        async fn known(&self) -> Option<SeenRepository> {
            self.store.seen(&repository(), Timestamp::UNIX_EPOCH).await.unwrap()
        }
    }

    fn repository() -> Repository {
        "uyou/user-service".parse().unwrap()
    }

    fn digest_of(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn tags(found: &[FoundEvent]) -> Vec<&str> {
        found.iter().map(|event| event.tag.as_str()).collect()
    }

    #[test]
    fn tags_are_remembered_in_eight_bytes_each() {
        let tags: Vec<Tag> = (0..1000).map(|number| format!("v{number}").parse().unwrap()).collect();
        let seen: SeenTags = tags.iter().chain(tags.iter()).collect();
        assert_eq!((seen.len(), seen.bytes().len()), (1000, 8000));
        assert!(tags.iter().all(|tag| seen.contains(tag)));
        assert!(!seen.contains(&"v1000".parse().unwrap()));
        assert_eq!(SeenTags::from_bytes(&seen.bytes()), seen);
        assert!(SeenTags::default().is_empty());
    }

    #[tokio::test]
    async fn what_is_found_is_an_event_and_known_after_a_restart() {
        let fixture = Fixture::new().await;
        assert_eq!(fixture.known().await, None);
        let found = fixture.find(&[("b", None), ("a", None)]).await;
        assert_eq!(tags(&found), ["b", "a"], "in the order in which they were handed over");
        assert!(found[0].id < found[1].id);
        let event = fixture.store.event(&found[0].id).await.unwrap().unwrap();
        assert_eq!(
            (event.cause, event.receiver.as_str(), event.state),
            (Cause::CatchUp, "catch-up", EventState::Queued)
        );
        let Fixture { store, folder } = fixture;
        let known = store.seen(&repository(), Timestamp::UNIX_EPOCH).await.unwrap().unwrap();
        drop(store);
        // The task that writes ends a moment after the last handle.
        let again = loop {
            match Store::open(&StoreSettings { path: folder.path().join("tagrelay.db") }).await {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(again.seen(&repository(), Timestamp::UNIX_EPOCH).await.unwrap(), Some(known.clone()));
        assert!(known.seen.contains(&"a".parse().unwrap()));
    }

    #[tokio::test]
    async fn what_a_webhook_told_of_is_no_news() {
        let fixture = Fixture::new().await;
        let told = fixture.deliver("a", None).await;
        assert_eq!(tags(&fixture.find(&[("a", None), ("b", None)]).await), ["b"]);
        fixture.refuse(&told, false).await;
        assert!(fixture.find(&[("a", None)]).await.is_empty(), "a final no stays one");
    }

    #[tokio::test]
    async fn what_was_refused_because_it_was_not_there_runs_again() {
        let fixture = Fixture::new().await;
        let told = fixture.deliver("a", None).await;
        fixture.refuse(&told, true).await;
        let found = fixture.find(&[("a", None)]).await;
        assert_eq!(found, [FoundEvent { id: told.clone(), tag: "a".parse().unwrap() }]);
        assert_eq!(fixture.store.event(&told).await.unwrap().unwrap().state, EventState::Queued);
    }

    #[tokio::test]
    async fn a_moved_tag_is_known_by_the_digest_of_its_newest_event() {
        let fixture = Fixture::new().await;
        let told = fixture.deliver("latest", Some("one")).await;
        assert!(fixture.find(&[("latest", Some("one"))]).await.is_empty());
        assert_eq!(fixture.known().await.unwrap().digest, None, "its event is still to ask what the tag points at");
        fixture.refuse(&told, false).await;
        assert!(fixture.find(&[("latest", Some("one"))]).await.is_empty());
        assert_eq!(fixture.known().await.unwrap().digest, Some(digest_of("one")));
        let found = fixture.find(&[("latest", Some("two"))]).await;
        assert_eq!(tags(&found), ["latest"]);
        fixture.refuse(&found[0].id, false).await;
        // Back to what it was before: that is a move, too.
        assert_eq!(tags(&fixture.find(&[("latest", Some("one"))]).await), ["latest"]);
    }

    #[tokio::test]
    async fn what_nobody_looked_at_for_long_is_forgotten() {
        let fixture = Fixture::new().await;
        fixture.find(&[("a", None)]).await;
        let listed_at = fixture.known().await.unwrap().listed_at;
        let later = listed_at + std::time::Duration::from_millis(1);
        assert_eq!(fixture.store.seen(&repository(), later).await.unwrap(), None);
        fixture.store.forget_seen(listed_at).await.unwrap();
        assert!(fixture.known().await.is_some());
        fixture.store.forget_seen(later).await.unwrap();
        assert_eq!(fixture.known().await, None);
    }
}
