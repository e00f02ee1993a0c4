use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::policy::{FreezeSchedule, FreezeSpan, FreezeWindow};
use crate::store::requests::UNEXPLAINED;
use crate::store::tests::{Fixture, attempt, decision, event, hold, rollback};
use crate::store::{
    Decided, EventState, Finish, NewEvent, NewRequest, Outcome, Recording, Request, RequestKind, RequestMade, Update,
    UpdateState,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A Friday, three hours before the weekend of `weekend` begins.
const FRIDAY: &str = "2026-11-27T12:00:00Z";
const SATURDAY: &str = "2026-11-28T12:00:00Z";
const MONDAY: &str = "2026-11-30T07:00:00Z";

fn weekend() -> FreezeCalendar {
    let zone = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
    let span = FreezeSpan::Weekly { from: "Fri 16:00".parse().unwrap(), until: "Mon 08:00".parse().unwrap(), zone };
    let window = FreezeWindow { span, reason: Some("weekend".to_owned()) };
    FreezeCalendar::new([("staging".to_owned(), FreezeSchedule::new(vec![window]))])
}

fn switch(expires_at: Option<Timestamp>) -> NewFreeze {
    NewFreeze {
        environment: "staging".to_owned(),
        reason: "incident".to_owned(),
        actor: "oncall".to_owned(),
        expires_at,
    }
}

impl Fixture {
    async fn pushed(&self, tag: &str) -> String {
        let id = self.receive(tag).await;
        self.decide(&id, tag).await;
        id
    }

    async fn pushed_to(&self, repository: &str, tag: &str) -> String {
        let repository: Repository = repository.parse().unwrap();
        let new = NewEvent { repository: repository.clone(), ..event(&format!("{tag}-other")) };
        let id = self.store.receive("hub", vec![new]).await.unwrap().remove(0).id;
        let mark = self.store.standing("staging", &repository).await.unwrap().mark;
        let decided = self.store.decide(decision(&id, tag, mark)).await.unwrap();
        assert!(matches!(decided, Decided::Done(states) if states.len() == 1));
        id
    }

    async fn asked(&self, request: NewRequest) -> Request {
        match self.store.make_request(request).await.unwrap() {
            RequestMade::New { request, .. } => request,
            RequestMade::Repeated(_) => panic!("without a key every request is new"),
        }
    }

    /// Asks for a promotion that the registry confirms.
    async fn promoted(&self, tag: &str, overrides: bool) -> (Request, Update) {
        let reason = overrides.then(|| "hotfix".to_owned());
        let request = NewRequest { kind: RequestKind::Promotion, hold: None, overrides, reason, ..rollback(tag, None) };
        self.verified(request).await
    }

    async fn asked_for_what_runs(&self, tag: &str) -> (Request, Update) {
        let mut request = NewRequest { kind: RequestKind::Promotion, hold: None, ..rollback(tag, None) };
        request.updates[0].state = UpdateState::Unchanged;
        let request = self.asked(request).await;
        let update = self.update_of(&request.id).await;
        (request, update)
    }

    async fn verified(&self, request: NewRequest) -> (Request, Update) {
        let request = self.asked(request).await;
        let update = self.update_of(&request.id).await;
        let state = self.store.verify_update(&update.id, None, None).await.unwrap();
        let update = self.update_of(&request.id).await;
        assert_eq!(state, Some(update.state));
        (request, update)
    }

    async fn states(&self, causes: &[&str]) -> Vec<&'static str> {
        let mut states = Vec::new();
        for cause in causes {
            states.push(self.update_of(cause).await.state.as_str());
        }
        states
    }
}

