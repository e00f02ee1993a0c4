//! With an API token: refreshes the applications that a commit touches, and polls them until their rollouts end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::evidence::is_undecided;
use super::rollout::{begin, followed, name, sum_up, time_out, until_late};
use super::{Following, Promoted, Worker, files};
use crate::argocd::{
    Application, ApplicationName, ArgoCdError, LivePods, Progress, Refresh, RolloutEnd, SyncStatus, Via,
};
use crate::domain::{Update, is_same};
use crate::relay::branch::Branch;
use crate::store::{FollowedApplication, Rollout, RolloutState, StoreError};
use crate::telemetry::SpanKind;

/// The most concurrent requests to Argo CD.
const AT_ONCE: usize = 8;

/// The first and the longest pause between two polls of an unchanged application.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// How long after a refresh an application that has not reached the commit is refreshed again.
const REFRESH_AGAIN: Duration = Duration::from_secs(60);

/// How old the mirror may be when an application is at an unknown revision.
const TIP_AGE: Duration = Duration::from_secs(2);

/// How many updates of earlier processes are loaded into a seen_commits.
pub(super) const LOADED: u32 = 2000;

/// The polling state of an application.
pub(super) struct Poll {
    next: Instant,
    pause: Duration,
    refreshed: Option<Instant>,
}

/// A response of Argo CD about an application.
pub(super) struct Answer {
    name: ApplicationName,
    refresh: Refresh,
    /// The updates that were open when the request was sent. The response does not cover later commits.
    updates: Vec<String>,
    result: Result<Application, ArgoCdError>,
    /// The pods of the application, if its images do not show what it runs.
    pods: Option<Result<LivePods, ArgoCdError>>,
}

/// The follow-ups that an application is polled for.
#[derive(Default)]
struct Due {
    /// The update, and whether the application has not been refreshed for it.
    updates: Vec<(String, bool)>,
    versions: Vec<Promoted>,
}

