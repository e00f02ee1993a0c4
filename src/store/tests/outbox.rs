use std::collections::BTreeMap;

use super::*;
use crate::domain::{Change, EventInput, event_transition, update_transition};
use crate::store::apply::{EventStep, Step, apply, apply_events};
use crate::store::writer::{Transaction, Write};

/// Applies inputs, as the methods of the store do.
struct Steps(Vec<Step>);

impl Write for Steps {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        apply(tx, self.0.clone()).await.map(|_| ())
    }
}

struct EventSteps(String, EventStep);

impl Write for EventSteps {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        apply_events(tx, &BTreeMap::from([(self.0.clone(), self.1.clone())])).await.map(|_| ())
    }
}

/// Sets the state of a row, whatever its old state is.
struct SetState(&'static str, String, &'static str);

impl Write for SetState {
    type Output = ();

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<(), sqlx::Error> {
        let statement = format!("UPDATE {} SET state = $1 WHERE id = $2", self.0);
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(self.2).bind(&self.1).execute(&mut *tx.connection).await?;
        Ok(())
    }
}

fn of_update<'a>(entries: &'a [Entry], update_id: &str) -> Vec<&'a str> {
    let state = |entry: &'a Entry| match &entry.change {
        Change::Update { id, state, .. } if id == update_id => Some(state.as_str()),
        _ => None,
    };
    entries.iter().filter_map(state).collect()
}

fn of_event<'a>(entries: &'a [Entry], event_id: &str) -> Vec<&'a str> {
    let state = |entry: &'a Entry| match &entry.change {
        Change::Event { id, state, .. } if id == event_id => Some(state.as_str()),
        _ => None,
    };
    entries.iter().filter_map(state).collect()
}

#[tokio::test]
async fn each_transition_of_an_update_writes_one_entry() {
    let fixture = Fixture::new().await;
    let event = fixture.pushed("a").await;
    let id = fixture.update_of(&event).await.id;
    let held = Wait { cause: WaitCause::Hold, detail: None, until: None };
    for state in UpdateState::ALL {
        for input in UpdateInput::ALL {
            fixture.store.writes.run(SetState("updates", id.clone(), state.as_str())).await.unwrap();
            let before = fixture.store.last_sequence();
            let step = Step {
                waits: vec![held.clone()],
                landed: Some(attempted(&id)),
                ..Step::new(&id, *input).because("why".to_owned())
            };
            fixture.store.writes.run(Steps(vec![step])).await.unwrap();
            let entries = fixture.entries_after(before).await;
            let expected: Vec<&str> = match update_transition(*state, *input) {
                Some((next, _)) if *input != UpdateInput::Postpone => vec![next.as_str()],
                _ => vec![],
            };
            assert_eq!(of_update(&entries, &id), expected, "{state}: {input}");
            assert!(entries.iter().all(|entry| matches!(entry.change, Change::Update { .. } | Change::Event { .. })));
            let next = update_transition(*state, *input).map_or(*state, |(next, _)| next);
            let update = fixture.update_of(&event).await;
            assert_eq!(update.state, next, "{state}: {input}");
        }
    }
}

#[tokio::test]
async fn each_transition_of_an_event_writes_one_entry() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    let inputs = [
        (EventInput::Confirm, EventStep::Confirm { matched_rule: "*".to_owned(), digest: None, note: None }),
        (
            EventInput::Postpone,
            EventStep::Postpone { until: Timestamp::UNIX_EPOCH, asked: Party::Registry, reason: "why".to_owned() },
        ),
        (
            EventInput::Refuse,
            EventStep::Refuse {
                reason: "why".to_owned(),
                matched_rule: None,
                redeliverable: false,
                asked: Party::Rules,
            },
        ),
        (EventInput::Replay, EventStep::Replay),
    ];
    for state in EventState::ALL {
        for (input, step) in &inputs {
            fixture.store.writes.run(SetState("events", id.clone(), state.as_str())).await.unwrap();
            let before = fixture.store.last_sequence();
            fixture.store.writes.run(EventSteps(id.clone(), step.clone())).await.unwrap();
            let entries = fixture.entries_after(before).await;
            let expected: Vec<&str> = match event_transition(*state, *input, EventState::Unchanged) {
                Some((next, _)) if *input != EventInput::Postpone => vec![next.as_str()],
                _ => vec![],
            };
            assert_eq!(of_event(&entries, &id), expected, "{state}: {input}");
        }
    }
}

#[tokio::test]
async fn event_that_keeps_its_state_writes_no_entry() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    fixture.confirm(&id, "a", &["staging", "qa"]).await;
    let updates = fixture.store.updates_of(&id).await.unwrap();
    let before = fixture.store.last_sequence();
    for update in &updates {
        let ended = EndedUpdate {
            id: update.id.clone(),
            input: UpdateInput::Refuse,
            reason: Some("no".to_owned()),
            party: None,
        };
        fixture.store.end_updates(vec![ended]).await.unwrap();
    }
    let entries = fixture.entries_after(before).await;
    assert_eq!(of_event(&entries, &id), ["refused"], "the first refusal leaves it pending");
    assert_eq!(entries.len(), 3);
}

