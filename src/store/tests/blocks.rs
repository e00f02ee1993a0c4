use jiff::SignedDuration;

use super::*;
use crate::policy::{FreezeCalendar, FreezeSchedule, FreezeSpan, FreezeWindow};

const FRIDAY: &str = "2026-11-27T14:59:59Z";
const FRIDAY_EVENING: &str = "2026-11-27T15:00:00Z";
const SATURDAY: &str = "2026-11-28T12:00:00Z";
const MONDAY: &str = "2026-11-30T07:00:00Z";

/// From Friday, 16:00, to Monday, 8:00, in Berlin.
fn weekend() -> FreezeCalendar {
    let zone = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
    let span = FreezeSpan::Weekly { from: "Fri 16:00".parse().unwrap(), until: "Mon 08:00".parse().unwrap(), zone };
    let window = FreezeWindow { span, reason: Some("weekend".to_owned()) };
    FreezeCalendar::new([("staging".to_owned(), FreezeSchedule::new(vec![window]))])
}

#[tokio::test]
async fn updates_wait_for_a_hold_and_go_on_when_it_is_released() {
    let fixture = Fixture::new().await;
    let before = fixture.pushed("a").await;
    let hold = fixture.hold().await;
    assert_eq!(fixture.states(&[&before]).await, [UpdateState::Pending], "the branch writer makes it wait");
    let after = fixture.pushed("b").await;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&before, &after]).await, [UpdateState::Waiting; 2]);
    assert_eq!(fixture.event_state(&before).await, EventState::Waiting);
    let reason = hold.explanation();
    assert_eq!(fixture.update_of(&after).await.reason.as_deref(), Some(reason.as_str()));
    let events = fixture.store.events(&EventFilter { limit: 10, ..EventFilter::default() }).await.unwrap();
    assert!(events.iter().all(|event| event.reason.as_deref() == Some(reason.as_str())));
    let backlog = fixture.store.backlog().await.unwrap();
    assert_eq!((backlog.open_updates, backlog.oldest_update, backlog.oldest_event), (2, None, None));

    assert_eq!(fixture.release(&hold).await.as_ref(), Some(&hold));
    assert_eq!(fixture.states(&[&before, &after]).await, [UpdateState::Pending; 2]);
    assert_eq!(fixture.event_state(&after).await, EventState::Pending);
    assert_eq!(fixture.store.event(&after).await.unwrap().unwrap().reason, None);
    // The age of an update counts from the end of its wait.
    let update = fixture.update_of(&after).await;
    assert!(update.released_at.unwrap() >= update.received_at);
    assert_eq!(fixture.store.backlog().await.unwrap().oldest_update, update.released_at);
    let queued = fixture.receive("c").await;
    let received_at = fixture.store.event(&queued).await.unwrap().unwrap().received_at;
    assert_eq!(fixture.store.backlog().await.unwrap().oldest_event, Some(received_at));
    assert_eq!(fixture.release(&hold).await, None);
    assert!(fixture.holds().await.is_empty());
}

#[tokio::test]
async fn hold_does_not_end_under_the_name_of_a_freeze() {
    let fixture = Fixture::new().await;
    let hold = fixture.hold().await;
    assert_eq!(fixture.thaw(&hold).await, None);
    assert_eq!(fixture.holds().await, [hold]);
}

#[tokio::test]
async fn hold_expires_at_its_time() {
    let clock = Clock::stopped_at(at(FRIDAY));
    let fixture = Fixture::with(clock.clone()).await;
    let expiry = clock.now() + Duration::from_secs(60);
    let hold = fixture.store.block(hold(Some(expiry))).await.unwrap().block;
    let id = fixture.pushed("a").await;
    fixture.decide().await;
    assert_eq!(fixture.store.next_wait_change(clock.now()).await.unwrap(), NextWait { due: false, at: Some(expiry) });
    assert!(!fixture.store.review_waits().await.unwrap());
    clock.set(expiry);
    assert!(fixture.holds().await.is_empty());
    assert_eq!(fixture.store.next_wait_change(expiry).await.unwrap(), NextWait { due: true, at: None });
    assert!(fixture.store.review_waits().await.unwrap());
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Pending]);
    assert_eq!(fixture.store.next_wait_change(expiry).await.unwrap(), NextWait { due: false, at: None });
    assert!(!fixture.store.review_waits().await.unwrap());
    assert_eq!(fixture.release(&hold).await, None);
}

