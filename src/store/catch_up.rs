//! Tags that have been seen in the registry's list, and events of tags that no webhook announced.
//!
//! A tag counts as seen if it was in the last list, or if it has an event. Lists and events are read and written in one transaction
//! with the new events, so that no tag is lost if the process ends.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::Digest as _;
use sqlx::{FromRow, Row as _};

use super::apply::{EventStep, apply_events};
use super::database::{Row, Value};
use super::deliveries::{QueuedEvent, insert};
use super::rows::{parse, parsed_option, time};
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Cause, EventState};
use crate::telemetry::TraceContext;
use tagrelay_image::{Digest, Repository, Tag};

statements! {
    SEEN = ("SELECT listed_at, seen, digest FROM catch_up WHERE repository = $1 AND listed_at >= $2");
    WRITE = ("INSERT INTO catch_up (repository, listed_at, seen, digest) VALUES ($1, $2, $3, $4)
        ON CONFLICT (repository) DO UPDATE SET listed_at = excluded.listed_at, seen = excluded.seen,
            digest = coalesce(excluded.digest, catch_up.digest)");
    OLD = ("SELECT count(*) FROM (SELECT 1 FROM catch_up WHERE listed_at < $1 LIMIT 1) AS found");
    FORGET = ("DELETE FROM catch_up WHERE listed_at < $1");
    NEWEST_OF_TAG = ("SELECT id, state, coalesce(verified_digest, announced_digest) AS digest, redeliverable FROM events
        WHERE repository = $1 AND tag = $2 ORDER BY id DESC LIMIT 1");
}

/// The receiver of events that no webhook delivered.
const RECEIVER: &str = "catch-up";

/// Tags, each as eight bytes of its SHA-256. The chance that two of 100,000 tags collide is 1 in 4 billion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenTags(Vec<u64>);

impl SeenTags {
    /// Whether the tag was seen.
    pub fn contains(&self, tag: &Tag) -> bool {
        self.0.binary_search(&hash(tag)).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the tags that are in at least one of the two.
    pub fn union(&self, other: &Self) -> Self {
        let mut hashes = [self.0.as_slice(), &other.0].concat();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    /// Returns the tags that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().copied().filter(|hash| other.0.binary_search(hash).is_ok()).collect())
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

/// The last list of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRepository {
    pub listed_at: Timestamp,
    /// The tags in the registry's list.
    pub seen: SeenTags,
    /// The digest of the followed tag; `None`: the image rule follows tags.
    pub digest: Option<Digest>,
}

/// A new list of a repository.
#[derive(Debug, Clone)]
pub struct CaughtUp {
    pub repository: Repository,
    /// The tags that count as seen from now on.
    pub seen: SeenTags,
    /// The digest of the followed tag; `None`: the image rule follows tags.
    pub digest: Option<Digest>,
    /// Tags that become events in this order, unless a webhook has announced them in the meantime.
    pub found: Vec<FoundTag>,
    /// The span of the request for the list.
    pub trace: TraceContext,
}

/// A tag that no webhook seems to have announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTag {
    pub tag: Tag,
    /// The digest, if the image rule follows the digest of the tag.
    pub digest: Option<Digest>,
}

/// An event of a tag that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEvent {
    /// The id of the event.
    pub id: String,
    pub tag: Tag,
}

impl FromRow<'_, Row> for SeenRepository {
    fn from_row(row: &Row) -> Result<Self, sqlx::Error> {
        let seen: Vec<u8> = row.try_get("seen")?;
        Ok(Self {
            listed_at: time(row, "listed_at")?,
            seen: SeenTags::from_bytes(&seen),
            digest: parsed_option(row, "digest")?,
        })
    }
}

impl Store {
    /// Returns the last list of a repository; `None`: it was not listed since `since`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn seen(&self, repository: &Repository, since: Timestamp) -> Result<Option<SeenRepository>, StoreError> {
        Ok(SEEN.optional(&mut *self.reads.acquire().await?, values![repository, since]).await?)
    }

    /// Stores the list of a repository, and queues events of tags that no webhook announced.
    ///
    /// Returns the events that are queued now: new ones, and ones that were refused for a passing reason.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn catch_up(&self, caught_up: CaughtUp) -> Result<Vec<FoundEvent>, StoreError> {
        self.writes.run(caught_up).await
    }

    /// Deletes the lists of repositories that were not listed since `before`.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn forget_seen(&self, before: Timestamp) -> Result<(), StoreError> {
        let (found,): (i64,) = OLD.one(&mut *self.reads.acquire().await?, values![before]).await?;
        // Read first, so that an idle daemon writes nothing.
        if found > 0 { self.writes.run(ForgetSeen(before)).await } else { Ok(()) }
    }
}

/// How a found tag relates to its events.
enum Found {
    New,
    /// The event of the tag was refused for a passing reason.
    Again(String),
    Known,
    /// The tag has a queued event whose digest is not known yet. The digest may be the found one.
    Undecided,
}

impl Write for CaughtUp {
    type Output = Vec<FoundEvent>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<FoundEvent>, sqlx::Error> {
        let mut events = Vec::new();
        let mut digest = self.digest.as_ref();
        for found in &self.found {
            let id = match self.look_up(tx, found).await? {
                Found::Known => continue,
                Found::Undecided => {
                    // The next list decides.
                    digest = None;
                    continue;
                }
                Found::Again(id) => {
                    apply_events(tx, &BTreeMap::from([(id.clone(), EventStep::Replay)])).await?;
                    id
                }
                Found::New => self.insert(tx, found).await?,
            };
            events.push(FoundEvent { id, tag: found.tag.clone() });
        }
        let values = values![&self.repository, tx.now, Value::Bytes(self.seen.bytes()), digest];
        WRITE.execute(tx.connection, values).await?;
        Ok(events)
    }
}

