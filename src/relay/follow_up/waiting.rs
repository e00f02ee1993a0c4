//! Updates that wait for the gate of their source: promotions that may wait, and the versions of followed environments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{Following, Worker};
use crate::config_repo::CommitId;
use crate::domain::{
    Blocks, Cause, ClosedGate, ObstacleKind, Passage, Request, RequestKind, Update, UpdateGate, UpdateInput,
    UpdateState, Wait, WaitCause, is_same, runs,
};
use crate::policy::{GatePolicy, GateScope};
use crate::relay::matrix::versions;
use crate::relay::{Branch, Environment, Relay, UpdateMode};
use crate::store::{GateLook, GateResult, HistoryFilter, NewRequest, NewRequestedUpdate, StoreError};
use crate::telemetry::SpanKind;
use tagrelay_image::{Repository, Version};

/// How often the gates of waiting updates are looked at. They are also looked at when a rollout ends, and at the end of a soak time.
const LOOK: Duration = Duration::from_secs(15);

/// How many open updates of a place are compared.
const MAX_OPEN: u32 = 100;

/// How many changes of the source are searched for the order of two versions.
const HISTORY: u32 = 200;

/// What the task remembers of its last look.
#[derive(Default)]
pub(super) struct LastLook {
    at: Option<Instant>,
    /// When the next soak time ends.
    next: Option<Timestamp>,
    seen: HashSet<String>,
    /// Whether a rollout ended since.
    pub(super) rollout_ended: bool,
    /// The tips at which the follow rules were applied last.
    tips: Vec<Option<CommitId>>,
}

impl Worker<'_> {
    /// Applies the follow rules, and looks at the gates of waiting updates if that is due. Returns the time until the next look.
    pub(super) async fn look_at_gates(&mut self) -> Result<Duration, StoreError> {
        let tips: Vec<Option<CommitId>> = self.relay.0.branches.iter().map(Branch::tip).collect();
        if tips != self.last_look.tips {
            self.relay.follow_environments().await?;
            self.last_look.tips = tips;
        }
        let open = self.relay.0.store.gated_updates().await?;
        if open.is_empty() {
            self.last_look.seen.clear();
            return Ok(super::WATCH);
        }
        let now = self.now();
        let is_new = open.iter().any(|update| !self.last_look.seen.contains(&update.id));
        let is_over = self.last_look.next.is_some_and(|at| at <= now);
        let since = self.last_look.at.map_or(LOOK, |at| at.elapsed());
        if !is_new && !is_over && !self.last_look.rollout_ended && since < LOOK {
            return Ok(self.until_next(LOOK.saturating_sub(since), now));
        }
        let (looks, error) = self.relay.look_at(self.following, &open, now).await?;
        match error {
            Some(error) => self.missed(&error),
            None => self.found(),
        }
        let end = |look: &GateLook| match &look.result {
            GateResult::Closed(wait) => wait.until.filter(|at| *at > now),
            GateResult::Open | GateResult::End { .. } => None,
        };
        self.last_look.next = looks.iter().filter_map(end).min();
        self.last_look.seen = open.into_iter().map(|update| update.id).collect();
        self.last_look.at = Some(Instant::now());
        self.last_look.rollout_ended = false;
        self.relay.0.store.record_gates(looks).await?;
        Ok(self.until_next(LOOK, now))
    }

    /// Returns the time until the next look, which is due in `pause` or when a soak time ends.
    fn until_next(&self, pause: Duration, now: Timestamp) -> Duration {
        // One millisecond more, because the store rounds down to milliseconds.
        let soak = self.last_look.next.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        soak.map_or(pause, |soak| pause.min(soak + Duration::from_millis(1)))
    }
}

