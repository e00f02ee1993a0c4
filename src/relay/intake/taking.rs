//! What becomes of one event, or of one update of a request: asked about, decided, refused or put off.

use std::time::Duration;

use jiff::Timestamp;

use super::Work;
use crate::image::Repository;
use crate::policy::{ImageRule, Verification, rule_for};
use crate::registry::{Confirmation, Registries, UnverifiedImage};
use crate::relay::branch::Presence;
use crate::relay::ordering::{Candidate, Judged};
use crate::relay::{Environment, Relay};
use crate::store::{
    Cause, Decided, Decision, Event, EventRefusal, Finish, Outcome, Party, StoreError, Update, UpdateState,
};
use crate::telemetry::{Span, SpanKind, TraceContext};

/// How long a finding that an environment does not name an image is believed where another one does.
const ABSENCE_AGE: Duration = Duration::from_secs(60);

/// The first and the longest pause before a registry is asked again about the same image.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How often a build is compared again because others were decided meanwhile, before it waits a little.
const MAX_COMPARISONS: usize = 20;

/// How long after an event came "it is not there" may mean "not yet", and the first pause until it is asked again,
/// which is doubled with each attempt. CNCF Distribution tells of a push before it writes the tag
/// (<https://github.com/distribution/distribution/blob/v2.8.3/registry/handlers/manifests.go>, `PutManifest`), and
/// storage that is consistent in the end takes its time, too.
const NOT_YET: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(100));

/// What asking the registry came to, apart from "not now".
pub(in crate::relay) enum Asked {
    Confirmed { version: crate::image::Version, note: Option<String> },
    No { reason: String },
    NotThere { reason: String },
    NotNow { reason: String, ask_again_after: Option<Duration> },
}

impl Relay {
    pub(super) async fn take(&self, work: &Work) -> Result<Option<Timestamp>, StoreError> {
        match work {
            Work::Event(event) => self.take_event(event).await,
            Work::Update(update) => self.take_update(update).await,
        }
    }

    /// Ends what a defect keeps from being taken: to take it again and again would end the same way.
    pub(super) async fn give_up(&self, work: &Work, panic: &str) -> Result<(), StoreError> {
        let (id, reason) = (work.id(), format!("a defect in Tagrelay, please report it: {panic}"));
        tracing::error!(id, panic, "a task of the intake failed: please report this");
        match work {
            Work::Event(event) => {
                let mut span = self.0.traces.begin(SpanKind::Consumer, "take event", Some(&event.trace));
                self.refuse(event, None, (reason, Party::Rules), true, &mut span).await
            }
            Work::Update(update) => {
                let mut span = self.0.traces.begin(SpanKind::Consumer, "take update", Some(&update.trace));
                self.refuse_update(update, (reason, Party::Rules), &mut span).await
            }
        }
    }

