//! Follows commits in Argo CD: refreshes their applications, and polls them until they run the commit.
//!
//! One task handles every open follow-up of the store, so a restart continues where the last process ended. It never delays a
//! push: a failed request to Argo CD is repeated later.

mod ask;
mod confirm;
mod evidence;
mod gate;
mod health;
mod rollout;
mod running;
mod seen_commits;
mod tell;
mod waiting;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Relay;
use crate::argocd::{Access, Application, ApplicationName, ArgoCd, ArgoCdError, Selection, WatchedBranch};
use crate::domain::{Change, Update};
use crate::store::{Rollout, RolloutState, StoreError};
use crate::telemetry::{Span, SpanKind};
pub(in crate::relay) use running::Promoted;
use seen_commits::SeenCommits;

/// The most follow-ups that are processed at once; the others wait.
const MAX_OPEN: u32 = 2000;

/// The first and the longest backoff after a failed request to Argo CD.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long to wait after a failure of the store.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How often the gated environments are observed.
const WATCH: Duration = Duration::from_secs(60);

/// The longest time that a rollout is followed if Argo CD does not answer at all.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// The Argo CD that rolls out commits, and which of its applications belong to which environment.
pub struct Following {
    argocd: ArgoCd,
    /// In the order of the relay's branches.
    branches: Vec<WatchedBranch>,
    selections: HashMap<String, Selection>,
    /// Notified after a commit.
    wake: Notify,
    /// Locked while recorded application health is read and updated.
    health: Mutex<()>,
}

impl Following {
    /// Creates the connection. `branches` are in the order of the pipeline's branches, `selections` are by environment.
    pub fn new(argocd: ArgoCd, branches: Vec<WatchedBranch>, selections: HashMap<String, Selection>) -> Self {
        Self { argocd, branches, selections, wake: Notify::new(), health: Mutex::new(()) }
    }

    /// Wakes the task after a commit.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn selection(&self, environment: &str) -> &Selection {
        self.selections.get(environment).unwrap_or(&Selection::Paths)
    }

    /// Returns the applications in `all` that belong to an environment with these files.
    ///
    /// If the settings select applications and none of them is known to use the files, all selected ones count: they may use the
    /// files indirectly.
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
            // Argo CD has applied the labels.
            Selection::Labels(_) => all.iter().collect(),
            Selection::Named(names) => {
                let is_named = |app: &&Application| names.iter().any(|name| name.names(&app.name));
                all.iter().filter(is_named).collect()
            }
        };
        let touched: Vec<&Application> = candidates.iter().copied().filter(is_touched).collect();
        if touched.is_empty() { candidates } else { touched }
    }

    /// Returns the unreadable applications in `all` that may belong to an environment.
    fn unreadable<'a>(&'a self, all: &'a [Application], environment: &str) -> impl Iterator<Item = &'a Application> {
        let names = match self.selection(environment) {
            Selection::Named(names) => Some(names),
            Selection::Paths | Selection::Labels(_) => None,
        };
        let may_be = move |app: &&Application| names.is_none_or(|names| names.iter().any(|name| name.names(&app.name)));
        all.iter().filter(|app| app.is_unreadable()).filter(may_be)
    }

    /// Returns the label selector for the applications of an environment; `None`: all applications.
    fn selector(&self, environment: &str) -> Option<&str> {
        match self.selection(environment) {
            Selection::Labels(labels) => Some(labels),
            Selection::Paths | Selection::Named(_) => None,
        }
    }
}

