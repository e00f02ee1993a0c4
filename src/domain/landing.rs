use super::update::{Cause, UpdateState};

/// The effect of a landed update on an earlier, open update of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLanding {
    /// The open update ends, because the later update replaces it.
    End,
    /// The open update is decided again, at the new tip.
    DecideAgain,
    /// The open update keeps its state. Its wait causes determine when it continues.
    Keep,
}

/// Returns the effect of a landed update on an earlier, open update of its place.
///
/// `landed` and `end` are the cause and the final state of the later update, `other` and `state` the cause and the state of the
/// open one. `blocked`: the open update waits for a hold or freeze.
///
/// Only requests are ordered by arrival. A late build of an older commit arrives after the newer build, so events are ordered by
/// the other criteria, and these need the tip.
pub fn after_landing(
    (landed, end): (Cause, UpdateState),
    (other, state): (Cause, UpdateState),
    blocked: bool,
) -> AfterLanding {
    match (landed, state) {
        (Cause::Rollback, UpdateState::Waiting | UpdateState::Pending) => AfterLanding::End,
        (Cause::Promotion, UpdateState::Waiting) => AfterLanding::End,
        (Cause::Push | Cause::CatchUp | Cause::Follow, UpdateState::Waiting) if end == UpdateState::Committed => {
            match other {
                Cause::Promotion | Cause::Rollback => AfterLanding::End,
                Cause::Push | Cause::CatchUp | Cause::Follow if blocked => AfterLanding::Keep,
                Cause::Push | Cause::CatchUp | Cause::Follow => AfterLanding::DecideAgain,
            }
        }
        _ => AfterLanding::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use UpdateState::{Committed, Pending, Unchanged, Waiting};

    #[test]
    fn later_request_ends_earlier_updates_and_a_rollback_also_pending_ones() {
        for other in [Cause::Push, Cause::CatchUp, Cause::Promotion, Cause::Rollback, Cause::Follow] {
            for end in [Committed, Unchanged] {
                assert_eq!(after_landing((Cause::Promotion, end), (other, Waiting), true), AfterLanding::End);
                assert_eq!(after_landing((Cause::Promotion, end), (other, Pending), false), AfterLanding::Keep);
                assert_eq!(after_landing((Cause::Rollback, end), (other, Waiting), true), AfterLanding::End);
                assert_eq!(after_landing((Cause::Rollback, end), (other, Pending), false), AfterLanding::End);
            }
        }
    }

    #[test]
    fn event_that_landed_ends_no_event_by_its_arrival() {
        let landed = (Cause::Push, Committed);
        assert_eq!(after_landing(landed, (Cause::Push, Waiting), false), AfterLanding::DecideAgain);
        assert_eq!(after_landing(landed, (Cause::CatchUp, Waiting), true), AfterLanding::Keep);
        assert_eq!(after_landing(landed, (Cause::Push, Pending), false), AfterLanding::Keep);
        assert_eq!(after_landing(landed, (Cause::Promotion, Waiting), true), AfterLanding::End);
    }

    #[test]
    fn event_without_effect_changes_no_other_update() {
        for other in [Cause::Push, Cause::Promotion, Cause::Rollback] {
            assert_eq!(after_landing((Cause::Push, Unchanged), (other, Waiting), false), AfterLanding::Keep);
        }
    }
}
