//! One event: from the announcement to the candidates of its environments.

use std::time::Duration;

use jiff::Timestamp;

use super::gather::{Build, GatherError};
use crate::domain::{Event, Party};
use crate::policy::{ImageRule, TagRefused, Verification};
use crate::registry::{Confirmation, Registries, UnverifiedImage};
use crate::relay::branch::{Presence, sites};
use crate::relay::runtime::backoff;
use crate::relay::{Environment, Relay};
use crate::store::{EventFacts, EventRefusal, StoreError};
use crate::telemetry::{Span, SpanKind, TraceContext};
use tagrelay_image::{Digest, Tag, Version};

/// The longest age of a reading that shows an image absent from one environment while another one names it.
const ABSENCE_AGE: Duration = Duration::from_secs(60);

/// The longest age of a reading that shows an image absent from all environments.
const TIP_AGE: Duration = Duration::from_secs(1);

/// How long after an event arrived "not found" may mean "not yet", and the first pause, which doubles with each try.
/// CNCF Distribution announces a push before it writes the tag
/// (<https://github.com/distribution/distribution/blob/v2.8.3/registry/handlers/manifests.go>, `PutManifest`);
/// eventually consistent storage is also late.
const NOT_YET: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(100));

/// The registry's answer about an image.
pub(in crate::relay) enum ImageCheck {
    Confirmed { version: Version, note: Option<String> },
    No { reason: String },
    NotThere { reason: String },
    NotNow { reason: String, ask_again_after: Option<Duration> },
}

