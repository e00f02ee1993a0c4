use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use Effect::{BeginRollout, EndHold, RecordFailure, ReplaceHolds, ReplayUpdates, ReviewPlace, SettleCause};

#[test]
fn every_input_to_an_update_has_its_effect() {
    use UpdateInput as I;
    use UpdateState as U;
    type Row = (U, I, Option<(U, &'static [Effect])>);
    #[rustfmt::skip]
    let table: [Row; 80] = [
        (U::Unverified, I::Confirm, Some((U::Pending, &[SettleCause]))),
        (U::Unverified, I::Postpone, Some((U::Unverified, &[RecordFailure]))),
        (U::Unverified, I::Wait, None),
        (U::Unverified, I::Resume, None),
        (U::Unverified, I::Land, None),
        (U::Unverified, I::FindUnchanged, Some((U::Unchanged, &[SettleCause, ReviewPlace, ReplaceHolds]))),
        (U::Unverified, I::Supersede, Some((U::Superseded, &[SettleCause, EndHold]))),
        (U::Unverified, I::Refuse, Some((U::Refused, &[SettleCause, RecordFailure, EndHold]))),
        (U::Unverified, I::Cancel, Some((U::Cancelled, &[SettleCause, EndHold]))),
        (U::Unverified, I::Replay, None),
        (U::Pending, I::Confirm, None),
        (U::Pending, I::Postpone, Some((U::Pending, &[RecordFailure]))),
        (U::Pending, I::Wait, Some((U::Waiting, &[SettleCause]))),
        (U::Pending, I::Resume, None),
        (U::Pending, I::Land, Some((U::Committed, &[SettleCause, BeginRollout, ReviewPlace, ReplaceHolds]))),
        (U::Pending, I::FindUnchanged, Some((U::Unchanged, &[SettleCause, ReviewPlace, ReplaceHolds]))),
        (U::Pending, I::Supersede, Some((U::Superseded, &[SettleCause, EndHold]))),
        (U::Pending, I::Refuse, Some((U::Refused, &[SettleCause, RecordFailure, EndHold]))),
        (U::Pending, I::Cancel, Some((U::Cancelled, &[SettleCause, EndHold]))),
        (U::Pending, I::Replay, None),
        (U::Waiting, I::Confirm, None),
        (U::Waiting, I::Postpone, None),
        (U::Waiting, I::Wait, Some((U::Waiting, &[SettleCause]))),
        (U::Waiting, I::Resume, Some((U::Pending, &[SettleCause]))),
        (U::Waiting, I::Land, Some((U::Committed, &[SettleCause, BeginRollout, ReviewPlace, ReplaceHolds]))),
        (U::Waiting, I::FindUnchanged, Some((U::Unchanged, &[SettleCause, ReviewPlace, ReplaceHolds]))),
        (U::Waiting, I::Supersede, Some((U::Superseded, &[SettleCause, EndHold]))),
        (U::Waiting, I::Refuse, Some((U::Refused, &[SettleCause, RecordFailure, EndHold]))),
        (U::Waiting, I::Cancel, Some((U::Cancelled, &[SettleCause, EndHold]))),
        (U::Waiting, I::Replay, None),
        (U::Committed, I::Confirm, None),
        (U::Committed, I::Postpone, None),
        (U::Committed, I::Wait, None),
        (U::Committed, I::Resume, None),
        (U::Committed, I::Land, None),
        (U::Committed, I::FindUnchanged, None),
        (U::Committed, I::Supersede, None),
        (U::Committed, I::Refuse, None),
        (U::Committed, I::Cancel, None),
        (U::Committed, I::Replay, None),
        (U::Unchanged, I::Confirm, None),
        (U::Unchanged, I::Postpone, None),
        (U::Unchanged, I::Wait, None),
        (U::Unchanged, I::Resume, None),
        (U::Unchanged, I::Land, None),
        (U::Unchanged, I::FindUnchanged, None),
        (U::Unchanged, I::Supersede, None),
        (U::Unchanged, I::Refuse, None),
        (U::Unchanged, I::Cancel, None),
        (U::Unchanged, I::Replay, None),
        (U::Superseded, I::Confirm, None),
        (U::Superseded, I::Postpone, None),
        (U::Superseded, I::Wait, None),
        (U::Superseded, I::Resume, None),
        (U::Superseded, I::Land, None),
        (U::Superseded, I::FindUnchanged, None),
        (U::Superseded, I::Supersede, None),
        (U::Superseded, I::Refuse, None),
        (U::Superseded, I::Cancel, None),
        (U::Superseded, I::Replay, None),
        (U::Refused, I::Confirm, None),
        (U::Refused, I::Postpone, None),
        (U::Refused, I::Wait, None),
        (U::Refused, I::Resume, None),
        (U::Refused, I::Land, None),
        (U::Refused, I::FindUnchanged, None),
        (U::Refused, I::Supersede, None),
        (U::Refused, I::Refuse, None),
        (U::Refused, I::Cancel, None),
        (U::Refused, I::Replay, Some((U::Superseded, &[]))),
        (U::Cancelled, I::Confirm, None),
        (U::Cancelled, I::Postpone, None),
        (U::Cancelled, I::Wait, None),
        (U::Cancelled, I::Resume, None),
        (U::Cancelled, I::Land, None),
        (U::Cancelled, I::FindUnchanged, None),
        (U::Cancelled, I::Supersede, None),
        (U::Cancelled, I::Refuse, None),
        (U::Cancelled, I::Cancel, None),
        (U::Cancelled, I::Replay, None),
    ];
    for (state, input, expected) in table {
        assert_eq!(update_transition(state, input), expected, "{state}: {input}");
    }
    let listed: BTreeSet<(U, I)> = table.iter().map(|(state, input, _)| (*state, *input)).collect();
    assert_eq!(listed.len(), U::ALL.len() * I::ALL.len(), "the table lists every pair");
}

/// The next state of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Becomes(EventState),
    /// The state follows from the updates.
    Follows,
}

#[test]
fn every_input_to_an_event_has_its_effect() {
    use EventInput as I;
    use EventState as S;
    use Next::{Becomes, Follows};
    type Row = (S, I, Option<(Next, &'static [Effect])>);
    #[rustfmt::skip]
    let table: [Row; 35] = [
        (S::Queued, I::Confirm, Some((Follows, &[]))),
        (S::Queued, I::Postpone, Some((Becomes(S::Queued), &[RecordFailure]))),
        (S::Queued, I::Settle, None),
        (S::Queued, I::Refuse, Some((Becomes(S::Refused), &[RecordFailure]))),
        (S::Queued, I::Replay, None),
        (S::Pending, I::Confirm, None),
        (S::Pending, I::Postpone, None),
        (S::Pending, I::Settle, Some((Follows, &[]))),
        (S::Pending, I::Refuse, None),
        (S::Pending, I::Replay, None),
        (S::Waiting, I::Confirm, None),
        (S::Waiting, I::Postpone, None),
        (S::Waiting, I::Settle, Some((Follows, &[]))),
        (S::Waiting, I::Refuse, None),
        (S::Waiting, I::Replay, None),
        (S::Committed, I::Confirm, None),
        (S::Committed, I::Postpone, None),
        (S::Committed, I::Settle, Some((Follows, &[]))),
        (S::Committed, I::Refuse, None),
        (S::Committed, I::Replay, Some((Becomes(S::Queued), &[ReplayUpdates, RecordFailure]))),
        (S::Unchanged, I::Confirm, None),
        (S::Unchanged, I::Postpone, None),
        (S::Unchanged, I::Settle, Some((Follows, &[]))),
        (S::Unchanged, I::Refuse, None),
        (S::Unchanged, I::Replay, Some((Becomes(S::Queued), &[ReplayUpdates, RecordFailure]))),
        (S::Superseded, I::Confirm, None),
        (S::Superseded, I::Postpone, None),
        (S::Superseded, I::Settle, Some((Follows, &[]))),
        (S::Superseded, I::Refuse, None),
        (S::Superseded, I::Replay, Some((Becomes(S::Queued), &[ReplayUpdates, RecordFailure]))),
        (S::Refused, I::Confirm, None),
        (S::Refused, I::Postpone, None),
        (S::Refused, I::Settle, Some((Follows, &[]))),
        (S::Refused, I::Refuse, None),
        (S::Refused, I::Replay, Some((Becomes(S::Queued), &[ReplayUpdates, RecordFailure]))),
    ];
    for (state, input, expected) in table {
        for of_updates in EventState::ALL {
            let expected = expected.map(|(next, effects)| match next {
                Becomes(state) => (state, effects),
                Follows => (*of_updates, effects),
            });
            assert_eq!(event_transition(state, input, *of_updates), expected, "{state}: {input}, {of_updates}");
        }
    }
    let listed: BTreeSet<(S, I)> = table.iter().map(|(state, input, _)| (*state, *input)).collect();
    assert_eq!(listed.len(), S::ALL.len() * I::ALL.len(), "the table lists every pair");
}

#[test]
fn every_input_to_a_push_attempt_has_its_effect() {
    use PushInput::{FindLanded, FindLost};
    use PushState::{Landed, Lost, Open};
    let table = [
        (Open, FindLanded, Some(Landed)),
        (Open, FindLost, Some(Lost)),
        (Landed, FindLanded, None),
        (Landed, FindLost, None),
        (Lost, FindLanded, None),
        (Lost, FindLost, None),
    ];
    for (state, input, expected) in table {
        assert_eq!(push_transition(state, input), expected, "{state}: {input}");
    }
}

#[test]
fn ended_update_changes_only_with_a_replay() {
    for state in UpdateState::ALL.iter().filter(|state| !state.is_open()) {
        for input in UpdateInput::ALL.iter().filter(|input| **input != UpdateInput::Replay) {
            assert_eq!(update_transition(*state, *input), None, "{state}: {input}");
        }
    }
    // A replayed update stays superseded: the event gets a new update.
    let replayed = UpdateState::ALL.iter().filter_map(|state| update_transition(*state, UpdateInput::Replay));
    assert!(replayed.map(|(next, _)| next).all(|next| !next.is_open()));
}

#[test]
fn open_update_reaches_every_end_that_it_may_have() {
    for start in UpdateState::open() {
        let mut reached = BTreeSet::from([start]);
        loop {
            let next = reached.iter().flat_map(|state| {
                UpdateInput::ALL.iter().filter_map(|input| update_transition(*state, *input)).map(|(next, _)| next)
            });
            let next: BTreeSet<UpdateState> = next.chain(reached.iter().copied()).collect();
            if next == reached {
                break;
            }
            reached = next;
        }
        for end in UpdateState::ALL.iter().filter(|state| !state.is_open()) {
            assert!(reached.contains(end), "{start} reaches {end}");
        }
    }
}

#[test]
fn each_change_of_an_update_of_an_event_settles_the_event() {
    for state in UpdateState::ALL {
        for input in UpdateInput::ALL {
            let Some((next, effects)) = update_transition(*state, *input) else { continue };
            // A replay changes the state of the event itself.
            let settles = *state != next && *input != UpdateInput::Replay;
            assert!(!settles || effects.contains(&SettleCause), "{state}: {input}");
        }
    }
}

/// A diagram of a table, with arrows in the order of the states and inputs.
fn diagram(initial: &[(&str, &str)], arrows: &[(&str, &str, &str)], ends: &[&str]) -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n");
    for (state, label) in initial {
        let label = if label.is_empty() { String::new() } else { format!(": {label}") };
        writeln!(text, "    [*] --> {state}{label}").unwrap();
    }
    let mut drawn: Vec<(&str, &str)> = Vec::new();
    for (from, to, _) in arrows {
        if drawn.contains(&(from, to)) {
            continue;
        }
        drawn.push((from, to));
        let labels: Vec<&str> =
            arrows.iter().filter(|(f, t, _)| (f, t) == (from, to)).map(|(_, _, label)| *label).collect();
        writeln!(text, "    {from} --> {to}: {}", labels.join(", ")).unwrap();
    }
    for state in ends {
        writeln!(text, "    {state} --> [*]").unwrap();
    }
    text.push_str("```");
    text
}

fn update_diagram() -> String {
    let mut arrows = Vec::new();
    for state in UpdateState::ALL {
        for input in UpdateInput::ALL {
            if let Some((next, _)) = update_transition(*state, *input) {
                arrows.push((state.as_str(), next.as_str(), input.as_str()));
            }
        }
    }
    let ends = UpdateState::ALL.iter().filter(|state| !state.is_open()).map(|state| state.as_str());
    diagram(&[("unverified", "of a request"), ("pending", "of an event")], &arrows, &ends.collect::<Vec<_>>())
}

/// All states that follow from the updates are drawn as one state.
const SETTLED: &str = "settled";

fn event_diagram() -> String {
    let name = |state: EventState| if state == EventState::Queued { state.as_str() } else { SETTLED };
    let mut arrows: Vec<(&str, &str, String)> = Vec::new();
    for input in EventInput::ALL {
        for state in EventState::ALL {
            let next = |of_updates| event_transition(*state, *input, of_updates).map(|(next, _)| next);
            let Some(first) = next(EventState::Pending) else { continue };
            let follows = Some(first) != next(EventState::Waiting);
            let label = if follows || *state == EventState::Queued {
                input.to_string()
            } else {
                let from = EventState::ALL.iter().filter(|state| event_transition(**state, *input, first).is_some());
                let from: Vec<&str> = from.map(|state| state.as_str()).collect();
                format!("{input} ({})", from.join(", "))
            };
            let to = if follows { SETTLED } else { first.as_str() };
            let arrow = (name(*state), to, label);
            if !arrows.contains(&arrow) {
                arrows.push(arrow);
            }
        }
    }
    let arrows: Vec<(&str, &str, &str)> = arrows.iter().map(|(from, to, label)| (*from, *to, label.as_str())).collect();
    let mut text = diagram(&[("queued", "")], &arrows, &[]);
    let settled = EventState::ALL.iter().filter(|state| **state != EventState::Queued);
    let settled: String = settled.map(|state| format!("        {state}\n")).collect();
    let group = format!("    state \"as its updates\" as {SETTLED} {{\n{settled}    }}\n```");
    text.truncate(text.len() - "```".len());
    text.push_str(&group);
    text
}

fn push_diagram() -> String {
    let mut arrows = Vec::new();
    for state in PushState::ALL {
        for input in PushInput::ALL {
            if let Some(next) = push_transition(*state, *input) {
                arrows.push((state.as_str(), next.as_str(), input.as_str()));
            }
        }
    }
    diagram(&[("open", "")], &arrows, &["landed", "lost"])
}

/// Compares the diagrams in `docs/architecture.md` with the tables. `UPDATE_DOCS=1` writes them.
#[test]
fn diagrams_in_the_documentation_show_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let before = std::fs::read_to_string(&path).unwrap();
    let mut text = before.clone();
    for (kind, diagram) in [("update", update_diagram()), ("event", event_diagram()), ("push", push_diagram())] {
        let begin = format!("<!-- states: {kind} -->\n");
        let start = text.find(&begin).unwrap_or_else(|| panic!("docs/architecture.md has no {begin}")) + begin.len();
        let end = start + text[start..].find("\n<!-- end -->").expect("the marker of the end follows");
        text.replace_range(start..end, &diagram);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    } else {
        assert_eq!(before, text, "the diagrams are out of date: run this test with UPDATE_DOCS=1");
    }
}