#[tokio::test]
async fn what_comes_during_a_freeze_waits_and_the_newest_of_each_repository_goes() {
    let fixture = Fixture::new().await;
    let before = fixture.pushed("a").await;
    let freeze = fixture.store.freeze(switch(None)).await.unwrap();
    let after = fixture.pushed("b").await;
    let other = fixture.pushed_to("uyou/order-service", "b").await;
    let (promotion, _) = fixture.promoted("c", false).await;
    let all = [&*before, &after, &promotion.id, &other];
    assert_eq!(fixture.states(&all).await, ["waiting"; 4]);
    let expected = format!("`staging` is frozen until it is thawed by {} (oncall: incident)", freeze.id);
    for cause in all {
        assert_eq!(fixture.update_of(cause).await.reason.as_deref(), Some(expected.as_str()));
    }
    assert_eq!(fixture.event_state(&after).await, EventState::Waiting);
    let backlog = fixture.store.backlog().await.unwrap();
    assert_eq!((backlog.open_updates, backlog.oldest_update), (4, None), "nobody is woken because of a freeze");
    assert!(!fixture.store.waits_in_vain(&["staging".to_owned()]).await.unwrap());

    // Doing nothing new changes nothing.
    assert_eq!(fixture.store.review_freezes().await.unwrap(), FreezeReview::default());
    assert_eq!(fixture.store.thaw(&freeze.id, "oncall").await.unwrap().as_ref(), Some(&freeze));
    assert_eq!(fixture.states(&all).await, ["superseded", "superseded", "pending", "pending"]);
    assert_eq!(fixture.event_state(&before).await, EventState::Superseded);
    assert_eq!(fixture.store.thaw(&freeze.id, "oncall").await.unwrap(), None);
    assert_eq!(fixture.store.freezes().await.unwrap(), []);
}

#[tokio::test]
async fn what_waits_ends_when_something_newer_is_written() {
    let fixture = Fixture::new().await;
    let freeze = fixture.store.freeze(switch(None)).await.unwrap();
    let event = fixture.pushed("a").await;
    let (older, _) = fixture.promoted("b", false).await;
    let (urgent, update) = fixture.promoted("c", true).await;
    let (later, _) = fixture.promoted("d", false).await;
    let all = [&*event, &older.id, &urgent.id, &later.id];
    assert_eq!(fixture.states(&all).await, ["waiting", "waiting", "pending", "waiting"]);
    fixture.record(vec![attempt(&update.id)]).await.unwrap();
    fixture.finish(&urgent.id, Outcome::Committed).await;
    assert_eq!(fixture.states(&all).await, ["superseded", "superseded", "committed", "waiting"]);
    let reason = fixture.update_of(&older.id).await.reason.unwrap();
    assert_eq!(reason, "older: c was taken later for staging");
    // Somebody wants what runs, and not what was asked for before.
    let (_, what_runs) = fixture.asked_for_what_runs("c").await;
    assert_eq!(what_runs.state, UpdateState::Unchanged);
    assert_eq!(fixture.states(&[&later.id]).await, ["superseded"]);
    fixture.store.thaw(&freeze.id, "oncall").await.unwrap();
    assert_eq!(fixture.states(&all).await, ["superseded", "superseded", "committed", "superseded"]);
}

