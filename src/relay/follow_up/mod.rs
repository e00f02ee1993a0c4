//! What becomes of a commit in Argo CD: its applications are refreshed, and asked until they run it.
//!
//! One task looks after everything that is open in the store, so that a restart goes on where the last process ended. It
//! never stands in the way of a push: what Argo CD cannot answer now is asked again later.

mod ask;
mod gate;
mod health;
mod lineage;
mod running;
mod tell;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Relay;
use crate::argocd::{Access, Application, ApplicationName, ArgoCd, ArgoCdError, Selection, WatchedBranch};
use crate::domain::{Change, Update};
use crate::store::{FollowState, FollowUp, StoreError};
use crate::telemetry::{Span, SpanKind};
use lineage::Lineage;
pub(in crate::relay) use running::Promoted;

/// The most follow-ups that are looked after at once; the others wait for their turn.
const MAX_OPEN: u32 = 2000;

/// The first and the longest pause after Argo CD could not be asked.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long to wait when the store does not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How often those environments are looked at that promotions want to be healthy.
const WATCH: Duration = Duration::from_secs(60);

/// How long a rollout is followed at most, when Argo CD does not answer at all.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// The Argo CD that rolls out what is committed, and what of it belongs to which environment.
pub struct Following {
    argocd: ArgoCd,
    /// In the order of the relay's branches.
    branches: Vec<WatchedBranch>,
    selections: HashMap<String, Selection>,
    /// Rung when something has been committed.
    wake: Notify,
    /// Held while what is known of the health of applications is read and written.
    health: Mutex<()>,
}

impl Following {
    /// Joins Argo CD with the branches, which are in the order of those of the pipeline, and with the applications of each
    /// environment.
    pub fn new(argocd: ArgoCd, branches: Vec<WatchedBranch>, selections: HashMap<String, Selection>) -> Self {
        Self { argocd, branches, selections, wake: Notify::new(), health: Mutex::new(()) }
    }

    /// Rings for something that has been committed.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn selection(&self, environment: &str) -> &Selection {
        self.selections.get(environment).unwrap_or(&Selection::Paths)
    }

    /// Returns those of `all` that an environment with these files has. Where somebody has named applications, and none of
    /// them is known to be made of the files, all of them count: they may take them from where nobody sees it.
    fn select<'a>(
        &self,
        all: &'a [Application],
        environment: &str,
        branch: &WatchedBranch,
        files: &BTreeSet<&str>,
    ) -> Vec<&'a Application> {
        let is_touched = |app: &&Application| app.is_touched_by(branch, files.iter().copied());
        let candidates: Vec<&Application> = match self.selection(environment) {
            Selection::Paths => return all.iter().filter(is_touched).collect(),
            // Argo CD has chosen them.
            Selection::Labels(_) => all.iter().collect(),
            Selection::Named(names) => {
                let is_named = |app: &&Application| names.iter().any(|name| is_same(name, &app.name));
                all.iter().filter(is_named).collect()
            }
        };
        let touched: Vec<&Application> = candidates.iter().copied().filter(is_touched).collect();
        if touched.is_empty() { candidates } else { touched }
    }

    /// Returns those of `all` that Argo CD shows in a way that cannot be read, and that may be of an environment.
    fn unreadable<'a>(&'a self, all: &'a [Application], environment: &str) -> impl Iterator<Item = &'a Application> {
        let names = match self.selection(environment) {
            Selection::Named(names) => Some(names),
            Selection::Paths | Selection::Labels(_) => None,
        };
        let may_be =
            move |app: &&Application| names.is_none_or(|names| names.iter().any(|name| is_same(name, &app.name)));
        all.iter().filter(|app| app.is_unreadable()).filter(may_be)
    }

    /// Returns the selector with which Argo CD is asked for the applications of an environment.
    fn selector(&self, environment: &str) -> Option<&str> {
        match self.selection(environment) {
            Selection::Labels(labels) => Some(labels),
            Selection::Paths | Selection::Named(_) => None,
        }
    }
}

