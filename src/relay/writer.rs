//! One writer for each branch: it takes everything that is pending, makes commits of it and pushes them.
//!
//! The first update goes at once; what arrives while a push is under way leaves with the next one. The push is
//! the fence: a race lost to anybody is answered by reading the new tip and applying the same updates to it.
//!
//! Before a push, the store learns which commit is about to carry which update. So when the answer is lost, or
//! the process dies, the next round can tell "it landed" from "it did not" by looking at the branch.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::branch::{Branch, sites};
use super::coalesce::{coalesce, is_among};
use super::setback::Setback;
use super::{Relay, message, quiet};
use crate::config_repo::{self, EnvironmentPlan, Plan, PlannedCommit, Prepared, PushError, Snapshot, WantedVersion};
use crate::image::Version;
use crate::store::{Attempt, Outcome, SiteChange, Update, UpdateState};
use crate::telemetry::{GitOperation, Span, SpanKind, TraceContext};

/// The most updates in one push: bounds memory and the size of a commit.
pub(super) const MAX_BATCH: u32 = 1000;

/// How often a race is run before the updates wait a little for calmer times.
const MAX_RACES: u32 = 10;

/// How long the branch may go unread while there is nothing to write. Others write to it too, and what runs is shown.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

pub(super) async fn run(relay: Relay, index: usize, mut stopped: watch::Receiver<bool>) {
    let Some(branch) = relay.0.branches.get(index) else { return };
    let environments = branch.environment_names();
    let mut failures: u32 = 0;
    while !*stopped.borrow() {
        // After a setback the branch is read anew: the mirror may have been the trouble.
        let pause = match write_pending(&relay, branch, &environments, failures > 0, &mut stopped).await {
            Ok(Round::Idle) => {
                failures = 0;
                None
            }
            Ok(Round::Written) => {
                failures = 0;
                continue;
            }
            Err(setback) => {
                failures = failures.saturating_add(1);
                let pause = setback.pause(failures);
                match setback {
                    Setback::Store(error) => tracing::error!(%error, ?pause, "the writer cannot use the store"),
                    Setback::Remote { reason, .. } => {
                        tracing::warn!(
                            reason,
                            ?pause,
                            repository = branch.repository_name(),
                            branch = branch.branch_name(),
                            "the config repository cannot be written to; updates stay pending"
                        );
                    }
                }
                Some(pause)
            }
        };
        let is_unread = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => false,
            // New updates do not cut a pause short: the remote that failed a moment ago is left alone.
            () = branch.wake.notified(), if pause.is_none() => false,
            () = branch.moved.notified(), if pause.is_none() => true,
            () = tokio::time::sleep(pause.unwrap_or(REFRESH_INTERVAL)) => pause.is_none(),
        };
        if is_unread && let Err(error) = branch.refresh().await {
            tracing::warn!(%error, repository = branch.repository_name(), "the config repository cannot be read");
        }
    }
}

enum Round {
    Idle,
    Written,
}

