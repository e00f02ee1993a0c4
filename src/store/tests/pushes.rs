use super::*;
use crate::domain::Ground;

fn history(limit: u32) -> HistoryFilter {
    HistoryFilter { limit, ..HistoryFilter::default() }
}

#[tokio::test]
async fn updates_of_a_push_that_landed_are_committed() {
    let fixture = Fixture::new().await;
    let id = fixture.pushed("b").await;
    let push = fixture.begin_push(&[&id]).await.unwrap();
    assert!(fixture.store.history(&history(10)).await.unwrap().is_empty());
    assert_eq!(fixture.update_of(&id).await.commit, None, "the commit is known when it is on the branch");
    fixture.store.end_push(&push, PushInput::FindLanded, true).await.unwrap();
    assert_eq!(fixture.event_state(&id).await, EventState::Committed);
    let committed = fixture.store.history(&history(10)).await.unwrap();
    assert_eq!((committed[0].commit.as_deref(), &committed[0].old), (Some("c0ffee"), &Some(version("0"))));
    assert_eq!(committed[0].changes, attempted(&committed[0].id).changes);
    assert_eq!(fixture.store.last_changes().await.unwrap(), committed);
    let of_place = HistoryFilter {
        environment: Some("staging".to_owned()),
        repository: Some(repository()),
        limit: 10,
        ..HistoryFilter::default()
    };
    assert_eq!(fixture.store.history(&of_place).await.unwrap(), committed);
    assert_eq!(fixture.store.brought("staging", &repository(), &version("b")).await.unwrap().unwrap(), committed[0]);
    assert_eq!(fixture.store.brought("staging", &repository(), &version("a")).await.unwrap(), None);
    let rollouts = fixture.store.open_follow_ups(10).await.unwrap();
    assert_eq!(rollouts[0].0.update_id, committed[0].id);
    // The push attempt has ended, so this input does nothing.
    fixture.store.end_push(&push, PushInput::FindLost, true).await.unwrap();
    fixture.end(&id, UpdateInput::Refuse, "late").await;
    assert_eq!(fixture.event_state(&id).await, EventState::Committed);
}

#[tokio::test]
async fn lost_push_leaves_its_updates_pending() {
    let fixture = Fixture::new().await;
    let id = fixture.pushed("b").await;
    let push = fixture.begin_push(&[&id]).await.unwrap();
    fixture.store.end_push(&push, PushInput::FindLost, false).await.unwrap();
    assert_eq!(fixture.update_of(&id).await.state, UpdateState::Pending);
    assert!(fixture.store.open_pushes("platform", "main", &[]).await.unwrap().is_empty());
    assert!(fixture.begin_push(&[&id]).await.is_some());
}

#[tokio::test]
async fn open_push_survives_a_restart_with_everything_that_it_carries() {
    let fixture = Fixture::new().await;
    let (id, other) = (fixture.pushed("b").await, fixture.pushed_to("uyou/order-service", "b").await);
    let push = fixture.begin_push(&[&id, &other]).await.unwrap();
    let fixture = fixture.restart(Clock::system()).await;
    let open = fixture.store.open_pushes("platform", "main", &[]).await.unwrap();
    assert_eq!(open.iter().map(|attempt| &attempt.id).collect::<Vec<_>>(), [&push]);
    let ids = [fixture.update_of(&id).await.id, fixture.update_of(&other).await.id];
    assert_eq!(open[0].updates, ids.map(|id| attempted(&id)));
    assert_eq!((open[0].parent.as_str(), open[0].tip.as_str()), ("aaaa", "c0ffee"));
    assert!(fixture.store.open_pushes("platform", "other", &[]).await.unwrap().is_empty());
    fixture.store.end_push(&push, PushInput::FindLanded, false).await.unwrap();
    assert_eq!(fixture.states(&[&id, &other]).await, [UpdateState::Committed; 2]);
}

