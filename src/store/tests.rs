use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::image::{Repository, Version};
use crate::telemetry::TraceContext;

pub(in crate::store) struct Fixture {
    folder: tempfile::TempDir,
    pub(in crate::store) store: Store,
}

impl Fixture {
    pub(in crate::store) async fn new() -> Self {
        Self::with(Clock::system()).await
    }

    pub(in crate::store) async fn with(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Self::open_with(&folder, clock).await;
        Self { folder, store }
    }

    async fn open(folder: &tempfile::TempDir) -> Store {
        Self::open_with(folder, Clock::system()).await
    }

    async fn open_with(folder: &tempfile::TempDir, clock: Clock) -> Store {
        let settings = StoreSettings { path: folder.path().join("state/tagrelay.db") };
        Store::open_with(&settings, clock).await.unwrap()
    }

    /// Closes the store and opens it again, as a restart does.
    pub(in crate::store) async fn restart(self, clock: Clock) -> Self {
        let Self { folder, store } = self;
        drop(store);
        // The task that writes ends a moment later, and with it goes the lock.
        let store = Self::open_with(&folder, clock).await;
        Self { folder, store }
    }

    pub(in crate::store) async fn receive(&self, tag: &str) -> String {
        self.store.receive("hub", vec![event(tag)]).await.unwrap().remove(0).id
    }

    pub(in crate::store) async fn decide(&self, event_id: &str, tag: &str) -> UpdateState {
        let mark = self.store.standing("staging", &repository()).await.unwrap().mark;
        match self.store.decide(decision(event_id, tag, mark)).await.unwrap() {
            Decided::Done(mut states) => states.remove(0).1,
            Decided::Outrun => panic!("outrun"),
        }
    }

    pub(in crate::store) async fn update_of(&self, cause_id: &str) -> Update {
        self.store.updates_of(cause_id).await.unwrap().remove(0)
    }

    pub(in crate::store) async fn event_state(&self, id: &str) -> EventState {
        self.store.event(id).await.unwrap().unwrap().state
    }

    pub(in crate::store) async fn record(
        &self,
        attempts: Vec<Attempt>,
    ) -> Result<Vec<(String, UpdateState)>, StoreError> {
        self.store.record(Recording { attempts, ..Recording::default() }).await
    }

    pub(in crate::store) async fn finish(&self, cause_id: &str, outcome: Outcome) {
        let update_id = self.update_of(cause_id).await.id;
        self.store.finish(vec![Finish { update_id, outcome, follow: false, asked: None }]).await.unwrap();
    }
}

pub(in crate::store) fn decision(event_id: &str, tag: &str, mark: Option<String>) -> Decision {
    let planned = PlannedUpdate {
        environment: "staging".to_owned(),
        mark,
        verdict: Verdict::Go,
        decided_by: "arrival",
        decided_because: "newer than 0".to_owned(),
        compared: vec![version("0")],
    };
    Decision {
        event_id: event_id.to_owned(),
        matched_rule: "docker.io/uyou/*".to_owned(),
        version: version(tag),
        note: None,
        updates: vec![planned],
    }
}

pub(in crate::store) fn repository() -> Repository {
    "uyou/user-service".parse().unwrap()
}

pub(in crate::store) fn version(tag: &str) -> Version {
    Version::tagged(tag.parse().unwrap(), None)
}

pub(in crate::store) fn event(tag: &str) -> NewEvent {
    NewEvent {
        repository: repository(),
        tag: tag.parse().unwrap(),
        digest: None,
        pushed_at: None,
        duplicate_key: tag.to_owned(),
        duplicates_since: Timestamp::UNIX_EPOCH,
        trace: TraceContext::random(),
    }
}

pub(in crate::store) fn hold(expires_at: Option<jiff::Timestamp>) -> NewHold {
    NewHold {
        environment: "staging".to_owned(),
        repository: repository(),
        reason: Some("investigating".to_owned()),
        actor: "oncall".to_owned(),
        expires_at,
    }
}

pub(in crate::store) fn rollback(to: &str, key: Option<&str>) -> NewRequest {
    NewRequest {
        kind: RequestKind::Rollback,
        environment: "staging".to_owned(),
        source: None,
        actor: "oncall".to_owned(),
        reason: None,
        idempotency_key: key.map(str::to_owned),
        fingerprint: to.to_owned(),
        updates: vec![NewRequestedUpdate {
            repository: repository(),
            version: version(to),
            state: UpdateState::Unverified,
            reason: None,
            running: vec![version("0")],
        }],
        hold: Some(hold(None)),
        trace: TraceContext::random(),
        overridden: None,
        overrides: false,
    }
}