#[tokio::test]
async fn entries_tell_the_story_of_an_event_in_order() {
    let fixture = Fixture::new().await;
    let hold = fixture.hold().await;
    let event = fixture.pushed("a").await;
    fixture.decide().await;
    fixture.release(&hold).await;
    fixture.land(&[&event]).await;
    let entries = fixture.entries_after(0).await;
    let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.change.kind()).collect();
    assert_eq!(
        kinds,
        ["hold", "event", "update", "event", "update", "event", "hold", "update", "event", "update", "event"]
    );
    let id = fixture.update_of(&event).await.id;
    assert_eq!(of_update(&entries, &id), ["pending", "waiting", "pending", "committed"]);
    assert_eq!(of_event(&entries, &event), ["queued", "pending", "waiting", "pending", "committed"]);
    let waiting = entries.iter().filter_map(|entry| match &entry.change {
        Change::Update { state, reason, .. } | Change::Event { state, reason, .. } if state == "waiting" => {
            reason.clone()
        }
        _ => None,
    });
    assert_eq!(waiting.collect::<Vec<_>>(), [hold.explanation(), hold.explanation()]);
    let Change::Update { commit, version, cause_id, .. } = &entries[9].change else { panic!("{:?}", entries[9]) };
    assert_eq!((commit.as_deref(), version.as_str(), cause_id), (Some("c0ffee"), "a", &event));
}

#[tokio::test]
async fn requests_holds_and_freezes_write_entries() {
    let fixture = Fixture::new().await;
    let back = fixture.requested(rollback("a")).await.id;
    let kinds = |entries: Vec<Entry>| entries.iter().map(|entry| entry.change.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(fixture.entries_after(0).await), ["request", "hold", "update"]);
    fixture.end(&back, UpdateInput::Refuse, "no").await;
    assert_eq!(kinds(fixture.entries_after(3).await), ["update", "hold"]);

    let before = fixture.store.last_sequence();
    let (first, second) = (fixture.freeze(None).await, fixture.freeze(None).await);
    fixture.thaw(&first).await;
    fixture.thaw(&second).await;
    fixture.store.record_freeze_change("qa", "frozen", Some("weekend".to_owned())).await.unwrap();
    let changes = fixture.entries_after(before).await.into_iter().map(|entry| match entry.change {
        Change::Freeze { environment, state, reason } => (environment, state, reason.is_some()),
        other => panic!("{other:?}"),
    });
    let staging = |state: &str, explained| ("staging".to_owned(), state.to_owned(), explained);
    let expected = [staging("frozen", true), staging("frozen", true), staging("thawed", false)];
    assert_eq!(
        changes.collect::<Vec<_>>(),
        [expected.as_slice(), &[("qa".to_owned(), "frozen".to_owned(), true)]].concat()
    );
}

#[tokio::test]
async fn subscriber_gets_each_entry_once_and_in_order() {
    let fixture = Fixture::new().await;
    fixture.receive("before").await;
    let mut subscriber = fixture.store.subscribe();
    assert_eq!(subscriber.next_if_any().await.unwrap(), None);
    let id = fixture.receive("a").await;
    assert_eq!(of_event(&subscriber.next().await, &id), ["queued"]);
    // A subscriber waits for the next entry.
    let store = fixture.store.clone();
    let next = tokio::spawn(async move { subscriber.next().await });
    let later = store.receive("hub", vec![event("b")]).await.unwrap().remove(0).id;
    assert_eq!(of_event(&next.await.unwrap(), &later), ["queued"]);
}

#[tokio::test]
async fn subscriber_that_falls_behind_reads_the_table() {
    let fixture = Fixture::new().await;
    let mut subscriber = fixture.store.subscribe();
    let mut ids = Vec::new();
    for number in 0..200 {
        ids.push(fixture.receive(&format!("t{number}")).await);
    }
    let mut seen = Vec::new();
    while seen.len() < ids.len() {
        for entry in subscriber.next().await.iter() {
            let Change::Event { id, .. } = &entry.change else { panic!("{entry:?}") };
            seen.push(id.clone());
        }
    }
    assert_eq!(seen, ids);
    // A subscriber that has caught up gets no entry twice.
    let last = fixture.receive("last").await;
    assert_eq!(of_event(&subscriber.next().await, &last), ["queued"]);
    assert_eq!(subscriber.next_if_any().await.unwrap(), None);
}

#[tokio::test]
async fn subscriber_that_is_behind_can_be_drained() {
    let fixture = Fixture::new().await;
    let mut subscriber = fixture.store.subscribe();
    for number in 0..200 {
        fixture.receive(&format!("t{number}")).await;
    }
    let mut seen = 0;
    while let Some(entries) = subscriber.next_if_any().await.unwrap() {
        seen += entries.len();
    }
    assert_eq!(seen, 200);
}

#[tokio::test]
async fn hastened_event_writes_an_entry_so_that_the_intake_wakes() {
    let fixture = Fixture::new().await;
    let id = fixture.receive("a").await;
    let until = fixture.store.clock().now() + Duration::from_secs(600);
    fixture.store.postpone_event(&id, until, Party::Registry, "timed out".to_owned()).await.unwrap();
    let before = fixture.store.last_sequence();
    assert!(matches!(fixture.store.replay(&id).await.unwrap(), Replayed::Hastened(_)));
    assert_eq!(of_event(&fixture.entries_after(before).await, &id), ["queued"]);
}

#[tokio::test]
async fn sequence_goes_on_after_a_restart() {
    let fixture = Fixture::new().await;
    fixture.receive("a").await;
    let last = fixture.store.last_sequence();
    let fixture = fixture.restart(Clock::system()).await;
    assert_eq!(fixture.store.last_sequence(), last);
    let mut subscriber = fixture.store.subscribe();
    fixture.receive("b").await;
    assert_eq!(subscriber.next().await[0].sequence, last + 1);
    assert_eq!(fixture.entries_after(last).await.len(), 1);
}