    /// Takes an event as far as its updates. Returns when it is due again, if the registry put it off.
    async fn take_event(&self, event: &Event) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "take event", Some(&event.trace));
        span.set("tagrelay.event.id", &event.id);
        span.set("tagrelay.receiver", &event.receiver);
        span.set("tagrelay.repository", &event.repository);
        span.set("tagrelay.tag", &event.tag);
        span.set_number("tagrelay.attempt", i64::from(event.attempts) + 1);
        let result = self.judge_event(event, &mut span).await;
        if let Err(error) = &result {
            span.fail(&error.to_string());
        }
        result
    }

    async fn judge_event(&self, event: &Event, span: &mut Span) -> Result<Option<Timestamp>, StoreError> {
        let Some(rule) = rule_for(&self.0.images, &event.repository) else {
            let reason = format!("no [[image]] rule manages {}", event.repository);
            self.refuse(event, None, (reason, Party::Rules), true, span).await?;
            return Ok(None);
        };
        let facts = match rule.check_tag(&event.tag) {
            Ok(facts) => facts,
            Err(refused) => {
                self.refuse(event, Some(rule), (refused.to_string(), Party::Rules), false, span).await?;
                return Ok(None);
            }
        };
        let image = UnverifiedImage { repository: event.repository.clone(), tag: event.tag.clone() };
        let announced = event.announced_digest.as_ref();
        match self.ask(&image, rule, announced, "the payload announced", &span.context()).await {
            Asked::Confirmed { version, note } => {
                return self.decide(Candidate::new(event, rule, facts, version), note, span).await;
            }
            Asked::No { reason } => self.refuse(event, Some(rule), (reason, Party::Registry), true, span).await?,
            Asked::NotThere { reason } => match not_yet(event, self.now()) {
                Some(pause) => {
                    let reason = format!("{reason} yet: it is asked again");
                    return self.postpone(event, pause, (reason, Party::Registry), span).await;
                }
                None => self.refuse(event, Some(rule), (reason, Party::Registry), true, span).await?,
            },
            Asked::NotNow { reason, ask_again_after } => {
                let pause = pause(event.attempts, ask_again_after);
                return self.postpone(event, pause, (reason, Party::Registry), span).await;
            }
        }
        Ok(None)
    }

    async fn postpone(
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
        self.notify_event(&event.id, &event.repository, &event.tag, "queued", Some(&reason));
        self.0.store.postpone_event(&event.id, until, asked, reason).await?;
        Ok(Some(until))
    }

    /// Takes an update of a promotion or rollback as far as its writer, as [`Self::take_event`] does.
    async fn take_update(&self, update: &Update) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "take update", Some(&update.trace));
        crate::relay::describe(&mut span, update);
        let result = self.judge_update(update, &mut span).await;
        if let Err(error) = &result {
            span.fail(&error.to_string());
        }
        result
    }

    async fn judge_update(&self, update: &Update, span: &mut Span) -> Result<Option<Timestamp>, StoreError> {
        let store = &self.0.store;
        let Some(rule) = rule_for(&self.0.images, &update.repository) else {
            let reason = format!("no [[image]] rule manages {}", update.repository);
            self.refuse_update(update, (reason, Party::Rules), span).await?;
            return Ok(None);
        };
        let Some(tag) = update.version.tag() else {
            // A digest names its content by itself, and was running somewhere when it was asked for.
            self.verified(update, None, None).await?;
            return Ok(None);
        };
        let image = UnverifiedImage { repository: update.repository.clone(), tag: tag.clone() };
        let known = update.version.digest();
        // A rollback is for the bad hour, in which the registry may be away too: what ran before is believed.
        let is_rollback = update.cause == Cause::Rollback;
        let note = match self.ask(&image, rule, known, "it was recorded with", &span.context()).await {
            Asked::Confirmed { version, note } => {
                // What was asked for keeps its digest: a tag that has moved since is another version.
                self.verified(update, version.digest().filter(|_| known.is_none()), note).await?;
                return Ok(None);
            }
            Asked::No { reason } | Asked::NotThere { reason } => {
                self.refuse_update(update, (reason, Party::Registry), span).await?;
                return Ok(None);
            }
            Asked::NotNow { reason, .. } if is_rollback => format!("not confirmed: {reason}"),
            Asked::NotNow { reason, ask_again_after } => {
                let until = self.now() + pause(update.attempts, ask_again_after);
                let trace_id = update.trace.trace_id();
                tracing::warn!(update = %update.id, repository = %update.repository, reason, %until, %trace_id, "update postponed");
                span.set("tagrelay.outcome", "postponed");
                span.fail(&reason);
                store.postpone_updates(vec![update.id.clone()], Some(until), reason).await?;
                return Ok(Some(until));
            }
        };
        self.verified(update, None, Some(note)).await?;
        Ok(None)
    }

    /// Hands an update that counts as confirmed to its writer, unless a freeze makes it wait.
    async fn verified(
        &self,
        update: &Update,
        digest: Option<&crate::image::Digest>,
        note: Option<String>,
    ) -> Result<(), StoreError> {
        if self.0.store.verify_update(&update.id, digest, note).await? == Some(UpdateState::Waiting) {
            self.tell_waiting(update);
        }
        // The others of its request may have waited for this answer.
        self.wake_writer(&update.environment);
        Ok(())
    }

    /// Asks the registry about an image, where the rule wants that.
    pub(in crate::relay) async fn ask(
        &self,
        image: &UnverifiedImage,
        rule: &ImageRule,
        expected: Option<&crate::image::Digest>,
        expected_because: &str,
        trace: &TraceContext,
    ) -> Asked {
        if rule.verify == Verification::Nothing {
            let unchecked = Registries::take_unchecked(image).version();
            return Asked::Confirmed { version: unchecked, note: Some("not verified, as the rule says".to_owned()) };
        }
        let registry = image.repository.registry();
        let confirmation = self.confirm("registry confirm", image, trace).await;
        match confirmation {
            Confirmation::There(image) => {
                let differs = expected.filter(|expected| image.digest().is_some_and(|digest| digest != *expected));
                let note = differs
                    .map(|expected| format!("{expected_because} {expected}, and {registry} has {}", image.version()));
                Asked::Confirmed { version: image.version(), note }
            }
            Confirmation::NotThere => {
                Asked::NotThere { reason: format!("{registry} has no {}:{}", image.repository.path(), image.tag) }
            }
            Confirmation::NotAllowed { reason } => Asked::No { reason },
            Confirmation::NotNow { reason, ask_again_after } => Asked::NotNow { reason, ask_again_after },
        }
    }

    /// Asks the registry about an image, in a span of its own.
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
        let confirmation = self.0.registries.confirm(image).await;
        span.set("tagrelay.outcome", confirmation.outcome());
        match &confirmation {
            Confirmation::There(image) => span.set("tagrelay.version", image.version()),
            Confirmation::NotThere => {}
            Confirmation::NotAllowed { reason } | Confirmation::NotNow { reason, .. } => span.fail(reason),
        }
        self.0.metrics.registry_request(registry, confirmation.outcome());
        confirmation
    }

    /// Records a confirmed event with an update for each environment that takes it.
    async fn decide(
        &self,
        mut candidate: Candidate<'_>,
        note: Option<String>,
        span: &mut Span,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (event, rule) = (candidate.event, candidate.rule);
        let mut decision_span = self.0.traces.begin(SpanKind::Internal, "decide", Some(&span.context()));
        decision_span.set("tagrelay.rule", rule.pattern.as_str());
        candidate.trace = decision_span.context();
        let takers = self.takers(event).await;
        if takers.is_empty() {
            let reason = self.why_nobody_takes(&event.repository);
            decision_span.set("tagrelay.outcome", "refused");
            self.refuse(event, Some(rule), (reason, Party::Rules), true, span).await?;
            return Ok(None);
        }
        let mut turn = None;
        for _ in 0..MAX_COMPARISONS {
            let updates = match self.judge(&candidate, &takers).await? {
                Judged::Plans(plans) => plans,
                Judged::Refused { reason, asked } => {
                    decision_span.set("tagrelay.outcome", "refused");
                    self.refuse(event, Some(rule), (reason, asked), true, span).await?;
                    return Ok(None);
                }
                Judged::NotNow { reason, ask_again_after, asked } => {
                    decision_span.set("tagrelay.outcome", "postponed");
                    return self.postpone(event, pause(event.attempts, ask_again_after), (reason, asked), span).await;
                }
            };
            let by: Vec<String> =
                updates.iter().map(|planned| format!("{}: {}", planned.environment, planned.decided_by)).collect();
            let decision = Decision {
                event_id: event.id.clone(),
                matched_rule: rule.pattern.as_str().to_owned(),
                version: candidate.version.clone(),
                note: note.clone(),
                updates,
            };
            if let Decided::Done(states) = self.0.store.decide(decision).await? {
                let told: Vec<String> =
                    states.iter().map(|(environment, state)| format!("{environment}: {state}")).collect();
                decision_span.set("tagrelay.decision", told.join(", "));
                decision_span.set("tagrelay.decided_by", by.join(", "));
                span.set("tagrelay.outcome", "decided");
                self.tell_decided(event, &states);
                return Ok(None);
            }
            // Many builds of one image at once would outrun each other again and again. By now what is asked of others
            // is known, so that a turn is short.
            if turn.is_none() {
                turn = Some(self.0.turns.take(&event.repository).await);
            }
        }
        let reason = "others were decided at the same moment".to_owned();
        self.postpone(event, RETRY.0, (reason, Party::Rules), span).await
    }

    fn tell_decided(&self, event: &Event, states: &[(String, UpdateState)]) {
        let trace_id = event.trace.trace_id();
        for (environment, state) in states {
            tracing::info!(event = %event.id, repository = %event.repository, tag = %event.tag, environment, %state, %trace_id, "event decided");
            self.notify_event(&event.id, &event.repository, &event.tag, state.as_str(), None);
            self.wake_writer(environment);
        }
    }

    /// Returns the automatic environments that name the repository, or whose branch could not be read yet.
    ///
    /// Where one does not name it, its manifest may have come since the branch was last read: that is looked up now and then
    /// when others take the image. When nobody does, the answer is final, and rests on a reading since the event came.
    async fn takers(&self, event: &Event) -> Vec<String> {
        let repository = &event.repository;
        let nobody = self.known_takers(repository).is_empty();
        for branch in &self.0.branches {
            let lacks_it =
                |environment: &Environment| matches!(branch.presence(&environment.name, repository), Presence::Absent);
            let is_asked = branch.automatic().any(lacks_it);
            let reading = async {
                if nobody {
                    branch.read_if_older_than(self.age_for_final(event)).await
                } else {
                    branch.refresh_if_older_than(ABSENCE_AGE).await
                }
            };
            if is_asked && let Err(error) = reading.await {
                tracing::warn!(%error, repository = branch.repository_name(), "the config repository cannot be read");
            }
        }
        self.known_takers(repository)
    }

    fn known_takers(&self, repository: &Repository) -> Vec<String> {
        let mut takers = Vec::new();
        for branch in &self.0.branches {
            for environment in branch.automatic() {
                match branch.presence(&environment.name, repository) {
                    Presence::Named | Presence::Unknown => takers.push(environment.name.clone()),
                    Presence::Absent => {}
                }
            }
        }
        takers
    }

    fn why_nobody_takes(&self, repository: &Repository) -> String {
        let mut on_request = Vec::new();
        let mut unreadable = Vec::new();
        for branch in &self.0.branches {
            let Some(snapshot) = branch.snapshot() else { continue };
            for environment in branch.environments() {
                if let Some(sites) = crate::relay::branch::sites(&snapshot, &environment.name) {
                    if sites.sites.contains_key(repository) {
                        on_request.push(environment.name.as_str());
                    }
                    unreadable
                        .extend(sites.problems.iter().map(|problem| format!("{}: {}", problem.path, problem.reason)));
                }
            }
        }
        let mut reason = if on_request.is_empty() {
            format!("no manifest of any environment names {repository}")
        } else {
            format!("only {} runs {repository}, and takes promotions only", on_request.join(", "))
        };
        if !unreadable.is_empty() {
            unreadable.truncate(5);
            reason.push_str(&format!(" (files that could not be read: {})", unreadable.join("; ")));
        }
        reason
    }

    async fn refuse(
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

    async fn refuse_update(
        &self,
        update: &Update,
        (reason, asked): (String, Party),
        span: &mut Span,
    ) -> Result<(), StoreError> {
        span.set("tagrelay.outcome", "refused");
        span.set("tagrelay.reason", &reason);
        self.finish_as(vec![(update.clone(), Outcome::Refused { reason })], Some(asked)).await?;
        // The others of its request may have waited for this answer.
        self.wake_writer(&update.environment);
        Ok(())
    }

    /// Records how updates ended, by the word of the registry or the branch.
    pub(in crate::relay) async fn finish(&self, finished: Vec<(Update, Outcome)>) -> Result<(), StoreError> {
        self.finish_as(finished, None).await
    }

    /// Records how updates ended, and whose word that was where it was not that of the registry or the branch.
    pub(in crate::relay) async fn finish_as(
        &self,
        finished: Vec<(Update, Outcome)>,
        asked: Option<Party>,
    ) -> Result<(), StoreError> {
        let rows = finished
            .iter()
            .map(|(update, outcome)| Finish {
                update_id: update.id.clone(),
                outcome: outcome.clone(),
                follow: self.0.following.is_some(),
                asked,
            })
            .collect();
        self.0.store.finish(rows).await?;
        // Other settings may have come into force meanwhile, and with them another pipeline follows.
        let current = self.0.lineage.current();
        if let Some(following) = current.as_ref().and_then(|relay| relay.0.following.as_ref()) {
            following.wake();
        }
        Ok(())
    }
}