#[tokio::test]
async fn a_redelivery_is_a_duplicate_and_survives_a_restart() {
    let fixture = Fixture::new().await;
    let first = fixture.receive("a").await;
    let Fixture { folder, store } = fixture;
    drop(store);
    let store = Fixture::open(&folder).await;
    let again = store.receive("hub", vec![event("a"), event("b")]).await.unwrap();
    assert_eq!(again[0], Received { id: first.clone(), state: ReceivedState::Duplicate });
    assert_eq!(again[1].state, ReceivedState::Queued);
    assert!(again[1].id > first);
    let due = store.due_events(jiff::Timestamp::now(), 10, &[]).await.unwrap();
    assert_eq!(due.iter().map(|event| event.tag.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_delivery_is_no_duplicate_of_one_before_the_window() {
    let fixture = Fixture::new().await;
    let first = fixture.receive("a").await;
    let received_at = fixture.store.event(&first).await.unwrap().unwrap().received_at;
    let at = |duplicates_since| NewEvent { duplicates_since, ..event("a") };
    let edge = fixture.store.receive("hub", vec![at(received_at)]).await.unwrap().remove(0);
    assert_eq!(edge, Received { id: first.clone(), state: ReceivedState::Duplicate });
    let behind = received_at + Duration::from_millis(1);
    let later = fixture.store.receive("hub", vec![at(behind)]).await.unwrap().remove(0);
    // The second may have come within the same millisecond as the first, but never before it.
    assert!(later.state == ReceivedState::Queued && later.id > first);
}

#[tokio::test]
async fn what_receivers_heard_last_survives_a_restart() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.heard().await.unwrap(), []);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let heard = |receiver: &str, time: &str, outcome: &str, accepted: Option<&str>| ReceiverHeard {
        receiver: receiver.to_owned(),
        heard_at: at(time),
        outcome: outcome.to_owned(),
        accepted_at: accepted.map(at),
    };
    let (early, late) = ("2026-11-20T12:00:00Z", "2026-11-20T13:00:00Z");
    let first = vec![heard("hub", early, "accepted", Some(early)), heard("ci", early, "ignored", None)];
    fixture.store.keep_heard(first).await.unwrap();
    // A process that has started anew knows nothing of what was accepted before.
    fixture.store.keep_heard(vec![heard("hub", late, "unauthorized", None)]).await.unwrap();
    let Fixture { folder, store } = fixture;
    drop(store);
    let mut kept = Fixture::open(&folder).await.heard().await.unwrap();
    kept.sort_by(|a, b| a.receiver.cmp(&b.receiver));
    assert_eq!(kept, [heard("ci", early, "ignored", None), heard("hub", late, "unauthorized", Some(early))]);
}

#[tokio::test]
async fn an_event_refused_for_something_that_passes_runs_again_when_redelivered() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    let refuse = |redeliverable| EventRefusal {
        event_id: id.clone(),
        reason: "not there".to_owned(),
        matched_rule: None,
        redeliverable,
        asked: Party::Registry,
    };
    fixture.store.refuse_event(refuse(true)).await.unwrap();
    let again = fixture.store.receive("hub", vec![event("a")]).await.unwrap().remove(0);
    // It keeps its place in the order of arrival.
    assert_eq!(again, Received { id: id.clone(), state: ReceivedState::Queued });
    fixture.store.refuse_event(refuse(true)).await.unwrap();
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::Queued);
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::NotFinal(EventState::Queued));
    assert_eq!(fixture.store.replay("nobody").await.unwrap(), Replayed::Unknown);
}

#[tokio::test]
async fn a_postponed_event_is_due_later_and_hides_no_other() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.receive("b").await;
    let until = jiff::Timestamp::now() + Duration::from_secs(60);
    fixture.store.postpone_event(&id, until, Party::Registry, "429".to_owned()).await.unwrap();
    let due = fixture.store.due_events(jiff::Timestamp::now(), 1, &[]).await.unwrap();
    assert_eq!(due.iter().map(|event| event.tag.as_str()).collect::<Vec<_>>(), ["b"]);
    let next = async |now| fixture.store.outlook(now).await.unwrap().next_attempt.map(jiff::Timestamp::as_millisecond);
    assert_eq!(next(jiff::Timestamp::now()).await, Some(until.as_millisecond()));
    // What is due now is no time to wait for.
    assert_eq!(next(until).await, None);
    assert_eq!(fixture.store.event(&id).await.unwrap().unwrap().attempts, 1);

    // Whoever wants that has it asked about now, once.
    let hastened = fixture.store.replay(&id).await.unwrap();
    let until = jiff::Timestamp::from_millisecond(until.as_millisecond()).unwrap();
    assert_eq!(hastened, Replayed::Hastened(until));
    let event = fixture.store.due_events(jiff::Timestamp::now(), 5, &[]).await.unwrap().remove(0);
    assert_eq!((event.id.as_str(), event.attempts, event.reason.as_deref()), (id.as_str(), 1, Some("429")));
    assert_eq!(fixture.store.replay(&id).await.unwrap(), Replayed::NotFinal(EventState::Queued));
    let attempts = fixture.store.failed_attempts(&id).await.unwrap();
    let last = attempts.last().unwrap();
    assert_eq!(
        (last.asked.as_str(), last.answered.as_str()),
        ("replay", format!("asked now, and not at {until:.0}").as_str())
    );
}

#[tokio::test]
async fn a_decision_that_was_outrun_changes_nothing() {
    let fixture = Fixture::new().await;
    let (older, newer) = (fixture.receive("a").await, fixture.receive("b").await);
    // Both are compared with an environment for which nothing is under way.
    let mark = fixture.store.standing("staging", &repository()).await.unwrap().mark;
    assert_eq!(mark, None);
    assert_eq!(fixture.decide(&newer, "b").await, UpdateState::Pending);
    let late = fixture.store.decide(decision(&older, "a", mark)).await.unwrap();
    assert_eq!(late, Decided::Outrun);
    assert_eq!(fixture.event_state(&older).await, EventState::Queued);
    assert!(fixture.store.updates_of(&older).await.unwrap().is_empty());

    let standing = fixture.store.standing("staging", &repository()).await.unwrap();
    assert_eq!(standing.open, fixture.store.updates_of(&newer).await.unwrap());
    let mut refused = decision(&older, "a", standing.mark);
    refused.updates[0].verdict = Verdict::Refuse { reason: "older: b is newer".to_owned() };
    let done = fixture.store.decide(refused).await.unwrap();
    assert_eq!(done, Decided::Done(vec![("staging".to_owned(), UpdateState::Refused)]));
    let event = fixture.store.event(&older).await.unwrap().unwrap();
    assert_eq!((event.state, event.reason.as_deref()), (EventState::Refused, Some("older: b is newer")));
    let update = fixture.update_of(&older).await;
    assert_eq!((update.decided_by.as_deref(), update.compared), (Some("arrival"), Some(vec![version("0")])));
}