/// Returns whether an application has a name, which may leave its namespace out.
fn is_same(name: &ApplicationName, found: &ApplicationName) -> bool {
    name.name == found.name && (name.namespace.is_none() || name.namespace == found.namespace)
}

/// Returns the files that an update has changed.
fn files(update: &Update) -> BTreeSet<&str> {
    update.changes.iter().map(|change| change.path.as_str()).collect()
}

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let Some(following) = &relay.0.following else {
        // Nothing to do for as long as these settings are in force.
        let _ = stopped.wait_for(|stop| *stop).await;
        return;
    };
    let mut worker = Worker::new(&relay, following);
    while !*stopped.borrow() {
        let round = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            // Left in the middle it has at worst asked in vain.
            round = worker.round() => round,
        };
        let pause = round.unwrap_or_else(|error| {
            tracing::error!(%error, "the store cannot be used to follow rollouts");
            STORE_PAUSE
        });
        let answer = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => None,
            () = following.wake.notified() => None,
            Some(answer) = worker.tasks.join_next() => answer.ok(),
            () = tokio::time::sleep(pause) => None,
        };
        if let Some(answer) = answer
            && let Err(error) = worker.take(answer).await
        {
            tracing::error!(%error, "the store cannot be used to follow rollouts");
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }
}

/// The task with what it remembers; all of it can be lost.
struct Worker<'a> {
    relay: &'a Relay,
    following: &'a Following,
    /// In the order of the branches.
    lineages: Vec<Lineage>,
    polls: HashMap<ApplicationName, ask::Poll>,
    tasks: JoinSet<ask::Answer>,
    in_flight: HashSet<ApplicationName>,
    /// The part of the follow-up of each update in its trace.
    spans: HashMap<String, Span>,
    /// How often in a row Argo CD could not be asked, and when it is asked again.
    away: Option<(u32, Instant)>,
    watched_at: Option<Instant>,
}

impl<'a> Worker<'a> {
    fn new(relay: &'a Relay, following: &'a Following) -> Self {
        Self {
            relay,
            following,
            lineages: following.branches.iter().map(|_| Lineage::default()).collect(),
            polls: HashMap::new(),
            tasks: JoinSet::new(),
            in_flight: HashSet::new(),
            spans: HashMap::new(),
            away: None,
            watched_at: None,
        }
    }

