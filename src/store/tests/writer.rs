use std::sync::Arc;

use tokio::sync::Notify;

use super::*;
use crate::store::writer::{Transaction, Write};

struct Broken;

impl Write for Broken {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        tx.record(crate::domain::Change::Freeze {
            environment: "x".to_owned(),
            state: "frozen".to_owned(),
            reason: None,
        });
        sqlx::query("INSERT INTO nowhere VALUES (1)").execute(&mut *tx.connection).await.map(|_| ())
    }
}

/// Keeps its transaction open, so that writes that arrive in the meantime share the next one.
struct Held {
    begun: Arc<Notify>,
    go: Arc<Notify>,
}

impl Write for Held {
    type Output = ();

    async fn run(&self, _: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        self.begun.notify_one();
        self.go.notified().await;
        Ok(())
    }
}

#[tokio::test]
async fn failing_write_fails_alone() {
    let fixture = Fixture::new().await;
    let good = (0..500).map(|number| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.receive("hub", vec![event(&format!("t{number}"))]).await })
    });
    let good: Vec<_> = good.collect();
    let bad = fixture.store.writes.run(Broken).await;
    for task in good {
        task.await.unwrap().unwrap();
    }
    assert!(matches!(bad, Err(StoreError::Database(_))));
    let all = fixture.store.events(&EventFilter { limit: 1000, ..Default::default() }).await.unwrap();
    assert_eq!(all.len(), 500);
    assert_eq!(fixture.store.last_sequence(), 500, "a write that failed leaves no entry");
    fixture.store.check().await.unwrap();
}

#[tokio::test]
async fn neighbours_of_a_failing_write_are_written_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let ids = [fixture.receive("a").await, fixture.receive("b").await, fixture.receive("c").await];
    let [begun, go] = [(); 2].map(|()| Arc::new(Notify::new()));
    let held = Held { begun: begun.clone(), go: go.clone() };
    let held = {
        let store = store.clone();
        tokio::spawn(async move { store.writes.run(held).await })
    };
    begun.notified().await;
    // Each write is queued when its future is polled for the first time, in this order.
    let (first, confirmed, broken, second, again, refused, ()) = tokio::join!(
        store.receive("hub", vec![event("d"), event("d"), event("e")]),
        store.record_facts(facts(&ids[0], "a", &["staging"])),
        store.writes.run(Broken),
        store.receive("hub", vec![event("d"), event("f")]),
        store.record_facts(facts(&ids[0], "a", &["staging"])),
        store.refuse_event(refusal(&ids[2], true)),
        // At this point all writes wait.
        async { go.notify_one() },
    );
    held.await.unwrap().unwrap();
    assert!(broken.is_err());
    refused.unwrap();
    assert_eq!(fixture.event_state(&ids[2]).await, EventState::Refused);

    // No answer comes from a run that was rolled back, and nothing is stored twice.
    let (first, second) = (first.unwrap(), second.unwrap());
    let states = |received: &[Received]| received.iter().map(|one| one.state).collect::<Vec<_>>();
    let all: Vec<_> = [states(&first), states(&second)].concat();
    assert_eq!(all.iter().filter(|state| **state == ReceivedState::Queued).count(), 3, "{all:?}");
    assert_eq!((first.len(), second.len()), (3, 2));
    assert_eq!((&first[0].id, &first[0].id), (&first[1].id, &second[0].id));
    for (received, tag) in first.iter().zip(["d", "d", "e"]).chain(second.iter().zip(["d", "f"])) {
        assert_eq!(store.event(&received.id).await.unwrap().unwrap().tag.as_str(), tag);
    }
    let filter = EventFilter { limit: 100, ..EventFilter::default() };
    assert_eq!(store.events(&filter).await.unwrap().len(), 6);
    assert_eq!(confirmed.unwrap().len() + again.unwrap().len(), 1);
    assert_eq!(store.updates_of(&ids[0]).await.unwrap().len(), 1);
}

/// Copies the files to see them as a killed process would leave them.
#[tokio::test]
async fn answered_means_on_disk() {
    let fixture = Fixture::new().await;
    for number in 0..5 {
        let id = fixture.pushed(&format!("t{number}")).await;
        let request = fixture.requested(promotion("z")).await.id;
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("state")).unwrap();
        for file in std::fs::read_dir(fixture.folder.path().join("state")).unwrap() {
            let file = file.unwrap();
            if !file.path().ends_with("tagrelay.db-shm") {
                std::fs::copy(file.path(), copy.path().join("state").join(file.file_name())).unwrap();
            }
        }
        let store = Fixture::open_with(&copy, Clock::system()).await;
        assert_eq!(store.event(&id).await.unwrap().unwrap().state, EventState::Pending);
        assert_eq!(store.updates_of(&id).await.unwrap().len(), 1);
        assert!(store.request(&request).await.unwrap().is_some());
        assert_eq!(store.last_sequence(), fixture.store.last_sequence());
    }
}

#[tokio::test]
async fn store_has_one_owner_and_recovers_from_a_failed_write() {
    let fixture = Fixture::new().await;
    let path = fixture.folder.path().join("state/tagrelay.db");
    let Err(error) = Store::open(&StoreSettings { path: path.clone() }).await else { panic!("opened twice") };
    assert!(error.to_string().contains("another process has it open"), "{error}");
    assert!(fixture.store.writes.run(Broken).await.is_err());
    assert!(fixture.store.writes.last_failed());
    // The next check writes, and succeeds.
    fixture.store.check().await.unwrap();
    assert!(!fixture.store.writes.last_failed());
}

#[tokio::test]
async fn file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagrelay.db");
    std::fs::write(&path, "this is not a database, and long enough to be looked at as one").unwrap();
    let Err(error) = Store::open(&StoreSettings { path: path.clone() }).await else { panic!("opened") };
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}