#[tokio::test]
async fn decisions_of_one_transaction_are_as_if_one_came_after_the_other() {
    let fixture = Fixture::new().await;
    let (first, second, third) = (fixture.receive("a").await, fixture.receive("b").await, fixture.receive("c").await);
    let mut both = decision(&third, "c", None);
    both.updates.push(PlannedUpdate { environment: "qa".to_owned(), ..both.updates[0].clone() });
    let mut refused = decision(&second, "b", None);
    refused.updates[0].verdict = Verdict::Refuse { reason: "no".to_owned() };
    // One thread: all are handed over before the writing task runs.
    let (no, yes, twice, late) = tokio::join!(
        fixture.store.decide(refused),
        fixture.store.decide(decision(&first, "a", None)),
        fixture.store.decide(decision(&first, "a", None)),
        fixture.store.decide(both),
    );
    // What is refused stands in nobody's way.
    assert_eq!(no.unwrap(), Decided::Done(vec![("staging".to_owned(), UpdateState::Refused)]));
    assert_eq!(yes.unwrap(), Decided::Done(vec![("staging".to_owned(), UpdateState::Pending)]));
    assert_eq!(twice.unwrap(), Decided::Done(Vec::new()));
    assert_eq!(late.unwrap(), Decided::Outrun);
    assert_eq!(fixture.event_state(&first).await, EventState::Pending);
    assert_eq!(fixture.event_state(&second).await, EventState::Refused);
    assert_eq!(fixture.event_state(&third).await, EventState::Queued);
    assert!(fixture.store.updates_of(&third).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_taken_later_is_written_last_whichever_was_announced_first() {
    let fixture = Fixture::new().await;
    let (newer, older) = (fixture.receive("b").await, fixture.receive("a").await);
    fixture.decide(&older, "a").await;
    fixture.decide(&newer, "b").await;
    let pending = fixture.store.pending_updates(&["staging".to_owned()], 10).await.unwrap();
    assert_eq!(pending.iter().map(|update| &update.version).collect::<Vec<_>>(), [&version("a"), &version("b")]);
    // The same with what waits for a hold.
    let hold = fixture.store.hold(hold(None)).await.unwrap();
    fixture.store.release_hold(&hold.id, "oncall").await.unwrap();
    assert_eq!(fixture.event_state(&newer).await, EventState::Pending);
    assert_eq!(fixture.event_state(&older).await, EventState::Superseded);
}

#[tokio::test]
async fn an_event_that_is_decided_again_waits_for_that_however_its_other_updates_end() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    let mut both = decision(&id, "a", None);
    both.updates.push(PlannedUpdate { environment: "qa".to_owned(), ..both.updates[0].clone() });
    fixture.store.decide(both.clone()).await.unwrap();
    let updates = fixture.store.updates_of(&id).await.unwrap();
    fixture.store.decide_again(vec![updates[0].id.clone()]).await.unwrap();
    let outcome = Outcome::Refused { reason: "no such environment".to_owned() };
    let finish = Finish { update_id: updates[1].id.clone(), outcome, follow: false, asked: None };
    fixture.store.finish(vec![finish]).await.unwrap();
    assert_eq!(fixture.event_state(&id).await, EventState::Queued);
    let decided = fixture.store.decide(both).await.unwrap();
    assert_eq!(decided, Decided::Done(vec![("staging".to_owned(), UpdateState::Pending)]));
    assert_eq!(fixture.event_state(&id).await, EventState::Pending);
}

#[tokio::test]
async fn what_newer_events_overtake_may_go_before_them() {
    let fixture = Fixture::new().await;
    let (older, newer) = (fixture.receive("a").await, fixture.receive("b").await);
    fixture.decide(&older, "a").await;
    fixture.decide(&newer, "b").await;
    let id = fixture.update_of(&older).await.id;
    let recording = Recording { attempts: vec![attempt(&id)], overtaken_may_go: true, ..Recording::default() };
    assert!(fixture.store.record(recording.clone()).await.unwrap().is_empty());
    // But not once the newer one is on the branch.
    fixture.finish(&newer, Outcome::Committed).await;
    assert_eq!(fixture.store.record(recording).await.unwrap(), [(id, UpdateState::Superseded)]);
}

#[tokio::test]
async fn an_update_is_taken_back_and_its_event_decided_again() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.decide(&id, "a").await;
    fixture.store.decide_again(vec![fixture.update_of(&id).await.id]).await.unwrap();
    assert_eq!(fixture.event_state(&id).await, EventState::Queued);
    assert!(fixture.store.updates_of(&id).await.unwrap().is_empty());
    assert_eq!(fixture.decide(&id, "a").await, UpdateState::Pending);
    // What is no longer pending stays.
    fixture.finish(&id, Outcome::Committed).await;
    fixture.store.decide_again(vec![fixture.update_of(&id).await.id]).await.unwrap();
    assert_eq!(fixture.event_state(&id).await, EventState::Committed);
    let brought = fixture.store.brought("staging", &repository(), &version("a")).await.unwrap().unwrap();
    assert_eq!(brought.cause_id, id);
    assert_eq!(fixture.store.brought("staging", &repository(), &version("b")).await.unwrap(), None);
}

