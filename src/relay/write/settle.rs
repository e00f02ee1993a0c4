//! Step 1: finds out what became of push attempts without an answer.
//!
//! A push is atomic and names its parent, so one question decides about all updates of an attempt: is its commit on the branch? If
//! not, and the branch is no longer at the parent, it never will be. Only if the history is too long to look through, the versions in the
//! manifests settle each update.

use std::collections::{HashMap, HashSet};

use super::{RoundError, Writer};
use crate::config_repo::{Below, CommitId, Snapshot};
use crate::domain::{AttemptedUpdate, PushAttempt, PushInput, Update, UpdateInput};
use crate::relay::branch::sites;
use crate::store::EndedUpdate;
use crate::telemetry::SpanKind;
use tagrelay_image::Version;

/// The updates of push attempts that may still land.
pub(super) type Unconfirmed = HashSet<String>;

/// The result of an unconfirmed push.
enum PushResult {
    Landed,
    Lost,
    /// The branch is at its parent still: it may land, unless another push from the same parent does.
    Open,
    /// The history was not searched to its end.
    Unknown,
}

impl Writer<'_> {
    pub(super) async fn settle(&mut self) -> Result<Unconfirmed, RoundError> {
        if !self.may_be_open {
            return Ok(Unconfirmed::new());
        }
        let (repository, name) = (self.branch.repository_name(), self.branch.branch_name());
        let store = &self.relay.0.store;
        let open = store.open_pushes(repository, name, &self.environments).await?;
        if open.is_empty() {
            self.may_be_open = false;
            return Ok(Unconfirmed::new());
        }
        self.branch.refresh().await?;
        let Some(snapshot) = self.branch.snapshot() else { return Ok(all_updates(&open)) };
        let below = self.below(&open, snapshot.tip).await?;
        let follow = self.relay.0.following.is_some();
        let mut unconfirmed = Unconfirmed::new();
        for push in open {
            match fate(&push, snapshot.tip, &below) {
                PushResult::Landed => {
                    self.trace_landed(&push).await?;
                    store.end_push(&push.id, PushInput::FindLanded, follow).await?;
                }
                PushResult::Lost => store.end_push(&push.id, PushInput::FindLost, follow).await?,
                PushResult::Open => unconfirmed.extend(push.updates.into_iter().map(|update| update.update_id)),
                PushResult::Unknown => self.settle_by_content(push, &snapshot).await?,
            }
        }
        self.may_be_open = !unconfirmed.is_empty();
        Ok(unconfirmed)
    }

    /// Completes the traces of updates whose push ended without an answer.
    async fn trace_landed(&self, push: &PushAttempt) -> Result<(), RoundError> {
        let ids: Vec<&str> = push.updates.iter().map(|attempted| attempted.update_id.as_str()).collect();
        for update in self.relay.0.store.updates_by_id(&ids).await? {
            let mut span = self.relay.0.traces.begin(SpanKind::Consumer, "write update", Some(&update.trace));
            crate::relay::describe(&mut span, &update);
            span.set("tagrelay.outcome", "committed");
            let attempted = push.updates.iter().find(|attempted| attempted.update_id == update.id);
            if let Some(attempted) = attempted {
                span.set("tagrelay.commit", &attempted.commit);
            }
        }
        Ok(())
    }

    /// Asks which of the pushes' commits are below the tip, unless that is clear without asking.
    async fn below(&self, open: &[PushAttempt], tip: CommitId) -> Result<HashMap<CommitId, Below>, RoundError> {
        let mut asked: Vec<CommitId> = open
            .iter()
            .filter(|push| push.parent != tip.to_string())
            .filter_map(|push| push.tip.parse().ok())
            .filter(|commit| *commit != tip)
            .collect();
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() { Ok(HashMap::new()) } else { Ok(self.branch.below_tip(&asked).await?) }
    }

    /// Lands the updates that the manifests name, and ends the others: whether they landed and were overwritten cannot be known.
    async fn settle_by_content(&self, push: PushAttempt, snapshot: &Snapshot) -> Result<(), RoundError> {
        let store = &self.relay.0.store;
        let ids: Vec<&str> = push.updates.iter().map(|attempted| attempted.update_id.as_str()).collect();
        let updates: HashMap<String, Update> =
            store.updates_by_id(&ids).await?.into_iter().map(|update| (update.id.clone(), update)).collect();
        let (mut landed, mut ended) = (Vec::new(), Vec::new());
        for attempted in push.updates {
            let Some(update) = updates.get(&attempted.update_id) else { continue };
            let named = named_now(update, &attempted, snapshot);
            if !named.is_empty() && named.iter().all(|(now, new)| now == new) {
                landed.push(attempted);
            } else if named
                .iter()
                .any(|(now, new)| now != new && !attempted.changes.iter().any(|change| change.old == **now))
            {
                let reason = format!(
                    "the answer to the push of {} was lost, the version was changed again since, and the history of the \
                     branch is longer than what was searched for the commit",
                    attempted.commit
                );
                let (id, input) = (attempted.update_id, UpdateInput::Supersede);
                ended.push(EndedUpdate { id, input, reason: Some(reason), party: None });
            }
        }
        // Updates that are neither go on: the old version is still there.
        store.land(landed, self.relay.0.following.is_some()).await?;
        if !ended.is_empty() {
            store.end_updates(ended).await?;
        }
        Ok(store.end_push(&push.id, PushInput::FindLost, false).await?)
    }
}

fn all_updates(open: &[PushAttempt]) -> Unconfirmed {
    open.iter().flat_map(|push| &push.updates).map(|update| update.update_id.clone()).collect()
}

fn fate(push: &PushAttempt, tip: CommitId, below: &HashMap<CommitId, Below>) -> PushResult {
    let Ok(commit) = push.tip.parse::<CommitId>() else { return PushResult::Lost };
    if commit == tip {
        return PushResult::Landed;
    }
    if push.parent == tip.to_string() {
        return PushResult::Open;
    }
    match below.get(&commit) {
        Some(Below::Yes) => PushResult::Landed,
        Some(Below::No) => PushResult::Lost,
        Some(Below::Unknown) | None => PushResult::Unknown,
    }
}

/// Returns for each site that the attempt changed what it names now, and what the attempt wrote.
fn named_now<'a>(
    update: &Update,
    attempted: &'a AttemptedUpdate,
    snapshot: &'a Snapshot,
) -> Vec<(&'a Version, &'a Version)> {
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    let places = places.map(|places| places.as_slice()).unwrap_or_default();
    let pairs = places.iter().flat_map(|place| {
        let here = attempted.changes.iter().filter(|change| change.path == place.path.as_ref());
        here.map(|change| (&place.version, &change.new))
    });
    pairs.collect()
}