impl Relay {
    /// Looks at the gates of updates. Also returns an error of Argo CD, which keeps gates closed.
    async fn look_at(
        &self,
        following: &Following,
        open: &[Update],
        now: Timestamp,
    ) -> Result<(Vec<GateLook>, Option<crate::argocd::ArgoCdError>), StoreError> {
        let ids: HashSet<&str> = open.iter().map(|update| update.cause_id.as_str()).collect();
        let requests = self.0.store.requests_by_id(&ids.into_iter().collect::<Vec<_>>()).await?;
        let requests: HashMap<&str, &Request> = requests.iter().map(|request| (request.id.as_str(), request)).collect();
        let blocks = self.0.store.blocks().await?;
        let (mut looks, mut failed) = (Vec::new(), None);
        let mut by_source: BTreeMap<&str, Vec<(&Update, &Request, GatePolicy)>> = BTreeMap::new();
        for update in open {
            let request = requests.get(update.cause_id.as_str()).copied();
            let source = request.and_then(|request| request.source.as_deref());
            let known = source.and_then(|source| self.environment(source));
            let policy = self.environment(&update.environment).and_then(|target| target.gate_of(known));
            let follows = |target: &Environment| {
                target.mode == UpdateMode::Follow
                    && source.is_some_and(|name| target.promote_from.iter().any(|from| from == name))
            };
            let result = match (request, source, known, policy) {
                _ if update.cause == Cause::Follow && !self.environment(&update.environment).is_some_and(follows) => {
                    let source = source.unwrap_or("the environment");
                    refuse(format!("{} no longer follows {source}", update.environment))
                }
                (_, Some(source), None, _) => refuse(format!("the settings no longer have the environment `{source}`")),
                // The settings no longer have a gate.
                (_, _, _, None) | (None, ..) | (_, None, ..) => GateResult::Open,
                (Some(request), Some(source), Some(_), Some(policy)) => {
                    match self.end_of(update, request, source, policy, now) {
                        Some(end) => end,
                        None => {
                            by_source.entry(source).or_default().push((update, request, policy));
                            continue;
                        }
                    }
                }
            };
            looks.push(GateLook { update_id: update.id.clone(), result });
        }
        for (source, updates) in by_source {
            let passages = match self.passages_of(following, source, &updates, now).await? {
                Ok(passages) => passages,
                Err(error) => {
                    let reason = format!("the health of `{source}` is unknown: {error}");
                    failed = Some(error);
                    updates
                        .iter()
                        .map(|_| Passage::Closed(ClosedGate::because(ObstacleKind::Unknown, reason.clone())))
                        .collect()
                }
            };
            for ((update, _, _), passage) in updates.iter().zip(passages) {
                let blocked = blocked_at_source(update, source, &blocks, now);
                looks.push(GateLook { update_id: update.id.clone(), result: result(update.cause, passage, blocked) });
            }
        }
        Ok((looks, failed))
    }

    /// Returns the end of an update that its gate cannot open for any more.
    fn end_of(
        &self,
        update: &Update,
        request: &Request,
        source: &str,
        policy: GatePolicy,
        now: Timestamp,
    ) -> Option<GateResult> {
        let running = self.running(source, &update.repository);
        if let Some(other) = running.first().filter(|_| !running.iter().any(|one| is_same(one, &update.version))) {
            let reason = format!("{source} runs {} now", other.short());
            return Some(GateResult::End { input: UpdateInput::Supersede, reason });
        }
        let wait = SignedDuration::try_from(policy.wait_timeout).unwrap_or(SignedDuration::MAX);
        let is_late = update.gate == Some(UpdateGate::Closed)
            && request.kind == RequestKind::Promotion
            && request.created_at.checked_add(wait).is_ok_and(|at| at <= now);
        is_late.then(|| {
            let reason = update.reason.clone().unwrap_or_else(|| "its gate stayed closed".to_owned());
            refuse(format!("the gate did not open within {} s: {reason}", policy.wait_timeout.as_secs()))
        })
    }

