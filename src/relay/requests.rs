//! Promotions and rollbacks: what can be answered at once is, the rest becomes updates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::branch::Branch;
use super::matrix::{same_tag, versions};
use super::{Environment, Relay, Subject};
use crate::config_repo::{self, EnvironmentPlan, Place, Plan, WantedVersion};
use crate::image::{Repository, Tag, Version};
use crate::policy::{Verification, rule_for};
use crate::registry::{Confirmation, UnverifiedImage};
use crate::store::{
    Cause, HistoryFilter, Hold, NewHold, NewRequest, NewRequestedUpdate, RequestKind, RequestMade, StoreError,
    UpdateState,
};

/// How far back a rollback looks for the version before.
const HISTORY: u32 = 200;

/// "Give environment `to` the versions that `from` runs, or a named one."
#[derive(Debug, Clone, Default, Serialize)]
pub struct PromotionOrder {
    /// The environment that changes.
    pub to: String,
    /// The environment whose versions it takes; may be left out where only one is allowed.
    pub from: Option<String>,
    /// The repositories, whole or by their last component; all that both environments run when left out.
    pub repositories: Option<Vec<String>>,
    /// A version to take instead of what `from` runs.
    pub tag: Option<Tag>,
    /// Repository to the tag that the caller believes `to` runs.
    pub expect: BTreeMap<String, Tag>,
    /// Why.
    pub reason: Option<String>,
}

/// "Give the environment the version that it ran before, and leave it at that."
#[derive(Debug, Clone, Serialize)]
pub struct RollbackOrder {
    /// The environment that changes.
    pub environment: String,
    /// The repository, whole or by its last component.
    pub repository: String,
    /// A version to take instead of the one before.
    pub to: Option<Tag>,
    /// Why.
    pub reason: Option<String>,
    /// How long automation leaves it alone; until it is released when left out.
    pub hold_for: Option<Duration>,
}