#[tokio::test]
async fn block_or_request_after_the_decision_stops_the_push() {
    let fixture = Fixture::new().await;
    let id = fixture.pushed("b").await;
    let attempt = async || attempted(&fixture.update_of(&id).await.id);
    let claim = fixture.claim().await;
    let hold = fixture.hold().await;
    assert_eq!(fixture.store.begin_push(push(vec![attempt().await]), claim.fence).await.unwrap(), None);
    let decided = Decided { decision: Decision::Keep, basis: None };
    let decisions = vec![(claim.updates[0].id.clone(), decided)];
    assert!(!fixture.store.record_decisions(decisions.clone(), claim.fence).await.unwrap());

    let claim = fixture.claim().await;
    assert_eq!(claim.blocks.rows, std::slice::from_ref(&hold));
    fixture.release(&hold).await.unwrap();
    assert!(!fixture.store.record_decisions(decisions.clone(), claim.fence).await.unwrap());
    let claim = fixture.claim().await;
    fixture.requested(rollback("a")).await;
    assert!(!fixture.store.record_decisions(decisions.clone(), claim.fence).await.unwrap());
    let claim = fixture.claim().await;
    assert!(fixture.store.record_decisions(decisions, claim.fence).await.unwrap());
    assert!(fixture.store.begin_push(push(vec![attempt().await]), claim.fence).await.unwrap().is_some());
}