async fn write_pending(
    relay: &Relay,
    branch: &Branch,
    environments: &[String],
    refresh_first: bool,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Round, Setback> {
    let pending = relay.0.store.pending_updates(environments, MAX_BATCH).await?;
    if pending.is_empty() {
        if branch.snapshot().is_none() {
            // Read the branch at the start, so that the first event does not pay for it.
            branch.refresh().await?;
        }
        return Ok(Round::Idle);
    }
    let pending = if relay.0.store.waits_in_vain(environments).await? {
        // A freeze is over that nobody has noticed yet: what waited for it belongs into the same commit.
        relay.review_freezes().await?;
        relay.0.store.pending_updates(environments, MAX_BATCH).await?
    } else {
        pending
    };
    let pending = quiet::wait(relay, branch, environments, pending, stopped).await?;
    let pending = finish_found(relay, branch, pending).await?;
    let (newest, superseded) = coalesce(pending);
    for (update, outcome) in &superseded {
        describe_end(&mut begin(relay, update), update, outcome);
    }
    relay.finish(superseded).await?;
    let ids: Vec<String> = newest.iter().map(|update| update.id.clone()).collect();
    match Batch::new(relay, branch, newest).write(refresh_first).await {
        Err(Setback::Remote { reason, ask_again_after }) => {
            relay.0.store.postpone_updates(ids, None, reason.clone()).await?;
            Err(Setback::Remote { reason, ask_again_after })
        }
        Err(error) => Err(error),
        Ok(()) => Ok(Round::Written),
    }
}

/// Ends those updates whose attempt of another time is found on the branch, before something newer takes their place:
/// they are history. Returns the others.
async fn finish_found(relay: &Relay, branch: &Branch, pending: Vec<Update>) -> Result<Vec<Update>, Setback> {
    if pending.iter().all(|update| update.commit.is_none()) {
        return Ok(pending);
    }
    branch.refresh().await?;
    let Some(snapshot) = branch.snapshot() else { return Ok(pending) };
    let (found, rest): (Vec<_>, Vec<_>) = pending
        .into_iter()
        .partition(|update| last_attempt(update).is_some_and(|attempt| stands(update, &attempt, &snapshot)));
    let found: Vec<_> = found.into_iter().map(|update| (update, Outcome::Committed)).collect();
    for (update, outcome) in &found {
        describe_end(&mut begin(relay, update), update, outcome);
    }
    relay.finish(found).await?;
    Ok(rest)
}

/// The updates of one round, at most one for each place.
struct Batch<'a> {
    relay: &'a Relay,
    branch: &'a Branch,
    updates: HashMap<String, Update>,
    /// The ids in the order in which they were taken.
    order: Vec<String>,
    /// Updates with those earlier attempts of which nobody knows whether they landed, or will: a server that was
    /// left in the middle of a push goes on with it.
    maybe_landed: HashMap<String, Vec<Attempt>>,
    /// The round itself, in the trace of the first update and linked with those of the others. It stands before the
    /// spans that it is a child of, so that it ends before they do.
    round: Span,
    /// The part of the round in the trace of each update.
    spans: HashMap<String, Span>,
}

/// Begins what a round is in the trace of an update.
fn begin(relay: &Relay, update: &Update) -> Span {
    let mut span = relay.0.traces.begin(SpanKind::Consumer, "write update", Some(&update.trace));
    super::describe(&mut span, update);
    span
}

fn describe_end(span: &mut Span, update: &Update, outcome: &Outcome) {
    let (word, reason) = match outcome {
        Outcome::Committed => ("committed", None),
        Outcome::Unchanged => ("unchanged", None),
        Outcome::Superseded { reason } => ("superseded", Some(reason)),
        Outcome::Refused { reason } => ("refused", Some(reason)),
    };
    span.set("tagrelay.outcome", word);
    if let Some(reason) = reason {
        span.set("tagrelay.reason", reason);
    }
    if let (Outcome::Committed, Some(commit)) = (outcome, &update.commit) {
        span.set("tagrelay.commit", commit);
    }
}

impl<'a> Batch<'a> {
    fn new(relay: &'a Relay, branch: &'a Branch, updates: Vec<Update>) -> Self {
        let order = updates.iter().map(|update| update.id.clone()).collect();
        let mut spans: Vec<(String, Span)> =
            updates.iter().map(|update| (update.id.clone(), begin(relay, update))).collect();
        let contexts: Vec<TraceContext> = spans.iter().map(|(_, span)| span.context()).collect();
        let others = contexts.get(1..).unwrap_or_default();
        let mut round = relay.0.traces.begin_linked(SpanKind::Internal, "write branch", contexts.first(), others);
        round.set("tagrelay.config_repository", branch.repository_name());
        round.set("tagrelay.branch", branch.branch_name());
        round.set_number("tagrelay.updates", i64::try_from(updates.len()).unwrap_or(i64::MAX));
        spans.iter_mut().skip(1).for_each(|(_, span)| span.link(&round.context()));
        let spans = spans.into_iter().collect();
        let maybe_landed =
            updates.iter().filter_map(|update| Some((update.id.clone(), vec![last_attempt(update)?]))).collect();
        let updates = updates.into_iter().map(|update| (update.id.clone(), update)).collect();
        Self { relay, branch, updates, order, maybe_landed, round, spans }
    }