/// Returns the pause before a registry is asked again: what it asks for, or 1 s doubled with each attempt up to
/// 5 min, with up to a quarter more so that images that failed together do not come back together.
fn pause(attempts: u32, asked: Option<Duration>) -> Duration {
    let doubled = RETRY.0.saturating_mul(2u32.saturating_pow(attempts.min(16))).min(RETRY.1);
    let base = asked.unwrap_or(doubled);
    base + base.mul_f64(crate::relay::writer::jitter() / 4.0)
}

/// Returns the pause before the registry is asked again for what it does not have, or `None` when that is the answer.
fn not_yet(event: &Event, now: Timestamp) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(event.received_at)).unwrap_or_default();
    (age < NOT_YET.0).then(|| pause(0, Some(NOT_YET.1.saturating_mul(2u32.saturating_pow(event.attempts.min(16))))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_respect_the_registry() {
        let at_most = |base: u64| Duration::from_millis(base * 1250);
        for (attempts, seconds) in [(0, 1), (1, 2), (5, 32), (8, 256), (9, 300), (u32::MAX, 300)] {
            let pause = pause(attempts, None);
            assert!(pause >= Duration::from_secs(seconds) && pause <= at_most(seconds), "{attempts}: {pause:?}");
        }
        assert!(pause(0, Some(Duration::from_secs(90))) >= Duration::from_secs(90));
    }
}