#[tokio::test]
async fn push_of_an_update_that_has_ended_does_not_begin() {
    let fixture = Fixture::new().await;
    let (id, other) = (fixture.pushed("b").await, fixture.pushed_to("uyou/order-service", "b").await);
    fixture.end(&other, UpdateInput::Supersede, "newer").await;
    assert_eq!(fixture.begin_push(&[&id, &other]).await, None);
    assert!(fixture.store.open_pushes("platform", "main", &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn decisions_end_updates_or_make_them_wait_and_keep_their_basis() {
    let fixture = Fixture::new().await;
    let ids =
        [fixture.pushed("a").await, fixture.pushed("b").await, fixture.pushed("c").await, fixture.pushed("d").await];
    let claim = fixture.claim().await;
    let missing = Missing::BuildTime { repository: repository(), digest: Digest::of(b"1") };
    let end = |state| Decision::End { state, reason: "older: d is newer".to_owned(), ground: Ground::Tip };
    let decisions = [end(UpdateState::Refused), end(UpdateState::Superseded), Decision::Ask(missing), Decision::Write];
    let basis = Some((Criterion::BuildTime, "built before d".to_owned()));
    let decided = claim.updates.iter().zip(decisions);
    let decided = decided.map(|(update, decision)| (update.id.clone(), Decided { decision, basis: basis.clone() }));
    assert!(fixture.store.record_decisions(decided.collect(), claim.fence).await.unwrap());
    let ids = ids.each_ref().map(String::as_str);
    use UpdateState::{Pending, Refused, Superseded, Waiting};
    assert_eq!(fixture.states(&ids).await, [Refused, Superseded, Waiting, Pending]);
    for id in &ids[..3] {
        let update = fixture.update_of(id).await;
        assert_eq!(update.decided_by.as_deref(), Some("build_time"));
        assert_eq!(update.decided_because.as_deref(), Some("built before d"));
    }
    let tries = fixture.store.failed_attempts(ids[0]).await.unwrap();
    assert_eq!((tries[0].asked.as_str(), tries[0].answered.as_str()), ("rules", "refused: older: d is newer"));
    assert_eq!(tries[0].environment.as_deref(), Some("staging"));
}

#[tokio::test]
async fn outdone_update_ends_when_the_other_one_lands_and_not_before() {
    let fixture = Fixture::new().await;
    let (older, newer) = (fixture.pushed("a").await, fixture.pushed("b").await);
    let (older_id, newer_id) = (fixture.update_of(&older).await.id, fixture.update_of(&newer).await.id);
    let decided = Decided {
        decision: Decision::End {
            state: UpdateState::Superseded,
            reason: "b is newer".to_owned(),
            ground: Ground::Rival(newer_id.clone()),
        },
        basis: None,
    };
    let outdone = vec![Outdone { update_id: older_id, by: newer_id, decided }];
    let push = fixture.begin_push(&[&newer]).await.unwrap();
    fixture.store.end_push_and_outdone(&push, PushInput::FindLost, false, outdone.clone()).await.unwrap();
    assert_eq!(fixture.states(&[&older, &newer]).await, [UpdateState::Pending, UpdateState::Pending]);
    let other = fixture.begin_push(&[&older]).await.unwrap();
    fixture.store.end_push_and_outdone(&other, PushInput::FindLost, false, outdone.clone()).await.unwrap();
    let push = fixture.begin_push(&[&newer]).await.unwrap();
    fixture.store.end_push_and_outdone(&push, PushInput::FindLanded, false, outdone).await.unwrap();
    assert_eq!(fixture.states(&[&older, &newer]).await, [UpdateState::Superseded, UpdateState::Committed]);
    assert_eq!(fixture.update_of(&older).await.reason.as_deref(), Some("b is newer"));
}

/// The newest build waits after a rejected push, and a late build of an older commit lands first.
#[tokio::test]
async fn landing_of_a_late_event_has_a_rejected_one_decided_again() {
    let fixture = Fixture::new().await;
    let (rejected, late) = (fixture.pushed("b").await, fixture.pushed("a").await);
    let retry = Retry { first: DAY, longest: DAY, give_up_after: DAY };
    let id = fixture.update_of(&rejected).await.id;
    fixture.store.reject(vec![id], "protected branch".to_owned(), retry).await.unwrap();
    assert_eq!(fixture.states(&[&rejected]).await, [UpdateState::Waiting]);
    fixture.land(&[&late]).await;
    assert_eq!(fixture.states(&[&rejected, &late]).await, [UpdateState::Pending, UpdateState::Committed]);
}

/// The weekend is frozen. The remote rejects the push on Friday and on Monday.
#[tokio::test]
async fn time_under_a_freeze_does_not_count_as_time_of_rejection() {
    let clock = Clock::stopped_at(at("2026-11-27T12:00:00Z"));
    let fixture = Fixture::with(clock.clone()).await;
    let cause = fixture.pushed("b").await;
    let id = fixture.update_of(&cause).await.id;
    let minute = std::time::Duration::from_secs(60);
    let retry = Retry { first: minute, longest: minute, give_up_after: DAY };
    let reject = async || fixture.store.reject(vec![id.clone()], "protected".to_owned(), retry).await.unwrap();
    reject().await;
    clock.set(clock.now() + minute);
    let freeze = fixture.freeze(None).await;
    fixture.store.review_waits().await.unwrap();
    fixture.decide().await;
    assert_eq!(fixture.states(&[&cause]).await, [UpdateState::Waiting]);
    clock.set(clock.now() + DAY * 3);
    fixture.thaw(&freeze).await;
    reject().await;
    assert_eq!(fixture.states(&[&cause]).await, [UpdateState::Waiting]);
    // Without a block, all the time since the first rejection counts.
    clock.set(clock.now() + DAY);
    fixture.store.review_waits().await.unwrap();
    reject().await;
    assert_eq!(fixture.states(&[&cause]).await, [UpdateState::Refused]);
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

#[tokio::test]
async fn missing_fact_is_asked_for_until_it_is_there() {
    let clock = Clock::stopped_at(at("2026-11-27T12:00:00Z"));
    let fixture = Fixture::with(clock.clone()).await;
    let id = fixture.pushed("b").await;
    let claim = fixture.claim().await;
    let missing = Missing::BuildTime { repository: repository(), digest: Digest::of(b"1") };
    let decided = Decided { decision: Decision::Ask(missing.clone()), basis: None };
    let update_id = claim.updates[0].id.clone();
    fixture.store.record_decisions(vec![(update_id.clone(), decided)], claim.fence).await.unwrap();
    assert_eq!(fixture.update_of(&id).await.reason, Some(missing.to_string()));
    assert_eq!(fixture.store.event(&id).await.unwrap().unwrap().reason, Some(missing.to_string()));
    let due = async || fixture.store.missing_facts(clock.now(), 10, &[]).await.unwrap();
    assert_eq!(due().await[0].failures, 0);
    let busy = fixture.update_of(&id).await.repository.registry().to_owned();
    assert!(fixture.store.missing_facts(clock.now(), 10, &[&busy]).await.unwrap().is_empty(), "its registry is busy");

    let until = clock.now() + Duration::from_secs(5);
    fixture.store.postpone_missing_fact(&update_id, until, "no answer".to_owned()).await.unwrap();
    assert!(due().await.is_empty());
    assert_eq!(fixture.store.next_attempt(clock.now()).await.unwrap(), Some(until));
    assert!(!fixture.store.review_waits().await.unwrap(), "a missing fact's time is that of the next request");
    clock.set(until);
    assert_eq!((due().await[0].failures, due().await[0].reason.as_deref()), (1, Some("no answer")));
    fixture.store.end_missing_fact(&update_id).await.unwrap();
    assert!(due().await.is_empty());
    let update = fixture.update_of(&id).await;
    assert_eq!((update.state, update.failures, update.reason), (UpdateState::Pending, 0, None));
    assert_eq!(fixture.event_state(&id).await, EventState::Pending);
}

#[tokio::test]
async fn landed_update_ends_older_waiting_ones_of_its_place() {
    let fixture = Fixture::new().await;
    let freeze = fixture.freeze(None).await;
    let event = fixture.pushed("a").await;
    let older = fixture.confirmed(promotion("b")).await.id;
    let urgent = NewRequest { overrides: true, reason: Some("hotfix".to_owned()), ..promotion("c") };
    let urgent = fixture.confirmed(urgent).await.id;
    let later = fixture.confirmed(promotion("d")).await.id;
    let other = fixture.pushed_to("uyou/order-service", "e").await;
    fixture.decide().await;
    let all = [event.as_str(), &older, &urgent, &later, &other];
    use UpdateState::{Committed, Pending, Superseded, Unchanged, Waiting};
    assert_eq!(fixture.states(&all).await, [Waiting, Waiting, Pending, Waiting, Waiting]);
    fixture.land(&[&urgent]).await;
    assert_eq!(fixture.states(&all).await, [Superseded, Superseded, Committed, Waiting, Waiting]);
    assert_eq!(fixture.update_of(&older).await.reason.as_deref(), Some("older: c was written to staging later"));
    assert_eq!(fixture.event_state(&event).await, EventState::Superseded);

    // A promotion of the running version also ends earlier updates.
    let mut what_runs = promotion("c");
    what_runs.updates[0].state = UpdateState::Unchanged;
    let what_runs = fixture.requested(what_runs).await.id;
    assert_eq!(fixture.states(&[&what_runs, &later]).await, [Unchanged, Superseded]);
    fixture.thaw(&freeze).await;
    assert_eq!(fixture.states(&all).await, [Superseded, Superseded, Committed, Superseded, Pending]);
}

#[tokio::test]
async fn update_of_an_open_push_is_not_ended_by_a_newer_one() {
    let fixture = Fixture::new().await;
    let lost = fixture.pushed("a").await;
    // The answer to the push is lost, and a hold is made before the next decision.
    let push_id = fixture.begin_push(&[&lost]).await.unwrap();
    let hold = fixture.hold().await;
    let newer = fixture.pushed("b").await;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&lost, &newer]).await, [UpdateState::Waiting; 2]);
    fixture.release(&hold).await;
    assert_eq!(fixture.states(&[&lost, &newer]).await, [UpdateState::Pending; 2]);
    let back = fixture.confirmed(rollback("0")).await.id;
    fixture.land(&[&back]).await;
    assert_eq!(fixture.states(&[&lost, &newer]).await, [UpdateState::Pending, UpdateState::Superseded]);
    fixture.store.end_push(&push_id, PushInput::FindLanded, false).await.unwrap();
    assert_eq!(fixture.states(&[&lost]).await, [UpdateState::Committed]);
}

#[tokio::test]
async fn update_that_is_found_on_the_branch_ends_the_attempts_that_carry_it() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.pushed("a").await, fixture.pushed_to("uyou/order-service", "b").await);
    fixture.begin_push(&[&first]).await.unwrap();
    let both = fixture.begin_push(&[&first, &second]).await.unwrap();
    let update = fixture.update_of(&first).await.id;
    fixture.store.land(vec![attempted(&update)], false).await.unwrap();
    assert_eq!(fixture.states(&[&first, &second]).await, [UpdateState::Committed, UpdateState::Pending]);
    let open = fixture.store.open_pushes("platform", "main", &[]).await.unwrap();
    assert_eq!(open.iter().map(|attempt| (&attempt.id, attempt.updates.len())).collect::<Vec<_>>(), [(&both, 1)]);
}

