//! Steps 4 and 5: makes the commits, records the attempt, sends it and settles it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::{RoundError, Writer};
use crate::config_repo::{self, PlannedCommit, Prepared, PushError};
use crate::domain::{AttemptedUpdate, Party, PushInput, SiteChange, Update, UpdateInput};
use crate::relay::message;
use crate::relay::runtime::backoff;
use crate::store::{EndedUpdate, NewPush, Retry};
use crate::telemetry::{GitOperation, SpanKind};

/// How old a reading may be that "unchanged" or "no site can be edited" rests on.
const FRESH: Duration = Duration::from_secs(5);

/// After how long without an answer a push is logged.
const LONG_PUSH: Duration = Duration::from_secs(60);

/// After this many rejections a batch is no longer split, and the rest of it waits.
const MAX_REJECTIONS: u32 = 16;

/// How a batch ended.
pub(super) enum Pushed {
    Landed,
    /// Nothing was left to push.
    Nothing,
    /// The tip, a block or a request changed meanwhile: begin again.
    Changed,
    /// Another writer was faster.
    Outdated {
        reason: String,
    },
    /// The answer was lost: the push may have landed.
    Unanswered {
        reason: String,
    },
}

impl Writer<'_> {
    pub(super) async fn push_batch(&mut self, batch: Batch<'_>) -> Result<Pushed, RoundError> {
        let mut rejections = 0;
        let mut batches = vec![batch];
        let mut end = Pushed::Nothing;
        while let Some(mut batch) = batches.pop() {
            match self.push_one(&mut batch).await {
                Ok(Sent::Rejected { reason }) => {
                    rejections += 1;
                    if batch.updates.len() > 1 && rejections < MAX_REJECTIONS {
                        batch.round.set("tagrelay.outcome", "split");
                        let parts = batch.parts();
                        batches.extend(parts.iter().rev().map(|ids| batch.part(ids)));
                    } else {
                        // Updates that gave way to these are decided again.
                        let gave_way = &batch.context.outdone;
                        if gave_way.iter().any(|one| batch.updates.iter().any(|update| update.id == one.by)) {
                            end = Pushed::Changed;
                        }
                        self.reject(&mut batch, reason).await?;
                    }
                }
                Ok(Sent::Pushed(Pushed::Landed)) => {
                    if !matches!(end, Pushed::Changed) {
                        end = Pushed::Landed;
                    }
                }
                Ok(Sent::Pushed(Pushed::Nothing)) => {}
                Ok(Sent::Pushed(other)) => {
                    batch.ids().iter().for_each(|id| batch.describe(id, "decided again", None, None));
                    return Ok(other);
                }
                Err(setback) => {
                    batch.fail(&match &setback {
                        RoundError::Store(error) => error.to_string(),
                        RoundError::Remote { reason, .. } => reason.clone(),
                    });
                    return Err(setback);
                }
            }
        }
        Ok(end)
    }

    /// Has the updates wait for the next try.
    async fn reject(&self, batch: &mut Batch<'_>, reason: String) -> Result<(), RoundError> {
        let ids = batch.ids();
        ids.iter().for_each(|id| batch.describe(id, "rejected", Some(&reason), None));
        let (repository, branch) = (self.branch.repository_name(), self.branch.branch_name());
        tracing::warn!(reason, repository, branch, updates = ids.len(), "the remote rejected the push; updates wait");
        let (first, longest, give_up_after) = backoff::REJECTED;
        Ok(self.relay.0.store.reject(ids, reason, Retry { first, longest, give_up_after }).await?)
    }

    async fn push_one(&mut self, batch: &mut Batch<'_>) -> Result<Sent, RoundError> {
        let prepared = self.prepare(batch).await?;
        if self.is_prepared_outrun(batch, &prepared).await? {
            return Ok(Sent::Pushed(Pushed::Changed));
        }
        self.end_unwritten(batch, &prepared).await?;
        if batch.updates.is_empty() {
            return Ok(Sent::Pushed(Pushed::Nothing));
        }
        let store = &self.relay.0.store;
        let Some(push_id) = store.begin_push(self.attempt(batch, &prepared), batch.context.fence).await? else {
            return Ok(Sent::Pushed(Pushed::Changed));
        };
        // Whether an older attempt is open; this one is, until it is settled below.
        let was_open = std::mem::replace(&mut self.may_be_open, true);
        let tip = prepared.tip();
        let sizes: Vec<usize> = prepared.commits().iter().map(|commit| commit.changes.len()).collect();
        let commits: HashMap<String, String> =
            committed(&prepared).map(|(id, commit, _)| (id.to_owned(), commit)).collect();
        let follow = self.relay.0.following.is_some();
        match self.send(batch, prepared).await {
            Ok(()) => {
                self.tip = Some(tip);
                let outdone = batch.context.outdone.clone();
                store.end_push_and_outdone(&push_id, PushInput::FindLanded, follow, outdone).await?;
                self.may_be_open = was_open;
                sizes.iter().for_each(|updates| self.relay.0.metrics.commit(*updates));
                commits.iter().for_each(|(id, commit)| batch.describe(id, "committed", None, Some(commit)));
                Ok(Sent::Pushed(Pushed::Landed))
            }
            // Without a look at the branch before the time that the server asks for. The next round begins with one.
            Err(PushError::Unknown { reason, ask_again_after: wait @ Some(_) }) => {
                Err(RoundError::Remote { reason, ask_again_after: wait })
            }
            Err(PushError::Unknown { reason, ask_again_after: None }) => {
                Ok(Sent::Pushed(Pushed::Unanswered { reason }))
            }
            Err(error) => {
                store.end_push(&push_id, PushInput::FindLost, follow).await?;
                self.may_be_open = was_open;
                match error {
                    PushError::Outdated { reason } => {
                        self.relay.0.metrics.push_retry();
                        Ok(Sent::Pushed(Pushed::Outdated { reason }))
                    }
                    PushError::Refused { reason } => Ok(Sent::Rejected { reason }),
                    PushError::Unavailable { reason, ask_again_after } => {
                        let reason = format!("the remote cannot be reached: {reason}");
                        Err(RoundError::Remote { reason, ask_again_after })
                    }
                    error @ (PushError::Unauthorized { .. } | PushError::Unknown { .. }) => {
                        Err(RoundError::remote(error))
                    }
                }
            }
        }
    }

    async fn prepare(&self, batch: &mut Batch<'_>) -> Result<Prepared, RoundError> {
        let begun = Instant::now();
        let mut span = batch.step(SpanKind::Internal, "git commit");
        let updates: HashMap<String, Update> =
            batch.updates.iter().map(|update| (update.id.clone(), update.clone())).collect();
        let (context, settings) = (Arc::clone(&batch.context), self.branch.writing().message.clone());
        let render = move |commit: &PlannedCommit| message::render(commit, &updates, &context.requests, &settings);
        let result = self.branch.repository().prepare(batch.plan(), Arc::new(render)).await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.relay.0.metrics.git_operation(GitOperation::prepare, outcome, begun.elapsed());
        match &result {
            Ok(prepared) => {
                let commits: Vec<String> =
                    prepared.commits().iter().filter_map(|commit| Some(commit.id?.to_string())).collect();
                span.set("tagrelay.parent", prepared.parent());
                span.set("tagrelay.commit", commits.join(" "));
            }
            Err(error) => span.fail(&error.to_string()),
        }
        result.map_err(RoundError::remote)
    }

    /// Whether the branch moved meanwhile, if the manifests say something final about an update.
    async fn is_prepared_outrun(&self, batch: &Batch<'_>, prepared: &Prepared) -> Result<bool, RoundError> {
        let is_final = |outcome: &config_repo::Outcome| !matches!(outcome, config_repo::Outcome::Changed { .. });
        if !prepared.outcomes().iter().any(|(_, outcome)| is_final(outcome)) {
            return Ok(false);
        }
        let youngest = batch.updates.iter().map(Update::wanted_since).max();
        let youngest = youngest.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        self.reads_newer_tip(youngest, FRESH, prepared.parent()).await
    }

    /// Ends the updates that change nothing or cannot be written.
    async fn end_unwritten(&self, batch: &mut Batch<'_>, prepared: &Prepared) -> Result<(), RoundError> {
        let mut ended = Vec::new();
        for (key, outcome) in prepared.outcomes() {
            let (input, word, reason) = match outcome {
                config_repo::Outcome::Changed { .. } => continue,
                config_repo::Outcome::Unchanged => (UpdateInput::FindUnchanged, "unchanged", None),
                config_repo::Outcome::Refused { reason } => (UpdateInput::Refuse, "refused", Some(reason.clone())),
            };
            if let Some(update) = batch.end(key, word, reason.as_deref()) {
                ended.push(EndedUpdate { id: update.id, input, reason, party: Some(Party::Rules) });
            }
        }
        if ended.is_empty() { Ok(()) } else { Ok(self.relay.0.store.end_updates(ended).await?) }
    }

    fn attempt(&self, batch: &Batch<'_>, prepared: &Prepared) -> NewPush {
        let attempts = committed(prepared).filter_map(|(id, commit, changes)| {
            Some(AttemptedUpdate {
                update_id: id.to_owned(),
                commit,
                old: changes.first()?.old.clone(),
                changes: changes.iter().map(site_change).collect(),
                basis: batch.context.bases.get(id).cloned(),
            })
        });
        NewPush {
            config_repository: self.branch.repository_name().to_owned(),
            branch: self.branch.branch_name().to_owned(),
            parent: prepared.parent().to_string(),
            tip: prepared.tip().to_string(),
            updates: attempts.collect(),
        }
    }

    async fn send(&self, batch: &mut Batch<'_>, prepared: Prepared) -> Result<(), PushError> {
        let tip = prepared.tip();
        let begun = Instant::now();
        let mut span = batch.step(SpanKind::Client, "git push");
        let mut pushing = pin!(self.branch.repository().push(prepared));
        let result = loop {
            match tokio::time::timeout(LONG_PUSH, &mut pushing).await {
                Ok(result) => break result,
                Err(_) => tracing::warn!(
                    seconds = begun.elapsed().as_secs(),
                    repository = self.branch.repository_name(),
                    branch = self.branch.branch_name(),
                    "a push has no answer yet: check whether a hook of the remote hangs"
                ),
            }
        };
        let outcome = match &result {
            Ok(()) => "ok",
            Err(PushError::Outdated { .. }) => "outdated",
            Err(PushError::Refused { .. }) => "refused",
            Err(PushError::Unauthorized { .. }) => "unauthorized",
            Err(PushError::Unavailable { .. }) => "unavailable",
            Err(PushError::Unknown { .. }) => "unknown",
        };
        self.relay.0.metrics.git_operation(GitOperation::push, outcome, begun.elapsed());
        span.set("tagrelay.outcome", outcome);
        if let Err(error) = &result {
            span.fail(&error.to_string());
        }
        // If the index could not follow, the snapshot is not what was pushed.
        if result.is_ok() && self.branch.tip() == Some(tip) {
            self.branch.pushed(begun);
        }
        result
    }
}

/// The answer to one push.
enum Sent {
    Pushed(Pushed),
    /// A protected branch or a hook rejected it.
    Rejected {
        reason: String,
    },
}

/// Returns the updates that a commit carries: id, commit, changes.
fn committed(prepared: &Prepared) -> impl Iterator<Item = (&str, String, &[config_repo::Change])> {
    prepared.outcomes().iter().filter_map(|(id, outcome)| match outcome {
        config_repo::Outcome::Changed { commit, changes } => {
            Some((id.as_str(), commit.to_string(), changes.as_slice()))
        }
        config_repo::Outcome::Unchanged | config_repo::Outcome::Refused { .. } => None,
    })
}

fn site_change(change: &config_repo::Change) -> SiteChange {
    SiteChange { path: change.path.clone(), line: change.line, old: change.old.clone(), new: change.new.clone() }
}
