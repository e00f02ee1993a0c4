use jiff::Timestamp;

use super::block::Blocks;
use super::update::{Update, UpdateGate};
use super::words;

words! {
    /// Why an update waits. Each cause has its own end.
    WaitCause {
        /// A hold on the place; ends when it is released or expires.
        Hold = "hold",
        /// A freeze of the environment; ends when it is thawed, expires or its window closes.
        Freeze = "freeze",
        /// The remote rejected the push (protected branch, hook); ends at the time of the next try.
        RejectedPush = "rejected",
        /// A fact that needs the network is missing; ends when the intake has it.
        MissingFact = "missing_fact",
        /// The version may not leave its environment yet; ends when the gate opens.
        Gate = "gate",
        /// A soak time has not passed; ends at its time, unless the gate closes for another reason.
        Soak = "soak",
    }
}

impl WaitCause {
    /// Whether the cause is a block, which [`may_go`] finds. Other causes are the result of an earlier try.
    pub fn is_block(self) -> bool {
        match self {
            Self::Hold | Self::Freeze => true,
            Self::RejectedPush | Self::MissingFact | Self::Gate | Self::Soak => false,
        }
    }
}

impl WaitCause {
    /// Whether a look at the gate of the update begins and ends this cause.
    pub fn is_of_gate(self) -> bool {
        match self {
            Self::Gate | Self::Soak => true,
            Self::Hold | Self::Freeze | Self::RejectedPush | Self::MissingFact => false,
        }
    }
}

/// One reason why an update waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub cause: WaitCause,
    /// The answer of the remote or the missing fact; `None` for blocks, which explain themselves.
    pub detail: Option<String>,
    /// When the cause ends by itself; `None`: no such time is known.
    pub until: Option<Timestamp>,
}

/// Returns the blocks that an update must wait for at `now`; empty: the update may be written.
///
/// Holds apply only to updates of events. Rollbacks and overrides pass freezes.
pub fn may_go(update: &Update, blocks: &Blocks, now: Timestamp) -> Vec<Wait> {
    let mut waits = Vec::new();
    if update.cause.is_automatic()
        && let Some(hold) = blocks.hold(&update.environment, &update.repository, now)
    {
        waits.push(Wait { cause: WaitCause::Hold, detail: None, until: hold.expires_at });
    }
    if !update.passes_freezes()
        && let Some(frozen) = blocks.frozen(&update.environment, now)
    {
        waits.push(Wait { cause: WaitCause::Freeze, detail: None, until: frozen.until });
    }
    waits
}

/// Returns the wait of an update for its gate, if that was closed at the last look.
pub fn gate_wait(update: &Update) -> Option<Wait> {
    let is_closed = update.gate == Some(UpdateGate::Closed);
    is_closed.then_some(Wait { cause: WaitCause::Gate, detail: None, until: None })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Block, BlockKind, Cause, UpdateState};
    use crate::telemetry::TraceContext;

    fn update(cause: Cause, override_reason: Option<&str>) -> Update {
        Update {
            id: "1".to_owned(),
            environment: "staging".to_owned(),
            repository: "uyou/user-service".parse().unwrap(),
            version: tagrelay_image::Version::tagged("a".parse().unwrap(), None),
            cause,
            cause_id: "1".to_owned(),
            actor: "hub".to_owned(),
            state: UpdateState::Pending,
            reason: None,
            failures: 0,
            next_attempt_at: None,
            pushed_at: None,
            received_at: Timestamp::UNIX_EPOCH,
            released_at: None,
            commit: None,
            old: None,
            changes: Vec::new(),
            finished_at: None,
            decided_by: None,
            decided_because: None,
            expected: None,
            trace: TraceContext::random(),
            override_reason: override_reason.map(str::to_owned),
            gate: None,
        }
    }

    fn block(kind: BlockKind, repository: Option<&str>, expires_at: Option<Timestamp>) -> Block {
        Block {
            id: "b".to_owned(),
            kind,
            environment: "staging".to_owned(),
            repository: repository.map(|name| name.parse().unwrap()),
            reason: None,
            actor: "ops".to_owned(),
            request_id: None,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at,
        }
    }

    #[test]
    fn holds_stop_events_and_freezes_stop_all_but_rollbacks_and_overrides() {
        use Cause::{CatchUp, Follow, Promotion, Push, Rollback};
        let now = Timestamp::from_second(100).unwrap();
        let blocks = |rows: Vec<Block>| Blocks { rows, calendar: Arc::default() };
        let hold = blocks(vec![block(BlockKind::Hold, Some("uyou/user-service"), None)]);
        let other = blocks(vec![block(BlockKind::Hold, Some("uyou/order-service"), None)]);
        let freeze = blocks(vec![block(BlockKind::Freeze, None, None)]);
        let both = blocks([hold.rows.clone(), freeze.rows.clone()].concat());
        let over = blocks(vec![block(BlockKind::Freeze, None, Some(now))]);
        let causes = |cause, reason, blocks: &Blocks| -> Vec<WaitCause> {
            may_go(&update(cause, reason), blocks, now).iter().map(|wait| wait.cause).collect()
        };
        for cause in [Push, CatchUp, Follow] {
            assert_eq!(causes(cause, None, &hold), [WaitCause::Hold]);
            assert_eq!(causes(cause, None, &both), [WaitCause::Hold, WaitCause::Freeze]);
            assert_eq!(causes(cause, None, &other), []);
        }
        assert_eq!(causes(Promotion, None, &both), [WaitCause::Freeze]);
        assert_eq!(causes(Promotion, Some("urgent"), &both), []);
        assert_eq!(causes(Rollback, None, &both), []);
        assert_eq!(causes(Push, None, &over), [], "the end of a block is exclusive");
    }
}