impl Worker<'_> {
    /// Finds the applications of new follow-ups and polls those that are due. Returns the time until the next poll.
    pub(super) async fn ask(&mut self, open: Vec<(Rollout, Update)>) -> Result<Duration, StoreError> {
        let (new, mut known): (Vec<_>, Vec<_>) = open.into_iter().partition(|(row, _)| row.applications.is_empty());
        if !new.is_empty() {
            known.extend(self.find_applications(new).await?);
        }
        let mut due: BTreeMap<ApplicationName, Due> = BTreeMap::new();
        let mut time_left: HashMap<ApplicationName, Duration> = HashMap::new();
        let (now, timeout) = (self.now(), self.following.argocd.settings().timeout);
        for (row, update) in &known {
            for app in row.applications.iter().filter(|app| !app.state.is_final()) {
                let due = due.entry(name(app)).or_default();
                due.updates.push((row.update_id.clone(), app.refreshed_at.is_none()));
                due.versions.push((update.repository.clone(), update.version.clone()));
                let left = until_late(app, row.started_at, timeout, now);
                time_left.entry(name(app)).and_modify(|least| *least = left.min(*least)).or_insert(left);
            }
        }
        self.polls.retain(|name, _| due.contains_key(name));
        self.sights.retain(|environment, _| known.iter().any(|(row, _)| row.environment == *environment));
        if let Some((_, until)) = self.away {
            return Ok(until.saturating_duration_since(Instant::now()));
        }
        let mut pause = super::WATCH;
        for (name, of_app) in due {
            if self.in_flight.contains(&name) {
                continue;
            }
            let is_new = of_app.updates.iter().any(|(_, is_new)| *is_new);
            let now = Instant::now();
            let wait = self.polls.get(&name).map_or(Duration::ZERO, |poll| poll.next.saturating_duration_since(now));
            // The last poll comes at the timeout, even if the pause ends later.
            let wait = time_left.get(&name).map_or(wait, |left| wait.min(*left));
            if !is_new && !wait.is_zero() {
                pause = pause.min(wait);
            } else if self.in_flight.len() < AT_ONCE {
                self.spawn(name, of_app, is_new);
            }
        }
        Ok(pause)
    }

    fn spawn(&mut self, name: ApplicationName, Due { updates, versions }: Due, is_new: bool) {
        let unreached = self.polls.get(&name).and_then(|poll| poll.refreshed);
        let again = unreached.is_some_and(|at| at.elapsed() >= REFRESH_AGAIN);
        let refresh = if is_new || again { Refresh::Normal } else { Refresh::No };
        // A child of the span of an update that waits for its first refresh. Plain polls get no span.
        let waiting = updates.iter().find(|(_, is_new)| *is_new).and_then(|(id, _)| self.spans.get(id));
        let span = waiting.map(|span| {
            let mut span = self.relay.0.traces.begin(SpanKind::Client, "argocd refresh", Some(&span.context()));
            span.set("tagrelay.application", &name);
            span
        });
        self.in_flight.insert(name.clone());
        let relay = self.relay.clone();
        let updates = updates.into_iter().map(|(id, _)| id).collect();
        self.tasks.spawn(async move {
            let mut span = span;
            let trace = span.as_ref().map(|span| span.context());
            let result = match &relay.0.following {
                Some(following) => following.argocd.application(&name, refresh, trace.as_ref()).await,
                None => Err(ArgoCdError::NoApplication(name.to_string())),
            };
            let operation = if refresh == Refresh::Normal { "refresh" } else { "get" };
            relay.count(operation, result.as_ref().err());
            if let (Some(span), Err(error)) = (&mut span, &result) {
                span.fail(&error.to_string());
            }
            let pods = match &result {
                Ok(app) if versions.iter().any(|(repository, version)| is_undecided(app, repository, version)) => {
                    relay.pods_of(&name).await
                }
                _ => None,
            };
            Answer { name, refresh, updates, result, pods }
        });
    }

    /// Finds the applications that each update has changed files of.
    async fn find_applications(&mut self, new: Vec<(Rollout, Update)>) -> Result<Vec<(Rollout, Update)>, StoreError> {
        if self.away.is_none() {
            self.tell_sets(&new);
        }
        let environments: BTreeSet<String> = new.iter().map(|(row, _)| row.environment.clone()).collect();
        for environment in environments {
            match self.relay.see_applications(self.following, &environment).await {
                Ok(sight) => {
                    self.found();
                    self.sights.insert(environment, (Instant::now(), sight));
                }
                Err(error) => {
                    self.missed(&error);
                    self.explain(new, &error).await?;
                    return Ok(Vec::new());
                }
            }
        }
        let now = self.now();
        let found: Vec<(Rollout, Update)> = new
            .into_iter()
            .map(|(mut row, update)| {
                let selection = self.following.selection(&row.environment);
                begin(&mut row, self.applications(&update), selection, &update, now);
                (row, update)
            })
            .collect();
        self.record(found.clone()).await?;
        Ok(found.into_iter().filter(|(row, _)| !row.state.is_final()).collect())
    }

    /// Returns the applications that an update changes: those that read the changed files, and the products of ApplicationSets that
    /// do. Of selected applications, all if none is known to read the files: they may use them indirectly.
    fn applications(&self, update: &Update) -> Vec<FollowedApplication> {
        let environment = &update.environment;
        let (Some(branch), Some((_, sight))) =
            (self.relay.watched(self.following, environment), self.sights.get(environment))
        else {
            return Vec::new();
        };
        let changed = files(update);
        let mine = self.relay.members(self.following, environment, sight);
        let touched = |app: &Application| app.is_touched_by(branch, changed.iter().copied());
        let is_selected = |via: &Via| *via == Via::Settings;
        let any_selected = mine.iter().any(|member| is_selected(&member.via) && touched(member.app));
        let reads = |name: &str| {
            sight.sets.iter().any(|set| set.name == *name && set.is_touched_by(branch, changed.iter().copied()))
        };
        let products_run_it = mine.iter().any(|member| {
            matches!(&member.via, Via::Set(name) if reads(name))
                && !member.app.runs(&update.repository, Some(&update.version), None).is_empty()
        });
        let followed = mine.iter().filter_map(|member| {
            let by_image = match &member.via {
                Via::Source | Via::Hydrator => touched(member.app).then_some(false),
                Via::Settings => (touched(member.app) || !any_selected).then_some(false),
                Via::Set(name) => {
                    let runs = !member.app.runs(&update.repository, Some(&update.version), None).is_empty();
                    (reads(name) && (runs || !products_run_it)).then_some(true)
                }
                Via::Parent(_) => None,
            };
            Some(followed(&member.app.name, by_image?))
        });
        followed.collect()
    }

    /// Records a response about an application.
    pub(super) async fn take(&mut self, answer: Answer) -> Result<(), StoreError> {
        let Answer { name, refresh, updates, result, pods } = answer;
        self.in_flight.remove(&name);
        let open = self.relay.0.store.open_follow_ups_of(&updates).await?;
        match &result {
            Err(error) if error.is_general() => {
                self.missed(error);
                return self.explain(open, error).await;
            }
            _ => self.found(),
        }
        if let Ok(app) = &result {
            self.read_branches(app, &open).await?;
            // The lists that were read before are older.
            for (_, sight) in self.sights.values_mut() {
                sight.replace(app);
            }
        }
        let now = self.now();
        let timeout = self.following.argocd.settings().timeout;
        let mut changed = Vec::new();
        let mut is_reached = true;
        for (mut row, update) in open {
            let before = row.clone();
            for followed in row.applications.iter_mut().filter(|app| self::name(app) == name && !app.state.is_final()) {
                if refresh == Refresh::Normal {
                    followed.refreshed_at.get_or_insert(now);
                }
                match &result {
                    Ok(app) => self.judge((app, pods.as_ref()), followed, (&before, &update), now),
                    Err(error) => followed.reason = Some(error.to_string()),
                }
                is_reached &= followed.reached_at.is_some();
                time_out(followed, row.started_at, timeout, now);
            }
            sum_up(&mut row, now);
            self.confirm(&mut row, &update, now).await?;
            if row != before {
                changed.push((row, update));
            }
        }
        self.schedule(name, refresh, is_reached, !changed.is_empty());
        if let Ok(app) = &result {
            let ended = |row: &Rollout| row.state == RolloutState::Healthy;
            let restarted = changed.iter().filter(|(row, _)| ended(row)).map(|(row, _)| row.environment.clone());
            let environments = changed.iter().map(|(row, _)| row.environment.clone()).collect();
            self.relay.note_health(self.following, app, environments, restarted.collect(), now).await?;
        }
        self.record(changed).await
    }

    fn judge(
        &self,
        (app, pods): (&Application, Option<&Result<LivePods, ArgoCdError>>),
        followed: &mut FollowedApplication,
        (row, update): (&Rollout, &Update),
        now: Timestamp,
    ) {
        followed.sync = Some(app.sync.as_str().to_owned());
        followed.health = Some(app.health.as_str().to_owned());
        let Some(index) = self.relay.0.branch_of.get(&row.environment) else { return };
        let (Some(watched), Some(seen_commits), Some(branch)) =
            (self.following.branches.get(*index), self.lineages.get(*index), self.relay.0.branches.get(*index))
        else {
            return;
        };
        let follows = |revision: &str| {
            seen_commits.follows(revision, &row.commit, row.started_at) || carries(branch, revision, update)
        };
        let progress = match followed.by_image {
            true => app.settlement(),
            false => app.progress(watched, follows),
        };
        let progress = by_images(progress, (app, pods), followed.by_image, update);
        followed.revision = app.revision_in(watched).map(str::to_owned);
        if !matches!(progress, Progress::NotReached(_)) {
            followed.reached_at.get_or_insert(now);
        }
        match progress {
            Progress::NotReached(reason) | Progress::Underway(reason) => followed.reason = Some(reason),
            Progress::Ended(end) => {
                (followed.state, followed.reason) = match end {
                    RolloutEnd::Healthy => (RolloutState::Healthy, None),
                    RolloutEnd::Degraded(reason) => (RolloutState::Degraded, Some(reason)),
                };
                followed.ended_at = Some(now);
            }
        }
        if followed.reached_at.is_some() && app.sync == SyncStatus::Synced {
            followed.synced_at.get_or_insert(now);
        }
    }

    /// Reads the branches of these updates again if the application is at an unknown revision.
    async fn read_branches(&mut self, app: &Application, open: &[(Rollout, Update)]) -> Result<(), StoreError> {
        let time = self.now();
        for (row, _) in open {
            let Some(&index) = self.relay.0.branch_of.get(&row.environment) else { continue };
            let (Some(watched), Some(branch), Some(seen_commits)) =
                (self.following.branches.get(index), self.relay.0.branches.get(index), self.lineages.get_mut(index))
            else {
                continue;
            };
            if !seen_commits.is_loaded() {
                let commits = self.relay.0.store.commits_on(&branch.environment_names(), LOADED).await?;
                seen_commits.load(commits);
            }
            let Some(revision) = app.revision_in(watched) else { continue };
            if seen_commits.knows(revision) {
                continue;
            }
            let before = time;
            // Argo CD may have seen the commit first. If the read fails, the next poll repeats it.
            if branch.refresh_if_older_than(TIP_AGE).await.is_ok()
                && let Some(snapshot) = branch.snapshot()
            {
                seen_commits.note(&snapshot.tip.to_string(), before);
            }
        }
        Ok(())
    }

    fn schedule(&mut self, name: ApplicationName, refresh: Refresh, is_reached: bool, has_changed: bool) {
        let now = Instant::now();
        let poll = self.polls.entry(name).or_insert(Poll { next: now, pause: POLL.0, refreshed: None });
        poll.pause = if has_changed { POLL.0 } else { poll.pause.saturating_mul(2).min(POLL.1) };
        poll.next = now + poll.pause;
        poll.refreshed = match refresh {
            _ if is_reached => None,
            Refresh::Normal => Some(now),
            Refresh::No => poll.refreshed.or(Some(now)),
        };
    }
}