    async fn passages_of(
        &self,
        following: &Following,
        source: &str,
        updates: &[(&Update, &Request, GatePolicy)],
        now: Timestamp,
    ) -> Result<Result<Vec<Passage>, crate::argocd::ArgoCdError>, StoreError> {
        let observed = match self.observe(following, source, now).await? {
            Ok(observed) => observed,
            Err(error) => return Ok(Err(error)),
        };
        let mut passages = Vec::with_capacity(updates.len());
        for (update, _, policy) in updates {
            let promoted = [(update.repository.clone(), update.version.clone())];
            if policy.scope == GateScope::Environment {
                let closed = self.gate(source, &promoted, *policy, now).await?;
                passages.push(closed.map_or(Passage::Open { since: now }, Passage::Closed));
                continue;
            }
            let found = self.passages(following, source, &observed.sight, (&promoted, *policy), now).await?;
            passages.extend(found);
        }
        Ok(Ok(passages))
    }

    /// Makes an update for each version that an environment does not run and one that it follows does.
    async fn follow_environments(&self) -> Result<(), StoreError> {
        let environments = || self.0.branches.iter().flat_map(Branch::environments);
        for target in environments().filter(|target| target.mode == UpdateMode::Follow) {
            for source in &target.promote_from {
                self.follow(target, source).await?;
            }
        }
        Ok(())
    }

    async fn follow(&self, target: &Environment, source: &str) -> Result<(), StoreError> {
        let (Some(of_target), Some(of_source)) = (self.branch_of(&target.name), self.branch_of(source)) else {
            return Ok(());
        };
        let offered = self.managed(of_source, source);
        for (repository, places) in self.managed(of_target, &target.name) {
            let running = versions(&places);
            let found = versions(offered.get(&repository).map(Vec::as_slice).unwrap_or_default());
            let [version] = found.as_slice() else { continue };
            let accepts = |version: &Version| {
                version.tag().is_none_or(|tag| self.0.rules.accepts(&target.name, &repository, tag))
            };
            if runs(&running, version) || !accepts(version) {
                continue;
            }
            let last = self.0.store.last_followed(&target.name, &repository).await?;
            // It is on its way, or it had its turn: what a person decided since stays.
            let had_its_turn = |last: Update| is_same(&last.version, version) && last.state != UpdateState::Superseded;
            if last.is_some_and(had_its_turn) {
                continue;
            }
            // Of another source that is followed, too.
            let open = self.0.store.open_updates_at(&target.name, &repository, MAX_OPEN).await?;
            if open.iter().any(|open| open.cause == Cause::Follow && is_same(&open.version, version)) {
                continue;
            }
            let went_back = self.went_back(source, &repository, version, &running).await?;
            self.make_followed((target, source), repository, (version, went_back), running).await?;
        }
        Ok(())
    }

    /// Whether the source went back to `version`, by hand or by a rollback: a running version came to the source after it. The follow
    /// rule makes its update only now, so the order of arrival does not show that.
    async fn went_back(
        &self,
        source: &str,
        repository: &Repository,
        version: &Version,
        running: &[Version],
    ) -> Result<bool, StoreError> {
        let filter = HistoryFilter {
            environment: Some(source.to_owned()),
            repository: Some(repository.clone()),
            before: None,
            limit: HISTORY,
        };
        let history = self.0.store.history(&filter).await?;
        let landed = |wanted: &Version| {
            let landed = history.iter().rev().find(|change| is_same(&change.version, wanted));
            landed.and_then(|change| change.finished_at)
        };
        let was_replaced = history.iter().any(|change| change.old.as_ref().is_some_and(|old| is_same(old, version)));
        let came = match landed(version) {
            Some(at) => at,
            // It was there before all that the history knows.
            None if was_replaced => Timestamp::MIN,
            // It was written by hand just now.
            None => return Ok(false),
        };
        Ok(running.iter().any(|running| landed(running).is_some_and(|at| at > came)))
    }

