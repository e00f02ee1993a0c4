//! The wire types that several routes share.

mod event;

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::image::Version;
use crate::store::{
    FollowState, FollowUp, FollowedApplication, Freeze, Frozen, FrozenBy, Hold, Request, RequestState, Update,
    UpdateState,
};

pub(super) use event::{EventDetailView, EventView};

/// A version: tag, digest or both.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionView {
    tag: Option<String>,
    digest: Option<String>,
}

impl From<&Version> for VersionView {
    fn from(version: &Version) -> Self {
        Self { tag: version.tag().map(ToString::to_string), digest: version.digest().map(ToString::to_string) }
    }
}

/// One edited site.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangeView {
    environment: String,
    repository: String,
    /// From the root of the config repository.
    path: String,
    /// Counted from 1.
    line: u32,
    old: VersionView,
    new: VersionView,
}

/// Returns the edited sites of a committed update. What an attempt was about to edit is not told.
fn changes(update: &Update) -> Vec<ChangeView> {
    if update.state != UpdateState::Committed {
        return Vec::new();
    }
    let view = |change: &crate::store::SiteChange| ChangeView {
        environment: update.environment.clone(),
        repository: update.repository.to_string(),
        path: change.path.clone(),
        line: change.line,
        old: (&change.old).into(),
        new: (&change.new).into(),
    };
    update.changes.iter().map(view).collect()
}

fn commit(update: &Update) -> Option<String> {
    update.commit.clone().filter(|_| update.state == UpdateState::Committed)
}

/// "This environment shall run this version", and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UpdateView {
    id: String,
    environment: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    /// `unverified`, `pending`, `waiting`, `committed`, `unchanged`, `superseded` or `refused`.
    state: String,
    reason: Option<String>,
    /// What decided whether it is newer than what ran: `ancestry`, `number`, `time`, `version`, `build_time` or
    /// `arrival`; `null` for promotions and rollbacks.
    decided_by: Option<String>,
    /// What it was compared with, and how that came out.
    decided_because: Option<String>,
    commit: Option<String>,
    changes: Vec<ChangeView>,
    finished_at: Option<String>,
    /// What became of the commit in Argo CD; `null` where nobody follows it.
    rollout: Option<RolloutView>,
}

/// What becomes of a commit in Argo CD.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RolloutView {
    /// `waiting` (Argo CD has not heard of it), `following`, `healthy`, `degraded`, `timed_out`, `untracked` (no application
    /// is made of the files) or `told` (by its webhook, and no more is known).
    state: String,
    reason: Option<String>,
    /// When the commit was on the branch.
    started_at: String,
    ended_at: Option<String>,
    /// The applications that are made of the files.
    applications: Vec<RolledView>,
}

/// What an application has come to with a commit.
#[derive(Debug, Serialize, ToSchema)]
struct RolledView {
    namespace: Option<String>,
    name: String,
    /// `following`, `healthy`, `degraded` or `timed_out`.
    state: String,
    /// `Synced`, `OutOfSync` or `Unknown`, when it was asked last.
    sync: Option<String>,
    /// `Healthy`, `Progressing`, `Degraded`, `Suspended`, `Missing` or `Unknown`, when it was asked last.
    health: Option<String>,
    /// The commit that it was at.
    revision: Option<String>,
    reason: Option<String>,
    /// When Argo CD was asked to look at the repository.
    refreshed_at: Option<String>,
    /// When it was first seen at the commit or a later one.
    reached_at: Option<String>,
    /// When it was first seen Synced there.
    synced_at: Option<String>,
    ended_at: Option<String>,
}

impl From<&FollowUp> for RolloutView {
    fn from(row: &FollowUp) -> Self {
        Self {
            state: row.state.to_string(),
            reason: row.reason.clone(),
            started_at: row.started_at.to_string(),
            ended_at: time(row.ended_at),
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
            refreshed_at: time(app.refreshed_at),
            reached_at: time(app.reached_at),
            synced_at: time(app.synced_at),
            ended_at: time(app.ended_at),
        }
    }
}

/// What becomes of updates in Argo CD, by their ids.
type FollowUps = HashMap<String, FollowUp>;

impl UpdateView {
    fn new(update: &Update, follow_ups: &FollowUps) -> Self {
        Self { rollout: follow_ups.get(&update.id).map(Into::into), ..Self::from(update) }
    }
}

impl From<&Update> for UpdateView {
    fn from(update: &Update) -> Self {
        Self {
            id: update.id.clone(),
            environment: update.environment.clone(),
            repository: update.repository.to_string(),
            tag: update.version.tag().map(ToString::to_string),
            digest: update.version.digest().map(ToString::to_string),
            state: update.state.to_string(),
            reason: update.reason.clone(),
            decided_by: update.decided_by.clone(),
            decided_because: update.decided_because.clone(),
            commit: commit(update),
            changes: changes(update),
            finished_at: time(update.finished_at),
            rollout: None,
        }
    }
}

