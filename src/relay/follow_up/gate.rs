//! The gate of promotions: per version by the evidence, or for the whole environment.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::health::Observed;
use super::running::Promoted;
use super::seen_commits::SeenCommits;
use super::{Following, ask, elapsed, files};
use crate::argocd::{Application, ApplicationName, Progress, Refresh};
use crate::config_repo::Below;
use crate::domain::{ClosedGate, ObstacleKind, Passage, Update};
use crate::policy::{GatePolicy, GateScope};
use crate::relay::{Branch, Relay};
use crate::store::{ApplicationHealth, Rollout, StoreError};

/// How long a promotion request waits for Argo CD.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most applications and rollouts that a reason lists.
const NAMED: usize = 3;

/// Why the gate of a whole environment is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Closed(String);

impl From<Closed> for ClosedGate {
    fn from(closed: Closed) -> Self {
        Self::because(ObstacleKind::Unknown, closed.0)
    }
}

/// The open rollouts of an environment.
pub type OpenFollowUps = [(Rollout, Update)];

/// Findings that keep the gate closed, as text.
#[derive(Debug, Default)]
struct Obstacles {
    /// Rollouts that timed out and are still not reached.
    missed: Vec<String>,
    /// Applications that do not run the promoted versions.
    behind: Vec<String>,
}

/// Decides whether promotions may come from an environment, for `gate = "environment"`.
///
/// The gate is open if no rollout is open or missed, and every application has been Synced and Healthy for `soak` and runs the
/// promoted versions. Zero `soak`: being healthy now is enough.
fn judge(
    environment: &str,
    open: &OpenFollowUps,
    Obstacles { missed, behind }: Obstacles,
    applications: &[ApplicationHealth],
    soak: Duration,
    now: Timestamp,
) -> Result<(), Closed> {
    let closed = |reason: String| Err(Closed(reason));
    let rollouts = open.iter().map(|(row, update)| {
        let because = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{} {} is being rolled out{because}", update.repository.name(), update.version.short())
    });
    if !open.is_empty() {
        return closed(format!("`{environment}` is not healthy yet: {}", name(rollouts)));
    }
    if !missed.is_empty() {
        return closed(format!("`{environment}` has rollouts that did not finish: {}", name(missed.into_iter())));
    }
    if applications.is_empty() {
        return closed(format!("Argo CD has no application of `{environment}`, so its health is unknown"));
    }
    let ill = applications.iter().filter(|app| app.healthy_since.is_none()).map(|app| {
        let message = app.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
        format!("application {} is {} and {}{message}", app.application, app.sync, app.health)
    });
    if applications.iter().any(|app| app.healthy_since.is_none()) {
        return closed(format!("`{environment}` is not healthy: {}", name(ill)));
    }
    if !behind.is_empty() {
        return closed(format!("`{environment}` does not run it yet: {}", name(behind.into_iter())));
    }
    let since = applications.iter().filter_map(|app| app.healthy_since).max().unwrap_or(now);
    if elapsed(since, now) < soak {
        let until = jiff::SignedDuration::try_from(soak).ok().and_then(|soak| since.checked_add(soak).ok());
        let until = until.map(|until| format!(": try again at {until:.0}")).unwrap_or_default();
        return closed(format!(
            "`{environment}` has been healthy only since {since:.0}; its soak time is {} s{until}",
            soak.as_secs()
        ));
    }
    Ok(())
}

fn name(things: impl Iterator<Item = String>) -> String {
    let mut named: Vec<String> = things.collect();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    named.join("; ") + &more
}

