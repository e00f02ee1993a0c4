//! Without an API token: announces each push to the webhook of Argo CD, and follows no rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Worker, files};
use crate::argocd::PushedCommit;
use crate::domain::Update;
use crate::store::{Rollout, RolloutState, StoreError};
use crate::telemetry::SpanKind;

/// The pauses before the ApplicationSet controller is notified again. It also polls the branch, every three minutes by default.
const SET_RETRIES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

impl Worker<'_> {
    /// Notifies the ApplicationSet controller of new commits, one message per branch. It does not delay the follow-ups.
    pub(super) fn tell_sets(&self, new: &[(Rollout, Update)]) {
        if self.following.argocd.settings().set_webhook.is_none() {
            return;
        }
        let mut branches: BTreeMap<usize, Vec<(Rollout, Update)>> = BTreeMap::new();
        for (row, update) in new {
            if let Some(index) = self.relay.0.branch_of.get(&row.environment) {
                branches.entry(*index).or_default().push((row.clone(), update.clone()));
            }
        }
        for (index, mut rows) in branches {
            in_order(&mut rows);
            let Some(commit) = rows.last().map(|(last, _)| last.commit.clone()) else { continue };
            let push = PushedCommit { commit, files: changed_files(&rows) };
            let relay = self.relay.clone();
            tokio::spawn(async move {
                let Some(following) = &relay.0.following else { return };
                let Some(watched) = following.branches.get(index) else { return };
                for pause in SET_RETRIES.into_iter().map(Some).chain([None]) {
                    let told = following.argocd.announce_to_sets(watched, &push).await;
                    relay.count("set_webhook", told.as_ref().err());
                    let Err(error) = told else { return };
                    tracing::warn!(%error, commit = push.commit, "the ApplicationSet controller cannot be notified");
                    let Some(pause) = pause else { return };
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    /// Announces new commits, one message per branch. Returns the time until the next attempt.
    pub(super) async fn tell(&mut self, open: Vec<(Rollout, Update)>) -> Result<Duration, StoreError> {
        let mut branches: BTreeMap<usize, Vec<(Rollout, Update)>> = BTreeMap::new();
        for (mut row, update) in open {
            match self.relay.0.branch_of.get(&row.environment) {
                Some(index) => branches.entry(*index).or_default().push((row, update)),
                None => {
                    row.reason = Some("the settings have no such environment any more".to_owned());
                    (row.state, row.ended_at) = (RolloutState::Untracked, Some(self.now()));
                    self.record(vec![(row, update)]).await?;
                }
            }
        }
        for (index, mut rows) in branches {
            let Some(watched) = self.following.branches.get(index) else { continue };
            in_order(&mut rows);
            let Some((last, _)) = rows.last() else { continue };
            let push = PushedCommit { commit: last.commit.clone(), files: changed_files(&rows) };
            let parent = self.spans.get(&last.update_id).map(crate::telemetry::Span::context);
            let mut span = self.relay.0.traces.begin(SpanKind::Client, "argocd webhook", parent.as_ref());
            span.set("tagrelay.commit", &push.commit);
            let told = self.following.argocd.announce(watched, &push).await;
            self.relay.count("webhook", told.as_ref().err());
            match told {
                Ok(()) => {
                    self.found();
                    let now = self.now();
                    for (row, _) in &mut rows {
                        (row.state, row.reason, row.ended_at) = (RolloutState::Notified, None, Some(now));
                    }
                    drop(span);
                    self.record(rows).await?;
                }
                Err(error) => {
                    span.fail(&error.to_string());
                    self.missed(&error);
                    self.explain(rows, &error).await?;
                }
            }
        }
        Ok(match self.away {
            Some((_, until)) => until.saturating_duration_since(Instant::now()),
            None => super::WATCH,
        })
    }
}

fn in_order(rows: &mut [(Rollout, Update)]) {
    rows.sort_by(|(a, _), (b, _)| a.started_at.cmp(&b.started_at).then_with(|| a.update_id.cmp(&b.update_id)));
}

fn changed_files(rows: &[(Rollout, Update)]) -> Vec<String> {
    let files: std::collections::BTreeSet<&str> = rows.iter().flat_map(|(_, update)| files(update)).collect();
    files.into_iter().map(str::to_owned).collect()
}
