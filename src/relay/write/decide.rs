//! Steps 2 and 3: decides about every candidate of the branch, at its tip.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, BatchContext};
use super::settle::Unconfirmed;
use super::{MAX_UPDATES, RoundError, Writer};
use crate::domain::{Candidate, Decided, Decision, Ground, Landed, Place, Running, Update, is_same, versions_of};
use crate::relay::branch::sites;
use crate::store::{Claim, Outdone};
use crate::telemetry::SpanKind;
use tagrelay_image::{Repository, Version};

/// How old a reading of the branch may be that a final "no" rests on. It must in any case be younger than the candidate.
const TIP_AGE: Duration = Duration::from_secs(1);

/// The result of the decisions of a round.
pub(super) enum RoundDecision<'a> {
    /// The tip, a block or a request changed meanwhile: begin again.
    Changed,
    /// Nothing is to be written now.
    Nothing,
    Write(Box<Batch<'a>>),
}

/// A place: one repository in one environment.
type Key = (String, Repository);

impl<'a> Writer<'a> {
    pub(super) async fn decide(
        &self,
        claim: Claim,
        unconfirmed: &Unconfirmed,
    ) -> Result<RoundDecision<'a>, RoundError> {
        let Some(snapshot) = self.branch.snapshot() else { return Ok(RoundDecision::Changed) };
        let mut by_place: HashMap<Key, Vec<Update>> = HashMap::new();
        for update in &claim.updates {
            by_place.entry((update.environment.clone(), update.repository.clone())).or_default().push(update.clone());
        }
        let (mut write, mut other) = (Vec::new(), Vec::new());
        for (key, updates) in by_place {
            let named = sites(&snapshot, &key.0).and_then(|found| found.sites.get(&key.1));
            let named = named.map(|places| versions_of(places.iter().map(|place| &place.version))).unwrap_or_default();
            let running = self.with_origin(&key, named, &claim).await?;
            let candidates = updates
                .iter()
                .map(|update| Candidate { update, unconfirmed: unconfirmed.contains(&update.id) })
                .collect();
            let place = Place {
                environment: &key.0,
                repository: &key.1,
                rule: self.relay.0.rules.at(&key.0, &key.1),
                running,
                candidates,
                blocks: &claim.blocks,
                now: self.relay.now(),
                catch_up: self.relay.catch_up_doubt(),
            };
            let decided = self.relay.decide_place(&place).await?;
            for (update, decided) in updates.iter().zip(decided) {
                self.trace(update, &decided);
                let one = (update.clone(), decided);
                if one.1.decision == Decision::Write { write.push(one) } else { other.push(one) }
            }
        }
        if self.is_outrun(&other, snapshot.tip).await? {
            return Ok(RoundDecision::Changed);
        }
        let (mut decisions, mut outdone) = (Vec::new(), Vec::new());
        for (update, decided) in other {
            match &decided.decision {
                Decision::Keep => {}
                Decision::End { ground: Ground::Rival(by), .. } => {
                    outdone.push(Outdone { update_id: update.id, by: by.clone(), decided });
                }
                Decision::Write | Decision::Wait(_) | Decision::Ask(_) | Decision::End { .. } => {
                    decisions.push((update.id, decided));
                }
            }
        }
        let (is_full, has_recorded) = (claim.updates.len() >= MAX_UPDATES as usize, !decisions.is_empty());
        if !self.relay.0.store.record_decisions(decisions, claim.fence).await? {
            return Ok(RoundDecision::Changed);
        }
        if write.is_empty() {
            // The claim was full, and what it left may now be claimed.
            return Ok(if is_full && has_recorded { RoundDecision::Changed } else { RoundDecision::Nothing });
        }
        // In the order of arrival, which is the order in the commit message.
        write.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let basis = |decided: &Decided| decided.basis.as_ref().map(|(by, because)| (by.to_string(), because.clone()));
        let bases = write.iter().filter_map(|(update, decided)| Some((update.id.clone(), basis(decided)?)));
        let context = BatchContext { bases: bases.collect(), requests: claim.requests, outdone, fence: claim.fence };
        let updates = write.into_iter().map(|(update, _)| update).collect();
        Ok(RoundDecision::Write(Box::new(Batch::new(self.relay, self.branch, updates, Arc::new(context)))))
    }

    /// Joins what runs with the updates that brought it.
    async fn with_origin(&self, key: &Key, named: Vec<Version>, claim: &Claim) -> Result<Vec<Running>, RoundError> {
        let newest = claim.landed.get(key);
        let mut running = Vec::with_capacity(named.len());
        for version in named {
            let landed = match newest {
                None => None,
                Some(newest) if is_same(&newest.version, &version) => Some(Landed::by(newest)),
                // Another version of ours was written back by hand, or sites are apart.
                Some(_) => {
                    let brought = self.relay.0.store.brought(&key.0, &key.1, &version).await?;
                    brought.as_ref().map(Landed::by)
                }
            };
            running.push(Running { version, landed });
        }
        Ok(running)
    }

    /// Whether the branch moved since `tip`, if a final decision rests on it. It is read again unless that was done after the
    /// youngest of these candidates arrived: a commit that went back by hand must be seen.
    async fn is_outrun(
        &self,
        decided: &[(Update, Decided)],
        tip: crate::config_repo::CommitId,
    ) -> Result<bool, RoundError> {
        let by_tip =
            decided.iter().filter(|(_, decided)| matches!(decided.decision, Decision::End { ground: Ground::Tip, .. }));
        let Some(youngest) = by_tip.map(|(update, _)| update.wanted_since()).max() else {
            return Ok(false);
        };
        self.reads_newer_tip(youngest, TIP_AGE, tip).await
    }

    /// Reads the branch again if it was not read since `since` and within `age`. Returns whether it is no longer at `tip`.
    pub(super) async fn reads_newer_tip(
        &self,
        since: jiff::Timestamp,
        age: Duration,
        tip: crate::config_repo::CommitId,
    ) -> Result<bool, RoundError> {
        let elapsed = Duration::try_from(self.relay.now().duration_since(since)).unwrap_or_default();
        self.branch.read_if_older_than(age.min(elapsed)).await?;
        Ok(self.branch.tip() != Some(tip))
    }

    fn trace(&self, update: &Update, decided: &Decided) {
        let mut span = self.relay.0.traces.begin(SpanKind::Internal, "decide", Some(&update.trace));
        crate::relay::describe(&mut span, update);
        let (word, reason) = match &decided.decision {
            Decision::Write => ("write", None),
            Decision::Wait(_) => ("wait", None),
            Decision::Ask(missing) => ("missing fact", Some(missing.to_string())),
            Decision::End { state, reason, .. } => (state.as_str(), Some(reason.clone())),
            Decision::Keep => ("keep", None),
        };
        span.set("tagrelay.decision", word);
        if let Some(reason) = reason {
            span.set("tagrelay.reason", reason);
        }
        let causes: HashSet<&str> = decided.decision.wait_causes().into_iter().map(|cause| cause.as_str()).collect();
        if !causes.is_empty() {
            span.set("tagrelay.wait_causes", causes.into_iter().collect::<Vec<_>>().join(", "));
        }
        if let Some((by, because)) = &decided.basis {
            span.set("tagrelay.decided_by", by);
            span.set("tagrelay.decided_because", because);
        }
    }
}