impl Relay {
    /// Gathers the facts of an event and records them. Returns when the event is due again, if it was
    /// postponed.
    pub(super) async fn process_event(&self, event: &Event) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "process event", Some(&event.trace));
        span.set("tagrelay.event.id", &event.id);
        span.set("tagrelay.receiver", &event.receiver);
        span.set("tagrelay.repository", &event.repository);
        span.set("tagrelay.tag", &event.tag);
        span.set_number("tagrelay.attempt", i64::from(event.failures) + 1);
        let result = self.confirm_event(event, &mut span).await;
        if let Err(error) = &result {
            span.fail(&error.to_string());
        }
        result
    }

    async fn confirm_event(&self, event: &Event, span: &mut Span) -> Result<Option<Timestamp>, StoreError> {
        let Some(rule) = self.0.rules.shared(&event.repository) else {
            let reason = format!("no [[image]] rule manages {}", event.repository);
            self.refuse_event(event, None, (reason, Party::Rules), true, span).await?;
            return Ok(None);
        };
        if let Err(refused) = self.check_tag(event, rule) {
            self.refuse_event(event, Some(rule), (refused.to_string(), Party::Rules), false, span).await?;
            return Ok(None);
        }
        let image = UnverifiedImage { repository: event.repository.clone(), tag: event.tag.clone() };
        let announced = event.announced_digest.as_ref();
        match self.ask(&image, rule, announced, "the payload announced", &span.context()).await {
            ImageCheck::Confirmed { version, note } => {
                return self.record_event(event, rule, (version, note), span).await;
            }
            ImageCheck::No { reason } => {
                self.refuse_event(event, Some(rule), (reason, Party::Registry), true, span).await?
            }
            ImageCheck::NotThere { reason } => match not_yet(event, self.now()) {
                Some(pause) => {
                    let reason = format!("{reason} yet; retrying");
                    return self.postpone_event(event, pause, (reason, Party::Registry), span).await;
                }
                None => self.refuse_event(event, Some(rule), (reason, Party::Registry), true, span).await?,
            },
            ImageCheck::NotNow { reason, ask_again_after } => {
                let pause = backoff::registry(event.failures, ask_again_after);
                return self.postpone_event(event, pause, (reason, Party::Registry), span).await;
            }
        }
        Ok(None)
    }

    /// Checks that the tag is a version under the image rule or in an automatic environment with its own tag rule.
    fn check_tag(&self, event: &Event, rule: &ImageRule) -> Result<(), TagRefused> {
        let refused = match rule.check_tag(&event.tag) {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        let mut automatic = self.0.branches.iter().flat_map(|branch| branch.automatic());
        let is_accepted = automatic.any(|found| self.0.rules.accepts(&found.name, &event.repository, &event.tag));
        if is_accepted { Ok(()) } else { Err(refused) }
    }

    /// Gathers the facts of a confirmed event and makes it a candidate in each environment that names the image.
    async fn record_event(
        &self,
        event: &Event,
        rule: &ImageRule,
        (version, note): (Version, Option<String>),
        span: &mut Span,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut gathering = self.0.traces.begin(SpanKind::Internal, "gather facts", Some(&span.context()));
        gathering.set("tagrelay.rule", rule.pattern.as_str());
        let mut environments = self.target_environments(event).await;
        if environments.is_empty() {
            let reason = self.no_target_reason(event);
            gathering.set("tagrelay.outcome", "refused");
            self.refuse_event(event, Some(rule), (reason, Party::Rules), true, span).await?;
            return Ok(None);
        }
        let gathered = self.gather_at(event, &mut environments, &version, gathering.context()).await;
        match gathered {
            Ok(()) => {}
            Err(GatherError::Store(error)) => return Err(error),
            Err(GatherError::Refused { reason, asked }) => {
                gathering.set("tagrelay.outcome", "refused");
                self.refuse_event(event, Some(rule), (reason, asked), true, span).await?;
                return Ok(None);
            }
            Err(GatherError::NotNow { reason, ask_again_after, asked }) => {
                gathering.set("tagrelay.outcome", "postponed");
                let pause = backoff::registry(event.failures, ask_again_after);
                return self.postpone_event(event, pause, (reason, asked), span).await;
            }
        }
        let facts = EventFacts {
            event_id: event.id.clone(),
            matched_rule: rule.pattern.as_str().to_owned(),
            version,
            note,
            environments,
        };
        let candidates = self.0.store.record_facts(facts).await?;
        let candidates: Vec<String> = candidates.into_iter().map(|(environment, _)| environment).collect();
        gathering.set("tagrelay.environments", candidates.join(", "));
        span.set("tagrelay.outcome", "confirmed");
        tracing::info!(event = %event.id, repository = %event.repository, tag = %event.tag, environments = candidates.join(", "), trace_id = %event.trace.trace_id(), "event confirmed");
        Ok(None)
    }

    /// Gathers the facts for each environment. Removes those whose source branches do not have the commit.
    ///
    /// # Errors
    ///
    /// If no environment is left, or if a fact cannot be fetched.
    async fn gather_at(
        &self,
        event: &Event,
        environments: &mut Vec<String>,
        version: &Version,
        trace: TraceContext,
    ) -> Result<(), GatherError> {
        let build = |environment: &str| {
            let rule = self.0.rules.at(environment, &event.repository)?;
            let tag = rule.check_tag(&event.tag).ok()?;
            Some(Build { trace, ..Build::of_event(event, rule, tag, version.clone()) })
        };
        let builds: Vec<(String, Build<'_>)> =
            environments.iter().filter_map(|name| Some((name.clone(), build(name)?))).collect();
        // Environments without their own tag rule share the rule and its source.
        let mut is_elsewhere = false;
        if let Some((_, build)) = builds.iter().find(|(_, build)| build.rule.source.is_some()) {
            match self.check_membership(build).await {
                Ok(()) => {}
                Err(GatherError::Refused { .. }) if builds.iter().any(|(_, build)| build.rule.source.is_none()) => {
                    is_elsewhere = true;
                }
                Err(error) => return Err(error),
            }
        }
        environments.clear();
        for (environment, build) in builds {
            if is_elsewhere && build.rule.source.is_some() {
                continue;
            }
            self.gather(&build, &environment, None).await?;
            environments.push(environment);
        }
        Ok(())
    }

    async fn postpone_event(
        &self,
        event: &Event,
        pause: Duration,
        (reason, asked): (String, Party),
        span: &mut Span,
    ) -> Result<Option<Timestamp>, StoreError> {
        let until = self.now() + pause;
        let trace_id = event.trace.trace_id();
        tracing::warn!(event = %event.id, repository = %event.repository, reason, %until, %trace_id, "event postponed");
        span.set("tagrelay.outcome", "postponed");
        span.fail(&reason);
        self.0.store.postpone_event(&event.id, until, asked, reason).await?;
        Ok(Some(until))
    }

    pub(super) async fn refuse_event(
        &self,
        event: &Event,
        rule: Option<&ImageRule>,
        (reason, asked): (String, Party),
        redeliverable: bool,
        span: &mut Span,
    ) -> Result<(), StoreError> {
        let trace_id = event.trace.trace_id();
        tracing::warn!(event = %event.id, repository = %event.repository, tag = %event.tag, reason, %trace_id, "event refused");
        span.set("tagrelay.outcome", "refused");
        span.set("tagrelay.reason", &reason);
        let refusal = EventRefusal {
            event_id: event.id.clone(),
            reason,
            matched_rule: rule.map(|rule| rule.pattern.as_str().to_owned()),
            redeliverable,
            asked,
        };
        self.0.store.refuse_event(refusal).await
    }

    /// Verifies an image with the registry, unless the rule turns that off. `expected_because` begins the note if
    /// the digest is not `expected`.
    pub(in crate::relay) async fn ask(
        &self,
        image: &UnverifiedImage,
        rule: &ImageRule,
        expected: Option<&Digest>,
        expected_because: &str,
        trace: &TraceContext,
    ) -> ImageCheck {
        if rule.verify == Verification::Nothing {
            let unchecked = Registries::take_unchecked(image).version();
            return ImageCheck::Confirmed {
                version: unchecked,
                note: Some("not verified, as the rule says".to_owned()),
            };
        }
        let registry = image.repository.registry();
        match self.confirm("registry confirm", image, trace).await {
            Confirmation::There(image) => {
                let differs = expected.filter(|expected| image.digest().is_some_and(|digest| digest != *expected));
                let note = differs
                    .map(|expected| format!("{expected_because} {expected}, and {registry} has {}", image.version()));
                ImageCheck::Confirmed { version: image.version(), note }
            }
            Confirmation::NotThere => {
                ImageCheck::NotThere { reason: format!("{registry} has no {}:{}", image.repository.path(), image.tag) }
            }
            Confirmation::NotAllowed { reason } => ImageCheck::No { reason },
            Confirmation::NotNow { reason, ask_again_after } => ImageCheck::NotNow { reason, ask_again_after },
        }
    }

    /// Sends the request to the registry, in its own span.
    pub(in crate::relay) async fn confirm(
        &self,
        name: &'static str,
        image: &UnverifiedImage,
        trace: &TraceContext,
    ) -> Confirmation {
        let registry = image.repository.registry();
        let mut span = self.0.traces.begin(SpanKind::Client, name, Some(trace));
        span.set("server.address", registry);
        span.set("tagrelay.repository", &image.repository);
        span.set("tagrelay.tag", &image.tag);
        let rule = self.0.rules.shared(&image.repository);
        let reads = rule.is_some_and(|rule| compares_build_times(rule, &image.tag));
        let confirmation = if reads {
            self.0.registries.confirm_and_read(image).await
        } else {
            self.0.registries.confirm(image).await
        };
        span.set("tagrelay.outcome", confirmation.outcome());
        match &confirmation {
            Confirmation::There(image) => span.set("tagrelay.version", image.version()),
            Confirmation::NotThere => {}
            Confirmation::NotAllowed { reason } | Confirmation::NotNow { reason, .. } => span.fail(reason),
        }
        self.0.metrics.registry_request(registry, confirmation.outcome());
        confirmation
    }

    /// Returns the automatic environments that name the repository, or whose branch could not be read yet.
    ///
    /// A manifest may have been added since the branch was last read. If another environment accepts the image, a
    /// reading that is at most a minute old is enough. If none does, the event will be refused, so the branch is read
    /// again after the event arrived.
    async fn target_environments(&self, event: &Event) -> Vec<String> {
        let repository = &event.repository;
        let has_none = self.known_targets(event).is_empty();
        for branch in &self.0.branches {
            let lacks_it =
                |environment: &Environment| matches!(branch.presence(&environment.name, repository), Presence::Absent);
            if !branch.automatic().any(lacks_it) {
                continue;
            }
            let reading = async {
                if has_none {
                    let age = self.now().duration_since(event.received_at);
                    branch.read_if_older_than(TIP_AGE.min(Duration::try_from(age).unwrap_or_default())).await
                } else {
                    branch.refresh_if_older_than(ABSENCE_AGE).await
                }
            };
            if let Err(error) = reading.await {
                tracing::warn!(%error, repository = branch.repository_name(), "the config repository cannot be read");
            }
        }
        self.known_targets(event)
    }

    fn known_targets(&self, event: &Event) -> Vec<String> {
        let mut target_environments = Vec::new();
        for branch in &self.0.branches {
            for environment in branch.automatic() {
                if !self.0.rules.accepts(&environment.name, &event.repository, &event.tag) {
                    continue;
                }
                match branch.presence(&environment.name, &event.repository) {
                    Presence::Named | Presence::Unknown => target_environments.push(environment.name.clone()),
                    Presence::Absent => {}
                }
            }
        }
        target_environments
    }

    fn no_target_reason(&self, event: &Event) -> String {
        let repository = &event.repository;
        let mut on_request = Vec::new();
        let mut of_other_tags = Vec::new();
        let mut unreadable = Vec::new();
        for branch in &self.0.branches {
            let Some(snapshot) = branch.snapshot() else { continue };
            for environment in branch.environments() {
                if let Some(sites) = sites(&snapshot, &environment.name) {
                    if sites.sites.contains_key(repository) {
                        let takes_it = self.0.rules.accepts(&environment.name, repository, &event.tag);
                        let names = if takes_it { &mut on_request } else { &mut of_other_tags };
                        names.push(environment.name.as_str());
                    }
                    unreadable
                        .extend(sites.problems.iter().map(|problem| format!("{}: {}", problem.path, problem.reason)));
                }
            }
        }
        let mut reason = match (on_request.is_empty(), of_other_tags.is_empty()) {
            (false, _) => format!("{repository} runs only in {}, which accepts only promotions", on_request.join(", ")),
            (true, false) => {
                let names = of_other_tags.join(", ");
                format!("{repository} runs only in {names}, and the `tag` rule there does not match {}", event.tag)
            }
            (true, true) => format!("no manifest of any environment names {repository}"),
        };
        if !unreadable.is_empty() {
            unreadable.truncate(5);
            reason.push_str(&format!(" (files that could not be read: {})", unreadable.join("; ")));
        }
        reason
    }
}

/// Whether the build time is the first criterion that can order two builds with such a tag.
fn compares_build_times(rule: &ImageRule, tag: &Tag) -> bool {
    let facts = rule.tag.read(tag).unwrap_or_default();
    let is_ordered = facts.number.is_some() || facts.time.is_some() || facts.version.is_some();
    rule.verify == Verification::Exists && !rule.allow_older && rule.source.is_none() && !is_ordered
}

/// Returns the pause before the registry is asked again for an image that it does not have; `None`: its answer is final.
fn not_yet(event: &Event, now: Timestamp) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(event.received_at)).unwrap_or_default();
    let pause = NOT_YET.1.saturating_mul(2u32.saturating_pow(event.failures.min(16)));
    (age < NOT_YET.0).then(|| backoff::registry(0, Some(pause)))
}
