//! Fetches the facts that the comparison of a build with the versions of its place needs.
//!
//! The comparison itself names the next missing fact (`domain::compare`), so only facts that decide are fetched.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::facts::descent;
use crate::domain::{
    BuildTime, CatchUpDoubt, Cause, Decided, Decision, Event, Fact, Missing, Other, Party, Place, Subject, Update,
    compare, decide, is_same,
};
use crate::policy::{ImageRule, TagFacts};
use crate::registry::{self, Confirmation, UnverifiedImage};
use crate::relay::Relay;
use crate::source_repo::{Membership, SourceError};
use crate::store::StoreError;
use crate::telemetry::{SpanKind, TraceContext};
use tagrelay_image::{Digest, Repository, Tag, Version};

/// How long after an event arrived the intake retries a missing commit or image config: the source may be a replica
/// that lags, or the branch moves only after the build.
const RETRIED_FOR: SignedDuration = SignedDuration::from_secs(10);

/// How many open updates of a place are compared before the branch writer. If it lacks facts about further ones, it
/// requests them.
const MAX_OPEN: u32 = 3;

/// Why a fact cannot be fetched now.
pub(super) enum GatherError {
    Store(StoreError),
    NotNow { reason: String, ask_again_after: Option<Duration>, asked: Party },
    Refused { reason: String, asked: Party },
}

impl From<StoreError> for GatherError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SourceError> for GatherError {
    fn from(error: SourceError) -> Self {
        Self::NotNow { reason: error.to_string(), ask_again_after: error.ask_again_after(), asked: Party::Source }
    }
}

/// A confirmed build.
pub(super) struct Build<'a> {
    pub(super) rule: &'a ImageRule,
    pub(super) tag: TagFacts,
    pub(super) repository: &'a Repository,
    pub(super) version: Version,
    pub(super) cause: Cause,
    pub(super) event_id: &'a str,
    pub(super) received_at: Timestamp,
    /// How often the event was postponed.
    pub(super) failures: u32,
    /// The parent of the spans of all requests.
    pub(super) trace: TraceContext,
}

impl<'a> Build<'a> {
    pub(super) fn of_event(event: &'a Event, rule: &'a ImageRule, tag: TagFacts, version: Version) -> Self {
        Self {
            rule,
            tag,
            repository: &event.repository,
            version,
            cause: event.cause,
            event_id: &event.id,
            received_at: event.received_at,
            failures: event.failures,
            trace: event.trace,
        }
    }

    pub(super) fn of_update(update: &'a Update, rule: &'a ImageRule) -> Self {
        let tag = update.version.tag().and_then(|tag| rule.tag.read(tag).ok()).unwrap_or_default();
        Self {
            rule,
            tag,
            repository: &update.repository,
            version: update.version.clone(),
            cause: update.cause,
            event_id: &update.cause_id,
            received_at: update.received_at,
            failures: update.failures,
            trace: update.trace,
        }
    }

    /// Returns the rest of [`RETRIED_FOR`] at `now`; `None`: it is over.
    fn patience(&self, now: Timestamp) -> Option<Duration> {
        let left = RETRIED_FOR - now.duration_since(self.received_at);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }

    fn subject(&self, catch_up: Option<CatchUpDoubt>) -> Subject<'_> {
        Subject {
            repository: self.repository,
            version: &self.version,
            rule: self.rule,
            tag: &self.tag,
            cause: self.cause,
            cause_id: self.event_id,
            catch_up,
        }
    }
}

impl Relay {
    /// Refuses or postpones a build whose commit is on none of the source's branches that count.
    pub(super) async fn check_membership(&self, build: &Build<'_>) -> Result<(), GatherError> {
        let (Some(source), Some(sha)) = (build.rule.source, &build.tag.sha) else { return Ok(()) };
        let mut span = self.0.traces.begin(SpanKind::Client, "source branches", Some(&build.trace));
        span.set("tagrelay.commit", sha);
        let membership = self.0.sources.membership(source, build.repository, sha).await;
        let reason = match membership.inspect_err(|error| span.fail(&error.to_string()))? {
            Membership::OnBranch => return Ok(()),
            Membership::Elsewhere { reason } => reason,
        };
        drop(span);
        let Some(left) = build.patience(self.now()) else {
            return Err(GatherError::Refused { reason, asked: Party::Source });
        };
        // The last attempt is exactly at the end of [`RETRIED_FOR`].
        let next = Duration::from_secs(1 << build.failures.min(4));
        let ask_again_after = (left < next).then_some(left);
        Err(GatherError::NotNow { reason: format!("{reason}; retrying"), ask_again_after, asked: Party::Source })
    }

