use jiff::Timestamp;

use super::update::{Cause, UpdateState};
use super::words;
use crate::telemetry::TraceContext;
use tagrelay_image::{Digest, Repository, Tag};

words! {
    /// The state of an event.
    EventState {
        /// The registry has not confirmed the image yet. After a failed try, `reason` is the answer.
        Queued = "queued",
        /// Confirmed; at least one update is on its way to the branch.
        Pending = "pending",
        /// Confirmed; no update is on its way, and at least one waits.
        Waiting = "waiting",
        /// At least one update is on the branch, and no update is open.
        Committed = "committed",
        /// Nothing was written, and an environment runs the version already or no environment had to change.
        Unchanged = "unchanged",
        /// A newer version replaced the version of the event before it was written.
        Superseded = "superseded",
        /// Ended with an explained no.
        Refused = "refused",
    }
}

impl EventState {
    /// Whether the event can still change without a replay.
    pub fn is_open(self) -> bool {
        match self {
            Self::Queued | Self::Pending | Self::Waiting => true,
            Self::Committed | Self::Unchanged | Self::Superseded | Self::Refused => false,
        }
    }

    /// The states in which an event is open.
    pub fn open() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|state| state.is_open())
    }

    /// Returns the state of a confirmed event with these updates, and the index of the explaining update.
    ///
    /// Open states come first, then the best result. If several updates have that state, the latest one explains it. An event
    /// without updates is `unchanged`, because no automatic environment has to change.
    pub fn of(updates: &[UpdateState]) -> (Self, Option<usize>) {
        let latest = |wanted: &[UpdateState]| updates.iter().rposition(|state| wanted.contains(state));
        [
            (Self::Pending, &[UpdateState::Unverified, UpdateState::Pending] as &[UpdateState]),
            (Self::Waiting, &[UpdateState::Waiting]),
            (Self::Committed, &[UpdateState::Committed]),
            (Self::Unchanged, &[UpdateState::Unchanged]),
            (Self::Refused, &[UpdateState::Refused]),
            // Updates of events are never cancelled.
            (Self::Superseded, &[UpdateState::Superseded, UpdateState::Cancelled]),
        ]
        .into_iter()
        .find_map(|(state, of)| latest(of).map(|index| (state, Some(index))))
        .unwrap_or((Self::Unchanged, None))
    }
}

words! {
    /// The party whose response ended or delayed an event or update.
    Party {
        /// The registry of the image.
        Registry = "registry",
        /// The source repository of the image.
        Source = "source",
        /// Settings, manifests and the order of versions.
        Rules = "rules",
        /// The branch of the config repository: it was read, or pushed to.
        Branch = "branch",
    }
}

/// A push event and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A ULID: sorts by arrival.
    pub id: String,
    /// `Push` or `CatchUp`.
    pub cause: Cause,
    /// The receiver; `catch-up` if the registry's list of tags showed the tag.
    pub receiver: String,
    pub repository: Repository,
    pub tag: Tag,
    /// The digest that the payload names. A hint.
    pub announced_digest: Option<Digest>,
    /// When the image was pushed, according to the registry.
    pub pushed_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub state: EventState,
    /// Why the event ended or waits, or the answer to the last failed try.
    pub reason: Option<String>,
    /// The pattern of the image rule that matches the repository.
    pub matched_rule: Option<String>,
    /// The digest that the registry returned.
    pub verified_digest: Option<Digest>,
    pub verified_at: Option<Timestamp>,
    /// A remark, such as a digest that differs from the announced one.
    pub note: Option<String>,
    /// How many tries failed.
    pub failures: u32,
    /// When the next try is due; `None`: at once.
    pub next_attempt_at: Option<Timestamp>,
    /// When the event reached its final state.
    pub finished_at: Option<Timestamp>,
    /// The parent of all further spans of the event.
    pub trace: TraceContext,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_state_follows_from_its_updates() {
        use UpdateState::{Committed, Pending, Refused, Superseded, Unchanged, Unverified, Waiting};
        for (updates, expected) in [
            (&[][..], (EventState::Unchanged, None)),
            (&[Committed, Pending], (EventState::Pending, Some(1))),
            (&[Unverified, Waiting], (EventState::Pending, Some(0))),
            (&[Waiting, Refused], (EventState::Waiting, Some(0))),
            (&[Committed, Refused], (EventState::Committed, Some(0))),
            (&[Refused, Unchanged], (EventState::Unchanged, Some(1))),
            (&[Refused, Superseded, Refused], (EventState::Refused, Some(2))),
            (&[Superseded], (EventState::Superseded, Some(0))),
        ] {
            assert_eq!(EventState::of(updates), expected, "{updates:?}");
        }
    }
}
