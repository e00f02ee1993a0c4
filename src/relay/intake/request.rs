//! Processes one update: verifies the image of a promotion or rollback, or gathers the missing facts of an update that
//! the branch writer could not decide.

use jiff::Timestamp;

use super::event::ImageCheck;
use super::gather::{Build, GatherError};
use crate::domain::{Cause, Party, Update, UpdateInput, unconfirmed};
use crate::registry::UnverifiedImage;
use crate::relay::Relay;
use crate::relay::runtime::backoff;
use crate::store::{EndedUpdate, IntakeWork, StoreError};
use crate::telemetry::{Span, SpanKind};
use tagrelay_image::{Digest, Tag};

/// The most open updates to compare with: as many as one push may hold.
const ALL_OPEN: u32 = crate::relay::write::MAX_UPDATES;

impl Relay {
    /// Confirms an update of a request. Returns when it is due again, if it was postponed.
    pub(super) async fn process_update(&self, update: &Update) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "process update", Some(&update.trace));
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
            // A digest needs no verification: it identifies the content, and the image ran at the
            // time of the request.
            self.confirmed(update, None, None).await?;
            return Ok(None);
        };
        let image = UnverifiedImage { repository: update.repository.clone(), tag: tag.clone() };
        let known = update.version.digest();
        let note = match self.ask(&image, rule, known, "it was recorded with", &span.context()).await {
            ImageCheck::Confirmed { version, note } => {
                // A request keeps the digest that it names: if the tag has moved since, it is another
                // version.
                self.confirmed(update, version.digest().filter(|_| known.is_none()), note).await?;
                return Ok(None);
            }
            ImageCheck::No { reason } | ImageCheck::NotThere { reason } => {
                self.refuse_update(update, (reason, Party::Registry), span).await?;
                return Ok(None);
            }
            ImageCheck::NotNow { reason, .. } if self.may_pass_unconfirmed(update, tag).await? => unconfirmed(&reason),
            ImageCheck::NotNow { reason, ask_again_after } => {
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

    /// Whether an update is written although the registry does not answer: a rollback must work then. Only to a version that the
    /// environment has run. Any other tag may be misspelt.
    async fn may_pass_unconfirmed(&self, update: &Update, tag: &Tag) -> Result<bool, StoreError> {
        Ok(update.cause == Cause::Rollback
            && self.0.store.has_run(&update.environment, &update.repository, tag).await?)
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

    /// Gathers the facts that the branch writer lacked. Returns when the next attempt is due, if one failed.
    pub(super) async fn fetch_missing_facts(&self, update: &Update) -> Result<Option<Timestamp>, StoreError> {
        let mut span = self.0.traces.begin(SpanKind::Consumer, "gather facts", Some(&update.trace));
        crate::relay::describe(&mut span, update);
        let Some(rule) = self.0.rules.at(&update.environment, &update.repository) else {
            // Without a rule, the branch writer refuses the update.
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

    /// Refuses work whose task panicked or ended the process: another attempt would do the same. `redeliverable`: another delivery
    /// of the event tries again.
    pub(super) async fn give_up(
        &self,
        work: &IntakeWork,
        reason: String,
        redeliverable: bool,
    ) -> Result<(), StoreError> {
        match work {
            IntakeWork::Event(event) => {
                let mut span = self.0.traces.begin(SpanKind::Consumer, "process event", Some(&event.trace));
                self.refuse_event(event, None, (reason, Party::Rules), redeliverable, &mut span).await
            }
            IntakeWork::Update(update) | IntakeWork::MissingFact(update) => {
                let mut span = self.0.traces.begin(SpanKind::Consumer, "process update", Some(&update.trace));
                self.refuse_update(update, (reason, Party::Rules), &mut span).await
            }
        }
    }
}
