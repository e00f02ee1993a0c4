//! The updates of one push, with their part in the traces.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config_repo::{EnvironmentPlan, Plan, WantedVersion};
use crate::domain::{Request, Update};
use crate::relay::Relay;
use crate::relay::branch::Branch;
use crate::store::Outdone;
use crate::telemetry::{Span, SpanKind, TraceContext};

/// What the parts of a claim have in common.
pub(super) struct BatchContext {
    /// Why each is newer, by update id.
    pub(super) bases: HashMap<String, (String, String)>,
    /// The requests behind the updates, by id.
    pub(super) requests: HashMap<String, Request>,
    /// Updates that end when one of the batch lands.
    pub(super) outdone: Vec<Outdone>,
    /// The fence of the claim.
    pub(super) fence: u64,
}

/// Updates that are written together.
pub(super) struct Batch<'a> {
    pub(super) relay: &'a Relay,
    pub(super) branch: &'a Branch,
    /// In the order of arrival.
    pub(super) updates: Vec<Update>,
    pub(super) context: Arc<BatchContext>,
    pub(super) round: Span,
    spans: HashMap<String, Span>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(relay: &'a Relay, branch: &'a Branch, updates: Vec<Update>, context: Arc<BatchContext>) -> Self {
        let begin = |update: &Update| {
            let mut span = relay.0.traces.begin(SpanKind::Consumer, "write update", Some(&update.trace));
            crate::relay::describe(&mut span, update);
            (update.id.clone(), span)
        };
        let mut spans: Vec<(String, Span)> = updates.iter().map(begin).collect();
        let contexts: Vec<TraceContext> = spans.iter().map(|(_, span)| span.context()).collect();
        let others = contexts.get(1..).unwrap_or_default();
        let mut round = relay.0.traces.begin_linked(SpanKind::Internal, "write branch", contexts.first(), others);
        round.set("tagrelay.config_repository", branch.repository_name());
        round.set("tagrelay.branch", branch.branch_name());
        round.set_number("tagrelay.updates", i64::try_from(updates.len()).unwrap_or(i64::MAX));
        spans.iter_mut().skip(1).for_each(|(_, span)| span.link(&round.context()));
        Self { relay, branch, updates, context, round, spans: spans.into_iter().collect() }
    }

    /// Returns a batch of some of the updates.
    pub(super) fn part(&self, ids: &[String]) -> Self {
        let updates = self.updates.iter().filter(|update| ids.contains(&update.id)).cloned().collect();
        Self::new(self.relay, self.branch, updates, Arc::clone(&self.context))
    }

    /// Splits a rejected batch: by environment, or in two halves if all updates are of one. A hook that rejects one service, or a
    /// rule that protects one environment, says nothing about the others.
    pub(super) fn parts(&self) -> Vec<Vec<String>> {
        let of = |environment: &str| -> Vec<String> {
            let own = self.updates.iter().filter(|update| update.environment == environment);
            own.map(|update| update.id.clone()).collect()
        };
        let mut parts: Vec<Vec<String>> =
            self.branch.environments().iter().map(|environment| of(&environment.name)).collect();
        parts.retain(|part| !part.is_empty());
        if let [all] = parts.as_slice() {
            let (left, right) = all.split_at(all.len() / 2);
            parts = vec![left.to_vec(), right.to_vec()];
        }
        parts
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.updates.iter().map(|update| update.id.clone()).collect()
    }

    pub(super) fn step(&self, kind: SpanKind, name: &'static str) -> Span {
        self.relay.0.traces.begin(kind, name, Some(&self.round.context()))
    }

    /// Takes an update out, and completes its span.
    pub(super) fn end(&mut self, id: &str, outcome: &str, reason: Option<&str>) -> Option<Update> {
        self.describe(id, outcome, reason, None);
        self.spans.remove(id);
        let index = self.updates.iter().position(|update| update.id == id)?;
        Some(self.updates.remove(index))
    }

    pub(super) fn describe(&mut self, id: &str, outcome: &str, reason: Option<&str>, commit: Option<&str>) {
        let Some(span) = self.spans.get_mut(id) else { return };
        span.set("tagrelay.outcome", outcome);
        if let Some(reason) = reason {
            span.set("tagrelay.reason", reason);
        }
        if let Some(commit) = commit {
            span.set("tagrelay.commit", commit);
        }
    }

    /// Marks the round and what is left of it as failed.
    pub(super) fn fail(&mut self, reason: &str) {
        self.round.fail(reason);
        for span in self.spans.values_mut() {
            span.set("tagrelay.outcome", "postponed");
            span.fail(reason);
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let wanted_of = |environment: &str| -> Vec<WantedVersion> {
            let own = self.updates.iter().filter(|update| update.environment == environment);
            own.map(|update| WantedVersion {
                key: update.id.clone(),
                repository: update.repository.clone(),
                version: update.version.clone(),
            })
            .collect()
        };
        let environments = self.branch.environments().iter().map(|environment| EnvironmentPlan {
            environment: environment.name.clone(),
            wanted: wanted_of(&environment.name),
        });
        Plan { environments: environments.filter(|plan| !plan.wanted.is_empty()).collect() }
    }
}