#[tokio::test]
async fn update_waits_for_hold_and_freeze_until_both_have_ended() {
    for hold_ends_first in [true, false] {
        let fixture = Fixture::new().await;
        let (hold, freeze) = (fixture.hold().await, fixture.freeze(None).await);
        let id = fixture.pushed("a").await;
        fixture.decide().await;
        let reason = fixture.update_of(&id).await.reason.unwrap();
        assert!(reason.contains(&hold.id) && reason.contains(&freeze.id), "{reason}");
        let end_hold = async || drop(fixture.release(&hold).await.unwrap());
        let end_freeze = async || drop(fixture.thaw(&freeze).await.unwrap());
        if hold_ends_first {
            end_hold().await
        } else {
            end_freeze().await
        }
        let reason = fixture.update_of(&id).await.reason.unwrap();
        assert_eq!((reason.contains(&hold.id), reason.contains(&freeze.id)), (!hold_ends_first, hold_ends_first));
        assert_eq!(fixture.event_state(&id).await, EventState::Waiting);
        if hold_ends_first {
            end_freeze().await
        } else {
            end_hold().await
        }
        assert_eq!(fixture.event_state(&id).await, EventState::Pending);
    }
}

#[tokio::test]
async fn update_waits_for_a_block_that_came_while_it_waited_for_another() {
    let fixture = Fixture::new().await;
    let hold = fixture.hold().await;
    let id = fixture.pushed("a").await;
    fixture.decide().await;
    let freeze = fixture.freeze(None).await;
    fixture.release(&hold).await;
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Waiting]);
    assert!(fixture.update_of(&id).await.reason.unwrap().contains(&freeze.id));
    fixture.thaw(&freeze).await;
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Pending]);
}

#[tokio::test]
async fn update_that_waits_for_something_else_stays_when_a_block_ends() {
    let fixture = Fixture::new().await;
    let (rejected, held) = (fixture.pushed("a").await, fixture.pushed("b").await);
    let rejected_id = fixture.update_of(&rejected).await.id;
    let second = Duration::from_secs(1);
    let retry = Retry { first: second * 60, longest: second * 60, give_up_after: second * 3600 };
    fixture.store.reject(vec![rejected_id], "a hook said no".to_owned(), retry).await.unwrap();
    let hold = fixture.hold().await;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&rejected, &held]).await, [UpdateState::Waiting; 2]);
    // The reason also names the hold, because the hold would stop the next try.
    let reason = fixture.update_of(&rejected).await.reason.unwrap();
    assert!(reason.contains(&hold.id) && reason.contains("a hook said no"), "{reason}");
    fixture.release(&hold).await;
    assert_eq!(fixture.states(&[&rejected, &held]).await, [UpdateState::Waiting, UpdateState::Pending]);
    assert!(!fixture.store.review_waits().await.unwrap());
}

#[tokio::test]
async fn block_names_the_pushes_that_were_sent_before_it() {
    let fixture = Fixture::new().await;
    let (ours, other) = (fixture.pushed("a").await, fixture.pushed_to("uyou/order-service", "a").await);
    let push = fixture.begin_push(&[&ours, &other]).await.unwrap();
    let user_service = repository().to_string();
    let made = fixture.store.block(hold(None)).await.unwrap();
    assert_eq!(made.under_way, std::slice::from_ref(&user_service));
    let made = fixture.store.block(freeze(None)).await.unwrap();
    assert_eq!(made.under_way, ["docker.io/uyou/order-service".to_owned(), user_service]);
    let elsewhere = NewBlock { environment: "qa".to_owned(), ..freeze(None) };
    assert!(fixture.store.block(elsewhere).await.unwrap().under_way.is_empty());
    fixture.store.end_push(&push, PushInput::FindLanded, false).await.unwrap();
    assert!(fixture.store.block(hold(None)).await.unwrap().under_way.is_empty());
}

#[tokio::test]
async fn hold_is_about_its_place_and_freeze_about_its_environment() {
    let fixture = Fixture::new().await;
    let hold = fixture.hold().await;
    let (held, free) = (fixture.pushed("a").await, fixture.pushed_to("uyou/order-service", "b").await);
    fixture.decide().await;
    assert_eq!(fixture.states(&[&held, &free]).await, [UpdateState::Waiting, UpdateState::Pending]);
    let elsewhere = fixture.store.block(NewBlock { environment: "qa".to_owned(), ..freeze(None) }).await.unwrap().block;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&free]).await, [UpdateState::Pending]);
    assert_eq!(fixture.store.blocks().await.unwrap().rows, [hold, elsewhere]);
}

#[tokio::test]
async fn blocks_of_environments_that_the_settings_do_not_have_end() {
    let fixture = Fixture::new().await;
    let (hold, freeze) = (fixture.hold().await, fixture.freeze(None).await);
    let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let end =
        async |names: &[&str]| fixture.store.end_blocks_elsewhere(&known(names), BlockKind::Freeze).await.unwrap();
    assert!(end(&["staging"]).await.is_empty());
    assert_eq!(end(&["qa"]).await, [freeze]);
    assert_eq!(fixture.store.blocks().await.unwrap().rows, [hold]);
}