#[tokio::test]
async fn rejected_push_is_retried_with_growing_pauses_and_given_up() {
    let start = at("2026-11-27T12:00:00Z");
    let clock = Clock::stopped_at(start);
    let fixture = Fixture::with(clock.clone()).await;
    let id = fixture.pushed("b").await;
    let update_id = fixture.update_of(&id).await.id;
    let seconds = Duration::from_secs;
    let retry = Retry { first: seconds(1), longest: seconds(3), give_up_after: seconds(60) };
    let reject = async || {
        let reason = "protected branch".to_owned();
        fixture.store.reject(vec![update_id.clone()], reason, retry).await.unwrap();
        fixture.store.waits_of(&[&update_id]).await.unwrap().remove(&update_id).map(|rows| rows[0].clone())
    };
    for (failures, pause) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        let row = reject().await.unwrap();
        let until = clock.now() + seconds(pause);
        assert_eq!((row.failures, row.since, row.wait.until), (failures, start, Some(until)));
        let reason = fixture.update_of(&id).await.reason.unwrap();
        assert_eq!(reason, format!("the remote rejected the push: protected branch; next try at {until:.0}"));
        assert_eq!(fixture.event_state(&id).await, EventState::Waiting);
        let next = fixture.store.next_wait_change(clock.now()).await.unwrap();
        assert_eq!(next, NextWait { due: false, at: Some(until) });
        assert!(!fixture.store.review_waits().await.unwrap());
        clock.set(until);
        assert!(fixture.store.next_wait_change(until).await.unwrap().due);
        assert!(fixture.store.review_waits().await.unwrap());
        assert_eq!(fixture.states(&[&id]).await, [UpdateState::Pending]);
    }
    // The branch moved: the next try is at once, and does not lengthen the pauses.
    assert_eq!(reject().await.unwrap().failures, 5);
    fixture.store.end_rejections(&["qa".to_owned()]).await.unwrap();
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Waiting]);
    fixture.store.end_rejections(&["staging".to_owned()]).await.unwrap();
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Pending]);
    assert_eq!(reject().await.unwrap().failures, 5);
    fixture.store.end_rejections(&["staging".to_owned()]).await.unwrap();
    clock.set(start + seconds(60));
    assert_eq!(reject().await, None);
    let update = fixture.update_of(&id).await;
    assert_eq!(update.state, UpdateState::Refused);
    assert_eq!(
        update.reason.as_deref(),
        Some("the remote has rejected the push since 2026-11-27T12:00:00Z: protected branch")
    );
    let tries = fixture.store.failed_attempts(&id).await.unwrap();
    assert_eq!((tries.len(), tries[6].asked.as_str()), (7, "branch"));
}

