use std::collections::{HashMap, HashSet};

use super::*;

#[tokio::test]
async fn redelivery_is_a_duplicate_even_after_a_restart() {
    let fixture = Fixture::new().await;
    let first = fixture.receive("a").await;
    let fixture = fixture.restart(Clock::system()).await;
    let again = fixture.store.receive("hub", vec![event("a"), event("b")]).await.unwrap();
    assert_eq!(again[0], Received { id: first.clone(), state: ReceivedState::Duplicate });
    assert_eq!(again[1].state, ReceivedState::Queued);
    assert!(again[1].id > first);
    let due = fixture.store.due_events(Timestamp::now(), 10, &[]).await.unwrap();
    assert_eq!(due.iter().map(|event| event.tag.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn delivery_is_no_duplicate_of_one_before_its_window() {
    let fixture = Fixture::new().await;
    let first = fixture.receive("a").await;
    let received_at = fixture.store.event(&first).await.unwrap().unwrap().received_at;
    let since = |duplicates_since| NewEvent { duplicates_since, ..event("a") };
    let edge = fixture.store.receive("hub", vec![since(received_at)]).await.unwrap().remove(0);
    assert_eq!(edge, Received { id: first.clone(), state: ReceivedState::Duplicate });
    let behind = received_at + Duration::from_millis(1);
    let later = fixture.store.receive("hub", vec![since(behind)]).await.unwrap().remove(0);
    assert!(later.state == ReceivedState::Queued && later.id > first);
}

#[tokio::test]
async fn of_equal_events_in_one_transaction_one_is_queued() {
    let fixture = Fixture::new().await;
    let deliveries: Vec<_> = (0..400)
        .map(|number| {
            let store = fixture.store.clone();
            let events = vec![event(&format!("t{}", number % 50)), event("same"), event(&format!("own{number}"))];
            tokio::spawn(async move { store.receive("hub", events).await })
        })
        .collect();
    let mut ids: HashMap<usize, HashSet<String>> = HashMap::new();
    let mut queued = 0;
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let received = delivery.await.unwrap().unwrap();
        queued += received.iter().filter(|one| one.state == ReceivedState::Queued).count();
        ids.entry(number % 50).or_default().insert(received[0].id.clone());
        ids.entry(1000).or_default().insert(received[1].id.clone());
        assert_eq!(received[2].state, ReceivedState::Queued);
        let row = fixture.store.event(&received[2].id).await.unwrap().unwrap();
        assert_eq!(row.tag.as_str(), format!("own{number}"));
    }
    assert_eq!(queued, 50 + 1 + 400);
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    assert_eq!(fixture.store.last_sequence(), 451, "one entry for each event");
}

#[tokio::test]
async fn event_refused_for_a_passing_reason_runs_again_when_delivered_again() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.store.refuse_event(refusal(&id, true)).await.unwrap();
    let twice = fixture.store.receive("hub", vec![event("a"), event("a")]).await.unwrap();
    // The event keeps its position in the order of arrival.
    let expected = [ReceivedState::Queued, ReceivedState::Duplicate].map(|state| Received { id: id.clone(), state });
    assert_eq!(twice, expected);
    assert_eq!(fixture.event_state(&id).await, EventState::Queued);

    // A final refusal stays final, although an earlier refusal was for a passing reason.
    fixture.store.refuse_event(refusal(&id, false)).await.unwrap();
    let again = fixture.store.receive("hub", vec![event("a")]).await.unwrap().remove(0);
    assert_eq!(again, Received { id: id.clone(), state: ReceivedState::Duplicate });
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::Queued);
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::NotFinal(EventState::Queued));
    assert_eq!(fixture.store.replay("unknown").await.unwrap(), Replayed::Unknown);
    let tries: Vec<String> =
        fixture.store.failed_attempts(&id).await.unwrap().into_iter().map(|failed| failed.answered).collect();
    assert_eq!(tries, ["refused: not found", "queued again", "refused: not found", "queued again"]);
}