#[tokio::test]
async fn window_of_the_settings_begins_and_ends_by_the_clock() {
    let clock = Clock::stopped_at(at(FRIDAY));
    let fixture = Fixture::with(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    let evening = at(FRIDAY_EVENING);
    assert_eq!(fixture.store.next_wait_change(clock.now()).await.unwrap(), NextWait { due: false, at: Some(evening) });
    let prepared = fixture.pushed("a").await;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&prepared]).await, [UpdateState::Pending]);
    clock.set(evening);
    fixture.decide().await;
    let reason = "`staging` is frozen until 2026-11-30T07:00:00Z by the settings (weekend: Fri 16:00 to Mon 08:00 Europe/Berlin)";
    assert_eq!(fixture.update_of(&prepared).await.reason.as_deref(), Some(reason));

    // A restart in the middle, and a new build.
    let fixture = fixture.restart(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    clock.set(at(SATURDAY));
    let newer = fixture.pushed("b").await;
    fixture.decide().await;
    assert!(!fixture.store.review_waits().await.unwrap());
    assert_eq!(fixture.states(&[&prepared, &newer]).await, [UpdateState::Waiting; 2]);

    // The clock is set back to before the window, and then forward. No update is lost.
    clock.set(at(FRIDAY));
    assert!(fixture.store.next_wait_change(at(FRIDAY)).await.unwrap().due);
    assert!(fixture.store.review_waits().await.unwrap());
    assert_eq!(fixture.states(&[&prepared, &newer]).await, [UpdateState::Pending; 2]);
    clock.set(at(SATURDAY));
    fixture.decide().await;
    assert_eq!(fixture.states(&[&newer]).await, [UpdateState::Waiting]);
    clock.set(at(MONDAY));
    assert!(fixture.store.next_wait_change(at(MONDAY)).await.unwrap().due);
    assert!(fixture.store.review_waits().await.unwrap());
    assert_eq!(fixture.states(&[&prepared, &newer]).await, [UpdateState::Pending; 2]);
}

#[tokio::test]
async fn settings_without_the_window_end_it() {
    let fixture = Fixture::with(Clock::stopped_at(at(SATURDAY))).await;
    fixture.store.set_freeze_calendar(weekend());
    let id = fixture.pushed("a").await;
    fixture.decide().await;
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Waiting]);
    fixture.store.set_freeze_calendar(FreezeCalendar::default());
    assert!(fixture.store.next_wait_change(at(SATURDAY)).await.unwrap().due);
    assert!(fixture.store.review_waits().await.unwrap());
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Pending]);
}

#[tokio::test]
async fn freeze_that_ends_within_a_window_leaves_the_window() {
    let clock = Clock::stopped_at(at(SATURDAY));
    let fixture = Fixture::with(clock.clone()).await;
    fixture.store.set_freeze_calendar(weekend());
    let ends = at(SATURDAY) + SignedDuration::from_hours(1);
    fixture.freeze(Some(ends)).await;
    assert_eq!(fixture.store.next_wait_change(clock.now()).await.unwrap().at, Some(ends));
    let id = fixture.pushed("a").await;
    fixture.decide().await;
    assert!(fixture.update_of(&id).await.reason.unwrap().contains(" and by "));
    clock.set(ends);
    fixture.store.review_waits().await.unwrap();
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Waiting]);
    let reason = fixture.update_of(&id).await.reason.unwrap();
    assert!(reason.contains("weekend") && !reason.contains("incident"), "{reason}");

    // A freeze that reaches beyond the window determines the end of the wait.
    let until = at(MONDAY) + SignedDuration::from_hours(3);
    fixture.freeze(Some(until)).await;
    let frozen = fixture.store.blocks().await.unwrap().frozen("staging", clock.now()).unwrap();
    assert_eq!(frozen.until, Some(until));
    clock.set(at(MONDAY));
    fixture.store.review_waits().await.unwrap();
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Waiting]);
    clock.set(until);
    fixture.store.review_waits().await.unwrap();
    assert_eq!(fixture.states(&[&id]).await, [UpdateState::Pending]);
}

#[tokio::test]
async fn rollback_and_override_pass_a_freeze_and_say_so() {
    let fixture = Fixture::new().await;
    let urgent = |tag| NewRequest { overrides: true, reason: Some("hotfix".to_owned()), ..promotion(tag) };
    let before = fixture.confirmed(urgent("b")).await;
    let update = fixture.update_of(&before.id).await;
    assert_eq!((before.overridden, update.override_reason), (None, None), "nothing was in the way");
    let freeze = fixture.freeze(None).await;
    let frozen = format!("`staging` is frozen until it is thawed by {} (oncall: incident)", freeze.id);
    let request = fixture.confirmed(urgent("c")).await;
    assert_eq!(request.overridden.as_deref(), Some(frozen.as_str()));
    assert_eq!(fixture.update_of(&request.id).await.override_reason.as_deref(), Some("hotfix"));
    let back = fixture.confirmed(rollback("a")).await;
    assert_eq!(back.overridden, Some(format!("{frozen}; rollbacks ignore freezes")));
    assert_eq!(fixture.update_of(&back.id).await.override_reason.as_deref(), Some(crate::store::requests::UNEXPLAINED));
    fixture.decide().await;
    assert_eq!(fixture.states(&[&request.id, &back.id]).await, [UpdateState::Pending; 2]);
}