#[tokio::test]
async fn claim_leaves_out_requests_that_are_still_being_confirmed() {
    let fixture = Fixture::new().await;
    let mut request = promotion("b");
    let other: Repository = "uyou/order-service".parse().unwrap();
    request.updates.push(NewRequestedUpdate { repository: other.clone(), ..requested("b") });
    let request = fixture.requested(request).await;
    let updates = fixture.store.updates_of(&request.id).await.unwrap();
    fixture.store.verify_update(&updates[0].id, Some(&Digest::of(b"1")), Some("a remark".to_owned())).await.unwrap();
    assert!(fixture.claim().await.updates.is_empty());
    let pending = async |environment: &str| fixture.store.pending(&[environment.to_owned()]).await.unwrap();
    assert_eq!(pending("staging").await, PendingCount { all: 1, requested: 1 });
    assert_eq!(pending("qa").await, PendingCount::default());
    // A registry that could not answer delays only its own images.
    fixture.store.postpone_updates(vec![updates[1].id.clone()], None, "no answer".to_owned()).await.unwrap();
    let claim = fixture.claim().await;
    assert_eq!(claim.updates.iter().map(|update| &update.id).collect::<Vec<_>>(), [&updates[0].id]);
    assert_eq!(claim.updates[0].version.digest(), Some(&Digest::of(b"1")));
    assert_eq!(claim.updates[0].reason.as_deref(), Some("a remark"));
    assert_eq!(claim.requests.get(&request.id), Some(&request));
    let open = fixture.store.open_updates_at("staging", &other, 10).await.unwrap();
    assert_eq!((open.len(), open[0].failures), (1, 1));
}

#[tokio::test]
async fn claim_has_the_newest_landed_update_of_each_place() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.claim().await.fence, 0);
    let (first, second) = (fixture.pushed("a").await, fixture.pushed("b").await);
    fixture.land(&[&second]).await;
    fixture.land(&[&first]).await;
    let (unchanged, third) = (fixture.pushed("c").await, fixture.pushed("d").await);
    let other = fixture.pushed_to("uyou/order-service", "e").await;
    let landed = async || {
        let claim = fixture.claim().await;
        assert!(!claim.landed.contains_key(&("staging".to_owned(), "uyou/order-service".parse().unwrap())));
        claim.landed[&("staging".to_owned(), repository())].cause_id.clone()
    };
    assert_eq!(landed().await, first, "it landed last, though it arrived first");
    fixture.end(&unchanged, UpdateInput::FindUnchanged, "runs it").await;
    assert_eq!(landed().await, unchanged);
    let order: Vec<String> = fixture.claim().await.updates.into_iter().map(|update| update.cause_id).collect();
    assert_eq!(order, [third, other]);
}

