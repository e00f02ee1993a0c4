use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::attempts::{Doubt, Fate, Whereabouts, last_attempt, not_compared};
use super::{begin, describe_end, jitter};
use crate::config_repo::{self, CommitId, EnvironmentPlan, Plan, PlannedCommit, Prepared, PushError, WantedVersion};
use crate::image::Version;
use crate::relay::branch::Branch;
use crate::relay::setback::Setback;
use crate::relay::{Relay, message};
use crate::store::{Attempt, Outcome, Party, Recording, SiteChange, Update, UpdateState};
use crate::telemetry::{GitOperation, Span, SpanKind, TraceContext};

/// How often a race is run before the updates wait a little for calmer times.
const MAX_RACES: u32 = 10;

/// How often a batch is prepared, for whatever reason, before what is pending is read anew.
const MAX_ROUNDS: u32 = 2 * MAX_RACES;

/// How old what is known of the branch may be where an update ends by that alone.
const FRESH: Duration = Duration::from_secs(5);

/// How often it is said that a push is still under way.
const LONG_PUSH: Duration = Duration::from_secs(60);

/// How many pushes may be declined one after another before what declines them is taken to be against all of them. One
/// update of [`MAX_BATCH`](super::MAX_BATCH) is found with ten.
const MAX_DECLINED: u32 = 16;

