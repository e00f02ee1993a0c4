//! Observes the health of an environment's applications, and since when they have been healthy.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::evidence::{Sight, closer};
use super::{Following, elapsed};
use crate::argocd::{Application, ApplicationName, ArgoCdError, Health, SyncStatus};
use crate::relay::Relay;
use crate::relay::branch::sites;
use crate::store::{ApplicationHealth, StoreError};

/// The longest gap between two observations in which an application counts as continuously healthy.
///
/// Covers two rounds over the gated environments, with a margin.
const UNWATCHED: Duration = Duration::from_secs(180);

/// Returns since when an application has been continuously Synced and Healthy; `None`: it is not healthy now.
///
/// `before`: the last observation. A gap longer than [`UNWATCHED`] is covered only by Argo CD's time of the last health change,
/// which newer versions of Argo CD report; without it, the time counts from now. `is_new`: the application has just begun to run
/// something else, or is about to. The result is never earlier than the last sync.
fn healthy_since(
    before: Option<&ApplicationHealth>,
    app: &Application,
    is_new: bool,
    now: Timestamp,
) -> Option<Timestamp> {
    if !app.is_healthy() {
        return None;
    }
    let changed = app.health_since.map(|at| at.min(now));
    let known = before.and_then(|before| Some((before.healthy_since?, before.observed_at)));
    let since = match (known, changed) {
        _ if is_new => now,
        // `changed` is later than `since` after a dip and a recovery between two observations.
        (Some((since, _)), Some(changed)) => since.max(changed),
        (Some((since, seen)), None) if elapsed(seen, now) <= UNWATCHED => since,
        // Not if the last observation was unhealthy: it may have been out of sync with unchanged health.
        (None, Some(changed)) if before.is_none() => changed,
        (_, _) => now,
    };
    Some(app.last_sync.map_or(since, |synced| since.max(synced.min(now))))
}

fn row(
    environment: &str,
    (app, named): (&Application, Option<String>),
    before: Option<&ApplicationHealth>,
    is_new: bool,
    now: Timestamp,
) -> ApplicationHealth {
    let earlier = before.and_then(|before| before.named.as_ref());
    // Rows of earlier versions of the program have no `named`.
    let is_new = is_new || matches!((earlier, &named), (Some(earlier), Some(named)) if earlier != named);
    let message = app.trouble.clone().or_else(|| app.health_message.clone());
    ApplicationHealth {
        environment: environment.to_owned(),
        application: app.name.to_string(),
        sync: app.sync.as_str().to_owned(),
        health: app.health.as_str().to_owned(),
        message,
        healthy_since: healthy_since(before, app, is_new, now),
        observed_at: now,
        named: named.or_else(|| earlier.cloned()),
    }
}

/// The applications of an environment at one moment.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Those of the environment.
    pub(super) apps: Vec<Application>,
    /// Their recorded health.
    pub(super) rows: Vec<ApplicationHealth>,
    pub(super) sight: Sight,
}

impl Relay {
    /// Requests the health of an environment's applications and records it. Returns the applications and their health.
    pub(super) async fn observe(
        &self,
        following: &Following,
        environment: &str,
        now: Timestamp,
    ) -> Result<Result<Observed, ArgoCdError>, StoreError> {
        let mut sight = match self.see_applications(following, environment).await {
            Ok(sight) => sight,
            Err(error) => return Ok(Err(error)),
        };
        if self.branch_of(environment).is_none_or(|branch| branch.snapshot().is_none()) {
            // The files of the environment are not known yet. Its recorded applications are kept, and an empty list keeps gates closed.
            return Ok(Ok(Observed::default()));
        }
        let mut mine: HashSet<ApplicationName> =
            self.members(following, environment, &sight).into_iter().map(|member| member.app.name.clone()).collect();
        // An unreadable application may belong to the environment, and then the environment's health is unknown.
        mine.extend(following.unreadable(&sight.all, environment).map(|app| app.name.clone()));
        self.look_closer(following, &mut sight.all, &mine).await;
        let apps: Vec<&Application> = sight.all.iter().filter(|app| mine.contains(&app.name)).collect();
        let _health = following.health.lock().await;
        let before = self.health_of(environment).await?;
        let rows = apps.iter().map(|app| {
            let named = self.named(following, environment, app);
            row(environment, (app, named), before.get(&app.name.to_string()), false, now)
        });
        let rows: Vec<ApplicationHealth> = rows.collect();
        self.0.store.record_application_health(rows.clone(), Some(environment.to_owned())).await?;
        // An Argo CD that has just started may show nothing.
        self.record_runs(environment, &apps, !sight.all.is_empty(), now).await?;
        let apps = apps.into_iter().cloned().collect();
        Ok(Ok(Observed { apps, rows, sight }))
    }

    /// Requests every Synced and Healthy application that has a failed sync: the list omits the commit of the sync.
    async fn look_closer(&self, following: &Following, all: &mut [Application], mine: &HashSet<ApplicationName>) {
        let is_well = |app: &&mut Application| app.sync == SyncStatus::Synced && app.health == Health::Healthy;
        let mine = all.iter_mut().filter(|app| mine.contains(&app.name)).filter(is_well);
        for app in mine.filter(|app| app.failed_sync.is_some()) {
            // If the request fails, the entry of the list is kept.
            if let Some(found) = closer(self, following, &app.name).await {
                *app = found;
            }
        }
    }