/// A promotion or rollback.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RequestView {
    id: String,
    /// `promotion` or `rollback`.
    kind: String,
    /// `pending`, `committed`, `refused`, `superseded` (something else took its place), `pull_request_open` or `waiting`.
    state: String,
    /// The environment that changes.
    to: String,
    /// The environment whose versions it takes.
    from: Option<String>,
    /// The name of the API token.
    actor: String,
    /// Why, in the words of whoever asked.
    requested_because: Option<String>,
    created_at: String,
    /// The last commit that carries a part of it.
    commit: Option<String>,
    /// The edited sites.
    changes: Vec<ChangeView>,
    /// Why it is refused or waits, or that there was nothing to do.
    reason: Option<String>,
    /// What became of each repository.
    updates: Vec<UpdateView>,
    /// What became of its commits in Argo CD; `null` where nobody follows them.
    rollout: Option<RolloutSummary>,
    /// What stood in the way of a promotion that was made all the same, with `override`, or the freeze that a rollback passes.
    overridden: Option<String>,
    /// What its log lines, its spans and the commit have in common: 32 hexadecimal digits.
    trace_id: String,
}

/// What became of the commits of a promotion or rollback in Argo CD.
#[derive(Debug, Serialize, ToSchema)]
struct RolloutSummary {
    /// That of the update that has come least far or fared worst, in the words of `updates`.
    state: String,
    reason: Option<String>,
    ended_at: Option<String>,
}

impl RolloutSummary {
    fn new(updates: &[Update], follow_ups: &FollowUps) -> Option<Self> {
        let order = [
            FollowState::Waiting,
            FollowState::Following,
            FollowState::Degraded,
            FollowState::TimedOut,
            FollowState::Untracked,
            FollowState::Told,
            FollowState::Healthy,
        ];
        let rows = || updates.iter().filter_map(|update| follow_ups.get(&update.id));
        let state = order.into_iter().find(|state| rows().any(|row| row.state == *state))?;
        let ended_at = rows().filter_map(|row| row.ended_at).max().filter(|_| state.is_final());
        let reason = rows().find(|row| row.state == state).and_then(|row| row.reason.clone());
        Some(Self { state: state.to_string(), reason, ended_at: time(ended_at) })
    }
}

impl RequestView {
    pub(super) fn new(request: &Request, updates: &[Update], follow_ups: &FollowUps) -> Self {
        let state = Request::state(updates);
        Self {
            id: request.id.clone(),
            kind: request.kind.to_string(),
            state: state.to_string(),
            to: request.environment.clone(),
            from: request.source.clone(),
            actor: request.actor.clone(),
            requested_because: request.reason.clone(),
            created_at: request.created_at.to_string(),
            commit: updates.iter().rev().find_map(commit),
            changes: updates.iter().flat_map(changes).collect(),
            reason: request_reason(request, state, updates),
            updates: updates.iter().map(|update| UpdateView::new(update, follow_ups)).collect(),
            rollout: RolloutSummary::new(updates, follow_ups),
            overridden: request.overridden.clone(),
            trace_id: request.trace.trace_id().to_string(),
        }
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

/// A hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HoldView {
    id: String,
    environment: String,
    repository: String,
    reason: Option<String>,
    actor: String,
    /// The rollback that made it.
    rollback: Option<String>,
    created_at: String,
    /// When it ends by itself; `null`: when it is released.
    expires_at: Option<String>,
}

impl From<&Hold> for HoldView {
    fn from(hold: &Hold) -> Self {
        Self {
            id: hold.id.clone(),
            environment: hold.environment.clone(),
            repository: hold.repository.to_string(),
            reason: hold.reason.clone(),
            actor: hold.actor.clone(),
            rollback: hold.request_id.clone(),
            created_at: hold.created_at.to_string(),
            expires_at: time(hold.expires_at),
        }
    }
}

/// A freeze that somebody has switched on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FreezeView {
    id: String,
    environment: String,
    reason: String,
    actor: String,
    created_at: String,
    /// When it ends by itself; `null`: when it is thawed.
    expires_at: Option<String>,
}

impl From<&Freeze> for FreezeView {
    fn from(freeze: &Freeze) -> Self {
        Self {
            id: freeze.id.clone(),
            environment: freeze.environment.clone(),
            reason: freeze.reason.clone(),
            actor: freeze.actor.clone(),
            created_at: freeze.created_at.to_string(),
            expires_at: time(freeze.expires_at),
        }
    }
}

/// That an environment is frozen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FrozenView {
    /// When the last of what follows on each other ends; `null`: when it is thawed.
    until: Option<String>,
    /// By what and until when, for people.
    reason: String,
    by: Vec<FrozenByView>,
}

/// What freezes an environment.
#[derive(Debug, Serialize, ToSchema)]
struct FrozenByView {
    /// `window` (of the settings) or `freeze` (switched on).
    kind: &'static str,
    /// Of a freeze: with it, it is thawed.
    id: Option<String>,
    /// Of a window: `Fri 16:00 to Mon 08:00 Europe/Berlin`.
    window: Option<String>,
    reason: Option<String>,
    /// The name of the API token that made a freeze.
    actor: Option<String>,
    until: Option<String>,
}

impl From<&Frozen> for FrozenView {
    fn from(frozen: &Frozen) -> Self {
        let by = frozen.by.iter().map(|by| match by {
            FrozenBy::Window { window, reason, until } => FrozenByView {
                kind: "window",
                id: None,
                window: Some(window.clone()),
                reason: reason.clone(),
                actor: None,
                until: Some(until.to_string()),
            },
            FrozenBy::Switch(freeze) => FrozenByView {
                kind: "freeze",
                id: Some(freeze.id.clone()),
                window: None,
                reason: Some(freeze.reason.clone()),
                actor: Some(freeze.actor.clone()),
                until: time(freeze.expires_at),
            },
        });
        Self { until: time(frozen.until), reason: frozen.explanation(), by: by.collect() }
    }
}

pub(super) fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