/// The updates of one round, at most one for each place.
pub(super) struct Batch<'a> {
    relay: &'a Relay,
    branch: &'a Branch,
    updates: HashMap<String, Update>,
    /// The ids in the order in which they were taken.
    order: Vec<String>,
    /// Updates with those earlier attempts of which nobody knows whether they landed, or will.
    maybe_landed: HashMap<String, Vec<Doubt>>,
    /// The round itself, in the trace of the first update and linked with those of the others. It stands before the
    /// spans that it is a child of, so that it ends before they do.
    round: Span,
    /// The part of the round in the trace of each update.
    spans: HashMap<String, Span>,
    /// Whether an event's update is written although a newer event's is pending.
    overtaken_may_go: bool,
    /// How many pushes of the round were declined since one was taken, by all the parts that it was taken into.
    declined: Arc<AtomicU32>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(relay: &'a Relay, branch: &'a Branch, updates: Vec<Update>) -> Self {
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
        let doubts = |update: &Update| Some(vec![Doubt { attempt: last_attempt(update)?, parent: None }]);
        let maybe_landed = updates.iter().filter_map(|update| Some((update.id.clone(), doubts(update)?))).collect();
        let updates = updates.into_iter().map(|update| (update.id.clone(), update)).collect();
        Self {
            relay,
            branch,
            updates,
            order,
            maybe_landed,
            round,
            spans,
            overtaken_may_go: false,
            declined: Arc::default(),
        }
    }

    pub(super) async fn write(mut self, refresh_first: bool) -> Result<(), Setback> {
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
        self.finish_as(finished, None).await
    }

    async fn finish_as(&mut self, finished: Vec<(Update, Outcome)>, asked: Option<Party>) -> Result<(), Setback> {
        for (update, outcome) in &finished {
            if let Some(span) = self.spans.get_mut(&update.id) {
                describe_end(span, update, outcome);
            }
        }
        Ok(self.relay.finish_as(finished, asked).await?)
    }

    async fn write_all(&mut self, refresh_first: bool) -> Result<(), Setback> {
        if refresh_first || self.branch.snapshot().is_none() || !self.maybe_landed.is_empty() {
            self.refresh().await?;
        }
        let (mut lost, mut lost_answers, mut race) = (String::new(), 0, 0);
        for _ in 0..MAX_ROUNDS {
            let settled_at = self.settle_doubts().await?;
            self.return_outdated().await?;
            if self.order.is_empty() {
                return Ok(());
            }
            let prepared = self.prepare().await?;
            if settled_at.is_some_and(|tip| tip != prepared.parent()) {
                // Somebody else has read the branch meanwhile: what was in doubt may be on it now.
                continue;
            }
            if self.is_outrun(&prepared).await? {
                continue;
            }
            if self.finish_unwritten(&prepared).await? {
                return Ok(());
            }
            if self.record(&prepared).await? {
                // A hold or something newer came meanwhile: what is left is prepared without it. In a stream of events there is
                // always something newer, which has its turn with the next push.
                self.overtaken_may_go = true;
                continue;
            }
            let parent = prepared.parent();
            match self.push(prepared).await {
                Ok(commits) => return self.finish_written(&commits).await,
                Err(PushError::Outdated { reason }) => {
                    self.relay.0.metrics.push_retry();
                    self.forget_attempts().await?;
                    lost = reason;
                    let pause = Duration::from_millis(20).mul_f64(f64::from(race) + jitter());
                    race += 1;
                    if race >= MAX_RACES {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(PushError::Refused { reason }) => return self.refuse(reason).await,
                // Not even a look, before the time that the server has asked for: the next round begins with one.
                Err(PushError::Unknown { reason, ask_again_after: wait @ Some(_) }) => {
                    return Err(Setback::Remote { reason, ask_again_after: wait });
                }
                Err(PushError::Unknown { reason, ask_again_after: None }) => {
                    tracing::warn!(reason, "the answer to a push was lost; looking at the branch");
                    self.doubt_last_attempts(parent);
                    lost_answers += 1;
                    if lost_answers > 1 {
                        // Once is an accident of a connection; twice is a server in trouble, which is left alone a while.
                        return self.leave_alone(reason).await;
                    }
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
        if race < MAX_RACES {
            // Nobody is to blame: what is wanted changed each time that it was prepared.
            return Ok(());
        }
        Err(Setback::remote(format_args!("{MAX_RACES} pushes in a row lost the race against others; the last: {lost}")))
    }

    /// Ends the round after lost answers, having looked which of the updates are on the branch all the same.
    async fn leave_alone(&mut self, reason: String) -> Result<(), Setback> {
        self.refresh().await?;
        self.settle_doubts().await?;
        if self.order.is_empty() {
            return Ok(());
        }
        Err(Setback::remote(format_args!("the answers to two pushes in a row were lost: {reason}")))
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

    fn doubt_last_attempts(&mut self, parent: CommitId) {
        for update in self.updates.values() {
            if let Some(attempt) = last_attempt(update) {
                let doubt = Doubt { attempt, parent: Some(parent) };
                self.maybe_landed.entry(update.id.clone()).or_default().push(doubt);
            }
        }
    }

    /// Decides what became of earlier attempts before anything is written again: ends updates whose commit is on the
    /// branch, whatever stands there now, and forgets attempts that were never taken. Returns the tip at which that was
    /// decided; `None` where nothing was in doubt.
    async fn settle_doubts(&mut self) -> Result<Option<CommitId>, Setback> {
        let Some(snapshot) = self.branch.snapshot().filter(|_| !self.maybe_landed.is_empty()) else { return Ok(None) };
        let whereabouts = Whereabouts::ask(self.branch, self.maybe_landed.values().flatten()).await?;
        let (mut landed, mut lost, mut overwritten) = (Vec::new(), Vec::new(), Vec::new());
        for (id, doubts) in &self.maybe_landed {
            let Some(update) = self.updates.get(id) else { continue };
            match whereabouts.fate(update, doubts, &snapshot) {
                Fate::Landed(attempt) | Fate::Stands(attempt) => landed.push(attempt),
                Fate::Lost => lost.push(id.clone()),
                Fate::Overwritten(attempt) => overwritten.push(attempt),
                Fate::Open => {}
            }
        }
        self.finish_landed(landed).await?;
        for id in &lost {
            self.maybe_landed.remove(id);
            self.updates.entry(id.clone()).and_modify(|update| update.commit = None);
        }
        self.relay.0.store.forget_attempts(lost).await?;
        let mut finished = Vec::new();
        for Attempt { update_id, commit, .. } in overwritten {
            let reason = format!(
                "the answer to the push of {commit} was lost, somebody has changed the version again since, and the \
                 history of the branch is longer than what was looked through for it"
            );
            finished.extend(self.take(&update_id).map(|update| (update, Outcome::Superseded { reason })));
        }
        self.finish(finished).await?;
        Ok(Some(snapshot.tip))
    }

    /// Gives back updates whose place runs something else than they were compared with, because somebody else has
    /// pushed meanwhile: that may be newer. A promotion that has waited for a freeze to end is not compared but ended: whoever
    /// has changed the environment since knew what ran there, and whoever asked for the promotion did not.
    async fn return_outdated(&mut self) -> Result<(), Setback> {
        let Some(snapshot) = self.branch.snapshot() else { return Ok(()) };
        let (mut again, mut finished) = (Vec::new(), Vec::new());
        for id in self.order.clone() {
            let Some(update) = self.updates.get(&id).filter(|_| !self.maybe_landed.contains_key(&id)) else { continue };
            let found = not_compared(update, &snapshot);
            if found.is_empty() {
                continue;
            }
            let (environment, repository) = (&update.environment, &update.repository);
            if update.cause.is_event() {
                tracing::info!(update = id, environment, %repository, "what runs was changed: it is compared again");
                self.take(&id);
                again.push(id);
            } else if let Some(version) = self.written_by_others(update, found).await? {
                let reason = format!(
                    "somebody else has changed {environment} to {version} since this was asked for: ask again if it is \
                     still wanted"
                );
                finished.extend(self.take(&id).map(|update| (update, Outcome::Superseded { reason })));
            }
        }
        self.finish(finished).await?;
        if !again.is_empty() {
            self.relay.0.store.decide_again(again).await?;
            self.relay.0.arrivals.other();
        }
        Ok(())
    }

    /// Returns the first of these versions that none of our own updates has brought since `update` was asked for.
    async fn written_by_others(&self, update: &Update, found: Vec<Version>) -> Result<Option<String>, Setback> {
        for version in found {
            let store = &self.relay.0.store;
            let brought = store.brought(&update.environment, &update.repository, &version).await?;
            // What was on its way to the branch when the freeze began was known to whoever asked.
            let is_ours = |brought: Update| brought.finished_at.is_some_and(|at| at >= update.received_at);
            if !brought.is_some_and(is_ours) {
                return Ok(Some(version.short()));
            }
        }
        Ok(None)
    }

    /// Ends updates as committed by these earlier attempts, which are on the branch.
    async fn finish_landed(&mut self, landed: Vec<Attempt>) -> Result<(), Setback> {
        if landed.is_empty() {
            return Ok(());
        }
        let mut finished = Vec::new();
        for attempt in &landed {
            if let Some(mut update) = self.take(&attempt.update_id) {
                update.commit = Some(attempt.commit.clone());
                finished.push((update, Outcome::Committed));
            }
        }
        self.relay.0.store.record_landed(landed).await?;
        self.finish(finished).await
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

    /// Returns whether the branch is no longer where it was when something was found that is to end without a push: what
    /// is written is compared by the remote, and these words are final, too.
    async fn is_outrun(&self, prepared: &Prepared) -> Result<bool, Setback> {
        let is_final = |outcome: &config_repo::Outcome| !matches!(outcome, config_repo::Outcome::Changed { .. });
        if !prepared.outcomes().iter().any(|(_, outcome)| is_final(outcome)) {
            return Ok(false);
        }
        // What somebody wrote since the youngest of them could go is to be seen, however fresh the last reading is.
        let now = self.relay.now();
        let went = self.updates.values().map(|update| update.released_at.unwrap_or(update.received_at));
        let age = went.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default()).min();
        self.branch.read_if_older_than(FRESH.min(age.unwrap_or(FRESH))).await?;
        Ok(self.branch.tip() != Some(prepared.parent()))
    }

    /// Ends what needs no push: what runs already and what is refused. Returns whether nothing is left.
    async fn finish_unwritten(&mut self, prepared: &Prepared) -> Result<bool, Setback> {
        let (mut unchanged, mut refused) = (Vec::new(), Vec::new());
        for (key, outcome) in prepared.outcomes() {
            match outcome {
                config_repo::Outcome::Changed { .. } => {}
                config_repo::Outcome::Unchanged => {
                    unchanged.extend(self.take(key).map(|update| (update, Outcome::Unchanged)));
                }
                config_repo::Outcome::Refused { reason } => {
                    let outcome = Outcome::Refused { reason: reason.clone() };
                    refused.extend(self.take(key).map(|update| (update, outcome)));
                }
            }
        }
        self.finish(unchanged).await?;
        // The manifests have said it, and not the remote.
        self.finish_as(refused, Some(Party::Rules)).await?;
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
        // Of what an earlier process has attempted nobody knows where the branch stood, and it is not waited for.
        let is_waited_for = |doubts: &[Doubt]| doubts.iter().all(|doubt| doubt.parent.is_some());
        let in_doubt = self.maybe_landed.iter().filter(|(_, doubts)| is_waited_for(doubts));
        let in_doubt: HashSet<String> = in_doubt.map(|(id, _)| id.clone()).collect();
        let recording = Recording { attempts, in_doubt, overtaken_may_go: self.overtaken_may_go };
        let dropped = self.relay.0.store.record(recording).await?;
        for (id, state) in &dropped {
            if let Some(update) = self.take(id).filter(|_| *state == UpdateState::Waiting) {
                self.relay.tell_waiting(&update);
            }
        }
        Ok(!dropped.is_empty())
    }

    /// Sends the commits. Returns how many updates each of them carries.
    async fn push(&self, prepared: Prepared) -> Result<Vec<usize>, PushError> {
        let tip = prepared.tip();
        let sizes = prepared.commits().iter().map(|commit| commit.changes.len()).collect();
        let begun = Instant::now();
        let mut span = self.step(SpanKind::Client, "git push");
        let mut pushing = pin!(self.branch.config_repository().push(prepared));
        let result = loop {
            match tokio::time::timeout(LONG_PUSH, &mut pushing).await {
                Ok(result) => break result,
                Err(_) => tracing::warn!(
                    seconds = begun.elapsed().as_secs(),
                    repository = self.branch.repository_name(),
                    branch = self.branch.branch_name(),
                    "a push has no answer yet: does a hook of the remote hang?"
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
        // Where the index could not follow, what is known is not what was pushed.
        if result.is_ok() && self.branch.tip() == Some(tip) {
            self.branch.pushed(begun);
        }
        result.map(|()| sizes)
    }

    async fn finish_written(&mut self, commits: &[usize]) -> Result<(), Setback> {
        self.declined.store(0, Ordering::Relaxed);
        commits.iter().for_each(|updates| self.relay.0.metrics.commit(*updates));
        let ids = std::mem::take(&mut self.order);
        let finished = ids.iter().filter_map(|id| Some((self.updates.remove(id)?, Outcome::Committed))).collect();
        self.finish(finished).await
    }

    /// Ends an update with what the remote said, where it was pushed alone. A push of several is taken apart first: a
    /// hook that declines one service, or a rule that protects one environment, says nothing about the others.
    async fn refuse(&mut self, reason: String) -> Result<(), Setback> {
        self.forget_attempts().await?;
        let declined = self.declined.fetch_add(1, Ordering::Relaxed) + 1;
        if self.order.len() > 1 && declined < MAX_DECLINED {
            self.round.set("tagrelay.outcome", "taken apart");
            self.spans.values_mut().for_each(|span| span.set("tagrelay.outcome", "taken apart"));
            for ids in self.parts() {
                Box::pin(self.split_off(&ids).write(false)).await?;
            }
            return Ok(());
        }
        if !self.maybe_landed.is_empty() {
            // An earlier attempt may be on the branch although this one was declined.
            self.refresh().await?;
            self.settle_doubts().await?;
        }
        let ids = std::mem::take(&mut self.order);
        let outcome = Outcome::Refused { reason: format!("the remote refused the push: {reason}") };
        let finished = ids.iter().filter_map(|id| Some((self.updates.remove(id)?, outcome.clone()))).collect();
        self.finish(finished).await
    }

    /// Returns the ids of the updates by environment, or in two halves where all are of one.
    fn parts(&self) -> Vec<Vec<String>> {
        let of = |environment: &str| -> Vec<String> {
            let is_there = |id: &&String| self.updates.get(*id).is_some_and(|update| update.environment == environment);
            self.order.iter().filter(is_there).cloned().collect()
        };
        let mut parts: Vec<Vec<String>> =
            self.branch.environments().iter().map(|environment| of(&environment.name)).collect();
        parts.retain(|part| !part.is_empty());
        if parts.len() == 1 {
            let (left, right) = self.order.split_at(self.order.len() / 2);
            parts = vec![left.to_vec(), right.to_vec()];
        }
        parts
    }

    /// Makes a batch of its own of some of the updates, with what is in doubt of them.
    fn split_off(&mut self, ids: &[String]) -> Self {
        let mut maybe_landed = HashMap::new();
        let mut updates = Vec::new();
        for id in ids {
            let doubts = self.maybe_landed.remove(id);
            if let Some(update) = self.take(id) {
                // What was just declined did not land.
                updates.push(Update { commit: None, ..update });
                maybe_landed.extend(doubts.map(|doubts| (id.clone(), doubts)));
            }
        }
        Self { maybe_landed, declined: self.declined.clone(), ..Self::new(self.relay, self.branch, updates) }
    }
}