#[tokio::test]
async fn build_times_are_kept() {
    let fixture = Fixture::new().await;
    let (said, unsaid) = (crate::image::Digest::of(b"1"), crate::image::Digest::of(b"2"));
    let at = "2026-11-23T08:15:00.123456789Z".parse().unwrap();
    assert_eq!(fixture.store.build_time(&repository(), &said).await.unwrap(), None);
    fixture.store.keep_build_time(&repository(), &said, Some(at)).await.unwrap();
    fixture.store.keep_build_time(&repository(), &unsaid, None).await.unwrap();
    let Fixture { folder, store } = fixture;
    drop(store);
    let store = Fixture::open(&folder).await;
    assert_eq!(store.build_time(&repository(), &said).await.unwrap(), Some(Some(at)));
    assert_eq!(store.build_time(&repository(), &unsaid).await.unwrap(), Some(None));
}

#[tokio::test]
async fn deciding_twice_makes_one_update() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.decide(&id, "a").await;
    let again = fixture.store.decide(decision(&id, "a", None)).await.unwrap();
    assert_eq!(again, Decided::Done(Vec::new()));
    assert_eq!(fixture.store.updates_of(&id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_hold_keeps_updates_and_lets_the_newest_go() {
    let fixture = Fixture::new().await;
    let before = fixture.receive("a").await;
    fixture.decide(&before, "a").await;
    let made = fixture.store.hold(hold(None)).await.unwrap();
    assert_eq!(fixture.event_state(&before).await, EventState::Waiting);
    let after = fixture.receive("b").await;
    assert_eq!(fixture.decide(&after, "b").await, UpdateState::Waiting);
    assert!(fixture.update_of(&after).await.reason.unwrap().contains("oncall: investigating"));
    let backlog = fixture.store.backlog().await.unwrap();
    assert_eq!((backlog.open_updates, backlog.oldest_update, backlog.oldest_event), (2, None, None));

    let released = fixture.store.release_hold(&made.id, "oncall").await.unwrap();
    assert_eq!(released.unwrap().id, made.id);
    assert_eq!(fixture.event_state(&before).await, EventState::Superseded);
    assert_eq!(fixture.event_state(&after).await, EventState::Pending);
    // How old it is counts from here.
    let update = fixture.update_of(&after).await;
    assert!(update.released_at.unwrap() >= update.received_at);
    assert_eq!(fixture.store.backlog().await.unwrap().oldest_update, update.released_at);
    let queued = fixture.receive("c").await;
    let received_at = fixture.store.event(&queued).await.unwrap().unwrap().received_at;
    assert_eq!(fixture.store.backlog().await.unwrap().oldest_event, Some(received_at));
    assert!(fixture.store.release_hold(&made.id, "oncall").await.unwrap().is_none());
    assert!(fixture.store.holds().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hold_expires() {
    let fixture = Fixture::new().await;
    fixture.store.hold(hold(Some(jiff::Timestamp::now() - Duration::from_secs(1)))).await.unwrap();
    assert!(fixture.store.holds().await.unwrap().is_empty());
    assert_eq!(fixture.store.expire_holds().await.unwrap(), 1);
    assert_eq!(fixture.store.expire_holds().await.unwrap(), 0);
    assert_eq!(fixture.store.next_hold_expiry().await.unwrap(), None);
}

#[tokio::test]
async fn a_committed_update_is_history_and_the_state_of_its_event() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("b").await;
    fixture.decide(&id, "b").await;
    let pending = fixture.store.pending_updates(&["staging".to_owned()], 10).await.unwrap();
    let change = SiteChange { path: "a.yaml".into(), line: 3, old: version("a"), new: version("b") };
    let attempt = Attempt {
        update_id: pending[0].id.clone(),
        commit: "c0ffee".into(),
        old: version("a"),
        changes: vec![change.clone()],
    };
    fixture.record(vec![attempt]).await.unwrap();
    assert!(fixture.store.history(&HistoryFilter { limit: 10, ..Default::default() }).await.unwrap().is_empty());
    fixture.finish(&id, Outcome::Committed).await;
    assert_eq!(fixture.event_state(&id).await, EventState::Committed);
    let history = fixture.store.history(&HistoryFilter { limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(history[0].commit.as_deref(), Some("c0ffee"));
    assert_eq!(history[0].changes, [change]);
    assert_eq!(history[0].old, Some(version("a")));
    assert_eq!(fixture.store.last_changes().await.unwrap(), history);
    // A second report of the same end changes nothing.
    fixture.finish(&id, Outcome::Refused { reason: "late".into() }).await;
    assert_eq!(fixture.event_state(&id).await, EventState::Committed);
}

#[tokio::test]
async fn one_key_makes_one_request() {
    let fixture = Fixture::new().await;
    let RequestMade::New { request, hold } = fixture.store.make_request(rollback("a", Some("k"))).await.unwrap() else {
        panic!("the first use of a key is new")
    };
    assert_eq!(hold.unwrap().request_id.as_deref(), Some(request.id.as_str()));
    let RequestMade::Repeated(again) = fixture.store.make_request(rollback("a", Some("k"))).await.unwrap() else {
        panic!("the second use of a key is a repetition")
    };
    assert_eq!(again, request);
    assert_eq!(fixture.store.holds().await.unwrap().len(), 1);
    assert_eq!(fixture.store.request_by_key("oncall", "k").await.unwrap(), Some(request));
}

#[tokio::test]
async fn what_may_have_landed_is_not_superseded_by_what_waited_with_it() {
    let fixture = Fixture::new().await;
    let lost = fixture.receive("a").await;
    fixture.decide(&lost, "a").await;
    let update = fixture.update_of(&lost).await;
    // The answer to its push is lost, and a hold comes before it is sent again.
    assert!(fixture.record(vec![attempt(&update.id)]).await.unwrap().is_empty());
    let made = fixture.store.hold(hold(None)).await.unwrap();
    assert_eq!(fixture.record(vec![attempt(&update.id)]).await.unwrap(), [(update.id.clone(), UpdateState::Waiting)]);
    let newer = fixture.receive("b").await;
    assert_eq!(fixture.decide(&newer, "b").await, UpdateState::Waiting);
    let in_doubt = fixture.store.waiting_in_doubt(&["staging".to_owned()]).await.unwrap();
    assert_eq!(in_doubt.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), [update.id.as_str()]);
    // Both go: the writer looks at the branch before it writes the newer one.
    fixture.store.release_hold(&made.id, "oncall").await.unwrap();
    assert_eq!(fixture.update_of(&lost).await.state, UpdateState::Pending);
    assert_eq!(fixture.update_of(&lost).await.commit, update_attempt_commit(&update.id));
    assert_eq!(fixture.update_of(&newer).await.state, UpdateState::Pending);
}

fn update_attempt_commit(id: &str) -> Option<String> {
    Some(attempt(id).commit)
}

/// Commits a version in an environment, and follows it.
async fn followed(fixture: &Fixture, environment: &str, tag: &str) -> String {
    let id = fixture.receive(&format!("{tag} for {environment}").replace(' ', "-")).await;
    let mut decision = decision(&id, tag, None);
    decision.updates[0].environment = environment.to_owned();
    decision.updates[0].mark = fixture.store.standing(environment, &repository()).await.unwrap().mark;
    assert!(matches!(fixture.store.decide(decision).await.unwrap(), Decided::Done(_)));
    let update_id = fixture.update_of(&id).await.id;
    fixture.record(vec![attempt(&update_id)]).await.unwrap();
    let finish = Finish { update_id: update_id.clone(), outcome: Outcome::Committed, follow: true, asked: None };
    fixture.store.finish(vec![finish]).await.unwrap();
    update_id
}

#[tokio::test]
async fn the_rollouts_of_one_environment_are_found_among_those_of_all() {
    let fixture = Fixture::new().await;
    followed(&fixture, "qa", "a").await;
    let first = followed(&fixture, "staging", "a").await;
    let ids =
        |found: Vec<(FollowUp, Update)>| -> Vec<String> { found.into_iter().map(|(row, _)| row.update_id).collect() };
    let own = [first];
    assert_ne!(ids(fixture.store.open_follow_ups(1).await.unwrap()), own);
    assert_eq!(ids(fixture.store.open_follow_ups_in("staging", 1).await.unwrap()), own);

    let mut late = fixture.store.open_follow_ups_in("staging", 1).await.unwrap().remove(0).0;
    (late.state, late.ended_at) = (FollowState::TimedOut, Some(late.started_at));
    fixture.store.record_follow_ups(vec![late]).await.unwrap();
    assert!(fixture.store.open_follow_ups_in("staging", 1).await.unwrap().is_empty());
    assert_eq!(ids(fixture.store.timed_out_follow_ups("staging", 9).await.unwrap()), own);
    assert!(fixture.store.timed_out_follow_ups("qa", 9).await.unwrap().is_empty());
    // What came after it is asked for instead.
    followed(&fixture, "staging", "b").await;
    assert!(fixture.store.timed_out_follow_ups("staging", 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_rollback_leaves_no_hold() {
    let fixture = Fixture::new().await;
    let RequestMade::New { request, .. } = fixture.store.make_request(rollback("a", None)).await.unwrap() else {
        panic!("without a key every request is new")
    };
    assert_eq!(Request::state(&fixture.store.updates_of(&request.id).await.unwrap()), RequestState::Pending);
    fixture.finish(&request.id, Outcome::Refused { reason: "not there".into() }).await;
    assert!(fixture.store.holds().await.unwrap().is_empty());
    assert_eq!(Request::state(&fixture.store.updates_of(&request.id).await.unwrap()), RequestState::Refused);
}

async fn make(fixture: &Fixture, request: NewRequest) -> String {
    match fixture.store.make_request(request).await.unwrap() {
        RequestMade::New { request, .. } => request.id,
        RequestMade::Repeated(_) => panic!("without a key every request is new"),
    }
}

#[tokio::test]
async fn what_waits_for_the_hold_of_a_rollback_does_not_end_it() {
    let fixture = Fixture::new().await;
    let rollback = make(&fixture, rollback("a", None)).await;
    let later = fixture.receive("c").await;
    assert_eq!(fixture.decide(&later, "c").await, UpdateState::Waiting);
    // The registry answers only now.
    let update = fixture.update_of(&rollback).await;
    fixture.store.verify_update(&update.id, None, None).await.unwrap();
    assert_eq!(fixture.update_of(&rollback).await.state, UpdateState::Pending);
    assert!(fixture.record(vec![attempt(&update.id)]).await.unwrap().is_empty());
    fixture.finish(&rollback, Outcome::Committed).await;
    assert_eq!(fixture.event_state(&later).await, EventState::Waiting);
    assert_eq!(fixture.store.holds().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_rollback_that_happened_takes_the_place_of_the_one_before() {
    let fixture = Fixture::new().await;
    let own = fixture.store.hold(hold(None)).await.unwrap();
    let first = make(&fixture, rollback("a", None)).await;
    fixture.finish(&first, Outcome::Committed).await;
    let holders = async || -> Vec<Option<String>> {
        fixture.store.holds().await.unwrap().into_iter().map(|hold| hold.request_id).collect()
    };
    // One that does not happen leaves the hold of the one that did.
    let refused = make(&fixture, rollback("b", None)).await;
    fixture.finish(&refused, Outcome::Refused { reason: "not there".into() }).await;
    assert_eq!(holders().await, [None, Some(first.clone())]);
    let waiting = fixture.receive("d").await;
    assert_eq!(fixture.decide(&waiting, "d").await, UpdateState::Waiting);
    let second = make(&fixture, rollback("c", None)).await;
    assert_eq!(holders().await, [None, Some(first), Some(second.clone())]);
    fixture.finish(&second, Outcome::Committed).await;
    assert_eq!(holders().await, [None, Some(second)]);
    assert_eq!(fixture.store.holds().await.unwrap()[0].id, own.id, "what somebody holds is held");
}

#[tokio::test]
async fn a_rollback_that_did_not_happen_leaves_no_hold() {
    let fixture = Fixture::new().await;
    let first = make(&fixture, rollback("a", None)).await;
    make(&fixture, rollback("b", None)).await;
    assert_eq!(fixture.update_of(&first).await.state, UpdateState::Superseded);
    let holds = fixture.store.holds().await.unwrap();
    assert_eq!(holds.len(), 1);
    assert_ne!(holds[0].request_id, Some(first));
    // Somebody releases it before the registry has answered, and a push goes.
    fixture.store.release_hold(&holds[0].id, "oncall").await.unwrap();
    let third = make(&fixture, rollback("c", None)).await;
    fixture.finish(&third, Outcome::Superseded { reason: "d came later".into() }).await;
    assert!(fixture.store.holds().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_promotion_that_is_not_confirmed_yet_is_no_rival_and_known() {
    let fixture = Fixture::new().await;
    let promotion = NewRequest { kind: RequestKind::Promotion, hold: None, ..rollback("a", None) };
    let promotion = fixture.update_of(&make(&fixture, promotion).await).await;
    let standing = fixture.store.standing("staging", &repository()).await.unwrap();
    assert_eq!((standing.open.len(), standing.unconfirmed), (0, vec![promotion.clone()]));
    fixture.store.verify_update(&promotion.id, None, None).await.unwrap();
    let standing = fixture.store.standing("staging", &repository()).await.unwrap();
    assert_eq!((standing.open.len(), standing.unconfirmed.len()), (1, 0));
}

#[tokio::test]
async fn what_no_environment_of_the_settings_waits_for_is_found() {
    let fixture = Fixture::new().await;
    let known = async |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        fixture.store.open_updates_elsewhere(&names, 10).await.unwrap().len()
    };
    for (tag, left) in [("a", 1), ("b", 2)] {
        let event = fixture.receive(tag).await;
        fixture.decide(&event, tag).await;
        assert_eq!((known(&["production"]).await, known(&["production", "staging"]).await), (left, 0));
    }
    make(&fixture, rollback("c", None)).await;
    assert_eq!(known(&[]).await, 1);
}

#[tokio::test]
async fn what_came_before_a_rollback_does_not_come_back() {
    let fixture = Fixture::new().await;
    let before = fixture.receive("b").await;
    fixture.decide(&before, "b").await;
    let RequestMade::New { hold, .. } = fixture.store.make_request(rollback("a", None)).await.unwrap() else {
        panic!("without a key every request is new")
    };
    assert_eq!(fixture.event_state(&before).await, EventState::Superseded);
    let after = fixture.receive("c").await;
    assert_eq!(fixture.decide(&after, "c").await, UpdateState::Waiting);
    fixture.store.release_hold(&hold.unwrap().id, "oncall").await.unwrap();
    assert_eq!(fixture.event_state(&before).await, EventState::Superseded);
    assert_eq!(fixture.event_state(&after).await, EventState::Pending);
}

pub(in crate::store) fn attempt(update_id: &str) -> Attempt {
    Attempt { update_id: update_id.to_owned(), commit: "c0ffee".into(), old: version("a"), changes: vec![] }
}

#[tokio::test]
async fn a_hold_or_a_rollback_stops_what_is_being_prepared() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("b").await;
    fixture.decide(&id, "b").await;
    let update = fixture.update_of(&id).await;
    let made = fixture.store.hold(hold(None)).await.unwrap();
    assert_eq!(fixture.record(vec![attempt(&update.id)]).await.unwrap(), [(update.id.clone(), UpdateState::Waiting)]);
    assert_eq!(fixture.update_of(&id).await.state, UpdateState::Waiting);
    fixture.store.release_hold(&made.id, "oncall").await.unwrap();
    assert!(fixture.record(vec![attempt(&update.id)]).await.unwrap().is_empty());

    // What is on its way to the branch is not taken back; the rollback is written behind it.
    let unchanged = NewRequestedUpdate {
        repository: repository(),
        version: version("a"),
        state: UpdateState::Unchanged,
        reason: None,
        running: vec![version("a")],
    };
    let request = NewRequest { updates: vec![unchanged], ..rollback("a", None) };
    let RequestMade::New { request, .. } = fixture.store.make_request(request).await.unwrap() else {
        panic!("without a key every request is new")
    };
    assert_eq!(fixture.update_of(&id).await.state, UpdateState::Pending);
    assert_eq!(fixture.update_of(&request.id).await.state, UpdateState::Unverified);
    // While nobody knows what became of its push, it stays; once that has failed, it is not tried again.
    let in_doubt = HashSet::from([update.id.clone()]);
    let recording = Recording { attempts: vec![attempt(&update.id)], in_doubt, ..Recording::default() };
    let dropped = fixture.store.record(recording).await.unwrap();
    assert_eq!(dropped, [(update.id.clone(), UpdateState::Pending)]);
    assert_eq!(fixture.update_of(&id).await.state, UpdateState::Pending);
    assert_eq!(fixture.record(vec![attempt(&update.id)]).await.unwrap(), [(update.id, UpdateState::Superseded)]);
    assert_eq!(fixture.event_state(&id).await, EventState::Superseded);
}

#[tokio::test]
async fn a_promotion_that_waited_for_its_registry_is_overtaken() {
    let fixture = Fixture::new().await;
    let promotion = || NewRequest { kind: RequestKind::Promotion, hold: None, ..rollback("b", None) };
    let mut made = Vec::new();
    for request in [promotion(), promotion(), rollback("a", None)] {
        let RequestMade::New { request, .. } = fixture.store.make_request(request).await.unwrap() else {
            panic!("without a key every request is new")
        };
        made.push(request.id);
    }
    // The rollback ends what waits for the registry.
    for id in &made[..2] {
        let update = fixture.update_of(id).await;
        assert_eq!(update.state, UpdateState::Superseded);
        fixture.store.verify_update(&update.id, None, None).await.unwrap();
        assert_eq!(fixture.update_of(id).await.state, UpdateState::Superseded);
    }
    let fixture = Fixture::new().await;
    let RequestMade::New { request, .. } = fixture.store.make_request(promotion()).await.unwrap() else {
        panic!("without a key every request is new")
    };
    let later = fixture.receive("c").await;
    fixture.decide(&later, "c").await;
    let update = fixture.update_of(&request.id).await;
    fixture.store.verify_update(&update.id, None, None).await.unwrap();
    let update = fixture.update_of(&request.id).await;
    assert_eq!(update.state, UpdateState::Superseded);
    assert_eq!(update.reason.unwrap(), "older: c was taken later for staging");
}

#[tokio::test]
async fn what_never_happened_makes_nothing_older() {
    let fixture = Fixture::new().await;
    let event = fixture.receive("b").await;
    let promotion = NewRequest { kind: RequestKind::Promotion, hold: None, ..rollback("c", None) };
    let RequestMade::New { request, .. } = fixture.store.make_request(promotion).await.unwrap() else {
        panic!("without a key every request is new")
    };
    fixture.finish(&request.id, Outcome::Refused { reason: "not there".into() }).await;
    assert_eq!(fixture.decide(&event, "b").await, UpdateState::Pending);
}

#[tokio::test]
async fn an_attempt_that_reached_nobody_is_forgotten() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("b").await;
    fixture.decide(&id, "b").await;
    let update_id = fixture.update_of(&id).await.id;
    fixture.record(vec![attempt(&update_id)]).await.unwrap();
    assert_eq!(fixture.update_of(&id).await.commit.as_deref(), Some("c0ffee"));
    fixture.store.forget_attempts(vec![update_id]).await.unwrap();
    let update = fixture.update_of(&id).await;
    assert_eq!((update.state, update.commit, update.old), (UpdateState::Pending, None, None));
}

#[tokio::test]
async fn a_promotion_stops_at_a_hold_and_a_rollback_does_not() {
    let fixture = Fixture::new().await;
    fixture.store.hold(hold(None)).await.unwrap();
    let promotion = NewRequest { kind: RequestKind::Promotion, hold: None, ..rollback("a", None) };
    for (request, expected) in [(promotion, UpdateState::Refused), (rollback("a", None), UpdateState::Unverified)] {
        let RequestMade::New { request, .. } = fixture.store.make_request(request).await.unwrap() else {
            panic!("without a key every request is new")
        };
        assert_eq!(fixture.update_of(&request.id).await.state, expected);
    }
}

#[tokio::test]
async fn verified_updates_of_requests_become_pending() {
    let fixture = Fixture::new().await;
    let RequestMade::New { request, .. } = fixture.store.make_request(rollback("a", None)).await.unwrap() else {
        panic!("without a key every request is new")
    };
    let due = fixture.store.due_updates(jiff::Timestamp::now(), 5, &[]).await.unwrap();
    let digest = crate::image::Digest::of(b"a");
    fixture.store.verify_update(&due[0].id, Some(&digest), None).await.unwrap();
    let update = fixture.update_of(&request.id).await;
    assert_eq!((update.state, update.version.digest()), (UpdateState::Pending, Some(&digest)));
    assert!(fixture.store.due_updates(jiff::Timestamp::now(), 5, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_writers_at_once_are_all_answered_and_a_bad_one_fails_alone() {
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
    fixture.store.check().await.unwrap();
}

#[tokio::test]
async fn of_equal_events_that_come_together_one_is_new() {
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
}

#[tokio::test]
async fn what_runs_again_does_so_once_for_a_delivery_that_names_it_twice() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    let (event_id, reason) = (id.clone(), "not there".to_owned());
    let refusal = EventRefusal { event_id, reason, matched_rule: None, redeliverable: true, asked: Party::Rules };
    fixture.store.refuse_event(refusal).await.unwrap();
    let received = fixture.store.receive("hub", vec![event("a"), event("a")]).await.unwrap();
    let expected = [ReceivedState::Queued, ReceivedState::Duplicate].map(|state| Received { id: id.clone(), state });
    assert_eq!(received, expected);
}

struct Broken;

impl writer::Write for Broken {
    type Output = ();

    async fn run(&self, tx: &mut writer::Transaction<'_>) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO nowhere VALUES (1)").execute(&mut *tx.connection).await.map(|_| ())
    }
}

/// Holds its transaction open, so that what comes meanwhile shares the next one.
struct Held {
    begun: Arc<Notify>,
    go: Arc<Notify>,
}

impl writer::Write for Held {
    type Output = ();

    async fn run(&self, _: &mut writer::Transaction<'_>) -> Result<(), sqlx::Error> {
        self.begun.notify_one();
        self.go.notified().await;
        Ok(())
    }
}

#[tokio::test]
async fn the_neighbours_of_a_write_that_fails_are_written_as_if_it_had_not_been_there() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let ids = [fixture.receive("a").await, fixture.receive("b").await, fixture.receive("c").await];
    let refusal = EventRefusal {
        event_id: ids[2].clone(),
        reason: "not there".to_owned(),
        matched_rule: None,
        redeliverable: true,
        asked: Party::Rules,
    };
    let [begun, go] = [(); 2].map(|()| Arc::new(Notify::new()));
    let held = Held { begun: begun.clone(), go: go.clone() };
    let held = {
        let store = store.clone();
        tokio::spawn(async move { store.writes.run(held).await })
    };
    begun.notified().await;
    // Each is handed over when it is asked for the first time, one after the other.
    let (first, newer, outrun, broken, second, refused, ()) = tokio::join!(
        store.receive("hub", vec![event("d"), event("d"), event("e")]),
        store.decide(decision(&ids[0], "a", None)),
        store.decide(decision(&ids[1], "b", None)),
        store.writes.run(Broken),
        store.receive("hub", vec![event("d"), event("f")]),
        store.refuse_event(refusal),
        // All of them wait by now.
        async { go.notify_one() },
    );
    held.await.unwrap().unwrap();
    assert!(broken.is_err());
    refused.unwrap();
    assert_eq!(fixture.event_state(&ids[2]).await, EventState::Refused);

    // Nothing is told of a run that was taken back, and nothing is there twice.
    let (first, second) = (first.unwrap(), second.unwrap());
    let states = |received: &[Received]| received.iter().map(|one| one.state).collect::<Vec<_>>();
    let all: Vec<_> = [states(&first), states(&second)].concat();
    assert_eq!(all.iter().filter(|state| **state == ReceivedState::Queued).count(), 3, "{all:?}");
    assert_eq!((first.len(), second.len()), (3, 2));
    assert_eq!((&first[0].id, &first[0].id), (&first[1].id, &second[0].id));
    for (received, tag) in first.iter().zip(["d", "d", "e"]).chain(second.iter().zip(["d", "f"])) {
        assert_eq!(store.event(&received.id).await.unwrap().unwrap().tag.as_str(), tag);
    }
    let filter = EventFilter { repository: None, state: None, failed: false, limit: 100 };
    assert_eq!(store.events(&filter).await.unwrap().len(), 6);
    assert_eq!(newer.unwrap(), Decided::Done(vec![("staging".to_owned(), UpdateState::Pending)]));
    assert_eq!(outrun.unwrap(), Decided::Outrun);
    assert_eq!(store.updates_of(&ids[0]).await.unwrap().len(), 1);
    assert_eq!(store.updates_of(&ids[1]).await.unwrap(), []);
    // The one that was outrun is compared again.
    assert_eq!(fixture.decide(&ids[1], "b").await, UpdateState::Pending);
}

#[tokio::test]
async fn a_store_has_one_owner_and_says_when_it_cannot_be_written() {
    let fixture = Fixture::new().await;
    let path = fixture.folder.path().join("state/tagrelay.db");
    let Err(error) = Store::open(&StoreSettings { path: path.clone() }).await else { panic!("opened twice") };
    assert!(error.to_string().contains("another process has it open"), "{error}");
    assert!(fixture.store.writes.run(Broken).await.is_err());
    assert!(fixture.store.writes.last_failed());
    // The next look tries for real, and finds it mended.
    fixture.store.check().await.unwrap();
    assert!(!fixture.store.writes.last_failed());
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagrelay.db");
    std::fs::write(&path, "this is not a database, and long enough to be looked at as one").unwrap();
    let Err(error) = Store::open(&StoreSettings { path: path.clone() }).await else { panic!("opened") };
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn what_was_pending_before_traces_were_kept_goes_on_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagrelay.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    MIGRATIONS.run_to(1, &mut connection).await.unwrap();
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
    let updates = store.pending_updates(&["staging".to_owned()], 9).await.unwrap();
    let traces: Vec<_> = updates.iter().map(|update| (update.id.as_str(), update.trace == event.trace)).collect();
    assert_eq!(traces, [("U", true), ("V", false)]);
}
