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
pub struct RollbackRequest {
    pub environment: String,
    /// The repository, whole or by its last component.
    pub repository: String,
    /// A version to write instead of the one before.
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
    pub async fn roll_back(&self, request: &RollbackRequest, by: &Requester) -> Result<RequestMade, RequestError> {
        let fingerprint = fingerprint("rollback", request);
        if let Some(earlier) = self.repeated(by, &fingerprint).await? {
            return Ok(earlier);
        }
        let planned_at = self.now();
        let update = self.plan_rollback(request).await?;
        let repository = update.repository.clone();
        let expires_at =
            request.hold_for.map(|span| expiry(self.now(), span).ok_or(RequestError::HoldTooLong)).transpose()?;
        self.make(NewRequest {
            kind: RequestKind::Rollback,
            environment: request.environment.clone(),
            source: None,
            actor: by.actor.clone(),
            reason: request.reason.clone(),
            planned_at,
            idempotency_key: by.idempotency_key.clone(),
            trace: by.trace,
            overridden: None,
            overrides: false,
            gate: None,
            fingerprint,
            updates: vec![update],
            hold: Some(NewBlock {
                kind: BlockKind::Hold,
                environment: request.environment.clone(),
                repository: Some(repository),
                reason: Some(request.reason.clone().unwrap_or_else(|| "rolled back".to_owned())),
                actor: by.actor.clone(),
                expires_at,
            }),
        })
        .await
    }

    /// Plans the version that a rollback goes to.
    pub(super) async fn plan_rollback(&self, request: &RollbackRequest) -> Result<NewRequestedUpdate, RequestError> {
        let branch = self.branch(&request.environment)?;
        refresh(branch).await?;
        let managed = self.managed(branch, &request.environment);
        let repository = resolve(&managed, &request.environment, &request.repository)?;
        let running = versions(managed.get(&repository).map(Vec::as_slice).unwrap_or_default());
        let version = self.version_before(request, &repository, &running).await?;
        let state = if runs(&running, &version) { UpdateState::Unchanged } else { UpdateState::Unverified };
        Ok(NewRequestedUpdate { repository, version, state, reason: None, running })
    }

    /// Returns the version that a rollback goes to.
    async fn version_before(
        &self,
        request: &RollbackRequest,
        repository: &Repository,
        running: &[Version],
    ) -> Result<Version, RequestError> {
        let filter = HistoryFilter {
            environment: Some(request.environment.clone()),
            repository: Some(repository.clone()),
            before: None,
            limit: HISTORY,
        };
        let history = self.0.store.history(&filter).await?;
        if let Some(tag) = &request.to {
            if let Some(rule) = self.0.rules.at(&request.environment, repository) {
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
            environment: request.environment.clone(),
            repository: repository.clone(),
        })
    }
}

fn expiry(now: Timestamp, span: Duration) -> Option<Timestamp> {
    now.checked_add(jiff::SignedDuration::try_from(span).ok()?).ok()
}
