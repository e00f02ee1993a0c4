//! Stores of earlier versions can be opened and lose nothing.

use std::collections::HashMap;
use std::path::PathBuf;

use sqlx::{ConnectOptions as _, Connection as _};

use super::*;

/// The time at which 0.1.0 filled the store.
const FILLED: &str = "2026-11-28T12:00:00Z";

/// A store that 0.1.0 filled with rows in every state.
const STORE_OF_0_1_0: &str = include_str!("../../../tests/fixtures/store-0.1.0.sql");

async fn copy_of(sql: &'static str, folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("tagrelay.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    path
}

/// A store of 0.1.0 that was opened by this version.
struct Upgraded {
    store: Store,
    clock: Clock,
    _folder: tempfile::TempDir,
}

impl Upgraded {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = copy_of(STORE_OF_0_1_0, &folder).await;
        let clock = Clock::stopped_at(at(FILLED));
        let store = Store::open_with(&StoreSettings { path }, clock.clone()).await.unwrap();
        Self { store, clock, _folder: folder }
    }

    async fn events_of(&self, name: &str) -> Vec<crate::domain::Event> {
        let filter = EventFilter { repository: Some(repo(name)), limit: 100, ..EventFilter::default() };
        self.store.events(&filter).await.unwrap()
    }

    async fn event(&self, name: &str) -> crate::domain::Event {
        self.events_of(name).await.remove(0)
    }

    async fn updates(&self, name: &str) -> Vec<Update> {
        let mut updates = Vec::new();
        for event in self.events_of(name).await {
            updates.append(&mut self.store.updates_of(&event.id).await.unwrap());
        }
        updates
    }

    async fn update(&self, name: &str) -> Update {
        self.updates(name).await.remove(0)
    }

    async fn request(&self, key: &str) -> Request {
        self.store.request_by_key("oncall", key).await.unwrap().unwrap()
    }

    async fn causes(&self, update: &Update) -> Vec<WaitCause> {
        let rows = self.store.waits_of(&[&update.id]).await.unwrap().remove(&update.id).unwrap_or_default();
        rows.into_iter().map(|row| row.wait.cause).collect()
    }
}

fn repo(name: &str) -> Repository {
    format!("uyou/{name}").parse().unwrap()
}

#[tokio::test]
async fn queued_and_refused_events_of_0_1_0_stay_what_they_are() {
    let upgraded = Upgraded::open().await;
    let store = &upgraded.store;
    assert_eq!(upgraded.event("queued").await.state, EventState::Queued);
    let postponed = upgraded.event("postponed").await;
    assert_eq!((postponed.state, postponed.failures), (EventState::Queued, 1));
    assert_eq!(postponed.reason.as_deref(), Some("the registry answered 429"));
    let later = at(FILLED) + Duration::from_secs(60);
    assert_eq!(store.next_attempt(at(FILLED)).await.unwrap(), Some(later));
    let due: Vec<Repository> =
        store.due_events(at(FILLED), 10, &[]).await.unwrap().into_iter().map(|event| event.repository).collect();
    assert_eq!(due, [repo("queued"), repo("replayed"), repo("caught")]);
    let failures = store.failed_attempts(&postponed.id).await.unwrap();
    assert_eq!((failures.len(), failures[0].asked.as_str()), (1, "registry"));

    let refused = upgraded.event("refused").await;
    assert_eq!((refused.state, refused.reason.as_deref()), (EventState::Refused, Some("not found")));
    let again = NewEvent { repository: repo("refused"), duplicate_key: "hub refused v1".to_owned(), ..event("v1") };
    let again = store.receive("hub", vec![again]).await.unwrap().remove(0);
    assert_eq!(again, Received { id: refused.id, state: ReceivedState::Queued });
}