/// What is recorded and ended together comes to what each would come to alone.
#[tokio::test]
async fn a_push_of_many_is_recorded_and_ended_row_by_row() {
    let clock = Clock::stopped_at(at(FRIDAY));
    let fixture = Fixture::with(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    let (old, new) = (fixture.pushed_to("uyou/one", "a").await, fixture.pushed_to("uyou/one", "b").await);
    let (doubtful, _) = (fixture.pushed_to("uyou/two", "c").await, fixture.pushed_to("uyou/two", "d").await);
    let back = fixture.asked(rollback("a", None)).await;
    let id = async |cause: &str| fixture.update_of(cause).await.id;
    let back = id(&back.id).await;
    fixture.store.verify_update(&back, None, None).await.unwrap();
    let (old, new, doubtful) = (id(&old).await, id(&new).await, id(&doubtful).await);

    clock.set(at(SATURDAY));
    let ids = [&old, &back, "gone", &doubtful, &new];
    let attempts = ids.map(attempt).to_vec();
    let recording = Recording { attempts, in_doubt: [doubtful.clone()].into(), ..Recording::default() };
    let dropped = fixture.store.record(recording).await.unwrap();
    let dropped: Vec<(&str, UpdateState)> = dropped.iter().map(|(id, state)| (id.as_str(), *state)).collect();
    let expected = [
        (old.as_str(), UpdateState::Superseded),
        ("gone", UpdateState::Superseded),
        (&doubtful, UpdateState::Pending),
        (&new, UpdateState::Waiting),
    ];
    assert_eq!(dropped, expected);
    let commits: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT id, commit_id FROM updates").fetch_all(&fixture.store.reads).await.unwrap();
    for (id, commit) in commits {
        assert_eq!(commit.is_some(), id == back, "{id}");
    }

    // The rollback is on the branch, and keeps its hold; the other ones get their own ends, and their events theirs.
    let finish = |id: &str, outcome| Finish { update_id: id.to_owned(), outcome, follow: false, asked: None };
    let refused = Outcome::Refused { reason: "no".to_owned() };
    let ended = vec![finish(&doubtful, refused), finish(&back, Outcome::Committed), finish(&old, Outcome::Committed)];
    fixture.store.finish(ended).await.unwrap();
    assert_eq!(fixture.store.holds().await.unwrap().len(), 1);
    let states: Vec<(String, String)> =
        sqlx::query_as("SELECT id, state FROM updates").fetch_all(&fixture.store.reads).await.unwrap();
    let state_of = |id: &str| states.iter().find(|(other, _)| other == id).map(|(_, state)| state.as_str());
    assert_eq!(
        [&doubtful, &back, &old, &new].map(|id| state_of(id)),
        [Some("refused"), Some("committed"), Some("superseded"), Some("waiting")],
        "what has ended before stays as it is"
    );
    let events: Vec<String> =
        sqlx::query_scalar("SELECT state FROM events ORDER BY id").fetch_all(&fixture.store.reads).await.unwrap();
    assert_eq!(events, ["superseded", "waiting", "refused", "pending"]);
}

#[tokio::test]
async fn a_window_counts_at_the_time_of_each_transaction() {
    let clock = Clock::stopped_at(at(FRIDAY));
    let fixture = Fixture::with(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    assert_eq!(fixture.store.frozen().await.unwrap(), []);
    assert_eq!(fixture.store.next_freeze_change(clock.now()).await.unwrap(), Some(at("2026-11-27T15:00:00Z")));
    let prepared = fixture.pushed("a").await;
    assert_eq!(fixture.states(&[&prepared]).await, ["pending"]);

    // It begins while the commit is prepared.
    clock.set(at("2026-11-27T15:00:00Z"));
    let update = fixture.update_of(&prepared).await;
    let dropped = fixture.record(vec![attempt(&update.id)]).await.unwrap();
    assert_eq!(dropped, [(update.id, UpdateState::Waiting)]);
    let frozen = fixture.store.frozen().await.unwrap();
    assert_eq!(frozen[0].until, Some(at(MONDAY)));
    let reason = "`staging` is frozen until 2026-11-30T07:00:00Z by the settings (weekend: Fri 16:00 to Mon 08:00 Europe/Berlin)";
    assert_eq!(fixture.update_of(&prepared).await.reason.as_deref(), Some(reason));

    // A restart in the middle, and a new build.
    let fixture = fixture.restart(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    clock.set(at(SATURDAY));
    let newer = fixture.pushed("b").await;
    assert_eq!(fixture.store.review_freezes().await.unwrap(), FreezeReview::default());
    assert_eq!(fixture.states(&[&prepared, &newer]).await, ["waiting"; 2]);

    // The clock is set back to before the window, and then on: nothing is lost either way.
    clock.set(at(FRIDAY));
    assert!(fixture.store.waits_in_vain(&["staging".to_owned()]).await.unwrap());
    assert_eq!(fixture.store.review_freezes().await.unwrap().released, ["staging"]);
    assert_eq!(fixture.states(&[&prepared, &newer]).await, ["superseded", "pending"]);
    clock.set(at(SATURDAY));
    assert_eq!(fixture.store.review_freezes().await.unwrap().parked, ["staging"]);
    assert_eq!(fixture.states(&[&newer]).await, ["waiting"]);
    clock.set(at(MONDAY));
    assert_eq!(fixture.store.review_freezes().await.unwrap().released, ["staging"]);
    assert_eq!(fixture.states(&[&newer]).await, ["pending"]);
}

#[tokio::test]
async fn settings_without_the_window_end_it() {
    let fixture = Fixture::with(Clock::stopped_at(at(SATURDAY))).await;
    fixture.store.set_freeze_calendar(weekend());
    let id = fixture.pushed("a").await;
    assert_eq!(fixture.states(&[&id]).await, ["waiting"]);
    fixture.store.set_freeze_calendar(FreezeCalendar::default());
    assert_eq!(fixture.store.review_freezes().await.unwrap().released, ["staging"]);
    assert_eq!(fixture.states(&[&id]).await, ["pending"]);
}

#[tokio::test]
async fn a_switch_that_ends_within_a_window_leaves_the_window() {
    let clock = Clock::stopped_at(at(SATURDAY));
    let fixture = Fixture::with(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    let ends = at(SATURDAY) + SignedDuration::from_hours(1);
    fixture.store.freeze(switch(Some(ends))).await.unwrap();
    assert_eq!(fixture.store.next_freeze_change(clock.now()).await.unwrap(), Some(ends));
    let id = fixture.pushed("a").await;
    assert!(fixture.update_of(&id).await.reason.unwrap().contains(" and by "));
    clock.set(ends);
    assert_eq!(fixture.store.review_freezes().await.unwrap(), FreezeReview::default());
    let reason = fixture.update_of(&id).await.reason.unwrap();
    assert!(reason.contains("weekend") && !reason.contains("incident"), "{reason}");

    // One that reaches beyond the window is what it waits for in the end.
    let until = at(MONDAY) + SignedDuration::from_hours(3);
    fixture.store.freeze(switch(Some(until))).await.unwrap();
    assert_eq!(fixture.store.frozen().await.unwrap()[0].until, Some(until));
    clock.set(at(MONDAY));
    assert_eq!(fixture.store.review_freezes().await.unwrap(), FreezeReview::default());
    clock.set(until);
    assert_eq!(fixture.store.review_freezes().await.unwrap().released, ["staging"]);
    assert_eq!(fixture.states(&[&id]).await, ["pending"]);
}

#[tokio::test]
async fn what_is_held_and_frozen_waits_for_both() {
    for hold_ends_first in [true, false] {
        let fixture = Fixture::new().await;
        let held = fixture.store.hold(hold(None)).await.unwrap();
        let freeze = fixture.store.freeze(switch(None)).await.unwrap();
        let id = fixture.pushed("a").await;
        let reason = fixture.update_of(&id).await.reason.unwrap();
        assert!(reason.contains(&held.id) && reason.contains(&freeze.id), "{reason}");
        if hold_ends_first {
            fixture.store.release_hold(&held.id, "oncall").await.unwrap();
        } else {
            fixture.store.thaw(&freeze.id, "oncall").await.unwrap();
        }
        let reason = fixture.update_of(&id).await.reason.unwrap();
        assert_eq!((reason.contains(&held.id), reason.contains(&freeze.id)), (!hold_ends_first, hold_ends_first));
        assert_eq!(fixture.event_state(&id).await, EventState::Waiting);
        if hold_ends_first {
            fixture.store.thaw(&freeze.id, "oncall").await.unwrap();
        } else {
            fixture.store.release_hold(&held.id, "oncall").await.unwrap();
        }
        assert_eq!(fixture.event_state(&id).await, EventState::Pending);
    }
}

#[tokio::test]
async fn a_rollback_and_what_overrides_pass_and_say_so() {
    let fixture = Fixture::new().await;
    let (before, update) = fixture.promoted("b", true).await;
    assert_eq!((before.overridden, update.override_reason), (None, None), "nothing was in the way");
    let freeze = fixture.store.freeze(switch(None)).await.unwrap();
    let frozen = format!("`staging` is frozen until it is thawed by {} (oncall: incident)", freeze.id);
    let (request, update) = fixture.promoted("c", true).await;
    assert_eq!((request.overridden.as_deref(), update.state), (Some(frozen.as_str()), UpdateState::Pending));
    assert_eq!(update.override_reason.as_deref(), Some("hotfix"));
    assert!(fixture.record(vec![attempt(&update.id)]).await.unwrap().is_empty());

    let (request, update) = fixture.verified(rollback("a", None)).await;
    assert_eq!(request.overridden, Some(format!("{frozen}; a rollback passes")));
    assert_eq!((update.state, update.override_reason.as_deref()), (UpdateState::Pending, Some(UNEXPLAINED)));
    assert!(fixture.record(vec![attempt(&update.id)]).await.unwrap().is_empty());
    assert_eq!(fixture.store.review_freezes().await.unwrap(), FreezeReview::default());
    assert_eq!(fixture.update_of(&request.id).await.state, UpdateState::Pending);
}

#[tokio::test]
async fn a_freeze_is_about_its_environment_only() {
    let fixture = Fixture::new().await;
    fixture.store.freeze(NewFreeze { environment: "production".to_owned(), ..switch(None) }).await.unwrap();
    let id = fixture.pushed("a").await;
    assert_eq!(fixture.states(&[&id]).await, ["pending"]);
}
