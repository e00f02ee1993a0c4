use super::*;

#[tokio::test]
async fn one_idempotency_key_makes_one_request() {
    let fixture = Fixture::new().await;
    let keyed = || NewRequest { idempotency_key: Some("k".to_owned()), ..rollback("a") };
    let RequestMade::New { request, hold } = fixture.store.make_request(keyed()).await.unwrap() else {
        panic!("the first use of a key is new")
    };
    assert_eq!(hold.unwrap().request_id.as_deref(), Some(request.id.as_str()));
    let before = fixture.store.last_sequence();
    let RequestMade::Repeated(again) = fixture.store.make_request(keyed()).await.unwrap() else {
        panic!("the second use of a key is a repetition")
    };
    assert_eq!((again, fixture.store.last_sequence()), (request.clone(), before));
    assert_eq!(fixture.holds().await.len(), 1);
    assert_eq!(fixture.store.request_by_key("oncall", "k").await.unwrap(), Some(request.clone()));
    assert_eq!(fixture.store.request(&request.id).await.unwrap(), Some(request));
    assert_eq!(fixture.store.request("unknown").await.unwrap(), None);
}

#[tokio::test]
async fn updates_of_requests_are_confirmed_once() {
    let fixture = Fixture::new().await;
    let request = fixture.requested(promotion("a")).await;
    let due = fixture.store.due_updates(Timestamp::now(), 5, &[]).await.unwrap();
    assert_eq!((due.len(), &due[0].cause_id), (1, &request.id));
    assert_eq!(due[0].expected.as_deref(), Some([version("0")].as_slice()));
    let digest = Digest::of(b"a");
    let confirm = async || fixture.store.verify_update(&due[0].id, Some(&digest), None).await.unwrap();
    assert_eq!(confirm().await, Some(UpdateState::Pending));
    assert_eq!(confirm().await, None);
    assert!(fixture.store.due_updates(Timestamp::now(), 5, &[]).await.unwrap().is_empty());
    assert_eq!(fixture.update_of(&request.id).await.version.digest(), Some(&digest));
}

#[tokio::test]
async fn postponed_update_of_a_request_is_due_later() {
    let fixture = Fixture::new().await;
    let request = fixture.requested(promotion("a")).await;
    let id = fixture.update_of(&request.id).await.id;
    let until = Timestamp::from_millisecond((Timestamp::now() + Duration::from_secs(60)).as_millisecond()).unwrap();
    fixture.store.postpone_updates(vec![id], Some(until), "no answer".to_owned()).await.unwrap();
    assert!(fixture.store.due_updates(Timestamp::now(), 5, &[]).await.unwrap().is_empty());
    assert_eq!(fixture.store.next_attempt(Timestamp::now()).await.unwrap(), Some(until));
    assert_eq!(fixture.store.due_updates(until, 5, &[]).await.unwrap().len(), 1);
    let tries = fixture.store.failed_attempts(&request.id).await.unwrap();
    assert_eq!((tries[0].asked.as_str(), tries[0].answered.as_str()), ("registry", "no answer"));
}

#[tokio::test]
async fn refused_rollback_leaves_no_hold_and_nothing_else_changes() {
    let fixture = Fixture::new().await;
    let freeze = fixture.freeze(None).await;
    let waiting = fixture.confirmed(promotion("b")).await.id;
    let event = fixture.pushed("c").await;
    fixture.decide().await;
    let back = fixture.requested(rollback("a")).await.id;
    assert_eq!(fixture.holds().await.len(), 1);
    assert_eq!(fixture.states(&[&waiting, &event]).await, [UpdateState::Waiting; 2], "making a rollback ends nothing");
    fixture.end(&back, UpdateInput::Refuse, "not found").await;
    assert!(fixture.holds().await.is_empty());
    assert_eq!(fixture.states(&[&waiting, &event]).await, [UpdateState::Waiting; 2]);
    let updates = fixture.store.updates_of(&back).await.unwrap();
    assert_eq!(RequestState::of(updates.iter().map(|update| update.state)), RequestState::Refused);
    let failed = RequestFilter { failed: true, limit: 10, ..RequestFilter::default() };
    let found = fixture.store.requests(&failed).await.unwrap();
    assert_eq!(found.iter().map(|(request, _)| &request.id).collect::<Vec<_>>(), [&back]);
    let other = Some("uyou/order-service".parse().unwrap());
    assert!(fixture.store.requests(&RequestFilter { repository: other, ..failed }).await.unwrap().is_empty());
    assert_eq!(fixture.store.refused_updates_of(&[&back, &waiting]).await.unwrap(), updates);
    fixture.thaw(&freeze).await;
    assert_eq!(fixture.states(&[&waiting, &event]).await, [UpdateState::Pending; 2]);
}

