//! Every image ends at its newest build, whatever the order, duplication and interleaving of its events.
//!
//! Uses the real store and the real comparison of tags. Reading, deciding and writing are separate steps here, so they are
//! interleaved in ways that are rare in the whole program.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use tagrelay::image::{Repository, Tag, Version};
use tagrelay::policy::{TagRule, compare};
use tagrelay::store::{
    Decided, Decision, EventState, Finish, NewEvent, Outcome, PlannedUpdate, Standing, Store, StoreSettings,
    UpdateState, Verdict,
};
use tagrelay::telemetry::TraceContext;

const IMAGES: usize = 50;
const BUILDS: usize = 5;
const STAGING: &str = "staging";

/// The data that an event has read before its decision.
struct Read {
    event: String,
    image: usize,
    tag: Tag,
    standing: Standing,
    running: Tag,
}

struct World {
    store: Store,
    rule: TagRule,
    running: Vec<Tag>,
    /// Events that have read but not decided.
    read: Vec<Read>,
    /// Waiting events, with image and tag.
    queued: Vec<(String, usize, Tag)>,
    outrun: usize,
}

fn repository(image: usize) -> Repository {
    format!("uyou/service-{image}").parse().unwrap()
}

fn tag(build: usize) -> Tag {
    format!("build-{build}").parse().unwrap()
}

impl World {
    async fn receive(&mut self, image: usize, build: usize, copy: usize) {
        let event = NewEvent {
            repository: repository(image),
            tag: tag(build),
            digest: None,
            pushed_at: None,
            duplicate_key: format!("{image} {build} {copy}"),
            duplicates_since: Timestamp::UNIX_EPOCH,
            trace: TraceContext::random(),
        };
        let received = self.store.receive("hub", vec![event]).await.unwrap().remove(0);
        self.queued.push((received.id, image, tag(build)));
    }

    /// Reads the pending updates for a queued event.
    async fn read(&mut self, pick: usize) {
        if self.queued.is_empty() {
            return;
        }
        let (event, image, tag) = self.queued.swap_remove(pick % self.queued.len());
        let standing = self.store.standing(STAGING, &repository(image)).await.unwrap();
        let running = self.running[image].clone();
        self.read.push(Read { event, image, tag, standing, running });
    }

    /// Decides an event that has read.
    async fn decide(&mut self, pick: usize) {
        if self.read.is_empty() {
            return;
        }
        let Read { event, image, tag, standing, running } = self.read.swap_remove(pick % self.read.len());
        let facts = |tag: &Tag| self.rule.read(tag).unwrap();
        let open = standing.open.iter().filter_map(|update| update.version.tag());
        let others: Vec<&Tag> = open.chain([&running]).collect();
        let older = others
            .iter()
            .any(|other| compare::by_tag(&facts(&tag), &facts(other)).is_some_and(|(ordering, _)| ordering.is_lt()));
        let planned = PlannedUpdate {
            environment: STAGING.to_owned(),
            mark: standing.mark.clone(),
            verdict: if older { Verdict::Refuse { reason: "older".to_owned() } } else { Verdict::Go },
            decided_by: "number",
            decided_because: String::new(),
            compared: others.into_iter().map(|other| Version::tagged(other.clone(), None)).collect(),
        };
        let decision = Decision {
            event_id: event.clone(),
            matched_rule: String::new(),
            version: Version::tagged(tag.clone(), None),
            note: None,
            updates: vec![planned],
        };
        if self.store.decide(decision).await.unwrap() == Decided::Outrun {
            self.outrun += 1;
            self.queued.push((event, image, tag));
        }
    }

    /// Writes all pending updates like a branch's writer: the newest of each repository and environment.
    async fn write(&mut self) {
        let pending = self.store.pending_updates(&[STAGING.to_owned()], 1000).await.unwrap();
        let mut newest = BTreeMap::new();
        let mut finished = Vec::new();
        for update in pending {
            if let Some(older) = newest.insert(update.repository.to_string(), update) {
                let outcome = Outcome::Superseded { reason: String::new() };
                finished.push(Finish { update_id: older.id, outcome, follow: false, asked: None });
            }
        }
        for update in newest.into_values() {
            let image: usize = update.repository.name().strip_prefix("service-").unwrap().parse().unwrap();
            let new = update.version.tag().unwrap().clone();
            let number = |tag: &Tag| self.rule.read(tag).unwrap().number.unwrap();
            assert!(number(&new) >= number(&self.running[image]), "{new} over {}", self.running[image]);
            // The snapshot changes before the store records it.
            self.running[image] = new;
            finished.push(Finish { update_id: update.id, outcome: Outcome::Committed, follow: false, asked: None });
        }
        self.store.finish(finished).await.unwrap();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Receive,
    Read(usize),
    Decide(usize),
    Write,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Receive),
        4 => any::<usize>().prop_map(Step::Read),
        4 => any::<usize>().prop_map(Step::Decide),
        1 => Just(Step::Write),
    ]
}

async fn run(deliveries: Vec<(usize, usize, usize)>, steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreSettings { path: folder.path().join("tagrelay.db") }).await.unwrap();
    let rule = TagRule::regex("build-(?<number>[0-9]+)").unwrap();
    let mut world =
        World { store, rule, running: vec![tag(0); IMAGES], read: Vec::new(), queued: Vec::new(), outrun: 0 };
    let mut deliveries = deliveries.into_iter();
    for step in steps {
        match step {
            Step::Receive => {
                if let Some((image, build, copy)) = deliveries.next() {
                    world.receive(image, build, copy).await;
                }
            }
            Step::Read(pick) => world.read(pick).await,
            Step::Decide(pick) => world.decide(pick).await,
            Step::Write => world.write().await,
        }
    }
    for (image, build, copy) in deliveries {
        world.receive(image, build, copy).await;
    }
    while !world.queued.is_empty() || !world.read.is_empty() {
        world.read(0).await;
        world.decide(0).await;
    }
    world.write().await;
    assert!(world.running.iter().all(|running| *running == tag(BUILDS)), "{:?}", world.running);
    assert_eq!(world.store.backlog().await.unwrap().open_updates, 0);
    let queued =
        tagrelay::store::EventFilter { state: Some(EventState::Queued), repository: None, failed: false, limit: 1 };
    assert!(world.store.events(&queued).await.unwrap().is_empty());
    let committed = tagrelay::store::HistoryFilter { limit: 10_000, ..Default::default() };
    let committed = world.store.history(&committed).await.unwrap();
    assert!(committed.iter().all(|update| update.state == UpdateState::Committed && update.decided_by.is_some()));
}

/// Every build of every image, each announced twice, in any order.
fn deliveries() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    let all: Vec<(usize, usize, usize)> = (0..IMAGES)
        .flat_map(|image| (1..=BUILDS).flat_map(move |build| [(image, build, 0), (image, build, 1)]))
        .collect();
    Just(all).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn every_image_ends_at_its_newest_build(
        deliveries in deliveries(),
        steps in proptest::collection::vec(step(), 0..2500),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(deliveries, steps));
    }
}