    async fn write(mut self, refresh_first: bool) -> Result<(), Setback> {
        let result = self.write_all(refresh_first).await;
        if let Err(setback) = &result {
            let reason = match setback {
                Setback::Store(error) => error.to_string(),
                Setback::Remote { reason, .. } => reason.clone(),
            };
            self.round.fail(&reason);
            let open = self.spans.iter_mut().filter(|(id, _)| self.updates.contains_key(*id));
            for (_, span) in open {
                span.set("tagrelay.outcome", "postponed");
                span.fail(&reason);
            }
        }
        result
    }

    /// Records how updates ended, here and in their traces.
    async fn finish(&mut self, finished: Vec<(Update, Outcome)>) -> Result<(), Setback> {
        for (update, outcome) in &finished {
            if let Some(span) = self.spans.get_mut(&update.id) {
                describe_end(span, update, outcome);
            }
        }
        Ok(self.relay.finish(finished).await?)
    }

    async fn write_all(&mut self, refresh_first: bool) -> Result<(), Setback> {
        if refresh_first || self.branch.snapshot().is_none() || !self.maybe_landed.is_empty() {
            self.refresh().await?;
        }
        for race in 0..MAX_RACES {
            self.settle_overwritten().await?;
            self.return_outdated().await?;
            if self.order.is_empty() {
                return Ok(());
            }
            let prepared = self.prepare().await?;
            if self.finish_unwritten(&prepared).await? {
                return Ok(());
            }
            if self.record(&prepared).await? {
                // A hold or something newer came meanwhile: what is left is prepared without it.
                continue;
            }
            match self.push(prepared).await {
                Ok(commits) => return self.finish_written(&commits).await,
                Err(PushError::Outdated { .. }) => {
                    self.relay.0.metrics.push_retry();
                    let pause = Duration::from_millis(20).mul_f64(f64::from(race) + jitter());
                    tokio::time::sleep(pause).await;
                }
                Err(PushError::Refused { reason }) => return self.refuse(reason).await,
                // Not even a look, before the time that the server has asked for: the next round begins with one.
                Err(PushError::Unknown { reason, ask_again_after: wait @ Some(_) }) => {
                    return Err(Setback::Remote { reason, ask_again_after: wait });
                }
                Err(PushError::Unknown { reason, ask_again_after: None }) => {
                    tracing::warn!(reason, "the answer to a push was lost; looking at the branch");
                    self.doubt_last_attempts();
                }
                Err(PushError::Unavailable { reason, ask_again_after }) => {
                    self.forget_attempts().await?;
                    let reason = format!("the remote cannot be reached: {reason}");
                    return Err(Setback::Remote { reason, ask_again_after });
                }
                Err(error @ PushError::Unauthorized { .. }) => {
                    self.forget_attempts().await?;
                    return Err(Setback::remote(error));
                }
            }
            self.refresh().await?;
        }
        Err(Setback::remote(format_args!("{MAX_RACES} pushes in a row lost the race against others")))
    }

    async fn refresh(&self) -> Result<(), Setback> {
        let mut span = self.step(SpanKind::Client, "git refresh");
        let result = self.branch.refresh().await;
        match &result {
            Ok(tip) => span.set("tagrelay.commit", tip),
            Err(error) => span.fail(&error.to_string()),
        }
        Ok(result.map(|_| ())?)
    }

    fn step(&self, kind: SpanKind, name: &'static str) -> Span {
        self.relay.0.traces.begin(kind, name, Some(&self.round.context()))
    }