impl CaughtUp {
    async fn look_up(&self, tx: &mut Transaction<'_>, found: &FoundTag) -> Result<Found, sqlx::Error> {
        let newest: Option<(String, String, Option<String>, i64)> =
            NEWEST_OF_TAG.optional(tx.connection, values![&self.repository, found.tag.as_str()]).await?;
        let Some((id, state, digest, redeliverable)) = newest else { return Ok(Found::New) };
        let state: EventState = parse(&state, "state")?;
        Ok(match &found.digest {
            Some(_) if state == EventState::Queued => Found::Undecided,
            Some(new) if digest.as_deref() != Some(new.as_str()) => Found::New,
            _ if state == EventState::Refused && redeliverable != 0 => Found::Again(id),
            _ => Found::Known,
        })
    }

    async fn insert(&self, tx: &mut Transaction<'_>, found: &FoundTag) -> Result<String, sqlx::Error> {
        let id = tx.next_id();
        let digest = found.digest.as_ref();
        // The keys of deliveries begin with a receiver. This one begins with an empty part, so it never equals one of them.
        let parts = [
            "",
            RECEIVER,
            self.repository.as_str(),
            found.tag.as_str(),
            digest.map(Digest::as_str).unwrap_or_default(),
        ];
        let key = Digest::of(parts.join("\n").as_bytes());
        let event = QueuedEvent {
            id: id.clone(),
            cause: Cause::CatchUp,
            receiver: RECEIVER,
            repository: &self.repository,
            tag: &found.tag,
            announced_digest: digest,
            pushed_at: None,
            duplicate_key: key.as_str(),
            trace: &self.trace,
        };
        insert(tx, &[event]).await?;
        Ok(id)
    }
}

struct ForgetSeen(Timestamp);

impl Write for ForgetSeen {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        FORGET.execute(tx.connection, values![self.0]).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Party;
    use crate::store::{EventRefusal, NewEvent, StoreSettings};

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

        /// Stores a list with these tags. Returns the tags that have events now.
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
            let refusal = EventRefusal { event_id, reason, matched_rule: None, redeliverable, asked: Party::Rules };
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
    fn tags_take_eight_bytes_each() {
        let tags: Vec<Tag> = (0..1000).map(|number| format!("v{number}").parse().unwrap()).collect();
        let seen: SeenTags = tags.iter().chain(tags.iter()).collect();
        assert_eq!((seen.len(), seen.bytes().len()), (1000, 8000));
        assert!(tags.iter().all(|tag| seen.contains(tag)));
        assert!(!seen.contains(&"v1000".parse().unwrap()));
        assert_eq!(SeenTags::from_bytes(&seen.bytes()), seen);
        assert!(SeenTags::default().is_empty());
    }

    #[tokio::test]
    async fn found_tags_become_events_and_are_known_after_a_restart() {
        let fixture = Fixture::new().await;
        assert_eq!(fixture.known().await, None);
        let found = fixture.find(&[("b", None), ("a", None)]).await;
        assert_eq!(tags(&found), ["b", "a"], "in the order of the list");
        assert!(found[0].id < found[1].id);
        let event = fixture.store.event(&found[0].id).await.unwrap().unwrap();
        assert_eq!(
            (event.cause, event.receiver.as_str(), event.state),
            (Cause::CatchUp, "catch-up", EventState::Queued)
        );
        let Fixture { store, folder } = fixture;
        let known = store.seen(&repository(), Timestamp::UNIX_EPOCH).await.unwrap().unwrap();
        drop(store);
        // The writing task ends a moment after the last handle is dropped.
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
    async fn tags_of_webhooks_are_known() {
        let fixture = Fixture::new().await;
        let announced = fixture.deliver("a", None).await;
        assert_eq!(tags(&fixture.find(&[("a", None), ("b", None)]).await), ["b"]);
        fixture.refuse(&announced, false).await;
        assert!(fixture.find(&[("a", None)]).await.is_empty(), "a final refusal stays one");
    }

    #[tokio::test]
    async fn event_refused_for_a_passing_reason_runs_again() {
        let fixture = Fixture::new().await;
        let announced = fixture.deliver("a", None).await;
        fixture.refuse(&announced, true).await;
        let found = fixture.find(&[("a", None)]).await;
        assert_eq!(found, [FoundEvent { id: announced.clone(), tag: "a".parse().unwrap() }]);
        assert_eq!(fixture.store.event(&announced).await.unwrap().unwrap().state, EventState::Queued);
    }

    #[tokio::test]
    async fn moved_tag_is_known_by_the_digest_of_its_newest_event() {
        let fixture = Fixture::new().await;
        let announced = fixture.deliver("latest", Some("one")).await;
        assert!(fixture.find(&[("latest", Some("one"))]).await.is_empty());
        assert_eq!(fixture.known().await.unwrap().digest, None, "the digest of its event is not known yet");
        fixture.refuse(&announced, false).await;
        assert!(fixture.find(&[("latest", Some("one"))]).await.is_empty());
        assert_eq!(fixture.known().await.unwrap().digest, Some(digest_of("one")));
        let found = fixture.find(&[("latest", Some("two"))]).await;
        assert_eq!(tags(&found), ["latest"]);
        fixture.refuse(&found[0].id, false).await;
        // A move back to the earlier digest is a move, too.
        assert_eq!(tags(&fixture.find(&[("latest", Some("one"))]).await), ["latest"]);
    }

    #[tokio::test]
    async fn repositories_that_were_not_listed_for_long_are_forgotten() {
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
