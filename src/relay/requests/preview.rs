use std::sync::Arc;

use super::super::Relay;
use super::super::direction::{Direction, Move};
use super::super::intake::ImageCheck;
use super::{PromotionRequest, RequestError, RollbackRequest};
use crate::config_repo::{self, EnvironmentPlan, Plan, WantedVersion};
use crate::domain::{Blocks, Frozen, UpdateState, first_state};
use crate::registry::UnverifiedImage;
use crate::store::NewRequestedUpdate;
use crate::telemetry::TraceContext;
use tagrelay_image::{Repository, Version};

/// The dry run of a promotion.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The commit that it would be applied to.
    pub parent: String,
    /// The change as a unified diff; empty if there is no change.
    pub diff: String,
    pub updates: Vec<PreviewedUpdate>,
    /// The repositories that the source runs and the target does not name.
    pub skipped: Vec<Repository>,
}

/// The result of a dry run for one repository.
#[derive(Debug, Clone)]
pub struct PreviewedUpdate {
    pub repository: Repository,
    /// The version that it would run.
    pub version: Version,
    /// The versions that run.
    pub old: Vec<Version>,
    /// How the version relates to the one that runs.
    pub direction: Direction,
    pub state: PreviewState,
    /// Why it has this state, or a remark about the image.
    pub reason: Option<String>,
}

/// The state that an update would reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviewState {
    /// Its manifests would change.
    Changed,
    /// Its manifests would change after a freeze ends.
    Waiting,
    /// It runs the version already.
    Unchanged,
    /// It would be refused.
    Refused,
}

impl PreviewState {
    /// Returns the word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Waiting => "waiting",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

impl Preview {
    /// Makes the changes wait for a closed gate.
    fn waiting_for(mut self, gate: Option<String>) -> Self {
        for update in self.updates.iter_mut().filter(|update| update.state == PreviewState::Changed) {
            if let Some(reason) = &gate {
                (update.state, update.reason) = (PreviewState::Waiting, Some(reason.clone()));
            }
        }
        self
    }

    /// Makes the changes wait for a freeze.
    fn frozen_by(mut self, frozen: Option<&Frozen>) -> Self {
        if let Some(frozen) = frozen {
            for update in self.updates.iter_mut().filter(|update| update.state == PreviewState::Changed) {
                (update.state, update.reason) = (PreviewState::Waiting, Some(frozen.explanation()));
            }
        }
        self
    }
}

impl Relay {
    /// Returns the effect of a promotion without storing it. `trace` is the span of the request.
    ///
    /// # Errors
    ///
    /// If the promotion would be rejected.
    pub async fn preview_promotion(
        &self,
        request: &PromotionRequest,
        trace: &TraceContext,
    ) -> Result<Preview, RequestError> {
        let plan = self.plan_promotion(request).await?;
        let passed = self.pass_gate(request, &plan).await?;
        let blocks = self.0.store.blocks().await?;
        let frozen = blocks.frozen(&request.to, self.now()).filter(|_| !request.overrides);
        let preview = self.preview(&request.to, plan.updates, &blocks, trace).await?;
        let preview = preview.waiting_for(passed.waits_for).frozen_by(frozen.as_ref());
        Ok(Preview { skipped: plan.skipped, ..preview })
    }

    /// Returns the effect of a rollback without storing it. Holds and freezes do not stop it.
    ///
    /// # Errors
    ///
    /// If the rollback would be rejected.
    pub async fn preview_rollback(
        &self,
        request: &RollbackRequest,
        trace: &TraceContext,
    ) -> Result<Preview, RequestError> {
        let update = self.plan_rollback(request).await?;
        self.preview(&request.environment, vec![update], &Blocks::default(), trace).await
    }