impl Relay {
    /// Returns the environments whose health gates a promotion.
    pub(super) fn gated_sources(&self) -> Vec<&str> {
        let environments = || self.0.branches.iter().flat_map(crate::relay::Branch::environments);
        let asked = environments().flat_map(|target| {
            let sources = target.promote_from.iter().map(String::as_str);
            sources.filter(|source| target.gate_of(self.environment(source)).is_some())
        });
        let mut sources: Vec<&str> = asked.collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Checks at `now` whether these versions may be promoted from an environment.
    ///
    /// `None`: the gate is open.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(in crate::relay) async fn gate(
        &self,
        environment: &str,
        promoted: &[Promoted],
        policy: GatePolicy,
        now: Timestamp,
    ) -> Result<Option<ClosedGate>, StoreError> {
        let unknown = |reason: String| Ok(Some(ClosedGate::because(ObstacleKind::Unknown, reason)));
        let Some(following) = &self.0.following else {
            return unknown("its health is unknown: the settings have no [argocd]".to_owned());
        };
        let asked = tokio::time::timeout(PATIENCE, async {
            match policy.scope {
                GateScope::Version => self.ask_versions(following, environment, (promoted, policy), now).await,
                GateScope::Environment => {
                    let closed = self.ask_gate(following, environment, promoted, policy.soak, now).await?;
                    Ok(closed.map(ClosedGate::from))
                }
            }
        });
        asked.await.unwrap_or_else(|_| {
            let patience = PATIENCE.as_secs();
            unknown(format!(
                "the health of `{environment}` is unknown: Argo CD or the config repository did not answer within \
                 {patience} s"
            ))
        })
    }

    async fn ask_versions(
        &self,
        following: &Following,
        environment: &str,
        (promoted, policy): (&[Promoted], GatePolicy),
        now: Timestamp,
    ) -> Result<Option<ClosedGate>, StoreError> {
        if promoted.is_empty() {
            return Ok(None);
        }
        let observed = match self.observe(following, environment, now).await? {
            Ok(observed) => observed,
            Err(error) => {
                let reason = format!("the health of `{environment}` is unknown: {error}");
                return Ok(Some(ClosedGate::because(ObstacleKind::Unknown, reason)));
            }
        };
        let passages = self.passages(following, environment, &observed.sight, (promoted, policy), now).await?;
        let closed = passages.into_iter().filter_map(|passage| match passage {
            Passage::Closed(closed) => Some(closed),
            Passage::Open { .. } | Passage::Untracked(_) => None,
        });
        Ok(closed.reduce(ClosedGate::and))
    }

    async fn ask_gate(
        &self,
        following: &Following,
        environment: &str,
        promoted: &[Promoted],
        soak: Duration,
        now: Timestamp,
    ) -> Result<Option<Closed>, StoreError> {
        // A pending update may already be on the branch although its rollout has not begun.
        let pending = self.0.store.claim(&[environment.to_owned()], 1).await?;
        if let Some(update) = pending.updates.first() {
            let (name, version) = (update.repository.name(), update.version.short());
            return Ok(Some(Closed(format!("{name} {version} is being written to `{environment}`"))));
        }
        let Observed { apps: list, rows: applications, .. } = match self.observe(following, environment, now).await? {
            Ok(observed) => observed,
            Err(error) => {
                return Ok(Some(Closed(format!("the health of `{environment}` is unknown: {error}"))));
            }
        };
        let open = self.0.store.open_follow_ups_in(environment, super::MAX_OPEN).await?;
        let missed = self.missed_rollouts(following, environment, &list).await?;
        let behind = self.behind(following, environment, &list, promoted).await;
        Ok(judge(environment, &open, Obstacles { missed, behind }, &applications, soak, now).err())
    }

    /// Returns the timed-out rollouts that an application still has not reached, as text.
    ///
    /// `list`: the applications of the environment. Their health is not enough: an application that Argo CD no longer updates
    /// from the branch, for instance because its source is unreadable, stays Synced and Healthy with the version it ran before.
    async fn missed_rollouts(
        &self,
        following: &Following,
        environment: &str,
        list: &[Application],
    ) -> Result<Vec<String>, StoreError> {
        let late = self.0.store.timed_out_follow_ups(environment, super::MAX_OPEN).await?;
        let (Some(branch), Some(watched)) = (self.branch_of(environment), self.watched(following, environment)) else {
            return Ok(Vec::new());
        };
        if late.is_empty() {
            return Ok(Vec::new());
        }
        let mut seen_commits = SeenCommits::default();
        seen_commits.load(self.0.store.commits_on(&branch.environment_names(), ask::LOADED).await?);
        let managed = self.managed(branch, environment);
        let mut asked: HashMap<ApplicationName, Result<Application, String>> = HashMap::new();
        let mut missed = Vec::new();
        // A repository that was removed from the environment has nothing to roll out.
        for (row, update) in late.iter().filter(|(_, update)| managed.contains_key(&update.repository)) {
            let tip = tip_after(branch, row, update).await;
            let follows = |revision: &str| {
                tip.as_deref() == Some(revision) || seen_commits.follows(revision, &row.commit, row.started_at)
            };
            for app in following.select(list, environment, watched, &files(update)) {
                if !asked.contains_key(&app.name) {
                    let found = following.argocd.application(&app.name, Refresh::No, None).await;
                    self.count("get", found.as_ref().err());
                    asked.insert(app.name.clone(), found.map_err(|error| error.to_string()));
                }
                let why = match asked.get(&app.name) {
                    Some(Ok(found)) => match found.progress(watched, follows) {
                        Progress::NotReached(reason) => reason,
                        // The health of every application is checked separately.
                        Progress::Underway(_) | Progress::Ended(_) => continue,
                    },
                    Some(Err(reason)) => reason.clone(),
                    None => continue,
                };
                let (name, version) = (update.repository.name(), update.version.short());
                missed.push(format!("{name} {version} timed out, and application {} does not run it: {why}", app.name));
            }
        }
        Ok(missed)
    }
}

