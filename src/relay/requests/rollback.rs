use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::super::Relay;
use super::super::matrix::versions;
use super::{RequestError, Requester, fingerprint, refresh, resolve};
use crate::domain::{BlockKind, Cause, NewBlock, RequestKind, UpdateState, is_same, runs};
use crate::store::{HistoryFilter, NewRequest, NewRequestedUpdate, RequestMade};
use tagrelay_image::{Repository, Tag, Version};

/// How many entries of the history a rollback searches for the earlier version.
const HISTORY: u32 = 200;

/// A request for a rollback: the environment gets the version that it ran before, and a hold.
#[derive(Debug, Clone, Serialize)]
pub struct RollbackOrder {
    pub environment: String,
    /// The repository, whole or by its last component.
    pub repository: String,
    /// A version to take instead of the one before.
    pub to: Option<Tag>,
    pub reason: Option<String>,
    /// How long the hold lasts; `None`: until it is released.
    pub hold_for: Option<Duration>,
}

impl Relay {
    /// Stores a rollback durably: the version and a hold.
    ///
    /// # Errors
    ///
    /// If the request is rejected; then nothing is stored.
    pub async fn roll_back(&self, order: &RollbackOrder, by: &Requester) -> Result<RequestMade, RequestError> {
        let fingerprint = fingerprint("rollback", order);
        if let Some(earlier) = self.repeated(by, &fingerprint).await? {
            return Ok(earlier);
        }
        let planned_at = self.now();
        let update = self.plan_rollback(order).await?;
        let repository = update.repository.clone();
        let expires_at =
            order.hold_for.map(|span| expiry(self.now(), span).ok_or(RequestError::HoldTooLong)).transpose()?;
        self.make(NewRequest {
            kind: RequestKind::Rollback,
            environment: order.environment.clone(),
            source: None,
            actor: by.actor.clone(),
            reason: order.reason.clone(),
            planned_at,
            idempotency_key: by.idempotency_key.clone(),
            trace: by.trace,
            overridden: None,
            overrides: false,
            fingerprint,
            updates: vec![update],
            hold: Some(NewBlock {
                kind: BlockKind::Hold,
                environment: order.environment.clone(),
                repository: Some(repository),
                reason: Some(order.reason.clone().unwrap_or_else(|| "rolled back".to_owned())),
                actor: by.actor.clone(),
                expires_at,
            }),
        })
        .await
    }

    /// Plans the version that a rollback goes to.
    pub(super) async fn plan_rollback(&self, order: &RollbackOrder) -> Result<NewRequestedUpdate, RequestError> {
        let branch = self.branch(&order.environment)?;
        refresh(branch).await?;
        let managed = self.managed(branch, &order.environment);
        let repository = resolve(&managed, &order.environment, &order.repository)?;
        let running = versions(managed.get(&repository).map(Vec::as_slice).unwrap_or_default());
        let version = self.version_before(order, &repository, &running).await?;
        let state = if runs(&running, &version) { UpdateState::Unchanged } else { UpdateState::Unverified };
        Ok(NewRequestedUpdate { repository, version, state, reason: None, running })
    }

    /// Returns the version that a rollback goes to.
    async fn version_before(
        &self,
        order: &RollbackOrder,
        repository: &Repository,
        running: &[Version],
    ) -> Result<Version, RequestError> {
        let filter = HistoryFilter {
            environment: Some(order.environment.clone()),
            repository: Some(repository.clone()),
            before: None,
            limit: HISTORY,
        };
        let history = self.0.store.history(&filter).await?;
        if let Some(tag) = &order.to {
            if let Some(rule) = self.0.rules.at(&order.environment, repository) {
                rule.check_tag(tag)?;
            }
            let known = history.iter().find(|change| change.version.tag() == Some(tag));
            return Ok(known.map_or_else(|| Version::tagged(tag.clone(), None), |change| change.version.clone()));
        }
        let runs = |version: &Version| running.iter().any(|found| is_same(found, version));
        // Rollbacks are skipped: a second rollback must not return to the version that the first one left.
        let step = history.iter().find(|change| change.cause != Cause::Rollback && runs(&change.version));
        let before = match step {
            Some(step) => step.old.clone(),
            // Another writer set the running version: return to our last version.
            None => history.first().map(|last| last.version.clone()).filter(|version| !runs(version)),
        };
        before.ok_or_else(|| RequestError::NoEarlierVersion {
            environment: order.environment.clone(),
            repository: repository.clone(),
        })
    }
}

fn expiry(now: Timestamp, span: Duration) -> Option<Timestamp> {
    now.checked_add(jiff::SignedDuration::try_from(span).ok()?).ok()
}
