//! The end of a rollout: the cluster must run the version, wherever its manifests are.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Worker;
use super::evidence::Sight;
use super::rollout::{end, go_on, name};
use crate::argocd::ApplicationName;
use crate::domain::{GateSubject, Passage, Update, gate, is_same};
use crate::relay::branch::{Branch, sites};
use crate::store::{Rollout, RolloutState, StoreError};

/// How old a list of applications may be that ends a rollout. Answers about single applications are added to it.
const SIGHT_AGE: Duration = Duration::from_millis(500);

impl Worker<'_> {
    /// Checks a rollout that is over in its applications: it goes on in those that run another version of the repository, for instance
    /// in a child of an application, and ends as untracked if none runs it.
    pub(super) async fn confirm(
        &mut self,
        row: &mut Rollout,
        update: &Update,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(newer) = self.superseded(update)
            && row.state != RolloutState::Degraded
            && !row.state.is_final()
        {
            let reason = format!("{} runs {newer} now", update.environment);
            end(row, RolloutState::Superseded, reason, now);
            return Ok(());
        }
        if row.state != RolloutState::Healthy {
            return Ok(());
        }
        let all: Vec<ApplicationName> = row.applications.iter().map(name).collect();
        let (relay, following) = (self.relay, self.following);
        if relay.branch_of(&row.environment).is_none_or(|branch| branch.snapshot().is_none()) {
            go_on(row, &all, &format!("the branch of {} has not been read yet", row.environment));
            return Ok(());
        }
        let sight = match self.sight(&row.environment).await {
            Ok(sight) => sight,
            Err(error) => {
                go_on(row, &all, &error.to_string());
                return Ok(());
            }
        };
        let mine = relay.members(following, &row.environment, sight);
        let promoted = [(update.repository.clone(), update.version.clone())];
        let pods = relay.pods(following, &mine, &promoted).await;
        let place = (row.environment.as_str(), &update.repository, &update.version);
        let statements = relay.statements(following, &mine, place, &pods, &[]);
        let subject = GateSubject {
            environment: &row.environment,
            repository: &update.repository,
            version: &update.version,
            soak: Duration::ZERO,
            allow_untracked: true,
            advice: &relay.advice(following, place, sight, &mine),
            now,
        };
        match gate(&subject, &statements) {
            Passage::Open { .. } => {}
            Passage::Untracked(reason) => end(row, RolloutState::Untracked, reason, now),
            Passage::Closed(closed) => {
                let lacks = |statement: &&crate::domain::Statement| {
                    statement.running.iter().any(|one| !is_same(one, &update.version)) || !statement.is_fine()
                };
                let lacking = statements.iter().filter(lacks);
                let lacking: Vec<ApplicationName> =
                    lacking.filter_map(|statement| statement.application.parse().ok()).collect();
                go_on(row, if lacking.is_empty() { &all } else { &lacking }, &closed.explanation().replace('\n', "; "));
            }
        }
        Ok(())
    }

    /// Returns a recent list of applications.
    async fn sight(&mut self, environment: &str) -> Result<&Sight, crate::argocd::ArgoCdError> {
        let is_fresh = self.sights.get(environment).is_some_and(|(at, _)| at.elapsed() < SIGHT_AGE);
        if !is_fresh {
            let sight = self.relay.see_applications(self.following, environment).await?;
            self.sights.insert(environment.to_owned(), (Instant::now(), sight));
        }
        Ok(&self.sights.entry(environment.to_owned()).or_insert_with(|| (Instant::now(), Sight::default())).1)
    }

    /// Returns the version that the environment names instead of the one that an update wrote.
    fn superseded(&self, update: &Update) -> Option<String> {
        let snapshot = self.relay.branch_of(&update.environment).and_then(Branch::snapshot)?;
        let places = sites(&snapshot, &update.environment)?.sites.get(&update.repository)?;
        let is_named = places.iter().any(|place| is_same(&place.version, &update.version));
        let other = places.first().filter(|_| !is_named)?;
        Some(other.version.short())
    }
}
