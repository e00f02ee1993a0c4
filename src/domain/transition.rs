//! The transitions: state and input to state and effects. The diagram in `docs/architecture.md` is generated from these tables.

use super::event::EventState;
use super::push::PushState;
use super::update::UpdateState;
use super::words;

words! {
    /// An input of an update.
    UpdateInput {
        /// The registry confirmed the image.
        Confirm = "confirm",
        /// A try failed and is repeated later.
        Postpone = "postpone",
        /// A wait cause exists.
        Wait = "wait",
        /// The last wait cause ended.
        Resume = "resume",
        /// A push attempt with the update landed.
        Land = "land",
        /// The environment runs the version already.
        FindUnchanged = "find unchanged",
        /// Another version replaces the update.
        Supersede = "supersede",
        /// The update is refused, with a reason.
        Refuse = "refuse",
        /// The promotion or rollback is cancelled.
        Cancel = "cancel",
        /// The event of the update runs again.
        Replay = "replay",
    }
}

words! {
    /// An input of an event.
    EventInput {
        /// The registry confirmed the image. From now on, the state follows from the updates.
        Confirm = "confirm",
        /// A try failed and is repeated later.
        Postpone = "postpone",
        /// An update of the event changed its state.
        Settle = "settle",
        /// The event is refused, with a reason, before it has updates.
        Refuse = "refuse",
        /// The event runs again.
        Replay = "replay",
    }
}

words! {
    /// An input of a push attempt.
    PushInput {
        /// The branch contains the commit of the push attempt.
        FindLanded = "find landed",
        /// The remote rejected the push, or the branch moved on without its commit.
        FindLost = "find lost",
    }
}

/// An effect of a transition, in the same transaction as the new state.
///
/// Each transition also writes an entry of the outbox, except for failed tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The state of the event is computed again from its updates.
    SettleCause,
    /// The failed try is recorded for the event or request.
    RecordFailure,
    /// A rollout begins, if Argo CD is followed.
    BeginRollout,
    /// Earlier updates of the place end or are decided again: [`after_landing`](super::after_landing).
    ReviewPlace,
    /// If the update belongs to a rollback, its hold replaces the holds of earlier rollbacks.
    ReplaceHolds,
    /// If the update belongs to a rollback, its hold ends, because the rollback was not written.
    EndHold,
    /// Refused updates of the event no longer count.
    ReplayUpdates,
}

/// Returns the next state of an update and the effects; `None`: the input does not apply in this state.
pub fn update_transition(state: UpdateState, input: UpdateInput) -> Option<(UpdateState, &'static [Effect])> {
    use Effect::{BeginRollout, EndHold, RecordFailure, ReplaceHolds, ReviewPlace, SettleCause};
    use UpdateInput as In;
    use UpdateState::{Cancelled, Committed, Pending, Refused, Superseded, Unchanged, Unverified, Waiting};
    Some(match (state, input) {
        (Unverified, In::Confirm) => (Pending, &[SettleCause]),
        (Unverified | Pending, In::Postpone) => (state, &[RecordFailure]),
        (Pending | Waiting, In::Wait) => (Waiting, &[SettleCause]),
        (Waiting, In::Resume) => (Pending, &[SettleCause]),
        // A push whose answer was lost may have landed before the update had to wait.
        (Pending | Waiting, In::Land) => (Committed, &[SettleCause, BeginRollout, ReviewPlace, ReplaceHolds]),
        (Unverified | Pending | Waiting, In::FindUnchanged) => (Unchanged, &[SettleCause, ReviewPlace, ReplaceHolds]),
        (Unverified | Pending | Waiting, In::Supersede) => (Superseded, &[SettleCause, EndHold]),
        (Unverified | Pending | Waiting, In::Refuse) => (Refused, &[SettleCause, RecordFailure, EndHold]),
        (Unverified | Pending | Waiting, In::Cancel) => (Cancelled, &[SettleCause, EndHold]),
        // The event gets a new update for the environment.
        (Refused, In::Replay) => (Superseded, &[]),
        (Unverified, In::Wait | In::Resume | In::Land | In::Replay)
        | (Pending, In::Confirm | In::Resume | In::Replay)
        | (Waiting, In::Confirm | In::Postpone | In::Replay)
        | (Committed | Unchanged | Superseded | Cancelled, _)
        | (
            Refused,
            In::Confirm
            | In::Postpone
            | In::Wait
            | In::Resume
            | In::Land
            | In::FindUnchanged
            | In::Supersede
            | In::Refuse
            | In::Cancel,
        ) => return None,
    })
}

/// Returns the next state of an event and the effects; `None`: the input does not apply in this state.
///
/// `of_updates` is [`EventState::of`] its updates.
pub fn event_transition(
    state: EventState,
    input: EventInput,
    of_updates: EventState,
) -> Option<(EventState, &'static [Effect])> {
    use Effect::{RecordFailure, ReplayUpdates};
    use EventInput as In;
    use EventState::{Committed, Pending, Queued, Refused, Superseded, Unchanged, Waiting};
    Some(match (state, input) {
        (Queued, In::Confirm) => (of_updates, &[]),
        (Queued, In::Postpone) => (Queued, &[RecordFailure]),
        (Queued, In::Refuse) => (Refused, &[RecordFailure]),
        (Pending | Waiting | Committed | Unchanged | Superseded | Refused, In::Settle) => (of_updates, &[]),
        // An event with a committed update may have a refused one in another environment. Only refused updates run again.
        (Refused | Committed | Unchanged | Superseded, In::Replay) => (Queued, &[ReplayUpdates, RecordFailure]),
        // The state of a queued event does not follow from its updates, because the event is not decided yet.
        (Queued, In::Settle | In::Replay)
        | (Pending | Waiting, In::Confirm | In::Postpone | In::Refuse | In::Replay)
        | (Committed | Unchanged | Superseded | Refused, In::Confirm | In::Postpone | In::Refuse) => return None,
    })
}

/// Returns the next state of a push attempt; `None`: the input does not apply in this state.
pub fn push_transition(state: PushState, input: PushInput) -> Option<PushState> {
    match (state, input) {
        (PushState::Open, PushInput::FindLanded) => Some(PushState::Landed),
        (PushState::Open, PushInput::FindLost) => Some(PushState::Lost),
        (PushState::Landed | PushState::Lost, _) => None,
    }
}

#[cfg(test)]
mod tests;
