use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::super::follow_up::Promoted;
use super::super::matrix::versions;
use super::super::names::unknown_repository;
use super::super::{Environment, Relay};
use super::{RequestError, Requester, Sites, fingerprint, list, refresh, resolve};
use crate::domain::{RequestKind, UpdateGate, UpdateState, runs};
use crate::store::{NewRequest, NewRequestedUpdate, RequestMade};
use tagrelay_image::{Repository, Tag, Version};

/// A request for a promotion: environment `to` gets the versions that `from` runs, or a named one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PromotionRequest {
    /// The environment that changes.
    pub to: String,
    /// The environment whose versions are promoted; optional if only one is allowed.
    pub from: Option<String>,
    /// The repositories, whole or by their last component; `None`: all that both environments run.
    pub repositories: Option<Vec<String>>,
    /// A version to write instead of the one that `from` runs.
    pub tag: Option<Tag>,
    /// Repository to the tag that the caller believes `to` runs.
    pub expect: BTreeMap<String, Tag>,
    pub reason: Option<String>,
    /// Promotes despite a closed gate or a freeze of the target. Needs a reason.
    #[serde(rename = "override", skip_serializing_if = "std::ops::Not::not")]
    pub overrides: bool,
    /// Waits for a closed gate instead of being refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
}

/// How a promotion passes its gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// The reason of a closed gate that it overrides.
    overridden: Option<String>,
    /// The reason of a closed gate that it waits for.
    pub(super) waits_for: Option<String>,
}

impl Relay {
    /// Stores a promotion durably. Also returns the repositories that the target does not name.
    ///
    /// # Errors
    ///
    /// If the request is rejected; then nothing is stored.
    pub async fn promote(
        &self,
        request: &PromotionRequest,
        by: &Requester,
    ) -> Result<(RequestMade, Vec<Repository>), RequestError> {
        let fingerprint = fingerprint("promotion", request);
        if let Some(earlier) = self.repeated(by, &fingerprint).await? {
            return Ok((earlier, Vec::new()));
        }
        let plan = self.plan_promotion(request).await?;
        let Passed { overridden, waits_for } = self.pass_gate(request, &plan).await?;
        let skipped = plan.skipped;
        let made = self.make(NewRequest {
            kind: RequestKind::Promotion,
            environment: request.to.clone(),
            source: plan.source,
            actor: by.actor.clone(),
            reason: request.reason.clone(),
            planned_at: plan.planned_at,
            idempotency_key: by.idempotency_key.clone(),
            trace: by.trace,
            overridden,
            fingerprint,
            updates: plan.updates,
            hold: None,
            overrides: request.overrides,
            gate: waits_for.is_some().then_some(UpdateGate::Closed),
        });
        Ok((made.await?, skipped))
    }

    /// Plans the version of each repository.
    pub(super) async fn plan_promotion(&self, request: &PromotionRequest) -> Result<PromotionPlan, RequestError> {
        let target = self.branch(&request.to)?;
        let source = self.source(request)?;
        let planned_at = self.now();
        refresh(target).await?;
        let running = self.managed(target, &request.to);
        let offered = match source {
            Some(source) => {
                let branch = self.branch(source)?;
                if !std::ptr::eq(branch, target) {
                    refresh(branch).await?;
                }
                Some((source, self.managed(branch, source)))
            }
            None => None,
        };
        check_expectations(request, &running)?;
        let mut updates = Vec::new();
        for repository in self.selected(request, &running, offered.as_ref())? {
            updates.push(match self.plan_update(request, repository.clone(), &running, offered.as_ref()) {
                Err(error) if request.repositories.is_none() => refused(error, repository, offered.as_ref())?,
                planned => planned?,
            });
        }
        if let (Some(source), None) = (source, &request.tag) {
            for update in &mut updates {
                self.pin_to_what_was_brought(source, update, &running).await?;
            }
        }
        let elsewhere = offered.as_ref().and_then(|(_, offered)| {
            let runs_it = |update: &&NewRequestedUpdate| {
                let places = offered.get(&update.repository).map(Vec::as_slice).unwrap_or_default();
                runs(&versions(places), &update.version)
            };
            let named = updates.iter().filter(|_| request.tag.is_some());
            named.clone().find(|update| !runs_it(update)).map(|update| update.repository.clone())
        });
        let skipped =
            offered.filter(|_| request.repositories.is_none()).map(|(_, offered)| offered).unwrap_or_default();
        let skipped = skipped.into_keys().filter(|repository| !running.contains_key(repository)).collect();
        Ok(PromotionPlan { planned_at, source: source.map(str::to_owned), updates, elsewhere, skipped })
    }

