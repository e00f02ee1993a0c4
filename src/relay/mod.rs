//! The pipeline: connects the rooms above it. No other room uses all of them.
//!
//! In: events and requests in the store. Out: commits on the branches, and the results. The pipeline can be stopped at
//! any instant and started again: all pending work is in the store, and repeating it changes nothing.
//!
//! Files, in the order in which an update passes through them:
//!
//! - `deliveries` stores push events, `requests` promotions, rollbacks, holds and freezes;
//! - `catch_up` finds tags that no webhook announced;
//! - `intake` gathers facts and makes candidates;
//! - `write` decides, commits and pushes, one writer for each branch;
//! - `follow_up` observes the rollout of a commit by Argo CD;
//! - `rules` finds the rule of a repository in an environment;
//! - `matrix` shows what every environment runs;
//! - `runtime` runs the tasks: generations, wake-ups, wait causes, log and metrics.

mod branch;
mod catch_up;
mod deliveries;
mod direction;
mod follow_up;
mod intake;
mod matrix;
mod message;
mod names;
mod requests;
mod rules;
mod runtime;
mod settings;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

pub use branch::{Branch, BranchAnnouncement};
pub use catch_up::RegistryStatus;
pub use direction::Direction;
pub use follow_up::Following;
pub use matrix::{Drift, EnvironmentRow, MatrixCell, MatrixFilter};
pub use names::Names;
pub use requests::{
    DiffRow, DiffRowKind, Difference, FreezeRequest, HoldRequest, Preview, PreviewState, PreviewedUpdate,
    PromotionRequest, RequestError, Requester, RollbackRequest,
};
pub use runtime::Running;
pub use settings::{Environment, UpdateMode};

use crate::domain::{CatchUpDoubt, Update};
use crate::policy::{FreezeCalendar, ImageRule};
use crate::registry::Registries;
use crate::settings::CatchUpSettings;
use crate::source_repo::Sources;
use crate::store::{Retention, Store};
use crate::telemetry::{Metrics, Span, Traces};
use intake::FactBase;
use rules::Rules;
use runtime::{Process, Wakes};
use tagrelay_image::{Repository, Version};

/// How long a scrape of the metrics waits until all changes are counted.
const REPORTED_WITHIN: Duration = Duration::from_millis(250);

/// The parts of the pipeline.
pub struct Parts {
    pub store: Store,
    pub registries: Arc<Registries>,
    /// Which images are managed.
    pub images: Vec<ImageRule>,
    /// The source repositories; image rules name them by index.
    pub sources: Arc<Sources>,
    /// The branches, each with its environments.
    pub branches: Vec<Branch>,
    /// The Argo CD that rolls out commits; `None`: rollouts are not followed.
    pub following: Option<Following>,
    pub metrics: Metrics,
    pub traces: Traces,
    pub retention: Retention,
    pub catch_up: CatchUpSettings,
}

/// The pipeline under one set of settings. Cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    store: Store,
    registries: Arc<Registries>,
    rules: Rules,
    sources: Arc<Sources>,
    branches: Vec<Branch>,
    /// Environment name to the index of its branch.
    branch_of: HashMap<String, usize>,
    following: Option<Following>,
    metrics: Metrics,
    traces: Traces,
    retention: Retention,
    catch_up: CatchUpSettings,
    facts: FactBase,
    wakes: Wakes,
    /// The number of events and updates that the intake is processing.
    in_hand: watch::Sender<usize>,
    process: Arc<Process>,
}

impl Relay {
    /// Connects the parts and starts the tasks. Pending work of the last process continues.
    pub fn start(parts: Parts) -> (Self, Running) {
        let process = Process::new(parts.store.clock().now(), parts.store.last_sequence());
        Self::start_in(process, parts)
    }

    /// Starts the next generation on the same store. The tasks of this one must have been [stopped](Running::stop).
    pub fn start_next(&self, parts: Parts) -> (Self, Running) {
        Self::start_in(Arc::clone(&self.0.process), parts)
    }

