//! With an API token: refreshes the applications that a commit touches, and polls them until their rollouts end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Following, Worker, elapsed, files};
use crate::argocd::{Application, ApplicationName, ArgoCdError, Progress, Refresh, RolloutEnd, Selection, SyncStatus};
use crate::domain::Update;
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
}

impl Worker<'_> {
    /// Finds the applications of new follow-ups and polls those that are due. Returns the time until the next poll.
    pub(super) async fn ask(&mut self, open: Vec<(Rollout, Update)>) -> Result<Duration, StoreError> {
        let (new, mut known): (Vec<_>, Vec<_>) = open.into_iter().partition(|(row, _)| row.applications.is_empty());
        if !new.is_empty() {
            known.extend(self.find_applications(new).await?);
        }
        let mut due: BTreeMap<ApplicationName, Vec<(String, bool)>> = BTreeMap::new();
        let mut time_left: HashMap<ApplicationName, Duration> = HashMap::new();
        let (now, timeout) = (self.now(), self.following.argocd.settings().timeout);
        for (row, _) in &known {
            for app in row.applications.iter().filter(|app| !app.state.is_final()) {
                due.entry(name(app)).or_default().push((row.update_id.clone(), app.refreshed_at.is_none()));
                let left = until_late(app, row.started_at, timeout, now);
                time_left.entry(name(app)).and_modify(|least| *least = left.min(*least)).or_insert(left);
            }
        }
        self.polls.retain(|name, _| due.contains_key(name));
        if let Some((_, until)) = self.away {
            return Ok(until.saturating_duration_since(Instant::now()));
        }
        let mut pause = super::WATCH;
        for (name, updates) in due {
            if self.in_flight.contains(&name) {
                continue;
            }
            let is_new = updates.iter().any(|(_, is_new)| *is_new);
            let now = Instant::now();
            let wait = self.polls.get(&name).map_or(Duration::ZERO, |poll| poll.next.saturating_duration_since(now));
            // The last poll comes at the timeout, even if the pause ends later.
            let wait = time_left.get(&name).map_or(wait, |left| wait.min(*left));
            if !is_new && !wait.is_zero() {
                pause = pause.min(wait);
            } else if self.in_flight.len() < AT_ONCE {
                self.spawn(name, updates, is_new);
            }
        }
        Ok(pause)
    }

    fn spawn(&mut self, name: ApplicationName, updates: Vec<(String, bool)>, is_new: bool) {
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
            Answer { name, refresh, updates, result }
        });
    }

    /// Finds the applications that each update has changed files of.
    async fn find_applications(&mut self, new: Vec<(Rollout, Update)>) -> Result<Vec<(Rollout, Update)>, StoreError> {
        let mut lists: HashMap<Option<String>, Vec<Application>> = HashMap::new();
        for (row, _) in &new {
            let selector = self.following.selector(&row.environment).map(str::to_owned);
            if lists.contains_key(&selector) {
                continue;
            }
            let listed = self.following.argocd.applications(selector.as_deref()).await;
            self.relay.count("list", listed.as_ref().err());
            match listed {
                Ok(list) => {
                    self.found();
                    lists.insert(selector, list);
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
                let selector = self.following.selector(&row.environment).map(str::to_owned);
                let list = lists.get(&selector).map(Vec::as_slice).unwrap_or_default();
                let selection = self.following.selection(&row.environment);
                begin(&mut row, self.applications(list, &update), selection, &update, now);
                (row, update)
            })
            .collect();
        self.record(found.clone()).await?;
        Ok(found.into_iter().filter(|(row, _)| !row.state.is_final()).collect())
    }

    fn applications(&self, list: &[Application], update: &Update) -> Vec<FollowedApplication> {
        let Some(branch) = self.relay.watched(self.following, &update.environment) else { return Vec::new() };
        let selected = self.following.select(list, &update.environment, branch, &files(update));
        selected.into_iter().map(followed).collect()
    }

    /// Records a response about an application.
    pub(super) async fn take(&mut self, answer: Answer) -> Result<(), StoreError> {
        let Answer { name, refresh, updates, result } = answer;
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
                    Ok(app) => self.judge(app, followed, (&before, &update), now),
                    Err(error) => followed.reason = Some(error.to_string()),
                }
                is_reached &= followed.reached_at.is_some();
                time_out(followed, row.started_at, timeout, now);
            }
            sum_up(&mut row, now);
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
        app: &Application,
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
        let progress = app.progress(watched, follows);
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

/// Whether `revision` is the tip of the branch, and the tip still has the versions that the update wrote.
fn carries(branch: &Branch, revision: &str, update: &Update) -> bool {
    branch.snapshot().is_some_and(|snapshot| {
        snapshot.tip.to_string() == revision && crate::relay::branch::stands_on(update, &snapshot)
    })
}

pub(super) fn name(app: &FollowedApplication) -> ApplicationName {
    ApplicationName { namespace: app.namespace.clone(), name: app.name.clone() }
}

fn followed(app: &Application) -> FollowedApplication {
    FollowedApplication {
        namespace: app.name.namespace.clone(),
        name: app.name.name.clone(),
        state: RolloutState::Following,
        sync: None,
        health: None,
        revision: None,
        reason: None,
        refreshed_at: None,
        reached_at: None,
        synced_at: None,
        ended_at: None,
    }
}

