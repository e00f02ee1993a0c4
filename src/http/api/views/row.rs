//! Updates, requests, holds and freezes.

use std::collections::HashMap;

use crate::api::{
    ChangeView, FreezeKind, FreezeView, FrozenByView, FrozenView, HoldView, RequestView, RolledView, RolloutSummary,
    RolloutView, UpdateView, VersionView,
};
use crate::domain::{Block, Frozen, FrozenBy, Request, RequestState, Update, UpdateState};
use crate::store::{FollowedApplication, Rollout, RolloutState};
use tagrelay_image::Version;

/// Follow-ups by the ids of their updates.
pub(super) type FollowUps = HashMap<String, Rollout>;

impl From<&Version> for VersionView {
    fn from(version: &Version) -> Self {
        Self { tag: version.tag().map(ToString::to_string), digest: version.digest().map(ToString::to_string) }
    }
}

fn changes(update: &Update) -> Vec<ChangeView> {
    let view = |change: &crate::domain::SiteChange| ChangeView {
        environment: update.environment.clone(),
        repository: update.repository.to_string(),
        path: change.path.clone(),
        line: change.line,
        old: (&change.old).into(),
        new: (&change.new).into(),
    };
    update.changes.iter().map(view).collect()
}

impl From<&Rollout> for RolloutView {
    fn from(row: &Rollout) -> Self {
        Self {
            state: row.state.into(),
            reason: row.reason.clone(),
            started_at: row.started_at,
            ended_at: row.ended_at,
            applications: row.applications.iter().map(Into::into).collect(),
        }
    }
}

impl From<&FollowedApplication> for RolledView {
    fn from(app: &FollowedApplication) -> Self {
        Self {
            namespace: app.namespace.clone(),
            name: app.name.clone(),
            state: app.state.to_string(),
            sync: app.sync.clone(),
            health: app.health.clone(),
            revision: app.revision.clone(),
            reason: app.reason.clone(),
            refreshed_at: app.refreshed_at,
            reached_at: app.reached_at,
            synced_at: app.synced_at,
            ended_at: app.ended_at,
        }
    }
}

pub(super) fn update_view(update: &Update, follow_ups: &FollowUps) -> UpdateView {
    UpdateView { rollout: follow_ups.get(&update.id).map(Into::into), ..update.into() }
}

/// Leaves `rollout` empty.
impl From<&Update> for UpdateView {
    fn from(update: &Update) -> Self {
        Self {
            id: update.id.clone(),
            environment: update.environment.clone(),
            repository: update.repository.to_string(),
            tag: update.version.tag().map(ToString::to_string),
            digest: update.version.digest().map(ToString::to_string),
            state: update.state.into(),
            reason: update.reason.clone(),
            decided_by: update.decided_by.clone(),
            decided_because: update.decided_because.clone(),
            commit: update.commit.clone(),
            changes: changes(update),
            finished_at: update.finished_at,
            rollout: None,
        }
    }
}

/// Combines the follow-ups of all updates of a request. `None`: it has no follow-up.
fn rollout_summary(updates: &[Update], follow_ups: &FollowUps) -> Option<RolloutSummary> {
    let order = [
        RolloutState::Waiting,
        RolloutState::Following,
        RolloutState::Degraded,
        RolloutState::TimedOut,
        RolloutState::Superseded,
        RolloutState::Untracked,
        RolloutState::Notified,
        RolloutState::Healthy,
    ];
    let rows = || updates.iter().filter_map(|update| follow_ups.get(&update.id));
    let state = order.into_iter().find(|state| rows().any(|row| row.state == *state))?;
    let ended_at = rows().filter_map(|row| row.ended_at).max().filter(|_| state.is_final());
    let reason = rows().find(|row| row.state == state).and_then(|row| row.reason.clone());
    Some(RolloutSummary { state: state.into(), reason, ended_at })
}

pub(in crate::http::api) fn request_view(request: &Request, updates: &[Update], follow_ups: &FollowUps) -> RequestView {
    let state = RequestState::of(updates.iter().map(|update| update.state));
    RequestView {
        id: request.id.clone(),
        kind: request.kind.into(),
        state: state.into(),
        to: request.environment.clone(),
        from: request.source.clone(),
        actor: request.actor.clone(),
        requested_because: request.reason.clone(),
        created_at: request.created_at,
        commit: updates.iter().rev().find_map(|update| update.commit.clone()),
        changes: updates.iter().flat_map(changes).collect(),
        reason: request_reason(request, state, updates),
        updates: updates.iter().map(|update| update_view(update, follow_ups)).collect(),
        rollout: rollout_summary(updates, follow_ups),
        overridden: request.overridden.clone(),
        trace_id: request.trace.trace_id().to_string(),
        skipped: Vec::new(),
    }
}

fn request_reason(request: &Request, state: RequestState, updates: &[Update]) -> Option<String> {
    let reasons: Vec<String> = updates
        .iter()
        .filter(|update| update.state != UpdateState::Committed)
        .filter_map(|update| Some(format!("{}: {}", update.repository, update.reason.as_ref()?)))
        .collect();
    let idle = updates.iter().all(|update| update.state == UpdateState::Unchanged);
    if !reasons.is_empty() {
        Some(reasons.join("; "))
    } else if state == RequestState::Committed && idle {
        Some(format!("nothing to do: {} runs it already", request.environment))
    } else {
        None
    }
}

impl From<&Block> for HoldView {
    fn from(hold: &Block) -> Self {
        Self {
            id: hold.id.clone(),
            environment: hold.environment.clone(),
            repository: hold.repository.as_ref().map(ToString::to_string).unwrap_or_default(),
            reason: hold.reason.clone(),
            actor: hold.actor.clone(),
            rollback: hold.request_id.clone(),
            created_at: hold.created_at,
            expires_at: hold.expires_at,
            under_way: Vec::new(),
        }
    }
}

impl From<&Block> for FreezeView {
    fn from(freeze: &Block) -> Self {
        Self {
            id: freeze.id.clone(),
            environment: freeze.environment.clone(),
            reason: freeze.reason.clone().unwrap_or_default(),
            actor: freeze.actor.clone(),
            created_at: freeze.created_at,
            expires_at: freeze.expires_at,
            under_way: Vec::new(),
        }
    }
}

impl From<&Frozen> for FrozenView {
    fn from(frozen: &Frozen) -> Self {
        let by = frozen.by.iter().map(|by| match by {
            FrozenBy::Window { window, reason, until } => FrozenByView {
                kind: FreezeKind::Window.into(),
                id: None,
                window: Some(window.clone()),
                reason: reason.clone(),
                actor: None,
                until: Some(*until),
            },
            FrozenBy::Block(freeze) => FrozenByView {
                kind: FreezeKind::Freeze.into(),
                id: Some(freeze.id.clone()),
                window: None,
                reason: freeze.reason.clone(),
                actor: Some(freeze.actor.clone()),
                until: freeze.expires_at,
            },
        });
        Self { until: frozen.until, reason: frozen.explanation(), by: by.collect() }
    }
}