/// Returns the tip of the branch if the commit of the rollout is on the branch.
async fn tip_after(branch: &Branch, row: &Rollout, update: &Update) -> Option<String> {
    let snapshot = branch.snapshot()?;
    let tip = snapshot.tip.to_string();
    if crate::relay::branch::stands_on(update, &snapshot) {
        return Some(tip);
    }
    let commit = row.commit.parse().ok()?;
    // An unreadable history keeps the gate closed.
    let below = branch.below_tip(&[commit]).await.ok()?;
    (below.get(&commit) == Some(&Below::Yes)).then_some(tip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn app(name: &str, healthy_since: Option<i64>) -> ApplicationHealth {
        ApplicationHealth {
            environment: "staging".to_owned(),
            application: name.to_owned(),
            sync: "Synced".to_owned(),
            health: if healthy_since.is_some() { "Healthy" } else { "Degraded" }.to_owned(),
            message: None,
            healthy_since: healthy_since.map(at),
            observed_at: at(0),
            named: None,
        }
    }

    fn at_noon(applications: &[ApplicationHealth], soak_minutes: u64) -> Result<(), String> {
        let noon = "2026-11-23T12:00:00Z".parse().unwrap();
        let soak = Duration::from_secs(soak_minutes * 60);
        judge("staging", &[], Obstacles::default(), applications, soak, noon).map_err(|closed| closed.0)
    }

    #[test]
    fn soak_time_counts_from_the_last_recovery() {
        let noon = "2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let (long, short) = (app("a", Some(noon - 7200)), app("b", Some(noon - 600)));
        assert_eq!(at_noon(std::slice::from_ref(&long), 30), Ok(()));
        assert_eq!(at_noon(&[long.clone(), short.clone()], 0), Ok(()));
        assert_eq!(at_noon(&[long.clone(), short.clone()], 10), Ok(()));
        assert_eq!(
            at_noon(&[long, short], 30).unwrap_err(),
            "`staging` has been healthy only since 2026-11-23T11:50:00Z; its soak time is 1800 s: try again at \
             2026-11-23T12:20:00Z"
        );
    }

    #[test]
    fn unhealthy_or_unknown_application_closes_the_gate() {
        let noon = "2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let fine = app("a", Some(noon - 7200));
        assert_eq!(
            at_noon(&[fine, app("argocd/b", None)], 0).unwrap_err(),
            "`staging` is not healthy: application argocd/b is Synced and Degraded"
        );
        assert!(at_noon(&[], 0).unwrap_err().contains("no application"));
        let (long, noon) = (app("a", Some(noon - 7200)), at(noon));
        let judged = |missed: &[&str], behind: &[&str]| {
            let [missed, behind] = [missed, behind].map(|words| words.iter().map(ToString::to_string).collect());
            let obstacles = Obstacles { missed, behind };
            judge("staging", &[], obstacles, std::slice::from_ref(&long), Duration::ZERO, noon).unwrap_err().0
        };
        let timed_out = judged(&["user-service timed out"], &["a is behind"]);
        assert_eq!(timed_out, "`staging` has rollouts that did not finish: user-service timed out");
        assert_eq!(judged(&[], &["a is behind"]), "`staging` does not run it yet: a is behind");
    }
}
