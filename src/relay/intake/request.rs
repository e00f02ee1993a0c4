//! One update of a promotion or rollback: confirmed by the registry, then handed to the branch writer. And one update that the
//! branch writer could not decide about: the missing facts are gathered.

use jiff::Timestamp;

use super::event::Answer;
use super::gather::{Build, GatherError};
use crate::domain::{Cause, Party, Update, UpdateInput};
use crate::registry::UnverifiedImage;
use crate::relay::Relay;
use crate::relay::runtime::backoff;
use crate::store::{EndedUpdate, StoreError};
use crate::telemetry::{Span, SpanKind};
use tagrelay_image::Digest;

/// How many open updates are compared for the branch writer's sake: as many as one push may hold.
const ALL_OPEN: u32 = crate::relay::write::MAX_UPDATES;

impl Relay {
    /// Confirms an update of a request. Returns when it is due again, if it was postponed.
    pub(super) async fn take_in_update(&self, update: &Update) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "take update", Some(&update.trace));
        crate::relay::describe(&mut span, update);
        let result = self.confirm_update(update, &mut span).await;
        if let Err(error) = &result {
            span.fail(&error.to_string());
        }
        result
    }

    async fn confirm_update(&self, update: &Update, span: &mut Span) -> Result<Option<Timestamp>, StoreError> {
        let Some(rule) = self.0.rules.at(&update.environment, &update.repository) else {
            let reason = format!("no [[image]] rule manages {}", update.repository);
            self.refuse_update(update, (reason, Party::Rules), span).await?;
            return Ok(None);
        };
        let Some(tag) = update.version.tag() else {
            // A digest names its content, and it ran when it was requested.
            self.confirmed(update, None, None).await?;
            return Ok(None);
        };
        let image = UnverifiedImage { repository: update.repository.clone(), tag: tag.clone() };
        let known = update.version.digest();
        // A rollback must work while the registry is away: what ran before is taken as it was.
        let is_rollback = update.cause == Cause::Rollback;
        let note = match self.ask(&image, rule, known, "it was recorded with", &span.context()).await {
            Answer::Confirmed { version, note } => {
                // A request keeps the digest that it names: a tag that has moved since is another version.
                self.confirmed(update, version.digest().filter(|_| known.is_none()), note).await?;
                return Ok(None);
            }
            Answer::No { reason } | Answer::NotThere { reason } => {
                self.refuse_update(update, (reason, Party::Registry), span).await?;
                return Ok(None);
            }
            Answer::NotNow { reason, .. } if is_rollback => format!("not confirmed: {reason}"),
            Answer::NotNow { reason, ask_again_after } => {
                let until = self.now() + backoff::registry(update.failures, ask_again_after);
                let trace_id = update.trace.trace_id();
                tracing::warn!(update = %update.id, repository = %update.repository, reason, %until, %trace_id, "update postponed");
                span.set("tagrelay.outcome", "postponed");
                span.fail(&reason);
                self.0.store.postpone_updates(vec![update.id.clone()], Some(until), reason).await?;
                return Ok(Some(until));
            }
        };
        self.confirmed(update, None, Some(note)).await?;
        Ok(None)
    }

    async fn confirmed(
        &self,
        update: &Update,
        digest: Option<&Digest>,
        note: Option<String>,
    ) -> Result<(), StoreError> {
        self.0.store.verify_update(&update.id, digest, note).await.map(|_| ())
    }

    async fn refuse_update(
        &self,
        update: &Update,
        (reason, party): (String, Party),
        span: &mut Span,
    ) -> Result<(), StoreError> {
        span.set("tagrelay.outcome", "refused");
        span.set("tagrelay.reason", &reason);
        let (id, input) = (update.id.clone(), UpdateInput::Refuse);
        self.0.store.end_updates(vec![EndedUpdate { id, input, reason: Some(reason), party: Some(party) }]).await
    }

    /// Gathers the facts that the branch writer lacked. Returns when they are asked for again, if that was put off.
    pub(super) async fn take_in_missing_facts(&self, update: &Update) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "gather facts", Some(&update.trace));
        crate::relay::describe(&mut span, update);
        let Some(rule) = self.0.rules.at(&update.environment, &update.repository) else {
            // The branch writer refuses it.
            self.0.store.end_missing_fact(&update.id).await?;
            return Ok(None);
        };
        let mut build = Build::of_update(update, rule);
        build.trace = span.context();
        match self.gather(&build, &update.environment, Some(ALL_OPEN)).await {
            Ok(()) => self.0.store.end_missing_fact(&update.id).await.map(|()| None),
            Err(GatherError::Store(error)) => Err(error),
            Err(GatherError::Refused { reason, asked }) => {
                self.refuse_update(update, (reason, asked), &mut span).await.map(|()| None)
            }
            Err(GatherError::NotNow { reason, ask_again_after, .. }) => {
                let until = self.now() + backoff::registry(update.failures, ask_again_after);
                let trace_id = update.trace.trace_id();
                tracing::warn!(update = %update.id, repository = %update.repository, reason, %until, %trace_id, "update postponed");
                span.fail(&reason);
                self.0.store.postpone_missing_fact(&update.id, until, reason).await?;
                Ok(Some(until))
            }
        }
    }

    /// Ends work whose task panicked: a second try would end the same way.
    pub(super) async fn give_up_event(&self, event: &crate::domain::Event, panic: &str) -> Result<(), StoreError> {
        let reason = format!("a defect in Tagrelay, please report it: {panic}");
        tracing::error!(event = %event.id, panic, "a task of the intake failed: please report this");
        let mut span = self.0.traces.begin(SpanKind::Consumer, "take event", Some(&event.trace));
        self.refuse_event(event, None, (reason, Party::Rules), true, &mut span).await
    }

    /// As [`Self::give_up_event`].
    pub(super) async fn give_up_update(&self, update: &Update, panic: &str) -> Result<(), StoreError> {
        let reason = format!("a defect in Tagrelay, please report it: {panic}");
        tracing::error!(update = %update.id, panic, "a task of the intake failed: please report this");
        let mut span = self.0.traces.begin(SpanKind::Consumer, "take update", Some(&update.trace));
        self.refuse_update(update, (reason, Party::Rules), &mut span).await
    }
}
