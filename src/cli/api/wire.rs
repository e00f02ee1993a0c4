//! The answers of the API, as far as commands show them. Members that a newer server adds are passed over.

use jiff::Timestamp;
use serde::Deserialize;

use super::super::output;

/// A version: tag, digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Version {
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Version {
    pub(in crate::cli) fn short(&self) -> String {
        output::short_version(self.tag.as_deref(), self.digest.as_deref())
    }
}

/// `GET /api/v1/environments`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Matrix {
    pub environments: Vec<Environment>,
    /// An older server has none.
    #[serde(default)]
    pub registries: Vec<Registry>,
}

/// A registry that is asked for what no webhook told of.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Registry {
    pub registry: String,
    pub catch_up: CatchUp,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct CatchUp {
    pub state: String,
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Environment {
    pub name: String,
    pub config_repository: String,
    pub branch: String,
    pub update: String,
    pub promote_from: Vec<String>,
    pub health: Option<Health>,
    /// An older server has none.
    #[serde(default)]
    pub freeze: Option<Frozen>,
    pub tip: Option<String>,
    pub unread_because: Option<String>,
    pub repositories: Vec<Running>,
    pub problems: Vec<FileProblem>,
}

/// What an environment runs of one repository.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Running {
    pub repository: String,
    pub version: Option<Version>,
    pub versions: Vec<Version>,
    pub when: Option<Timestamp>,
    pub cause: Option<String>,
    pub rollout: Option<Rollout>,
    pub holds: Vec<Hold>,
    pub waiting: Vec<Update>,
}

/// How an environment fares in Argo CD.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Health {
    pub state: String,
    pub since: Option<Timestamp>,
    pub applications: Vec<Application>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Application {
    pub name: String,
    pub sync: String,
    pub health: String,
    pub message: Option<String>,
    pub healthy_since: Option<Timestamp>,
}

/// What becomes of a commit in Argo CD.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Rollout {
    pub state: String,
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct FileProblem {
    pub path: String,
    pub reason: String,
}

/// `GET /api/v1/holds`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Holds {
    pub holds: Vec<Hold>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Hold {
    pub id: String,
    pub environment: String,
    pub repository: String,
    pub reason: Option<String>,
    pub actor: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// That an environment is frozen.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Frozen {
    pub until: Option<Timestamp>,
    pub by: Vec<FrozenBy>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct FrozenBy {
    pub id: Option<String>,
    pub window: Option<String>,
    pub reason: Option<String>,
    pub actor: Option<String>,
}

/// `GET /api/v1/freezes`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Freezes {
    pub freezes: Vec<Freeze>,
    pub windows: Vec<Window>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Freeze {
    pub id: String,
    pub environment: String,
    pub reason: String,
    pub actor: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A window of the settings in which an environment is frozen.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Window {
    pub environment: String,
    pub window: String,
    pub reason: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
    pub active: bool,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Update {
    pub environment: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    #[serde(default)]
    pub changes: Vec<Change>,
}

impl Update {
    pub(in crate::cli) fn short_version(&self) -> String {
        output::short_version(self.tag.as_deref(), self.digest.as_deref())
    }
}

/// One edited site.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Change {
    pub path: String,
    pub line: u32,
    pub old: Version,
}

/// `GET /api/v1/events`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Events {
    pub events: Vec<Event>,
    /// Promotions and rollbacks that failed; an older server tells none.
    #[serde(default)]
    pub requests: Vec<Request>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Event {
    pub id: String,
    pub receiver: String,
    pub repository: String,
    pub tag: String,
    pub digest: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    pub note: Option<String>,
    pub matched_rule: Option<String>,
    pub pushed_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub verified_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// An older server has none.
    #[serde(default)]
    pub refused_in: Vec<RefusedIn>,
}

/// An environment that has refused an event.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct RefusedIn {
    pub environment: String,
    pub reason: Option<String>,
}

/// `GET /api/v1/events/{id}`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct EventDetail {
    #[serde(flatten)]
    pub event: Event,
    pub explanation: Vec<Step>,
    /// An older server has none.
    #[serde(default)]
    pub attempt_log: Vec<Attempt>,
}

/// Something that was tried in vain.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Attempt {
    pub at: Timestamp,
    pub environment: Option<String>,
    pub asked: String,
    pub answered: String,
}

/// `POST /api/v1/events/{id}/replay`, beside the event.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct ReplayedEvent {
    /// Until when it would have waited, and what for; an older server tells it of none.
    pub hastened: Option<String>,
}

/// `POST /api/v1/events/replay`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct ReplayedEvents {
    pub replayed: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Step {
    pub step: String,
    pub at: Option<Timestamp>,
    pub text: String,
}

/// A promotion or rollback.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Request {
    pub id: String,
    pub kind: String,
    pub state: String,
    pub to: String,
    pub from: Option<String>,
    pub commit: Option<String>,
    pub reason: Option<String>,
    pub overridden: Option<String>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    pub updates: Vec<Update>,
}

/// The answer to a dry run.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Preview {
    pub parent: String,
    /// `None` where the token may not read.
    pub diff: Option<String>,
    pub updates: Vec<Previewed>,
}

#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Previewed {
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
    pub state: String,
    pub reason: Option<String>,
}

/// An error, as RFC 9457 describes it.
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    pub detail: Option<String>,
    pub title: Option<String>,
}