    /// Takes back what was recorded of a push that reached nobody, so that it is not taken for one that landed.
    async fn forget_attempts(&self) -> Result<(), Setback> {
        let sure = self.order.iter().filter(|id| !self.maybe_landed.contains_key(*id));
        Ok(self.relay.0.store.forget_attempts(sure.cloned().collect()).await?)
    }

    fn doubt_last_attempts(&mut self) {
        for update in self.updates.values() {
            if let Some(attempt) = last_attempt(update) {
                self.maybe_landed.entry(update.id.clone()).or_default().push(attempt);
            }
        }
    }

    /// Ends updates whose push may have landed and whose site somebody has changed since: writing them once more could
    /// put an older version over a newer one. Whether theirs is in the history, a mirror one commit deep does not know.
    async fn settle_overwritten(&mut self) -> Result<(), Setback> {
        let Some(snapshot) = self.branch.snapshot() else { return Ok(()) };
        let was_overwritten = |(id, attempts): (&String, &Vec<Attempt>)| {
            let update = self.updates.get(id)?;
            let attempt = attempts.iter().find(|attempt| was_overwritten(update, attempt, &snapshot))?;
            Some((id.clone(), attempt.commit.clone()))
        };
        let overwritten: Vec<_> = self.maybe_landed.iter().filter_map(was_overwritten).collect();
        let mut finished = Vec::new();
        for (id, commit) in overwritten {
            let reason = format!(
                "the answer to the push of {commit} was lost, and somebody has changed the version again since"
            );
            finished.extend(self.take(&id).map(|update| (update, Outcome::Superseded { reason })));
        }
        Ok(self.relay.finish(finished).await?)
    }

    /// Gives back updates whose place runs something else than they were compared with, because somebody else has
    /// pushed meanwhile: that may be newer.
    async fn return_outdated(&mut self) -> Result<(), Setback> {
        let Some(snapshot) = self.branch.snapshot() else { return Ok(()) };
        let is_outdated = |id: &&String| {
            let update = self.updates.get(*id);
            !self.maybe_landed.contains_key(*id) && update.is_some_and(|update| was_not_compared(update, &snapshot))
        };
        let outdated: Vec<String> = self.order.iter().filter(is_outdated).cloned().collect();
        if outdated.is_empty() {
            return Ok(());
        }
        for id in &outdated {
            if let Some(update) = self.take(id) {
                let (environment, repository) = (&update.environment, &update.repository);
                tracing::info!(update = id, environment, %repository, "what runs was changed: it is compared again");
            }
        }
        self.relay.0.store.decide_again(outdated).await?;
        self.relay.0.arrivals.other();
        Ok(())
    }

    /// Ends updates as committed by the earlier attempt that is on the branch.
    async fn finish_landed(&mut self, ids: &[String]) -> Result<(), Setback> {
        let tip = self.branch.snapshot().map(|snapshot| snapshot.tip.to_string());
        let mut landed = Vec::new();
        let mut finished = Vec::new();
        for id in ids {
            let attempts = self.maybe_landed.get(id).cloned().unwrap_or_default();
            // Where others have gone on from it, it is the first one that nobody has an answer to.
            let at_tip = attempts.iter().find(|attempt| Some(&attempt.commit) == tip.as_ref());
            let attempt = at_tip.or(attempts.first()).cloned();
            if let (Some(attempt), Some(mut update)) = (attempt, self.take(id)) {
                update.commit = Some(attempt.commit.clone());
                landed.push(attempt);
                finished.push((update, Outcome::Committed));
            }
        }
        if !landed.is_empty() {
            self.relay.0.store.record_landed(landed).await?;
            self.finish(finished).await?;
        }
        Ok(())
    }

    fn take(&mut self, id: &str) -> Option<Update> {
        self.order.retain(|other| other != id);
        self.maybe_landed.remove(id);
        self.updates.remove(id)
    }