#[tokio::test]
async fn a_replayed_event_of_0_1_0_gets_a_new_update() {
    let upgraded = Upgraded::open().await;
    let replayed = upgraded.event("replayed").await;
    assert_eq!(replayed.state, EventState::Queued);
    let before = upgraded.update("replayed").await;
    assert_eq!(
        (before.state, before.reason.as_deref()),
        (UpdateState::Superseded, Some("replayed; before: no such place"))
    );
    let made = upgraded.store.record_facts(facts(&replayed.id, "v1", &["staging"])).await.unwrap();
    assert_eq!(made, [("staging".to_owned(), UpdateState::Pending)]);
    assert_eq!(upgraded.event("replayed").await.state, EventState::Pending);

    let partly = upgraded.event("partly").await;
    assert_eq!(partly.state, EventState::Pending);
    let states: Vec<UpdateState> = upgraded.updates("partly").await.iter().map(|update| update.state).collect();
    assert_eq!(states, [UpdateState::Pending, UpdateState::Refused]);
}

#[tokio::test]
async fn pushes_of_0_1_0_without_an_answer_are_open_attempts() {
    let upgraded = Upgraded::open().await;
    let (half, waiting) = (upgraded.update("half").await, upgraded.update("half-waiting").await);
    assert_eq!((half.state, waiting.state), (UpdateState::Pending, UpdateState::Waiting));
    assert_eq!((half.commit, waiting.commit), (None, None));
    let open = upgraded.store.open_pushes("platform", "main", &["staging".to_owned()]).await.unwrap();
    let carried: HashMap<&str, &AttemptedUpdate> =
        open.iter().flat_map(|attempt| &attempt.updates).map(|update| (update.update_id.as_str(), update)).collect();
    assert_eq!(carried.len(), 2);
    for id in [&half.id, &waiting.id] {
        let attempted = carried[id.as_str()];
        assert_eq!((attempted.commit.as_str(), &attempted.old), ("a1".repeat(20).as_str(), &version("v0")));
        assert_eq!(attempted.changes.len(), 1);
    }
    assert!(open.iter().all(|attempt| attempt.parent.is_empty() && attempt.tip == "a1".repeat(20)));
    assert!(upgraded.store.open_pushes("platform", "main", &["qa".to_owned()]).await.unwrap().is_empty());

    // Both updates are found on the branch.
    let landed = carried.values().map(|update| (*update).clone()).collect();
    upgraded.store.land(landed, true).await.unwrap();
    for name in ["half", "half-waiting"] {
        let update = upgraded.update(name).await;
        assert_eq!((update.state, update.commit), (UpdateState::Committed, Some("a1".repeat(20))));
        assert_eq!((update.old, update.changes.len()), (Some(version("v0")), 1));
    }
    assert!(upgraded.store.open_pushes("platform", "main", &["staging".to_owned()]).await.unwrap().is_empty());
}

#[tokio::test]
async fn updates_of_0_1_0_wait_for_the_holds_and_freezes_that_they_waited_for() {
    let upgraded = Upgraded::open().await;
    let store = &upgraded.store;
    for (name, cause) in [("held", WaitCause::Hold), ("rolled", WaitCause::Hold), ("frozen", WaitCause::Freeze)] {
        let waiting = upgraded.update(name).await;
        assert_eq!((waiting.state, upgraded.causes(&waiting).await), (UpdateState::Waiting, vec![cause]), "{name}");
        let event = upgraded.event(name).await;
        assert_eq!(event.state, EventState::Waiting, "{name}");
        assert!(event.reason.is_some() && event.reason == waiting.reason, "{name}");
    }
    let (holds, freezes) =
        (store.blocks_of(BlockKind::Hold).await.unwrap(), store.blocks_of(BlockKind::Freeze).await.unwrap());
    assert_eq!((holds.len(), freezes.len()), (4, 1), "blocks that have ended stay ended");
    let back = upgraded.request("k2").await;
    let of_rollback: Vec<&Block> = holds.iter().filter(|hold| hold.request_id.is_some()).collect();
    assert_eq!(of_rollback[0].request_id, Some(back.id));
    assert_eq!(freezes[0].reason.as_deref(), Some("end of the quarter"));

    // An update under a hold and a freeze shows the hold, and continues when both have ended.
    let both = upgraded.update("both").await;
    assert_eq!(upgraded.causes(&both).await, [WaitCause::Hold]);
    assert!(store.review_waits().await.unwrap());
    assert_eq!(upgraded.causes(&both).await, [WaitCause::Hold, WaitCause::Freeze]);
    assert!(!store.review_waits().await.unwrap());
    let own = holds.iter().find(|hold| hold.repository == Some(repo("both"))).unwrap();
    store.end_block(&own.id, BlockKind::Hold, "ops").await.unwrap();
    assert_eq!(upgraded.causes(&both).await, [WaitCause::Freeze]);
    upgraded.clock.set(at(FILLED) + Duration::from_secs(1));
    store.end_block(&freezes[0].id, BlockKind::Freeze, "ops").await.unwrap();
    for name in ["both", "frozen"] {
        let update = upgraded.update(name).await;
        assert_eq!((update.state, update.released_at), (UpdateState::Pending, Some(upgraded.clock.now())), "{name}");
    }
    let waiting = store.waiting_updates().await.unwrap();
    assert!(waiting.iter().all(|update| update.environment == "staging"), "the promotion into production goes, too");
}

