use super::apply::{Step, apply};
use super::block_rows::is_fence_at;
use super::statements::{statements, values};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Decided, Decision, Party, UpdateInput, UpdateState, Wait, WaitCause};
use crate::policy::Criterion;

statements! {
    WRITE_BASES = ("UPDATE updates SET decided_by = v.column2, decided_because = v.column3
        FROM (VALUES {rows:TTT}) AS v WHERE updates.id = v.column1");
}

impl Store {
    /// Records what the branch writer decided about updates. Returns false, and stores nothing, if the fence has moved: then they
    /// are decided again.
    ///
    /// # Errors
    ///
    /// If it could not be stored.
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
        let bases = self.decisions.iter().map(|(id, decided)| (id, decided.basis.as_ref()));
        write_bases(tx, bases).await?;
        let steps = self.decisions.iter().filter_map(|(id, decided)| step(id, &decided.decision));
        apply(tx, steps.collect()).await?;
        Ok(true)
    }
}

/// Stores the criteria that decided about the order of updates.
pub(super) async fn write_bases<'a>(
    tx: &mut Transaction<'_>,
    bases: impl Iterator<Item = (&'a String, Option<&'a (Criterion, String)>)>,
) -> Result<(), sqlx::Error> {
    let rows = bases.filter_map(|(id, basis)| basis.map(|(by, because)| values![id, by.as_str(), because]));
    WRITE_BASES.execute_rows(tx.connection, values![], rows.collect()).await
}

fn step(id: &str, decision: &Decision) -> Option<Step> {
    match decision {
        Decision::Write | Decision::Keep => None,
        Decision::Wait(waits) => Some(Step { waits: waits.clone(), ..Step::new(id, UpdateInput::Wait) }),
        Decision::Ask(missing) => {
            let wait = Wait { cause: WaitCause::MissingFact, detail: Some(missing.to_string()), until: None };
            Some(Step { waits: vec![wait], ..Step::new(id, UpdateInput::Wait) })
        }
        Decision::End { state, reason, .. } => {
            let input = match state {
                UpdateState::Unchanged => UpdateInput::FindUnchanged,
                UpdateState::Superseded => UpdateInput::Supersede,
                UpdateState::Refused => UpdateInput::Refuse,
                // A decision ends in one of the above.
                UpdateState::Unverified
                | UpdateState::Pending
                | UpdateState::Waiting
                | UpdateState::Committed
                | UpdateState::Cancelled => return None,
            };
            let step = Step::new(id, input).because(reason.clone());
            Some(Step { party: Some(Party::Rules), ..step })
        }
    }
}
