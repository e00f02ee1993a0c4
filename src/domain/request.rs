use jiff::Timestamp;

use super::block::Block;
use super::update::{Cause, UpdateState};
use super::words;
use crate::telemetry::TraceContext;

words! {
    /// The kind of request of a person or a CI job.
    RequestKind {
        /// The versions of another environment, or a named one.
        Promotion = "promotion",
        /// An earlier version, and a hold.
        Rollback = "rollback",
    }
}

impl RequestKind {
    /// The cause of the updates of such a request.
    pub fn cause(self) -> Cause {
        match self {
            Self::Promotion => Cause::Promotion,
            Self::Rollback => Cause::Rollback,
        }
    }
}

words! {
    /// The state of a request, which follows from its updates.
    RequestState {
        /// An update is on its way to the branch.
        Pending = "pending",
        /// No update is on its way, and at least one waits.
        Waiting = "waiting",
        /// Everything that was still to be written is on the branch.
        Committed = "committed",
        /// Nothing was written, and at least one update was refused.
        Refused = "refused",
        /// Nothing was written: other versions took the place of all updates.
        Superseded = "superseded",
        /// Nothing was written: the rest was cancelled on request.
        Cancelled = "cancelled",
    }
}

impl RequestState {
    /// Returns the state of a request with these updates. A request without updates had nothing to do: `committed`.
    pub fn of(updates: impl IntoIterator<Item = UpdateState>) -> Self {
        let updates: Vec<UpdateState> = updates.into_iter().collect();
        let any = |states: &[UpdateState]| updates.iter().any(|state| states.contains(state));
        if any(&[UpdateState::Unverified, UpdateState::Pending]) {
            Self::Pending
        } else if any(&[UpdateState::Waiting]) {
            Self::Waiting
        } else if any(&[UpdateState::Committed]) {
            Self::Committed
        } else if any(&[UpdateState::Refused]) {
            Self::Refused
        } else if any(&[UpdateState::Cancelled]) {
            Self::Cancelled
        } else if any(&[UpdateState::Superseded]) {
            Self::Superseded
        } else {
            Self::Committed
        }
    }
}

/// Returns the first state of a promotion's update, and the reason of that state. The dry run returns the same.
///
/// `wanted` is `Unchanged` if the environment already runs the version. Then a hold does not matter, because there is nothing to
/// write. Otherwise a hold refuses the update.
pub fn first_state(wanted: UpdateState, hold: Option<&Block>) -> (UpdateState, Option<String>) {
    match (wanted, hold) {
        (UpdateState::Unverified | UpdateState::Pending, Some(hold)) => {
            (UpdateState::Refused, Some(hold.explanation()))
        }
        (wanted, _) => (wanted, None),
    }
}

/// A promotion or rollback as it was requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A ULID: sorts by arrival.
    pub id: String,
    pub kind: RequestKind,
    /// The environment that changes.
    pub environment: String,
    /// The environment whose versions it takes.
    pub source: Option<String>,
    /// The name of the API token.
    pub actor: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    /// A hash of the request: equal if a repeated `Idempotency-Key` came with the same request.
    pub fingerprint: String,
    /// The parent of all further spans of the request.
    pub trace: TraceContext,
    /// The freeze or closed gate that it passes.
    pub overridden: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_state_follows_from_its_updates() {
        use UpdateState::{Cancelled, Committed, Pending, Refused, Superseded, Unchanged, Unverified, Waiting};
        for (updates, expected) in [
            (&[][..], RequestState::Committed),
            (&[Committed, Unverified], RequestState::Pending),
            (&[Pending, Waiting], RequestState::Pending),
            (&[Refused, Waiting], RequestState::Waiting),
            (&[Superseded, Committed], RequestState::Committed),
            (&[Unchanged, Unchanged], RequestState::Committed),
            (&[Refused, Unchanged], RequestState::Refused),
            (&[Refused, Unchanged, Committed], RequestState::Committed),
            (&[Superseded, Unchanged], RequestState::Superseded),
            (&[Cancelled, Unchanged], RequestState::Cancelled),
            (&[Superseded, Refused], RequestState::Refused),
            (&[Superseded, Superseded], RequestState::Superseded),
            (&[Cancelled, Superseded], RequestState::Cancelled),
            (&[Cancelled, Committed], RequestState::Committed),
            (&[Cancelled, Refused], RequestState::Refused),
            (&[Cancelled, Waiting], RequestState::Waiting),
        ] {
            assert_eq!(RequestState::of(updates.iter().copied()), expected, "{updates:?}");
        }
    }
}
