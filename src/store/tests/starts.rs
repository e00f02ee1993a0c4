use super::*;
use crate::store::IntakeWork;

async fn due(fixture: &Fixture) -> Vec<IntakeWork> {
    let now = fixture.store.clock().now();
    let events = fixture.store.due_events(now, 10, &[]).await.unwrap().into_iter().map(IntakeWork::Event);
    let updates = fixture.store.due_updates(now, 10, &[]).await.unwrap().into_iter().map(IntakeWork::Update);
    let facts = fixture.store.missing_facts(now, 10, &[]).await.unwrap().into_iter().map(IntakeWork::MissingFact);
    events.chain(updates).chain(facts).collect()
}

async fn suspect(fixture: &Fixture) -> Option<(String, u32)> {
    let suspect = fixture.store.suspect(fixture.store.clock().now()).await.unwrap();
    suspect.map(|suspect| (suspect.work.id().to_owned(), suspect.alone))
}

#[tokio::test]
async fn work_that_was_started_twice_without_an_end_is_a_suspect() {
    let fixture = Fixture::new().await;
    let event = fixture.receive("a").await;
    let request = fixture.requested(promotion("b")).await;
    let update = fixture.update_of(&request.id).await.id;
    // The first start of an event is counted when the event is stored. The first start of an update is counted later.
    fixture.store.count_starts(&due(&fixture).await).await.unwrap();
    let left: Vec<String> = due(&fixture).await.iter().map(|work| work.id().to_owned()).collect();
    assert_eq!(left, std::slice::from_ref(&update));
    fixture.store.count_starts(&due(&fixture).await).await.unwrap();
    assert!(due(&fixture).await.is_empty());
    for alone in 0..3 {
        assert_eq!(suspect(&fixture).await, Some((event.clone(), alone)));
        let suspect = fixture.store.suspect(Timestamp::now()).await.unwrap().unwrap();
        fixture.store.count_start_alone(&suspect.work).await.unwrap();
    }
    // The end of the work resets the counts.
    fixture.confirm(&event, "a", &["staging"]).await;
    assert_eq!(suspect(&fixture).await, Some((update.clone(), 0)));
    fixture.store.postpone_updates(vec![update.clone()], None, "503".to_owned()).await.unwrap();
    assert_eq!(suspect(&fixture).await, None);
    assert_eq!(due(&fixture).await.len(), 1);
}

#[tokio::test]
async fn clean_stop_does_not_count() {
    let fixture = Fixture::new().await;
    let event = fixture.receive("a").await;
    for _ in 0..5 {
        fixture.store.count_starts(&due(&fixture).await).await.unwrap();
        fixture.store.forget_starts().await.unwrap();
        assert_eq!(suspect(&fixture).await, None);
    }
    assert_eq!(due(&fixture).await[0].id(), event);
}

#[tokio::test]
async fn missing_fact_that_ends_the_process_makes_its_update_a_suspect() {
    let fixture = Fixture::new().await;
    let event = fixture.pushed("b").await;
    let update = fixture.update_of(&event).await.id;
    let missing =
        crate::domain::Missing::BuildTime { repository: repository(), digest: tagrelay_image::Digest::of(b"b") };
    let decided = Decided { decision: Decision::Ask(missing), basis: None };
    let fence = fixture.fence().await;
    assert!(fixture.store.record_decisions(vec![(update.clone(), decided)], fence).await.unwrap());
    for _ in 0..2 {
        assert_eq!(due(&fixture).await.len(), 1);
        fixture.store.count_starts(&due(&fixture).await).await.unwrap();
    }
    assert!(due(&fixture).await.is_empty());
    assert_eq!(suspect(&fixture).await, Some((update.clone(), 0)));
    fixture.store.postpone_missing_fact(&update, fixture.store.clock().now(), "503".to_owned()).await.unwrap();
    assert_eq!(suspect(&fixture).await, None);
    assert_eq!(due(&fixture).await.len(), 1);
}