    async fn prepare(&self) -> Result<Prepared, Setback> {
        let begun = Instant::now();
        let mut span = self.step(SpanKind::Internal, "git commit");
        let updates = self.updates.clone();
        let words = self.branch.writing().message.clone();
        let render = Arc::new(move |commit: &PlannedCommit| message::render(commit, &updates, &words));
        let result = self.branch.config_repository().prepare(self.plan(), render).await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.relay.0.metrics.git_operation(GitOperation::prepare, outcome, begun.elapsed());
        match &result {
            Ok(prepared) => {
                let commits =
                    prepared.commits().iter().filter_map(|commit| Some(commit.id?.to_string())).collect::<Vec<_>>();
                span.set("tagrelay.parent", prepared.parent());
                span.set("tagrelay.commit", commits.join(" "));
            }
            Err(error) => span.fail(&error.to_string()),
        }
        result.map_err(Setback::remote)
    }

    /// Returns what is wanted, by environment in the order of the settings.
    fn plan(&self) -> Plan {
        let wanted_of = |environment: &str| -> Vec<WantedVersion> {
            let updates = self.order.iter().filter_map(|id| self.updates.get(id));
            updates
                .filter(|update| update.environment == environment)
                .map(|update| WantedVersion {
                    key: update.id.clone(),
                    repository: update.repository.clone(),
                    version: update.version.clone(),
                })
                .collect()
        };
        let environments = self.branch.environments().iter().map(|environment| EnvironmentPlan {
            environment: environment.name.clone(),
            wanted: wanted_of(&environment.name),
        });
        Plan { environments: environments.filter(|plan| !plan.wanted.is_empty()).collect() }
    }

    /// Ends what needs no push: what runs already and what is refused. Returns whether nothing is left.
    async fn finish_unwritten(&mut self, prepared: &Prepared) -> Result<bool, Setback> {
        let mut finished = Vec::new();
        let mut landed = Vec::new();
        for (key, outcome) in prepared.outcomes() {
            let outcome = match outcome {
                config_repo::Outcome::Changed { .. } => continue,
                config_repo::Outcome::Unchanged if self.maybe_landed.contains_key(key) => {
                    landed.push(key.clone());
                    continue;
                }
                config_repo::Outcome::Unchanged => Outcome::Unchanged,
                config_repo::Outcome::Refused { reason } => Outcome::Refused { reason: reason.clone() },
            };
            finished.extend(self.take(key).map(|update| (update, outcome)));
        }
        self.finish_landed(&landed).await?;
        self.finish(finished).await?;
        Ok(self.order.is_empty())
    }

    /// Tells the store which commit is about to carry which update.
    /// Returns whether some must not be pushed after all.
    async fn record(&mut self, prepared: &Prepared) -> Result<bool, Setback> {
        let mut attempts = Vec::new();
        for (key, outcome) in prepared.outcomes() {
            let config_repo::Outcome::Changed { commit, changes } = outcome else { continue };
            let (Some(update), Some(first)) = (self.updates.get_mut(key), changes.first()) else { continue };
            update.commit = Some(commit.to_string());
            update.old = Some(first.old.clone());
            update.changes = changes
                .iter()
                .map(|change| SiteChange {
                    path: change.path.clone(),
                    line: change.line,
                    old: change.old.clone(),
                    new: change.new.clone(),
                })
                .collect();
            attempts.extend(last_attempt(update));
        }
        let dropped = self.relay.0.store.record_attempts(attempts).await?;
        for (id, state) in &dropped {
            if let Some(update) = self.take(id).filter(|_| *state == UpdateState::Waiting) {
                self.relay.tell_waiting(&update);
            }
        }
        Ok(!dropped.is_empty())
    }

    /// Sends the commits. Returns how many updates each of them carries.
    async fn push(&self, prepared: Prepared) -> Result<Vec<usize>, PushError> {
        let sizes = prepared.commits().iter().map(|commit| commit.changes.len()).collect();
        let begun = Instant::now();
        let mut span = self.step(SpanKind::Client, "git push");
        let result = self.branch.config_repository().push(prepared).await;
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
        result.map(|()| sizes)
    }