    /// Adds the digest that the source received with the version, if the source's manifests name only the tag.
    ///
    /// The tag may have moved since, and the promotion must write the image that the source ran.
    async fn pin_to_what_was_brought(
        &self,
        source: &str,
        update: &mut NewRequestedUpdate,
        running: &Sites,
    ) -> Result<(), RequestError> {
        let (Some(tag), None) = (update.version.tag(), update.version.digest()) else { return Ok(()) };
        if update.state == UpdateState::Refused {
            return Ok(());
        }
        let brought = self.0.store.brought(source, &update.repository, &update.version).await?;
        let Some(digest) = brought.and_then(|brought| brought.version.digest().cloned()) else { return Ok(()) };
        update.version = Version::tagged(tag.clone(), Some(digest));
        let running = versions(running.get(&update.repository).map(Vec::as_slice).unwrap_or_default());
        update.state = if runs(&running, &update.version) { UpdateState::Unchanged } else { UpdateState::Unverified };
        Ok(())
    }

    /// Checks the gate of the source.
    pub(super) async fn pass_gate(
        &self,
        request: &PromotionRequest,
        plan: &PromotionPlan,
    ) -> Result<Passed, RequestError> {
        let reason = request.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
        if request.overrides && reason.is_none() {
            return Err(RequestError::OverrideWithoutReason);
        }
        let source = plan.source.as_deref().and_then(|source| self.environment(source));
        let policy = self.environment(&request.to).and_then(|target| target.gate_of(source));
        let Some(policy) = policy else { return Ok(Passed::default()) };
        let may_wait = request.wait && plan.source.is_some() && plan.elsewhere.is_none();
        let closed = match (&plan.source, &plan.elsewhere) {
            (Some(_), Some(repository)) => {
                Some(format!("{repository} is named by a tag that the environment to promote from does not run"))
            }
            (Some(source), None) => {
                let promoted = plan.promoted();
                self.gate(source, &promoted, policy, self.now()).await?.map(|closed| closed.explanation())
            }
            (None, _) => {
                Some("a version that is named by its tag alone comes from no environment: name one".to_owned())
            }
        };
        match closed {
            None => Ok(Passed::default()),
            Some(reason) if request.overrides => {
                Ok(Passed { overridden: Some(reason.replace('\n', "; ")), waits_for: None })
            }
            Some(reason) if may_wait => Ok(Passed { overridden: None, waits_for: Some(reason.replace('\n', "; ")) }),
            Some(reason) => Err(RequestError::GateClosed { to: request.to.clone(), reason }),
        }
    }

    /// Returns the source environment; `None`: the request names a tag and no source.
    fn source<'a>(&'a self, request: &'a PromotionRequest) -> Result<Option<&'a str>, RequestError> {
        let to = request.to.clone();
        let target = self.environment(&request.to);
        let allowed = target.map(|Environment { promote_from, .. }| promote_from.as_slice()).unwrap_or_default();
        let listed = || if allowed.is_empty() { "none".to_owned() } else { list(allowed.iter().map(String::as_str)) };
        match (&request.from, allowed) {
            (Some(from), _) if allowed.contains(from) => Ok(Some(from)),
            (Some(from), _) => {
                self.branch(from)?;
                Err(RequestError::SourceNotAllowed { to, from: from.clone(), allowed: listed() })
            }
            (None, _) if request.tag.is_some() => Ok(None),
            (None, []) => Err(RequestError::NoSource { to }),
            (None, [only]) => Ok(Some(only)),
            (None, _) => Err(RequestError::SourceMissing { to, allowed: listed() }),
        }
    }