    fn start_in(process: Arc<Process>, parts: Parts) -> (Self, Running) {
        let Parts { store, registries, images, sources, branches, following, metrics, traces, retention, catch_up } =
            parts;
        let branch_of = branches
            .iter()
            .enumerate()
            .flat_map(|(index, branch)| branch.environments().iter().map(move |found| (found.name.clone(), index)))
            .collect();
        let inner = Inner {
            facts: FactBase::new(Arc::clone(&sources)),
            store,
            registries,
            rules: Rules::new(images, branches.iter().flat_map(Branch::environments)),
            sources,
            branches,
            branch_of,
            following,
            metrics,
            traces,
            retention,
            catch_up,
            wakes: Wakes::default(),
            in_hand: watch::Sender::new(0),
            process,
        };
        let relay = Self(Arc::new(inner));
        relay.0.store.set_freeze_calendar(relay.freeze_calendar());
        let running = runtime::start(&relay);
        (relay, running)
    }

    /// Returns the store, for reading.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn registries(&self) -> &Arc<Registries> {
        &self.0.registries
    }

    pub fn sources(&self) -> &Arc<Sources> {
        &self.0.sources
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn traces(&self) -> &Traces {
        &self.0.traces
    }

    /// Updates the metrics that show a current state. They keep their values if the store cannot be read.
    pub async fn measure(&self) {
        // The scrape counts every change that was answered before it.
        let last = self.0.store.last_sequence();
        let mut reported = self.0.wakes.reported.subscribe();
        let _ = tokio::time::timeout(REPORTED_WITHIN, reported.wait_for(|reported| *reported >= last)).await;
        let backlog = match self.0.store.backlog().await {
            Ok(backlog) => backlog,
            Err(error) => {
                tracing::warn!(%error, "the backlog cannot be read from the store");
                return;
            }
        };
        let now = self.now();
        let age = |at: Option<Timestamp>| {
            at.and_then(|at| Duration::try_from(now.duration_since(at)).ok()).unwrap_or_default()
        };
        self.0.metrics.pending_updates(backlog.open_updates);
        self.0.metrics.oldest_open(age(backlog.oldest_update), age(backlog.oldest_event));
    }

    /// Waits until a task of the pipeline ends by itself, and returns the reason. The process must then end.
    pub async fn failed(&self) -> String {
        self.0.process.failed().await
    }

    /// Returns the time by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.0.store.clock().now()
    }

    /// Returns the branches, each with its environments.
    pub fn branches(&self) -> &[Branch] {
        &self.0.branches
    }

    /// Retries every rejected push at once.
    pub async fn try_rejected_again(&self) {
        let environments: Vec<String> = self.0.branches.iter().flat_map(Branch::environment_names).collect();
        if let Err(error) = self.0.store.end_rejections(&environments).await {
            tracing::error!(%error, "rejected updates cannot be retried now");
        }
    }

    /// Returns the environment of a name.
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.branch_of(name)?.environments().iter().find(|environment| environment.name == name)
    }

    /// Returns the names of the environments, in the order of the settings.
    fn environment_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.branches.iter().flat_map(Branch::environments).map(|environment| environment.name.as_str())
    }

    fn branch_of(&self, environment: &str) -> Option<&Branch> {
        self.0.branch_of.get(environment).and_then(|index| self.0.branches.get(*index))
    }

    /// Returns the versions of a repository that an environment runs; empty if its branch has not
    /// been read yet.
    fn running(&self, environment: &str, repository: &Repository) -> Vec<Version> {
        let snapshot = self.branch_of(environment).and_then(Branch::snapshot);
        let places = snapshot.as_ref().and_then(|found| branch::sites(found, environment)?.sites.get(repository));
        places.map(|places| matrix::versions(places)).unwrap_or_default()
    }

    fn catch_up_doubt(&self) -> Option<CatchUpDoubt> {
        self.0.catch_up.every.map(|every| CatchUpDoubt { begun: self.0.process.begun, every })
    }

    /// Returns the freeze windows of the settings.
    fn freeze_calendar(&self) -> FreezeCalendar {
        let environments = self.0.branches.iter().flat_map(Branch::environments);
        FreezeCalendar::new(environments.map(|environment| (environment.name.clone(), environment.freezes.clone())))
    }
}

/// Sets the attributes of an update on its span.
fn describe(span: &mut Span, update: &Update) {
    span.set("tagrelay.update.id", &update.id);
    span.set("tagrelay.cause", update.cause);
    span.set("tagrelay.cause.id", &update.cause_id);
    span.set("tagrelay.environment", &update.environment);
    span.set("tagrelay.repository", &update.repository);
    span.set("tagrelay.version", &update.version);
    span.set_number("tagrelay.attempt", i64::from(update.failures) + 1);
}