    /// Fetches the facts that the branch writer needs to compare the build at a place. `open`: the most open updates to
    /// compare with.
    pub(super) async fn gather(
        &self,
        build: &Build<'_>,
        environment: &str,
        open: Option<u32>,
    ) -> Result<(), GatherError> {
        let others = self.others(build, environment, open.unwrap_or(MAX_OPEN)).await?;
        for other in others.iter().filter(|other| !is_same(&build.version, &other.version)) {
            // Each turn fetches another fact: descent, announced before, two build times, a digest.
            for _ in 0..8 {
                match compare(&build.subject(self.catch_up_doubt()), other, &self.0.facts) {
                    Fact::Known(_) => break,
                    Fact::Missing(missing) => self.learn(build, missing).await?,
                }
            }
        }
        Ok(())
    }

    /// Copies a fact from the store to the cache. Returns whether the store has it: after a restart the cache is empty.
    pub(in crate::relay) async fn recall(&self, missing: &Missing) -> Result<bool, StoreError> {
        match missing {
            Missing::Descent { .. } | Missing::TagDigest { .. } => Ok(false),
            Missing::AnnouncedBefore { event_id, repository, digest, tag } => {
                let before = self.0.store.announced_before(repository, digest, tag, event_id).await?;
                let key = (event_id.clone(), repository.clone(), digest.clone(), tag.clone());
                self.0.facts.remember_announced_before(key, before);
                Ok(true)
            }
            Missing::BuildTime { repository, digest } => {
                let Some(known) = self.0.store.build_time(repository, digest).await? else { return Ok(false) };
                let time = known.map_or(BuildTime::NotStated, BuildTime::At);
                self.0.facts.remember_build_time(repository, digest, time);
                Ok(true)
            }
        }
    }

    /// Decides about a place, with the facts in memory and in the store.
    pub(in crate::relay) async fn decide_place(&self, place: &Place<'_>) -> Result<Vec<Decided>, StoreError> {
        loop {
            let decided = decide(place, &self.0.facts);
            let mut has_learned = false;
            for decided in &decided {
                if let Decision::Ask(missing) = &decided.decision {
                    has_learned |= self.recall(missing).await?;
                }
            }
            if !has_learned {
                return Ok(decided);
            }
        }
    }

    /// Returns the versions that the environment runs and its newest open updates.
    async fn others(&self, build: &Build<'_>, environment: &str, open: u32) -> Result<Vec<Other>, StoreError> {
        let repository = build.repository;
        // The store first: an update that has ended by the time of the snapshot is in the snapshot.
        let on_its_way = self.0.store.open_updates_at(environment, repository, open).await?;
        let mut others = Vec::new();
        for version in self.running(environment, repository) {
            let brought = self.0.store.brought(environment, repository, &version).await?;
            others.push(Other {
                digest: brought.as_ref().and_then(|update| update.version.digest().cloned()),
                cause: brought.map(|update| (update.cause, update.cause_id)),
                version,
                runs: true,
                environment: environment.to_owned(),
            });
        }
        let foreign = on_its_way.into_iter().filter(|update| update.cause_id != build.event_id);
        others.extend(foreign.map(|update| Other {
            version: update.version,
            cause: Some((update.cause, update.cause_id)),
            digest: None,
            runs: false,
            environment: environment.to_owned(),
        }));
        Ok(others)
    }

    async fn learn(&self, build: &Build<'_>, missing: Missing) -> Result<(), GatherError> {
        match missing {
            Missing::Descent { source, repository, new, old } => {
                let mut span = self.0.traces.begin(SpanKind::Client, "source ancestry", Some(&build.trace));
                span.set("tagrelay.commit", &new);
                span.set("tagrelay.commit.running", &old);
                let relation = self.0.sources.relation(source, &repository, &new, &old).await;
                let relation = relation.inspect_err(|error| span.fail(&error.to_string()))?;
                self.0.facts.remember_descent((source, repository, new, old), descent(relation));
            }
            Missing::AnnouncedBefore { event_id, repository, digest, tag } => {
                let before = self.0.store.announced_before(&repository, &digest, &tag, &event_id).await?;
                self.0.facts.remember_announced_before((event_id, repository, digest, tag), before);
            }
            Missing::TagDigest { repository, tag } => {
                let digest = self.running_digest(build, &repository, &tag).await?;
                self.0.facts.remember_tag_digest(&repository, &tag, digest);
            }
            Missing::BuildTime { repository, digest } => {
                let time = if build.version.digest() == Some(&digest) {
                    self.own_build_time(build, &digest).await?
                } else {
                    self.build_time_of_other(build, &digest).await?
                };
                self.0.facts.remember_build_time(&repository, &digest, time);
            }
        }
        Ok(())
    }