    async fn finish_written(&mut self, commits: &[usize]) -> Result<(), Setback> {
        commits.iter().for_each(|updates| self.relay.0.metrics.commit(*updates));
        let ids = std::mem::take(&mut self.order);
        let finished = ids.iter().filter_map(|id| Some((self.updates.remove(id)?, Outcome::Committed))).collect();
        self.finish(finished).await
    }

    /// Ends everything with what the remote said, where it is about one environment. A push of several is taken apart
    /// first: a rule that protects one environment says nothing about the others.
    async fn refuse(&mut self, reason: String) -> Result<(), Setback> {
        let ids = std::mem::take(&mut self.order);
        let updates: Vec<Update> = ids.iter().filter_map(|id| self.updates.remove(id)).collect();
        let environments: BTreeSet<&str> = updates.iter().map(|update| update.environment.as_str()).collect();
        if environments.len() > 1 {
            self.relay.0.store.forget_attempts(ids).await?;
            self.round.set("tagrelay.outcome", "taken apart");
            self.spans.values_mut().for_each(|span| span.set("tagrelay.outcome", "taken apart"));
            for environment in self.branch.environments() {
                let own = updates.iter().filter(|update| update.environment == environment.name);
                let own = own.cloned().map(|update| Update { commit: None, ..update }).collect();
                Box::pin(Self::new(self.relay, self.branch, own).write(false)).await?;
            }
            return Ok(());
        }
        let outcome = Outcome::Refused { reason: format!("the remote refused the push: {reason}") };
        let finished = updates.into_iter().map(|update| (update, outcome.clone())).collect();
        self.finish(finished).await
    }
}

/// Returns what was last recorded to be pushed for an update.
fn last_attempt(update: &Update) -> Option<Attempt> {
    Some(Attempt {
        update_id: update.id.clone(),
        commit: update.commit.clone()?,
        old: update.old.clone()?,
        changes: update.changes.clone(),
    })
}

/// Returns the version that each site of an attempt holds now, beside what the attempt was to change there.
fn now_and_then<'a>(
    update: &'a Update,
    attempt: &'a Attempt,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = (&'a Version, &'a SiteChange)> {
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    let places = places.map(|places| places.as_slice()).unwrap_or_default();
    places.iter().flat_map(move |place| {
        let here = attempt.changes.iter().filter(move |change| change.path == place.path.as_ref());
        here.map(move |change| (&place.version, change))
    })
}

/// Returns whether a site of an update's place holds a version that nobody has compared the update with.
fn was_not_compared(update: &Update, snapshot: &Snapshot) -> bool {
    let Some(compared) = &update.compared else { return false };
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    places.is_some_and(|places| places.iter().any(|place| !is_among(&place.version, &update.version, compared)))
}

/// Returns whether a site that an attempt was to change now holds neither what it held before nor what the attempt
/// wrote: then somebody went on from one of the two.
fn was_overwritten(update: &Update, attempt: &Attempt, snapshot: &Snapshot) -> bool {
    now_and_then(update, attempt, snapshot).any(|(now, change)| change.old != *now && change.new != *now)
}

/// Returns whether what an attempt was to write stands on the branch.
fn stands(update: &Update, attempt: &Attempt, snapshot: &Snapshot) -> bool {
    let mut sites = now_and_then(update, attempt, snapshot).peekable();
    sites.peek().is_some() && sites.all(|(now, change)| change.new == *now)
}

/// Returns whether what an update has written stands on a branch.
pub(super) fn stands_on(update: &Update, snapshot: &Snapshot) -> bool {
    last_attempt(update).is_some_and(|attempt| stands(update, &attempt, snapshot))
}

/// Returns a number in 0..1 that differs from call to call and from process to process.
pub(super) fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The keys of `RandomState` are random in each process and differ from one to the next.
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