/// Corrects the progress of an application by what its pods run.
fn by_images(
    progress: Progress,
    (app, pods): (&Application, Option<&Result<LivePods, ArgoCdError>>),
    by_image: bool,
    update: &Update,
) -> Progress {
    let live = match pods {
        None => None,
        Some(Ok(live)) => Some(live),
        Some(Err(error)) => return Progress::Underway(format!("its pods cannot be read: {error}")),
    };
    let found = app.runs(&update.repository, Some(&update.version), live);
    let (same, others): (Vec<_>, Vec<_>) = found.lasting.iter().partition(|one| is_same(one, &update.version));
    let name = update.repository.name();
    let others: Vec<String> = others.into_iter().map(tagrelay_image::Version::short).collect();
    match progress {
        // What it was before says nothing about this version.
        _ if by_image && same.is_empty() && !others.is_empty() => {
            Progress::NotReached(format!("it runs {} of {name}", others.join(" and ")))
        }
        Progress::Ended(RolloutEnd::Healthy) if !others.is_empty() => {
            Progress::Underway(format!("it still runs {} of {name}", others.join(" and ")))
        }
        progress => progress,
    }
}

/// Whether `revision` is the tip of the branch, and the tip still has the versions that the update wrote.
fn carries(branch: &Branch, revision: &str, update: &Update) -> bool {
    branch.snapshot().is_some_and(|snapshot| {
        snapshot.tip.to_string() == revision && crate::relay::branch::stands_on(update, &snapshot)
    })
}

impl crate::relay::Relay {
    /// Returns the pods of an application; `None`: there is no Argo CD.
    async fn pods_of(&self, name: &ApplicationName) -> Option<Result<LivePods, ArgoCdError>> {
        let pods = self.0.following.as_ref()?.argocd.pods(name).await;
        self.count("tree", pods.as_ref().err());
        Some(pods)
    }

    /// Returns the branch of an environment, as Argo CD watches it.
    pub(super) fn watched<'a>(
        &self,
        following: &'a Following,
        environment: &str,
    ) -> Option<&'a crate::argocd::WatchedBranch> {
        following.branches.get(*self.0.branch_of.get(environment)?)
    }

    /// Counts a request to Argo CD.
    pub(super) fn count(&self, operation: &'static str, error: Option<&ArgoCdError>) {
        self.0.metrics.argocd_request(operation, error.map_or("ok", ArgoCdError::outcome));
    }
}