    /// Does what is due, and returns how long there is nothing to do.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        if let Some((_, until)) = self.away
            && let Some(pause) = until.checked_duration_since(Instant::now())
            && !pause.is_zero()
        {
            return Ok(pause);
        }
        let open = self.relay.0.store.open_follow_ups(MAX_OPEN).await?;
        self.remember(&open);
        match &self.following.argocd.settings().access {
            Access::Token(_) => {
                self.watch().await?;
                self.ask(open).await
            }
            Access::Webhook { .. } => self.tell(open).await,
        }
    }

    /// Returns the time as the store keeps it, so that what is told now and what is read back later are the same.
    fn now(&self) -> Timestamp {
        let now = self.relay.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    fn remember(&mut self, open: &[(FollowUp, Update)]) {
        self.spans.retain(|id, _| open.iter().any(|(row, _)| row.update_id == *id));
        for (row, update) in open {
            let index = self.relay.0.branch_of.get(&row.environment);
            if let Some(lineage) = index.and_then(|index| self.lineages.get_mut(*index)) {
                lineage.note(&row.commit, row.started_at);
            }
            self.spans.entry(row.update_id.clone()).or_insert_with(|| {
                let mut span = self.relay.0.traces.begin(SpanKind::Consumer, "follow rollout", Some(&update.trace));
                super::describe(&mut span, update);
                span.set("tagrelay.commit", &row.commit);
                span
            });
        }
    }

    /// Looks at the environments that promotions want to be healthy, once in a while.
    async fn watch(&mut self) -> Result<(), StoreError> {
        let is_due = self.watched_at.is_none_or(|at| at.elapsed() >= WATCH);
        let sources = self.relay.gated_sources();
        if !is_due || sources.is_empty() {
            return Ok(());
        }
        self.watched_at = Some(Instant::now());
        for environment in sources {
            match self.relay.observe(self.following, environment, self.now()).await? {
                Ok(_) => self.found(),
                Err(error) => {
                    self.missed(&error);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Notes that Argo CD has answered.
    fn found(&mut self) {
        if self.away.take().is_some() {
            tracing::info!("Argo CD answers again");
        }
    }

    /// Notes that Argo CD could not be asked.
    fn missed(&mut self, error: &ArgoCdError) {
        if !error.is_general() {
            return;
        }
        let failures = self.away.map_or(0, |(failures, _)| failures).saturating_add(1);
        let pause = RETRY.0.saturating_mul(2u32.saturating_pow((failures - 1).min(16))).min(RETRY.1);
        let pause = pause.mul_f64(0.75 + super::runtime::backoff::jitter() / 4.0);
        if failures == 1 {
            tracing::warn!(%error, "rollouts cannot be followed now; commits go on, and Argo CD is asked again");
        } else {
            tracing::debug!(%error, ?pause, "Argo CD still cannot be asked");
        }
        self.away = Some((failures, Instant::now() + pause));
    }

    /// Writes on everything that waits why it does, where that is not known yet; ends what has waited for too long.
    async fn explain(&mut self, open: Vec<(FollowUp, Update)>, error: &ArgoCdError) -> Result<(), StoreError> {
        let now = self.now();
        let mut changed = Vec::new();
        for (mut row, update) in open {
            let reason = Some(error.to_string());
            let is_late = elapsed(row.started_at, now) > GIVE_UP;
            if row.reason == reason && !is_late {
                continue;
            }
            row.reason = reason;
            if is_late {
                (row.state, row.ended_at) = (FollowState::TimedOut, Some(now));
            }
            changed.push((row, update));
        }
        self.record(changed).await
    }

    /// Stores how far follow-ups have come, and tells of it.
    async fn record(&mut self, changed: Vec<(FollowUp, Update)>) -> Result<(), StoreError> {
        if changed.is_empty() {
            return Ok(());
        }
        let rollout = |(row, update): &(FollowUp, Update)| Change::Rollout {
            update: row.update_id.clone(),
            cause_id: update.cause_id.clone(),
            environment: row.environment.clone(),
            repository: update.repository.to_string(),
            version: update.version.to_string(),
            commit: row.commit.clone(),
            state: row.state.as_str().to_owned(),
            reason: row.reason.clone(),
        };
        let rows = changed.iter().map(|(row, _)| row.clone()).collect();
        self.relay.0.store.record_follow_ups(rows, changed.iter().map(rollout).collect()).await?;
        for (row, update) in changed.iter().filter(|(row, _)| row.state.is_final()) {
            self.tell_end(row, update);
        }
        Ok(())
    }

    fn tell_end(&mut self, row: &FollowUp, update: &Update) {
        let (state, reason) = (row.state, row.reason.as_deref());
        let applications: Vec<String> = row.applications.iter().map(ask::name).map(|name| name.to_string()).collect();
        let applications = applications.join(" ");
        // Levels of events are constants, so that a level that depends on something needs two of them.
        macro_rules! tell {
            ($level:expr) => {
                tracing::event!(
                    $level, update = %row.update_id, cause_id = %update.cause_id, environment = %row.environment,
                    repository = %update.repository, version = %update.version.short(), commit = %row.commit, %state,
                    reason, applications, trace_id = %update.trace.trace_id(), "rollout ended"
                )
            };
        }
        match state {
            FollowState::Degraded | FollowState::TimedOut => tell!(tracing::Level::WARN),
            _ => tell!(tracing::Level::INFO),
        }
        self.relay.0.metrics.rollout(&row.environment, state.as_str());
        if state == FollowState::Healthy {
            let now = row.ended_at.unwrap_or(row.started_at);
            self.relay.0.metrics.healthy(elapsed(row.started_at, now));
        }
        if let Some(mut span) = self.spans.remove(&row.update_id) {
            span.set("tagrelay.outcome", state);
            span.set("tagrelay.applications", &applications);
            if let Some(reason) = reason {
                span.set("tagrelay.reason", reason);
            }
        }
    }
}

/// Returns how long ago something was; zero where it lies ahead.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