#[tokio::test]
async fn push_of_a_thousand_updates_lands_as_a_whole() {
    let fixture = Fixture::new().await;
    let names: Vec<String> = (0..1000).map(|number| format!("uyou/service-{number}")).collect();
    let mut events = Vec::new();
    for name in &names {
        events.push(NewEvent { repository: name.parse().unwrap(), duplicate_key: name.clone(), ..event("a") });
    }
    let ids: Vec<String> =
        fixture.store.receive("hub", events).await.unwrap().into_iter().map(|received| received.id).collect();
    let confirm = ids.iter().map(|id| {
        let (store, facts) = (fixture.store.clone(), facts(id, "a", &["staging"]));
        tokio::spawn(async move { store.record_facts(facts).await.unwrap() })
    });
    for task in confirm.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().len(), 1);
    }
    let claim = fixture.claim().await;
    assert_eq!(claim.updates.len(), 1000);
    let basis = Some(("arrival".to_owned(), "nothing else runs".to_owned()));
    let attempts = claim.updates.iter().map(|update| AttemptedUpdate { basis: basis.clone(), ..attempted(&update.id) });
    let push = fixture.store.begin_push(push(attempts.collect()), claim.fence).await.unwrap().unwrap();
    let before = fixture.store.last_sequence();
    fixture.store.end_push(&push, PushInput::FindLanded, true).await.unwrap();
    let committed = fixture.store.history(&history(2000)).await.unwrap();
    assert_eq!(committed.len(), 1000);
    assert!(
        committed.iter().all(|update| update.decided_by.as_deref() == Some("arrival") && update.changes.len() == 1)
    );
    assert_eq!(fixture.store.last_sequence() - before, 2000, "an entry for each update and for each event");
    let filter = EventFilter { state: Some(EventState::Committed), limit: 2000, ..EventFilter::default() };
    assert_eq!(fixture.store.events(&filter).await.unwrap().len(), 1000);
    assert_eq!(fixture.store.open_follow_ups(2000).await.unwrap().len(), 1000);
}

/// Commits a version in an environment, and follows it.
async fn followed(fixture: &Fixture, environment: &str, tag: &str) -> String {
    let id = fixture.receive(&format!("{tag}-for-{environment}")).await;
    fixture.confirm(&id, tag, &[environment]).await;
    let push = fixture.begin_push(&[&id]).await.unwrap();
    fixture.store.end_push(&push, PushInput::FindLanded, true).await.unwrap();
    fixture.update_of(&id).await.id
}

#[tokio::test]
async fn rollouts_of_one_environment_are_found_among_those_of_all() {
    let fixture = Fixture::new().await;
    followed(&fixture, "qa", "a").await;
    let own = [followed(&fixture, "staging", "a").await];
    let ids =
        |found: Vec<(Rollout, Update)>| -> Vec<String> { found.into_iter().map(|(row, _)| row.update_id).collect() };
    assert_ne!(ids(fixture.store.open_follow_ups(1).await.unwrap()), own);
    assert_eq!(ids(fixture.store.open_follow_ups_in("staging", 1).await.unwrap()), own);
    assert_eq!(ids(fixture.store.open_follow_ups_of(&own).await.unwrap()), own);

    let mut late = fixture.store.open_follow_ups_in("staging", 1).await.unwrap().remove(0).0;
    (late.state, late.ended_at) = (RolloutState::TimedOut, Some(late.started_at));
    fixture.store.record_follow_ups(vec![late], Vec::new()).await.unwrap();
    assert!(fixture.store.open_follow_ups_in("staging", 1).await.unwrap().is_empty());
    assert_eq!(ids(fixture.store.timed_out_follow_ups("staging", 9).await.unwrap()), own);
    assert!(fixture.store.timed_out_follow_ups("qa", 9).await.unwrap().is_empty());
    // The next commit of the place counts instead.
    followed(&fixture, "staging", "b").await;
    assert!(fixture.store.timed_out_follow_ups("staging", 9).await.unwrap().is_empty());
    let commits = fixture.store.commits_on(&["staging".to_owned()], 10).await.unwrap();
    assert_eq!(commits.iter().map(|(commit, _)| commit.as_str()).collect::<Vec<_>>(), ["c0ffee"]);
}