    /// Returns the digest of a running tag whose manifest names no digest.
    async fn running_digest(
        &self,
        build: &Build<'_>,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Digest>, GatherError> {
        let image = UnverifiedImage { repository: repository.clone(), tag: tag.clone() };
        match self.confirm("registry running digest", &image, &build.trace).await {
            Confirmation::There(image) => Ok(image.digest().cloned()),
            Confirmation::NotThere | Confirmation::NotAllowed { .. } => Ok(None),
            Confirmation::NotNow { reason, ask_again_after } => {
                Err(GatherError::NotNow { reason, ask_again_after, asked: Party::Registry })
            }
        }
    }

    /// Returns the build time of the announced image. The event waits until the registry returns it: without it, the
    /// build might be older.
    async fn own_build_time(&self, build: &Build<'_>, digest: &Digest) -> Result<BuildTime, GatherError> {
        match self.built_at(build, digest).await? {
            registry::BuildTime::At(at) => Ok(BuildTime::At(at)),
            registry::BuildTime::NotStated | registry::BuildTime::Gone { .. } => Ok(BuildTime::NotStated),
            registry::BuildTime::NotNow { reason, ask_again_after } => {
                Err(GatherError::NotNow { reason, ask_again_after, asked: Party::Registry })
            }
            registry::BuildTime::Incomplete { reason } if build.patience(self.now()).is_none() => {
                let reason = format!("the image cannot be pulled: {reason}");
                Err(GatherError::Refused { reason, asked: Party::Registry })
            }
            registry::BuildTime::NotAllowed { reason } | registry::BuildTime::Incomplete { reason } => {
                let reason = format!("the build time cannot be read: {reason}");
                Err(GatherError::NotNow { reason, ask_again_after: None, asked: Party::Registry })
            }
        }
    }

    /// Returns the build time of a running version or open update. If the registry no longer has the image, the
    /// comparison continues without it.
    async fn build_time_of_other(&self, build: &Build<'_>, digest: &Digest) -> Result<BuildTime, GatherError> {
        match self.built_at(build, digest).await? {
            registry::BuildTime::At(at) => Ok(BuildTime::At(at)),
            registry::BuildTime::NotStated => Ok(BuildTime::NotStated),
            registry::BuildTime::NotNow { reason, ask_again_after } => {
                Err(GatherError::NotNow { reason, ask_again_after, asked: Party::Registry })
            }
            registry::BuildTime::Gone { reason }
            | registry::BuildTime::Incomplete { reason }
            | registry::BuildTime::NotAllowed { reason } => Ok(BuildTime::Unreadable { reason }),
        }
    }

    /// Returns the build time of an image, from the store or else from the registry.
    async fn built_at(&self, build: &Build<'_>, digest: &Digest) -> Result<registry::BuildTime, StoreError> {
        let repository = build.repository;
        if let Some(known) = self.0.store.build_time(repository, digest).await? {
            return Ok(known.map_or(registry::BuildTime::NotStated, registry::BuildTime::At));
        }
        let mut span = self.0.traces.begin(SpanKind::Client, "registry build time", Some(&build.trace));
        span.set("server.address", repository.registry());
        span.set("tagrelay.repository", repository);
        span.set("tagrelay.version", digest);
        let answer = self.0.registries.build_time(repository, digest).await;
        span.set("tagrelay.outcome", answer.outcome());
        self.0.metrics.registry_request(repository.registry(), answer.outcome());
        // Answers that depend on access or storage may change, so they are not stored.
        let said = match &answer {
            registry::BuildTime::At(at) => Some(*at),
            registry::BuildTime::NotStated => None,
            registry::BuildTime::Gone { reason }
            | registry::BuildTime::Incomplete { reason }
            | registry::BuildTime::NotAllowed { reason }
            | registry::BuildTime::NotNow { reason, .. } => {
                span.fail(reason);
                return Ok(answer);
            }
        };
        drop(span);
        self.0.store.keep_build_time(repository, digest, said).await?;
        Ok(answer)
    }
}