    async fn preview(
        &self,
        environment: &str,
        planned: Vec<NewRequestedUpdate>,
        blocks: &Blocks,
        trace: &TraceContext,
    ) -> Result<Preview, RequestError> {
        let branch = self.branch(environment)?;
        let mut updates = Vec::new();
        for update in planned {
            updates.push(self.preview_update((environment, blocks), update, trace).await?);
        }
        let wanted = updates.iter().enumerate().filter(|(_, update)| update.state != PreviewState::Refused);
        let wanted = wanted.map(|(index, update)| WantedVersion {
            key: index.to_string(),
            repository: update.repository.clone(),
            version: update.version.clone(),
        });
        let environments = vec![EnvironmentPlan { environment: environment.to_owned(), wanted: wanted.collect() }];
        let prepared = branch
            .repository()
            .prepare(Plan { environments }, Arc::new(|_: &config_repo::PlannedCommit| String::new()))
            .await
            .map_err(|error| RequestError::Unreachable(error.to_string()))?;
        for (key, outcome) in prepared.outcomes() {
            let Some(update) = key.parse().ok().and_then(|index: usize| updates.get_mut(index)) else { continue };
            match outcome {
                config_repo::Outcome::Changed { .. } => {}
                config_repo::Outcome::Unchanged => (update.state, update.reason) = (PreviewState::Unchanged, None),
                config_repo::Outcome::Refused { reason } => {
                    (update.state, update.reason) = (PreviewState::Refused, Some(reason.clone()));
                }
            }
        }
        let diff = prepared.unified_diff().map_err(|error| RequestError::Unreachable(error.to_string()))?;
        Ok(Preview { parent: prepared.parent().to_string(), diff, updates, skipped: Vec::new() })
    }

    async fn preview_update(
        &self,
        (environment, blocks): (&str, &Blocks),
        update: NewRequestedUpdate,
        trace: &TraceContext,
    ) -> Result<PreviewedUpdate, RequestError> {
        let NewRequestedUpdate { repository, version, state, reason, running: old } = update;
        let hold = blocks.hold(environment, &repository, self.now());
        let (state, held) = first_state(state, hold);
        let mut preview = PreviewedUpdate {
            repository,
            version,
            old,
            direction: Direction::Unknown,
            state: PreviewState::Changed,
            reason: held.or(reason),
        };
        match state {
            UpdateState::Refused => preview.state = PreviewState::Refused,
            UpdateState::Unchanged => preview.state = PreviewState::Unchanged,
            UpdateState::Unverified
            | UpdateState::Pending
            | UpdateState::Waiting
            | UpdateState::Committed
            | UpdateState::Superseded
            | UpdateState::Cancelled => {}
        }
        if preview.state != PreviewState::Changed {
            if preview.state == PreviewState::Refused {
                preview.direction = self.direction_of(environment, &preview).await?;
            }
            return Ok(preview);
        }
        let rule = self.0.rules.at(environment, &preview.repository);
        if let (Some(rule), Some(tag)) = (rule, preview.version.tag()) {
            let image = UnverifiedImage { repository: preview.repository.clone(), tag: tag.clone() };
            let known = preview.version.digest().cloned();
            match self.ask(&image, rule, known.as_ref(), "it was recorded with", trace).await {
                ImageCheck::Confirmed { version, note } => {
                    preview.reason = note;
                    if known.is_none() {
                        preview.version = version;
                    }
                }
                ImageCheck::No { reason } | ImageCheck::NotThere { reason } => {
                    (preview.state, preview.reason) = (PreviewState::Refused, Some(reason));
                }
                ImageCheck::NotNow { reason, .. } => preview.reason = Some(format!("not confirmed yet: {reason}")),
            }
        }
        preview.direction = self.direction_of(environment, &preview).await?;
        Ok(preview)
    }

    /// Compares with the running version. If the manifests name only a tag, its digest comes from the update that
    /// wrote it.
    async fn direction_of(&self, environment: &str, preview: &PreviewedUpdate) -> Result<Direction, RequestError> {
        let [old] = preview.old.as_slice() else { return Ok(Direction::Unknown) };
        let brought = match old.digest() {
            Some(_) => None,
            None => self.0.store.brought(environment, &preview.repository, old).await?,
        };
        let old = brought.as_ref().map_or(old, |brought| &brought.version);
        let of = Move { environment, repository: &preview.repository, old, new: &preview.version };
        Ok(self.direction(of).await?)
    }
}