    /// Records the health of an application. In the `restarted` environments it has just begun to run a new commit.
    pub(super) async fn note_health(
        &self,
        following: &Following,
        app: &Application,
        environments: BTreeSet<String>,
        restarted: BTreeSet<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let _health = following.health.lock().await;
        for environment in environments {
            let before = self.health_of(&environment).await?;
            let is_new = restarted.contains(&environment);
            let named = self.named(following, &environment, app);
            let row = row(&environment, (app, named), before.get(&app.name.to_string()), is_new, now);
            self.0.store.record_application_health(vec![row], None).await?;
            self.record_runs(&environment, &[app], false, now).await?;
        }
        Ok(())
    }

    /// Returns a digest of the versions that the branch names in the files of an application.
    ///
    /// All files of the environment count if none is known to belong to the application. `None`: the branch has not been read.
    fn named(&self, following: &Following, environment: &str, app: &Application) -> Option<String> {
        let snapshot = self.branch_of(environment)?.snapshot()?;
        let found = sites(&snapshot, environment)?;
        let is_part = app.is_made_of(self.watched(following, environment)?);
        let managed = || found.sites.iter().filter(|(repository, _)| self.manages(repository));
        let is_made_of_some =
            is_part.as_ref().filter(|is_part| managed().any(|(_, places)| places.iter().any(|at| is_part(&at.path))));
        let mut named = String::new();
        for (repository, places) in managed() {
            for place in places.iter().filter(|place| is_made_of_some.is_none_or(|is_part| is_part(&place.path))) {
                named.push_str(&format!("{} {repository} {}\n", place.path, place.version));
            }
        }
        Some(tagrelay_image::Digest::of(named.as_bytes()).to_string())
    }

    async fn health_of(&self, environment: &str) -> Result<HashMap<String, ApplicationHealth>, StoreError> {
        let rows = self.0.store.application_health().await?.into_iter();
        Ok(rows.filter(|row| row.environment == environment).map(|row| (row.application.clone(), row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn app(health: Health, since: Option<i64>) -> Application {
        Application {
            sync: SyncStatus::Synced,
            health,
            health_since: since.map(at),
            ..Application::unknown(ApplicationName { namespace: None, name: "a".to_owned() })
        }
    }

    fn known(since: Option<i64>, seen: i64) -> ApplicationHealth {
        ApplicationHealth {
            healthy_since: since.map(at),
            ..row("staging", (&app(Health::Healthy, None), Some("this".to_owned())), None, true, at(seen))
        }
    }

    #[test]
    fn healthy_time_begins_with_the_first_healthy_observation() {
        let healthy = app(Health::Healthy, None);
        assert_eq!(healthy_since(None, &healthy, false, at(100)), Some(at(100)));
        assert_eq!(healthy_since(Some(&known(None, 90)), &healthy, false, at(100)), Some(at(100)));
        assert_eq!(healthy_since(Some(&known(Some(50), 90)), &healthy, false, at(100)), Some(at(50)));
        assert_eq!(healthy_since(Some(&known(Some(50), 90)), &app(Health::Degraded, None), false, at(100)), None);
        let out_of_sync = Application { sync: SyncStatus::OutOfSync, ..healthy.clone() };
        assert_eq!(healthy_since(Some(&known(Some(50), 90)), &out_of_sync, false, at(100)), None);
        // The application runs something new.
        assert_eq!(healthy_since(Some(&known(Some(50), 90)), &healthy, true, at(100)), Some(at(100)));
    }

    #[test]
    fn healthy_time_begins_no_earlier_than_the_last_sync() {
        let synced = |at_second| Application { last_sync: Some(at(at_second)), ..app(Health::Healthy, Some(40)) };
        let before = known(Some(50), 90);
        for (last_sync, since) in [(45, 50), (80, 80), (900, 100)] {
            assert_eq!(healthy_since(Some(&before), &synced(last_sync), false, at(100)), Some(at(since)));
        }
        assert_eq!(healthy_since(None, &synced(60), false, at(100)), Some(at(60)));
    }

    #[test]
    fn healthy_time_restarts_when_the_named_versions_change() {
        let healthy = app(Health::Healthy, Some(40));
        let before = known(Some(50), 90);
        let since = |named: Option<&str>, before: &ApplicationHealth| {
            row("staging", (&healthy, named.map(str::to_owned)), Some(before), false, at(100)).healthy_since
        };
        assert_eq!(since(Some("this"), &before), Some(at(50)));
        assert_eq!(since(Some("that"), &before), Some(at(100)));
        // The branch is unread, or an earlier version of the program recorded the row.
        assert_eq!(since(None, &before), Some(at(50)));
        assert_eq!(since(Some("that"), &ApplicationHealth { named: None, ..before.clone() }), Some(at(50)));
        let unread = row("staging", (&healthy, None), Some(&before), false, at(100));
        assert_eq!(since(Some("that"), &unread), Some(at(100)), "it is remembered");
    }

    #[test]
    fn gap_between_observations_is_covered_only_by_argo_cds_time() {
        let before = known(Some(50), 90);
        let later = at(90 + 181);
        assert_eq!(healthy_since(Some(&before), &app(Health::Healthy, None), false, later), Some(later));
        assert_eq!(healthy_since(Some(&before), &app(Health::Healthy, Some(40)), false, later), Some(at(50)));
        assert_eq!(healthy_since(Some(&before), &app(Health::Healthy, Some(200)), false, later), Some(at(200)));
        assert_eq!(healthy_since(None, &app(Health::Healthy, Some(40)), false, later), Some(at(40)));
        // The clock of Argo CD is ahead.
        assert_eq!(healthy_since(None, &app(Health::Healthy, Some(900)), false, at(100)), Some(at(100)));
    }
}
