use super::apply::{Step, apply};
use super::block_rows::is_fence_at;
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Decided, Decision, Party, UpdateInput, UpdateState, Wait, WaitCause};

impl Store {
    /// Records decisions of the branch writer about updates.
    ///
    /// Returns false, and stores nothing, if the fence has moved. The updates are then decided again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn record_decisions(&self, decisions: Vec<(String, Decided)>, fence: u64) -> Result<bool, StoreError> {
        if decisions.is_empty() {
            return Ok(true);
        }
        self.writes.run(Decisions { decisions, fence }).await
    }
}

struct Decisions {
    decisions: Vec<(String, Decided)>,
    fence: u64,
}

impl Write for Decisions {
    type Output = bool;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<bool, sqlx::Error> {
        if !is_fence_at(tx, self.fence).await? {
            return Ok(false);
        }
        let steps = self.decisions.iter().filter_map(|(id, decided)| step(id, decided));
        apply(tx, steps.collect()).await?;
        Ok(true)
    }
}

/// Returns the input of a decision; `None`: the update keeps its state.
pub(super) fn step(id: &str, decided: &Decided) -> Option<Step> {
    let step = match &decided.decision {
        Decision::Write | Decision::Keep => return None,
        Decision::Wait(waits) => Step { waits: waits.clone(), ..Step::new(id, UpdateInput::Wait) },
        Decision::Ask(missing) => {
            let wait = Wait { cause: WaitCause::MissingFact, detail: Some(missing.to_string()), until: None };
            Step { waits: vec![wait], ..Step::new(id, UpdateInput::Wait) }
        }
        Decision::End { state, reason, .. } => {
            let input = match state {
                UpdateState::Unchanged => UpdateInput::FindUnchanged,
                UpdateState::Superseded => UpdateInput::Supersede,
                UpdateState::Refused => UpdateInput::Refuse,
                // No decision ends in one of these states.
                UpdateState::Unverified
                | UpdateState::Pending
                | UpdateState::Waiting
                | UpdateState::Committed
                | UpdateState::Cancelled => return None,
            };
            let step = Step::new(id, input).because(reason.clone());
            Step { party: Some(Party::Rules), ..step }
        }
    };
    let basis = decided.basis.as_ref().map(|(by, because)| (by.as_str().to_owned(), because.clone()));
    Some(Step { basis, ..step })
}