/// Who asks, and how a repetition is told from a second request.
#[derive(Debug, Clone)]
pub struct Order {
    /// The name of the API token.
    pub actor: String,
    /// The caller's key.
    pub idempotency_key: Option<String>,
}

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
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// An environment that the settings do not have.
    #[error("there is no environment `{name}`; there are {known}")]
    UnknownEnvironment {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The settings do not allow promotions from there.
    #[error("`{to}` takes no promotion from `{from}`; its promote_from allows {allowed}")]
    SourceNotAllowed {
        /// The environment that would change.
        to: String,
        /// The environment that was named.
        from: String,
        /// What is allowed.
        allowed: String,
    },
    /// No source was named, and the settings do not give exactly one.
    #[error("name the environment to promote from: `{to}` allows {allowed}")]
    SourceMissing {
        /// The environment that would change.
        to: String,
        /// What is allowed.
        allowed: String,
    },
    /// A tag without repositories would move everything to a tag that most do not have.
    #[error("a `tag` needs `repositories`: name what it is a tag of")]
    TagWithoutRepositories,
    /// A repository that an environment does not name, or that no rule manages.
    #[error("`{environment}` runs no managed repository `{repository}`; it runs {known}")]
    UnknownRepository {
        /// The environment.
        environment: String,
        /// What was asked for.
        repository: String,
        /// What there is.
        known: String,
    },
    /// A last component that several repositories have.
    #[error("`{repository}` is ambiguous in `{environment}`: it may be {candidates}")]
    AmbiguousRepository {
        /// The environment.
        environment: String,
        /// What was asked for.
        repository: String,
        /// What it may be.
        candidates: String,
    },
    /// The rule of the image does not take the tag.
    #[error(transparent)]
    TagRefused(#[from] crate::policy::TagRefused),
    /// Sites of one repository are apart in the source.
    #[error("`{environment}` runs several versions of {repository} ({versions}): name one with `tag`")]
    SeveralVersions {
        /// The environment.
        environment: String,
        /// The repository.
        repository: Repository,
        /// What runs.
        versions: String,
        /// The first of them.
        first: Version,
    },
    /// The environment runs something else than the caller believes.
    #[error("`{environment}` runs {running} of {repository}, and {expected} was expected")]
    Unexpected {
        /// The environment.
        environment: String,
        /// The repository.
        repository: Repository,
        /// What the caller believes.
        expected: Tag,
        /// What runs.
        running: String,
    },
    /// Nothing is known of an earlier version.
    #[error("no earlier version of {repository} in `{environment}` is known: name one with `to`")]
    NoEarlierVersion {
        /// The environment.
        environment: String,
        /// The repository.
        repository: Repository,
    },
    /// A time that does not exist.
    #[error("`hold_for` reaches beyond the end of the calendar")]
    HoldTooLong,
    /// The key came with another request before.
    #[error("the Idempotency-Key was used for another request before: use a new key for a new request")]
    KeyReused,
    /// The branch cannot be read, so nobody knows what runs.
    #[error("the config repository cannot be read: {0}")]
    Unreachable(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Relay {
    /// Takes a promotion. Returns when it is on disk.
    ///
    /// # Errors
    ///
    /// Why it is not taken; then nothing of it is stored.
    pub async fn promote(&self, order: &PromotionOrder, by: &Order) -> Result<RequestMade, RequestError> {
        let fingerprint = fingerprint("promotion", order);
        if let Some(earlier) = self.repeated(by, &fingerprint).await? {
            return Ok(earlier);
        }
        let plan = self.plan_promotion(order).await?;
        self.make(NewRequest {
            kind: RequestKind::Promotion,
            environment: order.to.clone(),
            source: plan.source,
            actor: by.actor.clone(),
            reason: order.reason.clone(),
            idempotency_key: by.idempotency_key.clone(),
            fingerprint,
            updates: plan.updates,
            hold: None,
        })
        .await
    }

    /// Takes a rollback: the version and a hold. Returns when both are on disk.
    ///
    /// # Errors
    ///
    /// Why it is not taken; then nothing of it is stored.
    pub async fn roll_back(&self, order: &RollbackOrder, by: &Order) -> Result<RequestMade, RequestError> {
        let fingerprint = fingerprint("rollback", order);
        if let Some(earlier) = self.repeated(by, &fingerprint).await? {
            return Ok(earlier);
        }
        let branch = self.branch(&order.environment)?;
        refresh(branch).await?;
        let managed = self.managed(branch, &order.environment);
        let repository = resolve(&managed, &order.environment, &order.repository)?;
        let running = versions(managed.get(&repository).map(Vec::as_slice).unwrap_or_default());
        let version = self.version_before(order, &repository, &running).await?;
        let expires_at = order.hold_for.map(|span| expiry(span).ok_or(RequestError::HoldTooLong)).transpose()?;
        let runs_it = matches!(running.as_slice(), [one] if same_tag(one, &version));
        self.make(NewRequest {
            kind: RequestKind::Rollback,
            environment: order.environment.clone(),
            source: None,
            actor: by.actor.clone(),
            reason: order.reason.clone(),
            idempotency_key: by.idempotency_key.clone(),
            fingerprint,
            updates: vec![NewRequestedUpdate {
                repository: repository.clone(),
                version,
                state: if runs_it { UpdateState::Unchanged } else { UpdateState::Unverified },
                reason: None,
            }],
            hold: Some(NewHold {
                environment: order.environment.clone(),
                repository,
                reason: Some(order.reason.clone().unwrap_or_else(|| "rolled back".to_owned())),
                actor: by.actor.clone(),
                expires_at,
            }),
        })
        .await
    }

    /// Returns what a promotion would do, without doing it.
    ///
    /// # Errors
    ///
    /// Why it would not be taken.
    pub async fn preview_promotion(&self, order: &PromotionOrder) -> Result<Preview, RequestError> {
        let plan = self.plan_promotion(order).await?;
        let branch = self.branch(&order.to)?;
        let mut updates = Vec::new();
        for update in plan.updates {
            updates.push(self.preview_update(&order.to, update).await?);
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
            .prepare(Plan { environments }, Arc::new(|_: &config_repo::EnvironmentCommit| String::new()))
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
        let diff = prepared.unified_diff().map_err(|error| RequestError::Unreachable(error.to_string()))?;
        Ok(Preview { parent: prepared.parent().to_string(), diff, updates })
    }

    async fn preview_update(
        &self,
        environment: &str,
        update: NewRequestedUpdate,
    ) -> Result<PreviewedUpdate, RequestError> {
        let NewRequestedUpdate { repository, version, state, reason } = update;
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
        let verifies =
            rule_for(&self.0.images, &preview.repository).is_some_and(|rule| rule.verify == Verification::Exists);
        if let (true, Some(tag)) = (verifies, preview.version.tag()) {
            let image = UnverifiedImage { repository: preview.repository.clone(), tag: tag.clone() };
            match self.0.registries.confirm(&image).await {
                Confirmation::There(image) if preview.version.digest().is_none() => preview.version = image.version(),
                Confirmation::There(_) => {}
                Confirmation::NotThere => {
                    let repository = &preview.repository;
                    let no = format!("{} has no {}:{tag}", repository.registry(), repository.path());
                    (preview.fate, preview.reason) = (Fate::Refused, Some(no));
                }
                Confirmation::NotAllowed { reason } => (preview.fate, preview.reason) = (Fate::Refused, Some(reason)),
                Confirmation::NotNow { reason, .. } => preview.reason = Some(format!("not confirmed yet: {reason}")),
            }
        }
        Ok(preview)
    }

    /// Returns the request that the same caller made with the same key before.
    async fn repeated(&self, by: &Order, fingerprint: &str) -> Result<Option<RequestMade>, RequestError> {
        let Some(key) = &by.idempotency_key else { return Ok(None) };
        match self.0.store.request_by_key(&by.actor, key).await? {
            Some(earlier) if earlier.fingerprint == fingerprint => Ok(Some(RequestMade::Repeated(earlier))),
            Some(_) => Err(RequestError::KeyReused),
            None => Ok(None),
        }
    }

    async fn make(&self, request: NewRequest) -> Result<RequestMade, RequestError> {
        let fingerprint = request.fingerprint.clone();
        let made = self.0.store.make_request(request).await?;
        match &made {
            RequestMade::New { request, hold } => {
                tracing::info!(request = %request.id, kind = %request.kind, environment = %request.environment, actor = %request.actor, "request taken");
                self.notify(Subject::Request {
                    id: request.id.clone(),
                    request: request.kind.to_string(),
                    environment: request.environment.clone(),
                    actor: request.actor.clone(),
                });
                if let Some(hold) = hold {
                    self.notify_hold(hold, "made");
                }
                self.0.intake_wake.notify_one();
            }
            // Two requests with one key that raced each other past the first look.
            RequestMade::Repeated(earlier) if earlier.fingerprint != fingerprint => {
                return Err(RequestError::KeyReused);
            }
            RequestMade::Repeated(_) => {}
        }
        Ok(made)
    }

    fn branch(&self, environment: &str) -> Result<&Branch, RequestError> {
        self.branch_of(environment).ok_or_else(|| RequestError::UnknownEnvironment {
            name: environment.to_owned(),
            known: list(self.0.branches.iter().flat_map(Branch::environments).map(|found| found.name.as_str())),
        })
    }

    /// Works out which repositories get which version.
    async fn plan_promotion(&self, order: &PromotionOrder) -> Result<PromotionPlan, RequestError> {
        let target = self.branch(&order.to)?;
        let source = self.source(order)?;
        refresh(target).await?;
        let running = self.managed(target, &order.to);
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
        check_expectations(order, &running)?;
        let mut updates = Vec::new();
        for repository in self.selected(order, &running, offered.as_ref())? {
            updates.push(match self.plan_update(order, repository, &running, offered.as_ref()) {
                // Nobody named it: one repository that is in disorder does not stop the others.
                Err(error @ RequestError::SeveralVersions { .. }) if order.repositories.is_none() => refused(error)?,
                planned => planned?,
            });
        }
        Ok(PromotionPlan { source: source.map(str::to_owned), updates })
    }

    /// Returns the environment whose versions are taken; `None` when a named tag is.
    fn source<'a>(&'a self, order: &'a PromotionOrder) -> Result<Option<&'a str>, RequestError> {
        let to = order.to.clone();
        let target = self.environment(&order.to);
        let allowed = target.map(|Environment { promote_from, .. }| promote_from.as_slice()).unwrap_or_default();
        let listed = || if allowed.is_empty() { "none".to_owned() } else { list(allowed.iter().map(String::as_str)) };
        match (&order.from, allowed) {
            (Some(from), _) if allowed.contains(from) => Ok(Some(from)),
            (Some(from), _) => {
                self.branch(from)?;
                Err(RequestError::SourceNotAllowed { to, from: from.clone(), allowed: listed() })
            }
            (None, _) if order.tag.is_some() => Ok(None),
            (None, [only]) => Ok(Some(only)),
            (None, _) => Err(RequestError::SourceMissing { to, allowed: listed() }),
        }
    }

    /// Returns the repositories that are meant: those named, or all that both environments run.
    fn selected(
        &self,
        order: &PromotionOrder,
        running: &Sites,
        offered: Option<&(&str, Sites)>,
    ) -> Result<Vec<Repository>, RequestError> {
        match (&order.repositories, offered) {
            (Some(names), _) => {
                let mut selected = Vec::new();
                for name in names {
                    let repository = resolve(running, &order.to, name)?;
                    if !selected.contains(&repository) {
                        selected.push(repository);
                    }
                }
                Ok(selected)
            }
            (None, Some((_, offered))) if order.tag.is_none() => {
                Ok(running.keys().filter(|repository| offered.contains_key(*repository)).cloned().collect())
            }
            (None, _) => Err(RequestError::TagWithoutRepositories),
        }
    }

    fn plan_update(
        &self,
        order: &PromotionOrder,
        repository: Repository,
        running: &Sites,
        offered: Option<&(&str, Sites)>,
    ) -> Result<NewRequestedUpdate, RequestError> {
        let version = match (&order.tag, offered) {
            (Some(tag), _) => {
                if let Some(rule) = rule_for(&self.0.images, &repository) {
                    rule.check_tag(tag)?;
                }
                Version::tagged(tag.clone(), None)
            }
            (None, Some((source, offered))) => offered_version(source, &repository, offered)?,
            (None, None) => return Err(RequestError::TagWithoutRepositories),
        };
        let runs = versions(running.get(&repository).map(Vec::as_slice).unwrap_or_default());
        let runs_it = matches!(runs.as_slice(), [one] if one == &version
            || (version.digest().is_none() && same_tag(one, &version)));
        let state = if runs_it { UpdateState::Unchanged } else { UpdateState::Unverified };
        Ok(NewRequestedUpdate { repository, version, state, reason: None })
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
            limit: HISTORY,
        };
        let history = self.0.store.history(&filter).await?;
        if let Some(tag) = &order.to {
            if let Some(rule) = rule_for(&self.0.images, repository) {
                rule.check_tag(tag)?;
            }
            let known = history.iter().find(|change| change.version.tag() == Some(tag));
            return Ok(known.map_or_else(|| Version::tagged(tag.clone(), None), |change| change.version.clone()));
        }
        let runs = |version: &Version| running.iter().any(|found| same_tag(found, version));
        // A rollback is no step forward: going back twice must not lead to what was fled from.
        let step = history.iter().find(|change| change.cause != Cause::Rollback && runs(&change.version));
        let before = match step {
            Some(step) => step.old.clone(),
            // Somebody else has written what runs: the version before is the last of ours.
            None => history.first().map(|last| last.version.clone()).filter(|version| !runs(version)),
        };
        before.ok_or_else(|| RequestError::NoEarlierVersion {
            environment: order.environment.clone(),
            repository: repository.clone(),
        })
    }
}

struct PromotionPlan {
    source: Option<String>,
    updates: Vec<NewRequestedUpdate>,
}

type Sites = BTreeMap<Repository, Vec<Place>>;

/// People decide on what runs now, so the remote is asked: one round trip, and no fetch when nothing has moved.
async fn refresh(branch: &Branch) -> Result<(), RequestError> {
    branch.refresh().await.map(|_| ()).map_err(|error| RequestError::Unreachable(error.to_string()))
}

/// Finds a repository by its whole name or, where that is unambiguous, by its last component.
fn resolve(managed: &Sites, environment: &str, text: &str) -> Result<Repository, RequestError> {
    if let Ok(repository) = text.parse::<Repository>()
        && managed.contains_key(&repository)
    {
        return Ok(repository);
    }
    let candidates: Vec<&Repository> = managed.keys().filter(|repository| repository.name() == text).collect();
    match candidates.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(RequestError::UnknownRepository {
            environment: environment.to_owned(),
            repository: text.to_owned(),
            known: list(managed.keys().map(Repository::as_str)),
        }),
        many => Err(RequestError::AmbiguousRepository {
            environment: environment.to_owned(),
            repository: text.to_owned(),
            candidates: list(many.iter().map(|repository| repository.as_str())),
        }),
    }
}

fn check_expectations(order: &PromotionOrder, running: &Sites) -> Result<(), RequestError> {
    for (name, expected) in &order.expect {
        let repository = resolve(running, &order.to, name)?;
        let versions = versions(running.get(&repository).map(Vec::as_slice).unwrap_or_default());
        if !matches!(versions.as_slice(), [one] if one.tag() == Some(expected)) {
            return Err(RequestError::Unexpected {
                environment: order.to.clone(),
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
        [] => Err(RequestError::UnknownRepository {
            environment: source.to_owned(),
            repository: repository.to_string(),
            known: list(offered.keys().map(Repository::as_str)),
        }),
        [first, ..] => Err(RequestError::SeveralVersions {
            environment: source.to_owned(),
            repository: repository.clone(),
            versions: found.iter().map(Version::short).collect::<Vec<_>>().join(", "),
            first: first.clone(),
        }),
    }
}

/// Returns the row of a repository that cannot be promoted because its sites are apart in the source.
fn refused(error: RequestError) -> Result<NewRequestedUpdate, RequestError> {
    let reason = Some(error.to_string());
    match error {
        RequestError::SeveralVersions { repository, first, .. } => {
            Ok(NewRequestedUpdate { repository, version: first, state: UpdateState::Refused, reason })
        }
        other => Err(other),
    }
}

fn fingerprint(kind: &str, order: &impl Serialize) -> String {
    // Plain data with string keys: writing it as JSON cannot fail.
    let json = serde_json::to_string(order).unwrap_or_default();
    crate::image::Digest::of(format!("{kind} {json}").as_bytes()).to_string()
}

fn expiry(span: Duration) -> Option<Timestamp> {
    Timestamp::now().checked_add(jiff::SignedDuration::try_from(span).ok()?).ok()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