#[tokio::test]
async fn postponed_event_is_due_later_and_hides_no_other() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.receive("b").await;
    let until = Timestamp::from_millisecond((Timestamp::now() + Duration::from_secs(60)).as_millisecond()).unwrap();
    fixture.store.postpone_event(&id, until, Party::Registry, "429".to_owned()).await.unwrap();
    let due = fixture.store.due_events(Timestamp::now(), 1, &[]).await.unwrap();
    assert_eq!(due.iter().map(|event| event.tag.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(fixture.store.due_events(Timestamp::now(), 1, &["docker.io"]).await.unwrap().is_empty());
    assert_eq!(fixture.store.next_attempt(Timestamp::now()).await.unwrap(), Some(until));
    assert_eq!(fixture.store.next_attempt(until).await.unwrap(), None, "a due time is not in the future");
    assert_eq!(fixture.store.event(&id).await.unwrap().unwrap().failures, 1);

    // A replay makes the event due. A second replay does nothing.
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::Hastened(until));
    let event = fixture.store.due_events(Timestamp::now(), 5, &[]).await.unwrap().remove(0);
    assert_eq!((event.id.as_str(), event.failures, event.reason.as_deref()), (id.as_str(), 1, Some("429")));
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::NotFinal(EventState::Queued));
    let tries = fixture.store.failed_attempts(&id).await.unwrap();
    let last = tries.last().unwrap();
    let answered = format!("retried at once instead of at {until:.0}");
    assert_eq!((last.asked.as_str(), last.answered.as_str()), ("replay", answered.as_str()));
}

#[tokio::test]
async fn failed_tries_are_bounded() {
    let fixture = Fixture::new().await;
    let (id, other) = (fixture.receive("a").await, fixture.receive("b").await);
    fixture.store.refuse_event(refusal(&other, false)).await.unwrap();
    for number in 0..60 {
        let reason = format!("no answer {number}");
        fixture.store.postpone_event(&id, Timestamp::now(), Party::Source, reason).await.unwrap();
    }
    let tries = fixture.store.failed_attempts(&id).await.unwrap();
    assert_eq!(tries.len(), 50);
    assert_eq!((tries[0].answered.as_str(), tries[49].answered.as_str()), ("no answer 10", "no answer 59"));
    assert_eq!(tries[0].asked, "source");
    assert_eq!(fixture.store.failed_attempts(&other).await.unwrap().len(), 1);
}

#[tokio::test]
async fn confirmed_event_has_one_update_in_each_environment() {
    let fixture = Fixture::new().await;
    let (id, none) = (fixture.receive("a").await, fixture.receive("b").await);
    let digest = Digest::of(b"a");
    let mut found = facts(&id, "a", &["staging", "qa"]);
    found.version = Version::tagged("a".parse().unwrap(), Some(digest.clone()));
    found.note = Some("a remark".to_owned());
    // The test has one thread, so all writes are queued before the writing task runs.
    let (first, twice, without) = tokio::join!(
        fixture.store.record_facts(found.clone()),
        fixture.store.record_facts(found.clone()),
        fixture.store.record_facts(facts(&none, "b", &[])),
    );
    let pending = |name: &str| (name.to_owned(), UpdateState::Pending);
    assert_eq!(first.unwrap(), [pending("staging"), pending("qa")]);
    assert_eq!((twice.unwrap(), without.unwrap()), (vec![], vec![]));
    assert_eq!(fixture.store.record_facts(found).await.unwrap(), []);
    assert_eq!(fixture.store.updates_of(&id).await.unwrap().len(), 2);
    let event = fixture.store.event(&id).await.unwrap().unwrap();
    assert_eq!(
        (event.state, event.verified_digest, event.note.as_deref()),
        (EventState::Pending, Some(digest), Some("a remark"))
    );
    assert!(event.verified_at.is_some() && event.finished_at.is_none());
    let without = fixture.store.event(&none).await.unwrap().unwrap();
    assert_eq!(without.state, EventState::Unchanged);
    assert!(without.finished_at.is_some());
}