    async fn make_followed(
        &self,
        (target, source): (&Environment, &str),
        repository: Repository,
        (version, went_back): (&Version, bool),
        running: Vec<Version>,
    ) -> Result<(), StoreError> {
        let brought = self.0.store.brought(source, &repository, version).await?;
        let digest = version.digest().cloned().or_else(|| brought.and_then(|update| update.version.digest().cloned()));
        let version = Version::from_parts(version.tag().cloned(), digest).unwrap_or_else(|| version.clone());
        let span = self.0.traces.begin(SpanKind::Internal, "follow environment", None);
        let (state, reason) = if went_back {
            let reason = format!("{source} went back to it; promote it if {} is to go back, too", target.name);
            (UpdateState::Refused, Some(reason))
        } else {
            (UpdateState::Unverified, None)
        };
        let update = NewRequestedUpdate { repository, version, state, reason, running };
        let fingerprint = format!("follow {source} {} {}", update.repository, update.version);
        self.0
            .store
            .make_request(NewRequest {
                kind: RequestKind::Follow,
                environment: target.name.clone(),
                source: Some(source.to_owned()),
                actor: source.to_owned(),
                reason: None,
                planned_at: self.now(),
                idempotency_key: None,
                trace: span.context(),
                overridden: None,
                fingerprint,
                updates: vec![update],
                hold: None,
                overrides: false,
                gate: Some(UpdateGate::Closed),
            })
            .await
            .map(|_| ())
    }
}

fn refuse(reason: String) -> GateResult {
    GateResult::End { input: UpdateInput::Refuse, reason }
}

/// Returns the wait for a hold or freeze of the followed environment: a version that must not move there does not leave it, either.
fn blocked_at_source(update: &Update, source: &str, blocks: &Blocks, now: Timestamp) -> Option<Wait> {
    if update.cause != Cause::Follow {
        return None;
    }
    if let Some(hold) = blocks.hold(source, &update.repository, now) {
        let detail = Some(format!("{source}: {}", hold.explanation()));
        return Some(Wait { cause: WaitCause::Gate, detail, until: hold.expires_at });
    }
    let frozen = blocks.frozen(source, now)?;
    Some(Wait { cause: WaitCause::Gate, detail: Some(frozen.explanation()), until: frozen.until })
}

/// Returns what the answer of a gate means for an update that waits for it.
///
/// A promotion ends if the version failed: a person decides again. A follow rule waits until the version recovers.
fn result(cause: Cause, passage: Passage, blocked: Option<Wait>) -> GateResult {
    let closed = match (passage, blocked) {
        (Passage::Closed(closed), _) => closed,
        (Passage::Open { .. } | Passage::Untracked(_), Some(blocked)) => return GateResult::Closed(blocked),
        (Passage::Open { .. } | Passage::Untracked(_), None) => return GateResult::Open,
    };
    if closed.kind() == ObstacleKind::Failed && cause == Cause::Promotion {
        return refuse(closed.explanation());
    }
    let cause = if closed.kind() == ObstacleKind::Soaking { WaitCause::Soak } else { WaitCause::Gate };
    GateResult::Closed(Wait { cause, until: closed.opens_at, detail: Some(closed.explanation().replace('\n', "; ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(kind: ObstacleKind) -> Passage {
        Passage::Closed(ClosedGate::because(kind, "because"))
    }

    #[test]
    fn failed_version_ends_a_promotion_and_a_follow_rule_waits() {
        assert_eq!(result(Cause::Promotion, closed(ObstacleKind::Failed), None), refuse("because".to_owned()));
        let waits = |result: GateResult| match result {
            GateResult::Closed(wait) => Some(wait.cause),
            GateResult::Open | GateResult::End { .. } => None,
        };
        assert_eq!(waits(result(Cause::Follow, closed(ObstacleKind::Failed), None)), Some(WaitCause::Gate));
        assert_eq!(waits(result(Cause::Promotion, closed(ObstacleKind::OtherVersion), None)), Some(WaitCause::Gate));
        assert_eq!(waits(result(Cause::Follow, closed(ObstacleKind::Soaking), None)), Some(WaitCause::Soak));
    }

    #[test]
    fn block_of_the_source_keeps_an_open_gate_closed() {
        let open = || Passage::Open { since: Timestamp::UNIX_EPOCH };
        assert_eq!(result(Cause::Follow, open(), None), GateResult::Open);
        let blocked = Wait { cause: WaitCause::Gate, detail: Some("held".to_owned()), until: None };
        assert_eq!(result(Cause::Follow, open(), Some(blocked.clone())), GateResult::Closed(blocked));
    }
}
