//! The server put together: settings in, everything running. `serve`, the demo and the tests start it from here.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::argocd::{ArgoCd, WatchedBranch};
use crate::config_repo::{ConfigRepository, EnvironmentPaths, RemoteSettings};
use crate::http::{self, ConnectionLimits, Routes};
use crate::registry::{Registries, install_tls_provider};
use crate::relay::{self, Branch, Environment, Following, Relay, Running, UpdateMode};
use crate::settings::{EnvironmentSettings, Settings, Update};
use crate::source_repo::Sources;
use crate::store::Store;
use crate::telemetry::{Metrics, Traces};
use crate::webhook::Receiver;

/// How long answers that are under way may take once we stop. Who waits for a promotion, or watches the stream, is cut
/// off then and can ask the next process.
const ANSWERS_TIME: Duration = Duration::from_secs(5);

/// How long the pipeline may take to reach a place where it is safe to stop, such as the end of a push.
const PIPELINE_TIME: Duration = Duration::from_secs(20);

/// A running server. Dropped without [`stop`](Self::stop) it ends as abruptly as a process that is killed.
pub struct Server {
    address: SocketAddr,
    operations_address: Option<SocketAddr>,
    relay: Relay,
    running: Running,
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Returns where webhooks and the API are served; the port is the real one where the settings say 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where metrics are served, if that is an address of its own.
    pub fn operations_address(&self) -> Option<SocketAddr> {
        self.operations_address
    }

    /// Returns the pipeline.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Accepts nothing more, lets answers and pushes that are under way end, and stops. Takes 25 seconds at the most.
    pub async fn stop(self) {
        let Self { relay, running, mut listeners, stop, .. } = self;
        stop.send_replace(true);
        let answers = async {
            let ended = async { while listeners.join_next().await.is_some() {} };
            if tokio::time::timeout(ANSWERS_TIME, ended).await.is_err() {
                tracing::info!("connections that were still open are cut off");
            }
        };
        let pipeline = async {
            if tokio::time::timeout(PIPELINE_TIME, running.stop()).await.is_err() {
                tracing::warn!("the pipeline did not stop in time; what is pending goes on at the next start");
            }
        };
        tokio::join!(answers, pipeline);
        relay.traces().stop().await;
    }
}

/// Starts everything that the settings ask for. Config repositories and registries need not be reachable.
///
/// # Errors
///
/// What cannot be opened, and what to do about it: an address, the store, a mirror, a receiver.
pub async fn start(settings: Settings) -> anyhow::Result<Server> {
    install_tls_provider();
    // First of all: a second process for the same store ends here, before it touches anything.
    let main = bind(settings.server.listen, "listen").await?;
    let operations = match settings.server.operations_listen {
        Some(address) => Some(bind(address, "operations_listen").await?),
        None => None,
    };
    // What cannot be traced can still be done.
    let traces = Traces::from_environment().unwrap_or_else(|error| {
        tracing::error!(%error, "going on without");
        Traces::off()
    });
    let metrics = Metrics::new();
    expect(&metrics, &settings);
    let branches = open_branches(&settings, &metrics).await?;
    let following = follow(&settings)?;
    let store = Store::open(&settings.store).await?;
    let registries = Registries::new(settings.registries)?;
    let receivers = settings.receivers.into_iter().map(Receiver::new).collect::<Result<Vec<_>, _>>()?;
    let sources = Sources::new(settings.sources);
    let parts =
        relay::Parts { store, registries, images: settings.images, sources, branches, following, metrics, traces };
    let (relay, running) = Relay::start(parts);
    let routes = Routes::new(http::Parts {
        relay: relay.clone(),
        receivers,
        tokens: settings.api_tokens,
        max_body_bytes: settings.server.max_body_bytes,
    })
    .context("no HTTPS client can be made; install the system's CA certificates (Debian: ca-certificates)")?;

    let (stop, stopped) = watch::channel(false);
    let mut listeners = JoinSet::new();
    let address = main.local_addr()?;
    let operations_address = operations.as_ref().map(TcpListener::local_addr).transpose()?;
    let limits = ConnectionLimits::new(settings.server.max_connections);
    listeners.spawn(http::serve(main, routes.main(operations.is_none()), limits, stopped.clone()));
    if let Some(operations) = operations {
        listeners.spawn(http::serve(operations, routes.operations(), limits, stopped));
    }
    Ok(Server { address, operations_address, relay, running, listeners, stop })
}