#[tokio::test]
async fn event_has_the_state_and_the_reason_of_its_updates() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.confirm(&id, "a", &["staging", "qa"]).await;
    let [first, second] = [0, 1].map(async |index| fixture.store.updates_of(&id).await.unwrap().remove(index).id);
    let (first, second) = (first.await, second.await);
    let end = async |id: &str, input, reason: &str| {
        let (id, reason) = (id.to_owned(), Some(reason.to_owned()));
        fixture.store.end_updates(vec![EndedUpdate { id, input, reason, party: None }]).await.unwrap();
        fixture.store.event(&second_event(&fixture).await).await.unwrap().unwrap()
    };
    assert_eq!(end(&first, UpdateInput::Refuse, "no").await.state, EventState::Pending);
    let event = end(&second, UpdateInput::FindUnchanged, "runs it").await;
    assert_eq!((event.state, event.reason.as_deref()), (EventState::Unchanged, Some("runs it")));
    // A second end of the same update changes nothing.
    assert_eq!(end(&second, UpdateInput::Refuse, "late").await, event);

    let failed = EventFilter { failed: true, limit: 10, ..EventFilter::default() };
    assert_eq!(fixture.store.events(&failed).await.unwrap(), std::slice::from_ref(&event));
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::Queued);
    assert!(fixture.store.events(&failed).await.unwrap().is_empty());
    let replayed = fixture.store.updates_by_id(&[&first]).await.unwrap().remove(0);
    assert_eq!((replayed.state, replayed.reason.as_deref()), (UpdateState::Superseded, Some("replayed; before: no")));
    // Only the refused update runs again.
    assert_eq!(fixture.confirm(&id, "a", &["staging", "qa"]).await, [("staging".to_owned(), UpdateState::Pending)]);
    assert_eq!(fixture.event_state(&id).await, EventState::Pending);
}

async fn second_event(fixture: &Fixture) -> String {
    let filter = EventFilter { limit: 1, ..EventFilter::default() };
    fixture.store.events(&filter).await.unwrap().remove(0).id
}

#[tokio::test]
async fn digest_that_was_announced_before_under_another_tag_is_found() {
    let fixture = Fixture::new().await;
    let digest = Digest::of(b"same");
    let confirm = async |tag: &str| {
        let id = fixture.receive(tag).await;
        let version = Version::tagged(tag.parse().unwrap(), Some(digest.clone()));
        fixture.store.record_facts(EventFacts { version, ..facts(&id, tag, &[]) }).await.unwrap();
        id
    };
    let (first, second) = (confirm("a").await, confirm("b").await);
    let before = async |tag: &str, event_id: &str, repository: &Repository| {
        fixture.store.announced_before(repository, &digest, &tag.parse().unwrap(), event_id).await.unwrap()
    };
    assert!(before("b", &second, &repository()).await);
    assert!(!before("a", &first, &repository()).await, "an event is not before itself");
    assert!(!before("a", &second, &repository()).await, "the tag is the same");
    assert!(!before("b", &second, &"uyou/order-service".parse().unwrap()).await);
}

#[tokio::test]
async fn build_times_are_kept() {
    let fixture = Fixture::new().await;
    let (said, unsaid) = (Digest::of(b"1"), Digest::of(b"2"));
    let built_at = at("2026-11-23T08:15:00.123456789Z");
    assert_eq!(fixture.store.build_time(&repository(), &said).await.unwrap(), None);
    fixture.store.keep_build_time(&repository(), &said, Some(built_at)).await.unwrap();
    fixture.store.keep_build_time(&repository(), &unsaid, None).await.unwrap();
    let fixture = fixture.restart(Clock::system()).await;
    assert_eq!(fixture.store.build_time(&repository(), &said).await.unwrap(), Some(Some(built_at)));
    assert_eq!(fixture.store.build_time(&repository(), &unsaid).await.unwrap(), Some(None));
}

#[tokio::test]
async fn last_requests_of_receivers_survive_a_restart() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.heard().await.unwrap(), []);
    let heard = |receiver: &str, time: &str, outcome: &str, accepted: Option<&str>| ReceiverHeard {
        receiver: receiver.to_owned(),
        heard_at: at(time),
        outcome: outcome.to_owned(),
        accepted_at: accepted.map(at),
    };
    let (early, late) = ("2026-11-20T12:00:00Z", "2026-11-20T13:00:00Z");
    let first = vec![heard("hub", early, "accepted", Some(early)), heard("ci", early, "ignored", None)];
    fixture.store.keep_heard(first).await.unwrap();
    // A process that has just started does not know the last accepted request.
    fixture.store.keep_heard(vec![heard("hub", late, "unauthorized", None)]).await.unwrap();
    let fixture = fixture.restart(Clock::system()).await;
    let mut kept = fixture.store.heard().await.unwrap();
    kept.sort_by(|a, b| a.receiver.cmp(&b.receiver));
    assert_eq!(kept, [heard("ci", early, "ignored", None), heard("hub", late, "unauthorized", Some(early))]);
}
