use jiff::Timestamp;

use super::apply::{Step, apply};
use super::writer::{Transaction, Write};
use super::{Store, StoreError};
use crate::domain::{Party, UpdateInput, UpdateState};
use tagrelay_image::Digest;

/// The end of an update.
#[derive(Debug, Clone)]
pub struct EndedUpdate {
    pub id: String,
    /// `FindUnchanged`, `Supersede` or `Refuse`.
    pub input: UpdateInput,
    pub reason: Option<String>,
    /// The party that answered; `None`: the registry if the update is unverified, otherwise the branch.
    pub party: Option<Party>,
}

impl Store {
    /// Records that the registry confirmed an update of a request.
    ///
    /// Returns the new state of the update; `None`: the update is no longer unverified.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn verify_update(
        &self,
        id: &str,
        digest: Option<&Digest>,
        note: Option<String>,
    ) -> Result<Option<UpdateState>, StoreError> {
        let step = Step { digest: digest.cloned(), ..Step::new(id, UpdateInput::Confirm).because(note) };
        Ok(self.writes.run(Steps(vec![step])).await?.into_iter().next().flatten())
    }

    /// Records a failed try of updates, and when the next try is due; `None`: at once.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn postpone_updates(
        &self,
        ids: Vec<String>,
        until: Option<Timestamp>,
        reason: String,
    ) -> Result<(), StoreError> {
        let step = |id| Step { until, ..Step::new(id, UpdateInput::Postpone).because(reason.clone()) };
        let steps: Vec<Step> = ids.into_iter().map(step).collect();
        if steps.is_empty() { Ok(()) } else { self.writes.run(Steps(steps)).await.map(|_| ()) }
    }

    /// Ends updates that will not be written.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_updates(&self, ended: Vec<EndedUpdate>) -> Result<(), StoreError> {
        let step =
            |ended: EndedUpdate| Step { party: ended.party, ..Step::new(ended.id, ended.input).because(ended.reason) };
        let steps: Vec<Step> = ended.into_iter().map(step).collect();
        if steps.is_empty() { Ok(()) } else { self.writes.run(Steps(steps)).await.map(|_| ()) }
    }
}

/// Inputs to updates.
struct Steps(Vec<Step>);

impl Write for Steps {
    /// The new state of each update; `None`: the input did not apply in its state.
    type Output = Vec<Option<UpdateState>>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Self::Output, sqlx::Error> {
        let states = apply(tx, self.0.clone()).await?;
        Ok(self.0.iter().map(|step| states.get(&step.update_id).copied()).collect())
    }
}