/// Starts to follow an update in its applications. Without applications, the follow-up ends as untracked.
fn begin(
    row: &mut Rollout,
    applications: Vec<FollowedApplication>,
    selection: &Selection,
    update: &Update,
    now: Timestamp,
) {
    row.applications = applications;
    if !row.applications.is_empty() {
        (row.state, row.reason) = (RolloutState::Following, None);
        return;
    }
    let what = match selection {
        Selection::Paths => {
            let files: Vec<&str> = files(update).into_iter().take(3).collect();
            format!("that is made of {}", files.join(", "))
        }
        Selection::Named(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            format!("called {}", names.join(" or "))
        }
        Selection::Labels(labels) => format!("with the labels {labels}"),
    };
    row.reason = Some(format!("Argo CD shows no application {what}"));
    (row.state, row.ended_at) = (RolloutState::Untracked, Some(now));
}

/// Returns the time until an application times out.
fn until_late(followed: &FollowedApplication, committed_at: Timestamp, timeout: Duration, now: Timestamp) -> Duration {
    let since = followed.refreshed_at.unwrap_or(committed_at);
    // The deadline is inclusive.
    (timeout + Duration::from_millis(1)).saturating_sub(elapsed(since, now))
}

/// Ends an application whose rollout has not ended within `timeout` of its refresh, or of the commit without a refresh.
fn time_out(followed: &mut FollowedApplication, committed_at: Timestamp, timeout: Duration, now: Timestamp) {
    if !followed.state.is_final() && until_late(followed, committed_at, timeout, now).is_zero() {
        (followed.state, followed.ended_at) = (RolloutState::TimedOut, Some(now));
        let last = followed.reason.take().unwrap_or_default();
        followed.reason = Some(format!("did not reach the commit within {} s: {last}", timeout.as_secs()));
    }
}

/// Derives the state of a follow-up from its applications: open if any is open, otherwise the worst state.
fn sum_up(row: &mut Rollout, now: Timestamp) {
    let order = [RolloutState::Following, RolloutState::Degraded, RolloutState::TimedOut, RolloutState::Healthy];
    let state = order.into_iter().find(|state| row.applications.iter().any(|app| app.state == *state));
    let Some(state) = state else { return };
    let reasons = row.applications.iter().filter(|app| app.state == state);
    let reasons: Vec<String> =
        reasons.filter_map(|app| Some(format!("{}: {}", app.name, app.reason.as_ref()?))).collect();
    row.state = state;
    row.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    if state.is_final() {
        row.ended_at.get_or_insert(now);
    }
}

impl crate::relay::Relay {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn app(state: RolloutState) -> FollowedApplication {
        FollowedApplication {
            namespace: Some("argocd".to_owned()),
            name: state.to_string(),
            state,
            sync: None,
            health: None,
            revision: None,
            reason: Some(format!("because {state}")),
            refreshed_at: Some(at(100)),
            reached_at: None,
            synced_at: None,
            ended_at: None,
        }
    }

    fn summed(states: &[RolloutState]) -> (RolloutState, Option<String>, Option<Timestamp>) {
        let mut row = Rollout {
            update_id: "u".to_owned(),
            environment: "staging".to_owned(),
            commit: "c".to_owned(),
            state: RolloutState::Following,
            reason: None,
            started_at: at(90),
            ended_at: None,
            applications: states.iter().copied().map(app).collect(),
        };
        sum_up(&mut row, at(200));
        (row.state, row.reason, row.ended_at)
    }

    #[test]
    fn timeout_counts_from_the_refresh() {
        let timeout = Duration::from_secs(900);
        let mut waiting = app(RolloutState::Following);
        assert_eq!(until_late(&waiting, at(0), timeout, at(1000)), Duration::from_millis(1));
        time_out(&mut waiting, at(0), timeout, at(1000));
        assert_eq!((waiting.state, waiting.ended_at), (RolloutState::Following, None));
        time_out(&mut waiting, at(0), timeout, at(1001));
        assert_eq!((waiting.state, waiting.ended_at), (RolloutState::TimedOut, Some(at(1001))));
        assert_eq!(waiting.reason.unwrap(), "did not reach the commit within 900 s: because following");
        let mut done = app(RolloutState::Healthy);
        time_out(&mut done, at(0), timeout, at(5000));
        assert_eq!(done.state, RolloutState::Healthy);
        let mut never_refreshed = FollowedApplication { refreshed_at: None, ..app(RolloutState::Following) };
        time_out(&mut never_refreshed, at(99), timeout, at(1000));
        assert_eq!(never_refreshed.state, RolloutState::TimedOut);
    }

    #[test]
    fn rollout_has_the_worst_state_of_its_applications() {
        use RolloutState::{Degraded, Following, Healthy, TimedOut};
        let (state, reason, ended) = summed(&[Healthy, Degraded, Following]);
        assert_eq!((state, ended), (Following, None));
        assert_eq!(reason.unwrap(), "following: because following");
        assert_eq!(summed(&[Healthy, TimedOut, Degraded]).0, Degraded);
        assert_eq!(
            summed(&[Healthy, TimedOut]),
            (TimedOut, Some("timed_out: because timed_out".to_owned()), Some(at(200)))
        );
        assert_eq!(summed(&[Healthy, Healthy]).0, Healthy);
    }
}