#[tokio::test]
async fn requests_history_and_records_of_0_1_0_are_kept() {
    let upgraded = Upgraded::open().await;
    let store = &upgraded.store;
    let promotion = upgraded.request("k1").await;
    let unverified = store.updates_of(&promotion.id).await.unwrap().remove(0);
    assert_eq!((unverified.state, unverified.expected), (UpdateState::Unverified, Some(vec![version("0")])));
    assert_eq!(store.due_updates(at(FILLED), 10, &[]).await.unwrap().len(), 1);
    let mut again = promotion_of_0_1_0();
    again.idempotency_key = Some("k1".to_owned());
    assert!(matches!(store.make_request(again).await.unwrap(), RequestMade::Repeated(known) if known == promotion));

    let done = upgraded.update("done").await;
    assert_eq!((done.state, done.commit.as_deref()), (UpdateState::Committed, Some("e5".repeat(20).as_str())));
    assert_eq!((done.expected.as_deref(), done.decided_by.as_deref()), (None, Some("arrival")));
    let open = store.open_follow_ups(10).await.unwrap();
    assert_eq!(open.iter().map(|(row, _)| &row.update_id).collect::<Vec<_>>(), [&done.id]);
    let history = store.history(&HistoryFilter { limit: 10, ..HistoryFilter::default() }).await.unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(
        store.brought("staging", &repo("rolled"), &version("v0")).await.unwrap().unwrap().cause,
        Cause::Rollback
    );
    assert_eq!(store.build_time(&repo("done"), &Digest::of(b"1")).await.unwrap(), Some(Some(at(FILLED))));
    let seen = store.seen(&repo("caught"), Timestamp::UNIX_EPOCH).await.unwrap().unwrap();
    assert!(seen.seen.contains(&"v1".parse().unwrap()));
    assert_eq!(store.heard().await.unwrap().len(), 1);
    assert_eq!(store.application_health().await.unwrap().len(), 1);
    let pending = store.claim(&["staging".to_owned()], 100).await.unwrap().updates;
    assert_eq!(
        pending.iter().map(|update| &update.repository).collect::<Vec<_>>(),
        [&repo("pending"), &repo("half"), &repo("partly")]
    );
}

fn promotion_of_0_1_0() -> NewRequest {
    let mut request = promotion("v1");
    request.updates[0].repository = repo("unverified");
    request
}

#[tokio::test]
async fn rows_from_before_traces_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagrelay.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    database::MIGRATIONS.run_to(1, &mut connection).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO events (id, receiver, registry, repository, tag, received_at, duplicate_key, state)
            VALUES ('E', 'hub', 'docker.io', 'docker.io/uyou/user-service', 'a', 1, 'k', 'pending');
         INSERT INTO updates (id, environment, registry, repository, tag, cause, cause_id, actor, state, received_at)
            VALUES ('U', 'staging', 'docker.io', 'docker.io/uyou/user-service', 'a', 'push', 'E', 'hub', 'pending', 1),
                   ('V', 'staging', 'docker.io', 'docker.io/uyou/user-service', 'a', 'push', 'gone', 'hub', 'pending', 1);",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let store = Store::open(&StoreSettings { path }).await.unwrap();
    let event = store.event("E").await.unwrap().unwrap();
    let updates = store.claim(&["staging".to_owned()], 9).await.unwrap().updates;
    let traces: Vec<_> = updates.iter().map(|update| (update.id.as_str(), update.trace == event.trace)).collect();
    assert_eq!(traces, [("U", true), ("V", false)]);
}
