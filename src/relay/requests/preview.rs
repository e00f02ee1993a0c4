use std::sync::Arc;

use super::super::Relay;
use super::super::intake::Asked;
use super::{PromotionOrder, RequestError};
use crate::config_repo::{self, EnvironmentPlan, Plan, WantedVersion};
use crate::image::{Repository, Version};
use crate::policy::rule_for;
use crate::registry::UnverifiedImage;
use crate::store::{Hold, NewRequestedUpdate, UpdateState};
use crate::telemetry::TraceContext;

/// What a promotion would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The commit that it would be applied to.
    pub parent: String,
    /// The change as a unified diff; empty when there is none.
    pub diff: String,
    /// What would become of each repository.
    pub updates: Vec<PreviewedUpdate>,
}

/// What would become of one repository.
#[derive(Debug, Clone)]
pub struct PreviewedUpdate {
    /// The repository.
    pub repository: Repository,
    /// The version that it would run.
    pub version: Version,
    /// What would become of it.
    pub fate: Fate,
    /// Why, or what is not sure yet.
    pub reason: Option<String>,
}

/// What would become of one repository of a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its manifests would change.
    Changed,
    /// They would, once a freeze has ended.
    Waiting,
    /// It runs the version already.
    Unchanged,
    /// It would be refused.
    Refused,
}

impl Fate {
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

impl Relay {
    /// Returns what a promotion would do, without doing it. `trace` is the span of the request.
    ///
    /// # Errors
    ///
    /// Why it would not be taken.
    pub async fn preview_promotion(
        &self,
        order: &PromotionOrder,
        trace: &TraceContext,
    ) -> Result<Preview, RequestError> {
        let plan = self.plan_promotion(order).await?;
        self.pass_gate(order, &plan).await?;
        let branch = self.branch(&order.to)?;
        let mut updates = Vec::new();
        for update in plan.updates {
            updates.push(self.preview_update(&order.to, update, trace).await?);
        }
        let wanted = updates.iter().enumerate().filter(|(_, update)| update.fate != Fate::Refused);
        let wanted = wanted.map(|(index, update)| WantedVersion {
            key: index.to_string(),
            repository: update.repository.clone(),
            version: update.version.clone(),
        });
        let environments = vec![EnvironmentPlan { environment: order.to.clone(), wanted: wanted.collect() }];
        let prepared = branch
            .config_repository()
            .prepare(Plan { environments }, Arc::new(|_: &config_repo::PlannedCommit| String::new()))
            .await
            .map_err(|error| RequestError::Unreachable(error.to_string()))?;
        for (key, outcome) in prepared.outcomes() {
            let Some(update) = key.parse().ok().and_then(|index: usize| updates.get_mut(index)) else { continue };
            match outcome {
                config_repo::Outcome::Changed { .. } => {}
                config_repo::Outcome::Unchanged => (update.fate, update.reason) = (Fate::Unchanged, None),
                config_repo::Outcome::Refused { reason } => {
                    (update.fate, update.reason) = (Fate::Refused, Some(reason.clone()));
                }
            }
        }
        let frozen = self.0.store.frozen().await?.into_iter().find(|frozen| frozen.environment == order.to);
        if let Some(frozen) = frozen.filter(|_| !order.overrides) {
            let waits = updates.iter_mut().filter(|update| update.fate == Fate::Changed);
            waits.for_each(|update| (update.fate, update.reason) = (Fate::Waiting, Some(frozen.explanation())));
        }
        let diff = prepared.unified_diff().map_err(|error| RequestError::Unreachable(error.to_string()))?;
        Ok(Preview { parent: prepared.parent().to_string(), diff, updates })
    }

    async fn preview_update(
        &self,
        environment: &str,
        update: NewRequestedUpdate,
        trace: &TraceContext,
    ) -> Result<PreviewedUpdate, RequestError> {
        let NewRequestedUpdate { repository, version, state, reason, running: _ } = update;
        let mut preview = PreviewedUpdate { repository, version, fate: Fate::Changed, reason };
        if state == UpdateState::Refused {
            preview.fate = Fate::Refused;
            return Ok(preview);
        }
        let holds = self.0.store.holds().await?;
        let is_here = |hold: &&Hold| hold.environment == environment && hold.repository == preview.repository;
        if let Some(hold) = holds.iter().find(is_here) {
            (preview.fate, preview.reason) = (Fate::Refused, Some(hold.explanation()));
            return Ok(preview);
        }
        let rule = rule_for(&self.0.images, &preview.repository);
        if let (Some(rule), Some(tag)) = (rule, preview.version.tag()) {
            let image = UnverifiedImage { repository: preview.repository.clone(), tag: tag.clone() };
            let known = preview.version.digest().cloned();
            match self.ask(&image, rule, known.as_ref(), "it was recorded with", trace).await {
                Asked::Confirmed { version, note } => {
                    preview.reason = note;
                    if known.is_none() {
                        preview.version = version;
                    }
                }
                Asked::No { reason } | Asked::NotThere { reason } => {
                    (preview.fate, preview.reason) = (Fate::Refused, Some(reason));
                }
                Asked::NotNow { reason, .. } => preview.reason = Some(format!("not confirmed yet: {reason}")),
            }
        }
        Ok(preview)
    }
}