#[tokio::test]
async fn superseded_rollback_leaves_no_hold_and_frees_what_waited_for_it() {
    let fixture = Fixture::new().await;
    let back = fixture.requested(rollback("a")).await.id;
    let event = fixture.pushed("b").await;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&event]).await, [UpdateState::Waiting]);
    fixture.end(&back, UpdateInput::Supersede, "d came later").await;
    assert!(fixture.holds().await.is_empty());
    assert_eq!(fixture.states(&[&event]).await, [UpdateState::Pending]);
}

#[tokio::test]
async fn rollback_that_landed_ends_what_came_before_it() {
    let fixture = Fixture::new().await;
    let pending = fixture.pushed("b").await;
    let back = fixture.confirmed(rollback("a")).await.id;
    let later = fixture.pushed("c").await;
    fixture.land(&[&back]).await;
    assert_eq!(fixture.states(&[&pending, &later]).await, [UpdateState::Superseded, UpdateState::Pending]);
    let reason = fixture.update_of(&pending).await.reason.unwrap();
    assert_eq!(reason, "older: a was written to staging later");
    fixture.decide().await;
    assert_eq!(fixture.states(&[&later]).await, [UpdateState::Waiting]);
    // An update that waits for the hold of a rollback does not end the hold.
    assert_eq!(fixture.holds().await.len(), 1);
    let hold = fixture.holds().await.remove(0);
    fixture.release(&hold).await;
    assert_eq!(fixture.states(&[&pending, &later]).await, [UpdateState::Superseded, UpdateState::Pending]);
}

#[tokio::test]
async fn rollback_that_landed_replaces_the_holds_of_earlier_ones() {
    let fixture = Fixture::new().await;
    let own = fixture.hold().await;
    let first = fixture.confirmed(rollback("a")).await.id;
    fixture.land(&[&first]).await;
    let holders =
        async || -> Vec<Option<String>> { fixture.holds().await.into_iter().map(|hold| hold.request_id).collect() };
    // A refused rollback does not end the hold of the landed rollback.
    let refused = fixture.requested(rollback("b")).await.id;
    fixture.end(&refused, UpdateInput::Refuse, "not found").await;
    assert_eq!(holders().await, [None, Some(first.clone())]);
    let second = fixture.confirmed(rollback("c")).await.id;
    assert_eq!(holders().await, [None, Some(first), Some(second.clone())]);
    fixture.land(&[&second]).await;
    assert_eq!(holders().await, [None, Some(second)]);
    assert_eq!(fixture.holds().await[0].id, own.id, "the hold of a person stays");
}

#[tokio::test]
async fn rollback_to_what_runs_counts_as_landed() {
    let fixture = Fixture::new().await;
    let first = fixture.confirmed(rollback("a")).await.id;
    fixture.land(&[&first]).await;
    let pending = fixture.pushed("b").await;
    let mut unchanged = rollback("a");
    unchanged.updates[0].state = UpdateState::Unchanged;
    let unchanged = fixture.requested(unchanged).await.id;
    assert_eq!(fixture.states(&[&unchanged, &pending]).await, [UpdateState::Unchanged, UpdateState::Superseded]);
    let holders: Vec<Option<String>> = fixture.holds().await.into_iter().map(|hold| hold.request_id).collect();
    assert_eq!(holders, [Some(unchanged)]);
}

#[tokio::test]
async fn request_for_what_runs_is_verified_if_a_push_is_about_to_change_it() {
    let fixture = Fixture::new().await;
    let pushed = fixture.pushed("b").await;
    fixture.begin_push(&[&pushed]).await.unwrap();
    let mut what_runs = promotion("0");
    what_runs.updates[0].state = UpdateState::Unchanged;
    let request = fixture.requested(what_runs.clone()).await.id;
    assert_eq!(fixture.states(&[&request, &pushed]).await, [UpdateState::Unverified, UpdateState::Pending]);
    let elsewhere = NewRequest { environment: "qa".to_owned(), ..what_runs };
    let request = fixture.requested(elsewhere).await.id;
    assert_eq!(fixture.states(&[&request]).await, [UpdateState::Unchanged]);
}

#[tokio::test]
async fn promotion_into_a_held_place_is_refused_unless_it_runs_already() {
    let fixture = Fixture::new().await;
    let hold = fixture.hold().await;
    let refused = fixture.requested(promotion("a")).await.id;
    let update = fixture.update_of(&refused).await;
    assert_eq!((update.state, update.reason), (UpdateState::Refused, Some(hold.explanation())));
    let tries = fixture.store.failed_attempts(&refused).await.unwrap();
    assert_eq!((tries.len(), tries[0].asked.as_str()), (1, "rules"));
    let mut what_runs = promotion("0");
    what_runs.updates[0].state = UpdateState::Unchanged;
    let unchanged = fixture.requested(what_runs).await.id;
    let back = fixture.requested(rollback("a")).await.id;
    assert_eq!(fixture.states(&[&unchanged, &back]).await, [UpdateState::Unchanged, UpdateState::Unverified]);
}