/// Makes what the settings name begin at zero in the metrics, so that its first trouble is an increase.
fn expect(metrics: &Metrics, settings: &Settings) {
    metrics.watch_store(&settings.store.path);
    settings.receivers.iter().for_each(|receiver| metrics.expect_receiver(&receiver.name));
    settings.environments.iter().for_each(|environment| metrics.expect_environment(&environment.name));
    if settings.argocd.is_some() {
        metrics.expect_argocd(settings.environments.iter().map(|environment| environment.name.as_str()));
    }
    let named = settings.registries.iter().map(|registry| registry.host.as_str());
    // The first component of a pattern is its registry, unless it has wildcards.
    let managed = settings.images.iter().filter_map(|rule| rule.pattern.as_str().split('/').next());
    let hosts = named.chain(managed).filter(|host| !host.contains(['*', '?', '[', '{']));
    hosts.for_each(|host| metrics.expect_registry(host));
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what listens there, or set `{key}` in [server] to another address")
    })
}

async fn open_branches(settings: &Settings, metrics: &Metrics) -> anyhow::Result<Vec<Branch>> {
    let mut branches = Vec::new();
    for (remote, environments) in settings.remotes() {
        let (name, branch) = (remote.name.clone(), remote.branch.clone());
        let repository = open(remote, &environments).await?;
        let environments = environments.into_iter().map(environment).collect();
        let writing = settings.writing_of(&name);
        branches.push(Branch::new(repository, name, branch, environments, writing, metrics.clone()));
    }
    Ok(branches)
}

/// Returns the Argo CD of the settings, with what of it belongs to which environment.
pub(super) fn follow(settings: &Settings) -> anyhow::Result<Option<Following>> {
    let Some(argocd) = &settings.argocd else { return Ok(None) };
    let branches = settings.remotes().into_iter().map(|(remote, _)| watched_branch(settings, remote)).collect();
    let selections = settings.environments.iter();
    let selections =
        selections.map(|environment| (environment.name.clone(), environment.applications.clone())).collect();
    Ok(Some(Following::new(ArgoCd::new(argocd.clone())?, branches, selections)))
}

/// Returns a branch as Argo CD knows it.
pub(super) fn watched_branch(settings: &Settings, remote: RemoteSettings) -> WatchedBranch {
    let repository = settings.config_repositories.iter().find(|repository| repository.name == remote.name);
    WatchedBranch {
        repository: repository.and_then(|found| found.argocd_url.clone()).unwrap_or(remote.url),
        is_default: repository.is_some_and(|found| found.branch == remote.branch),
        branch: remote.branch,
    }
}

/// Opens one branch of a config repository with the environments that are on it.
pub(super) async fn open(
    remote: RemoteSettings,
    environments: &[EnvironmentSettings],
) -> anyhow::Result<ConfigRepository> {
    let (name, branch) = (remote.name.clone(), remote.branch.clone());
    let paths = environments.iter().map(|environment| EnvironmentPaths {
        name: environment.name.clone(),
        paths: environment.paths.clone(),
        manifests: environment.manifests.clone(),
    });
    ConfigRepository::open(remote, paths.collect())
        .await
        .with_context(|| format!("config repository `{name}`, branch `{branch}`, cannot be opened"))
}

/// Returns what the pipeline knows of an environment.
fn environment(settings: EnvironmentSettings) -> Environment {
    let mode = match settings.update {
        Update::Automatic => UpdateMode::Automatic,
        Update::Manual => UpdateMode::Manual,
    };
    Environment { name: settings.name, mode, promote_from: settings.promote_from, soak: settings.soak }
}
