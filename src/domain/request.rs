use jiff::Timestamp;

use super::block::Block;
use super::update::{Cause, UpdateState};
use super::words;
use crate::telemetry::TraceContext;

words! {
    /// The kind of a request from a person or a CI job.
    RequestKind {
        /// Gives an environment the versions of another one, or a named version.
        Promotion = "promotion",
        /// Gives an environment an earlier version, and sets a hold.
        Rollback = "rollback",
        /// Takes a version of an environment that this one follows.
        Follow = "follow",
    }
}

impl RequestKind {
    /// The cause of the updates of such a request.
    pub fn cause(self) -> Cause {
        match self {
            Self::Promotion => Cause::Promotion,
            Self::Rollback => Cause::Rollback,
            Self::Follow => Cause::Follow,
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
        /// No update is open, and at least one was written or all were unchanged.
        Committed = "committed",
        /// Nothing was written, and at least one update was refused.
        Refused = "refused",
        /// Nothing was written, refused or cancelled, and newer versions replaced at least one update.
        Superseded = "superseded",
        /// Nothing was written or refused, and at least one update was cancelled on request.
        Cancelled = "cancelled",
    }
}

impl RequestState {
    /// Returns the state of a request with these updates. Without updates, nothing had to be done: `committed`.
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

/// A promotion or rollback, as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A ULID: sorts by arrival.
    pub id: String,
    pub kind: RequestKind,
    /// The environment that changes.
    pub environment: String,
    /// The environment that a promotion takes the versions from.
    pub source: Option<String>,
    /// The name of the API token.
    pub actor: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    /// A hash of the request: equal if a repeated `Idempotency-Key` came with the same request.
    pub fingerprint: String,
    /// The parent of all further spans of the request.
    pub trace: TraceContext,
    /// The freeze or closed gate that the request passes.
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