#[tokio::test]
async fn open_updates_of_unknown_environments_are_found() {
    let fixture = Fixture::new().await;
    let elsewhere = async |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        fixture.store.open_updates_elsewhere(&names, 10).await.unwrap().len()
    };
    fixture.pushed("a").await;
    fixture.pushed("b").await;
    assert_eq!((elsewhere(&["production"]).await, elsewhere(&["production", "staging"]).await), (2, 0));
    fixture.requested(rollback("c")).await;
    assert_eq!(elsewhere(&[]).await, 3);
    assert_eq!(fixture.store.open_updates_elsewhere(&[], 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn open_request_is_cancelled_and_an_ended_or_pushed_one_is_not() {
    let fixture = Fixture::new().await;
    let cancel = async |id: &str| fixture.store.cancel_request(id, "cancelled by ops".to_owned()).await.unwrap();
    let back = fixture.requested(rollback("a")).await.id;
    assert_eq!(fixture.holds().await.len(), 1);
    assert_eq!(cancel(&back).await, Cancelled::Now);
    let update = fixture.update_of(&back).await;
    assert_eq!((update.state, update.reason.as_deref()), (UpdateState::Cancelled, Some("cancelled by ops")));
    assert!(update.finished_at.is_some());
    assert!(fixture.holds().await.is_empty(), "the rollback was not written");
    assert_eq!(cancel(&back).await, Cancelled::Ended);

    let promoted = fixture.confirmed(promotion("b")).await.id;
    fixture.begin_push(&[&promoted]).await.unwrap();
    assert_eq!(cancel(&promoted).await, Cancelled::UnderWay);
    assert_eq!(fixture.update_of(&promoted).await.state, UpdateState::Pending);
}

#[tokio::test]
async fn requests_are_listed_by_state_environment_and_cursor() {
    let fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for tag in ["a", "b", "c"] {
        ids.push(fixture.requested(promotion(tag)).await.id);
    }
    let back = fixture.requested(rollback("d")).await.id;
    fixture.store.cancel_request(&ids[1], "no".to_owned()).await.unwrap();
    let list = async |filter: RequestFilter| {
        let found = fixture.store.requests(&filter).await.unwrap();
        found.into_iter().map(|(request, updates)| (request.id, updates.len())).collect::<Vec<_>>()
    };
    let all = || RequestFilter { limit: 10, ..RequestFilter::default() };
    let of = |ids: &[&String]| ids.iter().map(|id| ((*id).clone(), 1)).collect::<Vec<_>>();
    assert_eq!(list(all()).await, of(&[&back, &ids[2], &ids[1], &ids[0]]));
    assert_eq!(list(RequestFilter { limit: 2, ..all() }).await, of(&[&back, &ids[2]]));
    assert_eq!(list(RequestFilter { before: Some(ids[2].clone()), ..all() }).await, of(&[&ids[1], &ids[0]]));
    assert_eq!(list(RequestFilter { kind: Some(RequestKind::Rollback), ..all() }).await, of(&[&back]));
    let state = |state| RequestFilter { state: Some(state), limit: 1, ..all() };
    assert_eq!(list(state(RequestState::Cancelled)).await, of(&[&ids[1]]));
    assert_eq!(list(state(RequestState::Pending)).await, of(&[&back]));
    assert_eq!(list(state(RequestState::Waiting)).await, of(&[]));
    let of_environment = |name: &str| RequestFilter { environment: Some(name.to_owned()), ..all() };
    assert_eq!(list(of_environment("elsewhere")).await, of(&[]));
    let since = Timestamp::now() + Duration::from_secs(60);
    assert_eq!(list(RequestFilter { since: Some(since), ..all() }).await, of(&[]));
}

/// Updates of ours that land after the plan of a request are not foreign.
///
/// `is_foreign` compares the end of an update with `received_at`.
#[tokio::test]
async fn updates_of_a_request_count_from_the_time_of_its_plan() {
    let clock = Clock::stopped_at(at("2026-11-27T12:00:00Z"));
    let fixture = Fixture::with(clock.clone()).await;
    let planned_at = clock.now() - Duration::from_secs(5);
    let id = fixture.requested(NewRequest { planned_at, ..promotion("b") }).await.id;
    let update = fixture.store.updates_of(&id).await.unwrap().remove(0);
    assert_eq!(update.received_at, planned_at);
}