/// Returns the files that an update has changed.
fn files(update: &Update) -> BTreeSet<&str> {
    update.changes.iter().map(|change| change.path.as_str()).collect()
}

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let Some(following) = &relay.0.following else {
        // These settings have no Argo CD, so the task only waits for the end of the generation.
        let _ = stopped.wait_for(|stop| *stop).await;
        return;
    };
    let mut worker = Worker::new(&relay, following);
    while !*stopped.borrow() {
        let round = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            // A cancelled round loses at most a response.
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

/// The task with its caches. Losing them is harmless.
struct Worker<'a> {
    relay: &'a Relay,
    following: &'a Following,
    /// In the order of the branches.
    lineages: Vec<SeenCommits>,
    polls: HashMap<ApplicationName, ask::Poll>,
    tasks: JoinSet<ask::Answer>,
    in_flight: HashSet<ApplicationName>,
    /// The last list of applications for each environment.
    sights: HashMap<String, (Instant, evidence::Sight)>,
    /// The follow-up span of each update, by update id.
    spans: HashMap<String, Span>,
    /// Consecutive failures, and when Argo CD is tried again.
    away: Option<(u32, Instant)>,
    watched_at: Option<Instant>,
    last_look: waiting::LastLook,
}

impl<'a> Worker<'a> {
    fn new(relay: &'a Relay, following: &'a Following) -> Self {
        Self {
            relay,
            following,
            lineages: following.branches.iter().map(|_| SeenCommits::default()).collect(),
            polls: HashMap::new(),
            tasks: JoinSet::new(),
            in_flight: HashSet::new(),
            sights: HashMap::new(),
            spans: HashMap::new(),
            away: None,
            watched_at: None,
            last_look: waiting::LastLook::default(),
        }
    }

    /// Runs one round. Returns the time until the next one is due.
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
                let pause = self.ask(open).await?;
                // A request that fails begins a backoff, which the next round waits for.
                Ok(pause.min(self.look_at_gates().await?))
            }
            Access::Webhook(_) => self.tell(open).await,
        }
    }

    /// Returns the time in the precision of the store, so that published and stored times are equal.
    fn now(&self) -> Timestamp {
        let now = self.relay.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    fn remember(&mut self, open: &[(Rollout, Update)]) {
        self.spans.retain(|id, _| open.iter().any(|(row, _)| row.update_id == *id));
        for (row, update) in open {
            let index = self.relay.0.branch_of.get(&row.environment);
            if let Some(seen_commits) = index.and_then(|index| self.lineages.get_mut(*index)) {
                seen_commits.note(&row.commit, row.started_at);
            }
            self.spans.entry(row.update_id.clone()).or_insert_with(|| {
                let mut span = self.relay.0.traces.begin(SpanKind::Consumer, "follow rollout", Some(&update.trace));
                super::describe(&mut span, update);
                span.set("tagrelay.commit", &row.commit);
                span
            });
        }
    }

    /// Observes the gated environments if the last observation is older than [`WATCH`].
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

    /// Ends the backoff after a response.
    fn found(&mut self) {
        if self.away.take().is_some() {
            tracing::info!("Argo CD answers again");
        }
    }

    /// Starts or extends the backoff after an error that concerns Argo CD as a whole.
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

    /// Records the error as the reason of open follow-ups, and ends those older than [`GIVE_UP`].
    async fn explain(&mut self, open: Vec<(Rollout, Update)>, error: &ArgoCdError) -> Result<(), StoreError> {
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
                (row.state, row.ended_at) = (RolloutState::TimedOut, Some(now));
            }
            changed.push((row, update));
        }
        self.record(changed).await
    }

    /// Stores and publishes the progress of follow-ups.
    async fn record(&mut self, changed: Vec<(Rollout, Update)>) -> Result<(), StoreError> {
        if changed.is_empty() {
            return Ok(());
        }
        let rollout = |(row, update): &(Rollout, Update)| Change::Rollout {
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

    fn tell_end(&mut self, row: &Rollout, update: &Update) {
        self.last_look.rollout_ended = true;
        let (state, reason) = (row.state, row.reason.as_deref());
        let applications: Vec<String> =
            row.applications.iter().map(rollout::name).map(|name| name.to_string()).collect();
        let applications = applications.join(" ");
        // `tracing` requires a constant level at each call.
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
            RolloutState::Degraded | RolloutState::TimedOut => tell!(tracing::Level::WARN),
            _ => tell!(tracing::Level::INFO),
        }
        self.relay.0.metrics.rollout(&row.environment, state.as_str());
        if state == RolloutState::Healthy {
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

/// Returns the time since `since`; zero if that is in the future.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