    /// Returns the selected repositories: the named ones, or all that both environments run.
    fn selected(
        &self,
        request: &PromotionRequest,
        running: &Sites,
        offered: Option<&(&str, Sites)>,
    ) -> Result<Vec<Repository>, RequestError> {
        match (&request.repositories, offered) {
            (Some(names), _) => {
                let mut selected = Vec::new();
                for name in names {
                    let repository = resolve(running, &request.to, name)?;
                    if !selected.contains(&repository) {
                        selected.push(repository);
                    }
                }
                Ok(selected)
            }
            (None, Some((source, offered))) if request.tag.is_none() => {
                let both: Vec<Repository> =
                    running.keys().filter(|repository| offered.contains_key(*repository)).cloned().collect();
                if both.is_empty() {
                    return Err(RequestError::NothingInCommon {
                        to: request.to.clone(),
                        from: (*source).to_owned(),
                        target: list(running.keys().map(Repository::as_str)),
                        offered: list(offered.keys().map(Repository::as_str)),
                    });
                }
                Ok(both)
            }
            (None, _) => Err(RequestError::TagWithoutRepositories),
        }
    }

    fn plan_update(
        &self,
        request: &PromotionRequest,
        repository: Repository,
        running: &Sites,
        offered: Option<&(&str, Sites)>,
    ) -> Result<NewRequestedUpdate, RequestError> {
        let version = match (&request.tag, offered) {
            (Some(tag), _) => Version::tagged(tag.clone(), None),
            (None, Some((source, offered))) => offered_version(source, &repository, offered)?,
            (None, None) => return Err(RequestError::TagWithoutRepositories),
        };
        if let (Some(rule), Some(tag)) = (self.0.rules.at(&request.to, &repository), version.tag()) {
            // A commit by hand may have put a tag into the source that the rule rejects.
            rule.check_tag(tag)?;
        }
        let running = versions(running.get(&repository).map(Vec::as_slice).unwrap_or_default());
        let runs_it = runs(&running, &version);
        let state = if runs_it { UpdateState::Unchanged } else { UpdateState::Unverified };
        Ok(NewRequestedUpdate { repository, version, state, reason: None, running })
    }
}

pub(super) struct PromotionPlan {
    /// When the versions that the target runs were read.
    planned_at: Timestamp,
    source: Option<String>,
    pub(super) updates: Vec<NewRequestedUpdate>,
    /// A repository whose named version the source does not run.
    elsewhere: Option<Repository>,
    /// The repositories that the source runs and the target does not name.
    pub(super) skipped: Vec<Repository>,
}

impl PromotionPlan {
    /// Returns the versions that change if the promotion is accepted.
    fn promoted(&self) -> Vec<Promoted> {
        let changing = self.updates.iter().filter(|update| update.state == UpdateState::Unverified);
        changing.map(|update| (update.repository.clone(), update.version.clone())).collect()
    }
}

fn check_expectations(request: &PromotionRequest, running: &Sites) -> Result<(), RequestError> {
    for (name, expected) in &request.expect {
        let repository = resolve(running, &request.to, name)?;
        let versions = versions(running.get(&repository).map(Vec::as_slice).unwrap_or_default());
        if !matches!(versions.as_slice(), [one] if one.tag() == Some(expected)) {
            return Err(RequestError::Unexpected {
                environment: request.to.clone(),
                repository,
                expected: expected.clone(),
                running: versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
            });
        }
    }
    Ok(())
}

fn offered_version(source: &str, repository: &Repository, offered: &Sites) -> Result<Version, RequestError> {
    let found = versions(offered.get(repository).map(Vec::as_slice).unwrap_or_default());
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(unknown_repository(source, repository.as_str(), offered.keys())),
        _ => Err(RequestError::SeveralVersions {
            environment: source.to_owned(),
            repository: repository.clone(),
            versions: found.iter().map(Version::short).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Converts an error about a repository that the request does not name into a refused update.
///
/// Only for errors about the versions of the source: one inconsistent repository does not stop the others.
fn refused(
    error: RequestError,
    repository: Repository,
    offered: Option<&(&str, Sites)>,
) -> Result<NewRequestedUpdate, RequestError> {
    let places = offered.and_then(|(_, offered)| offered.get(&repository));
    let found = versions(places.map(Vec::as_slice).unwrap_or_default());
    match (&error, found.into_iter().next()) {
        (RequestError::SeveralVersions { .. } | RequestError::TagRefused(_), Some(version)) => {
            let reason = Some(error.to_string());
            let (state, running) = (UpdateState::Refused, Vec::new());
            Ok(NewRequestedUpdate { repository, version, state, reason, running })
        }
        _ => Err(error),
    }
}
