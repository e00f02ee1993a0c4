//! The server put together: settings in, everything running. `serve`, the demo and the tests start it from here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::argocd::{ArgoCd, WatchedBranch};
use crate::config_repo::{ConfigRepository, EnvironmentPaths, RemoteSettings};
use crate::http::{self, ConnectionLimits, CurrentRoutes, Reloads, Routes};
use crate::registry::{Registries, install_tls_provider};
use crate::relay::{self, Branch, Environment, Following, Relay, Running, UpdateMode};
use crate::settings::{self, EnvironmentSettings, Settings};
use crate::source_repo::Sources;
use crate::store::{Retention, Store};
use crate::telemetry::{Metrics, Traces};
use crate::webhook::Receiver;

/// How long the last spans get where nothing is left of `stop_timeout`.
const LAST_SPANS: Duration = Duration::from_millis(200);

/// How long answers that are under way may take once we stop. Who waits for a promotion, or watches the stream, is cut
/// off then and can ask the next process.
const ANSWERS_TIME: Duration = Duration::from_secs(5);

/// A running server. Dropped without [`stop`](Self::stop) it ends as abruptly as a process that is killed.
pub struct Server {
    address: SocketAddr,
    operations_address: Option<SocketAddr>,
    /// Those in force.
    settings: Settings,
    relay: Relay,
    running: Running,
    /// Pipelines of earlier settings that end what they have begun.
    earlier: JoinSet<()>,
    routes: Routes,
    main: CurrentRoutes,
    operations: Option<CurrentRoutes>,
    reloads: Option<Reloads>,
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

    /// Returns the settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the pipeline.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Works by other settings from now on: all of them, or none. No request fails meanwhile, and what runs ends under the
    /// settings that it began with.
    ///
    /// # Errors
    ///
    /// What cannot be opened, as for [`start`]. The old settings stay in force then.
    pub async fn reload(&mut self, settings: Settings) -> anyhow::Result<()> {
        let old = &self.settings.fingerprint;
        let (store, metrics) = (self.relay.store().clone(), self.relay.metrics().clone());
        let branches = open_branches(&settings, &metrics, Some(self)).await?;
        let registries = if old.has_all_same(&settings.fingerprint, "[[registry]]") {
            Arc::clone(self.relay.registries())
        } else {
            Arc::new(Registries::new(settings.registries.clone())?)
        };
        let receivers = receivers(&settings)?;
        let following = follow(&settings)?;
        // From here on nothing can fail.
        expect(&metrics, &settings);
        let traces = self.relay.traces().clone();
        let images = settings.images.clone();
        let sources = if old.has_all_same(&settings.fingerprint, "[[image]]") {
            Arc::clone(self.relay.sources())
        } else {
            Arc::new(Sources::new(settings.sources.clone()))
        };
        let retention = retention(&settings);
        let (relay, running) = self.relay.start_next(relay::Parts {
            store,
            registries,
            images,
            sources,
            branches,
            following,
            metrics,
            traces,
            retention,
            catch_up: settings.catch_up,
        });
        let parts = http_parts(&settings, relay.clone(), receivers, self.reloads.clone());
        let same_bodies = self.settings.server.max_body_bytes == settings.server.max_body_bytes;
        let is_same = |receiver: &str| same_bodies && old.has_same(&settings.fingerprint, "[[receiver]]", receiver);
        self.routes = self.routes.next(parts, is_same);
        self.main.set(self.routes.main(self.operations.is_none()));
        if let Some(operations) = &self.operations {
            operations.set(self.routes.operations());
        }
        self.relay = relay;
        self.settings = settings;
        while self.earlier.try_join_next().is_some() {}
        self.earlier.spawn(std::mem::replace(&mut self.running, running).stop());
        Ok(())
    }

    /// Returns why the server cannot go on, as soon as it cannot.
    pub async fn failed(&mut self) -> String {
        tokio::select! {
            reason = self.relay.failed() => reason,
            () = self.relay.store().closed() => "the task that writes the store has ended".to_owned(),
            Some(ended) = self.listeners.join_next() => match ended {
                Ok(()) => "a listener has ended".to_owned(),
                Err(error) => format!("a listener failed: {error}"),
            },
        }
    }

    /// Accepts nothing more, lets answers and pushes that are under way end, and stops. Takes as long as `stop_timeout`
    /// says at the most.
    pub async fn stop(self) {
        let Self { relay, running, mut earlier, mut listeners, stop, settings, .. } = self;
        let (begun, limit) = (Instant::now(), settings.server.stop_timeout);
        stop.send_replace(true);
        let answers = async {
            let ended = async { while listeners.join_next().await.is_some() {} };
            if tokio::time::timeout(ANSWERS_TIME.min(limit), ended).await.is_err() {
                tracing::info!("connections that were still open are cut off");
            }
        };
        let pipeline = async {
            let ended = async {
                running.stop().await;
                while earlier.join_next().await.is_some() {}
            };
            if tokio::time::timeout(limit, ended).await.is_err() {
                tracing::warn!("the pipeline did not stop in time; what is pending goes on at the next start");
            }
        };
        tokio::join!(answers, pipeline);
        // Whoever stops us counts from the signal, too, and knows no more than `stop_timeout`.
        relay.traces().stop(limit.saturating_sub(begun.elapsed()).max(LAST_SPANS)).await;
    }
}

/// Starts everything that the settings ask for. Config repositories and registries need not be reachable. `reloads` is
/// where the API asks for the settings to be read again.
///
/// # Errors
///
/// What cannot be opened, and what to do about it: an address, the store, a mirror, a receiver.
pub async fn start(settings: Settings, reloads: Option<Reloads>) -> anyhow::Result<Server> {
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
    metrics.watch_store(&settings.store.path);
    let branches = open_branches(&settings, &metrics, None).await?;
    let following = follow(&settings)?;
    let store = Store::open(&settings.store).await?;
    let registries = Arc::new(Registries::new(settings.registries.clone())?);
    let receivers = receivers(&settings)?;
    let images = settings.images.clone();
    let retention = retention(&settings);
    let sources = Arc::new(Sources::new(settings.sources.clone()));
    let (relay, running) = Relay::start(relay::Parts {
        store,
        registries,
        images,
        sources,
        branches,
        following,
        metrics,
        traces,
        retention,
        catch_up: settings.catch_up,
    });
    let routes = Routes::new(http_parts(&settings, relay.clone(), receivers, reloads.clone()))
        .context("no HTTPS client can be made; install the system's CA certificates (Debian: ca-certificates)")?;

    let (stop, stopped) = watch::channel(false);
    let mut listeners = JoinSet::new();
    let address = main.local_addr()?;
    let operations_address = operations.as_ref().map(TcpListener::local_addr).transpose()?;
    let limits = ConnectionLimits::new(settings.server.max_connections);
    let main_routes = CurrentRoutes::new(routes.main(operations.is_none()));
    listeners.spawn(http::serve(main, main_routes.clone(), limits, stopped.clone()));
    let operations_routes = operations.map(|operations| {
        let current = CurrentRoutes::new(routes.operations());
        listeners.spawn(http::serve(operations, current.clone(), limits, stopped));
        current
    });
    Ok(Server {
        address,
        operations_address,
        settings,
        relay,
        running,
        earlier: JoinSet::new(),
        routes,
        main: main_routes,
        operations: operations_routes,
        reloads,
        listeners,
        stop,
    })
}

/// Returns how long what has ended is kept: a duplicate is known for as long as any receiver wants that.
fn retention(settings: &Settings) -> Retention {
    let windows = settings.receivers.iter().map(|receiver| receiver.duplicate_window);
    let ended = windows.fold(settings.retention.ended, Duration::max);
    Retention { ended, history: settings.retention.history.max(ended) }
}

fn receivers(settings: &Settings) -> anyhow::Result<Vec<Receiver>> {
    Ok(settings.receivers.iter().cloned().map(Receiver::new).collect::<Result<_, _>>()?)
}

fn http_parts(settings: &Settings, relay: Relay, receivers: Vec<Receiver>, reloads: Option<Reloads>) -> http::Parts {
    let (tokens, max_body_bytes) = (settings.api_tokens.clone(), settings.server.max_body_bytes);
    http::Parts { relay, receivers, tokens, max_body_bytes, reloads }
}

/// Makes what the settings name begin at zero in the metrics, so that its first trouble is an increase.
fn expect(metrics: &Metrics, settings: &Settings) {
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

/// Opens each branch. One that a running server works on goes on as it is where nothing about it has changed, and keeps
/// its mirror in any case.
async fn open_branches(
    settings: &Settings,
    metrics: &Metrics,
    running: Option<&Server>,
) -> anyhow::Result<Vec<Branch>> {
    let mut branches = Vec::new();
    for (remote, environments) in settings.remotes() {
        let (name, branch) = (remote.name.clone(), remote.branch.clone());
        let old = running.and_then(|server| {
            let old = server.relay.branches().iter().find(|old| old.repository().mirror() == remote.mirror)?;
            Some((old, is_same(server, old, settings, &remote, &environments)))
        });
        let repository = match old {
            Some((old, true)) => old.repository().clone(),
            Some((old, false)) => {
                let reopened = old.repository().reopen(remote, paths(&environments)).await;
                reopened.with_context(|| cannot_be_opened(&name, &branch))?
            }
            None => open(remote, &environments).await?,
        };
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

/// Returns whether a branch and its environments are what they were.
fn is_same(
    running: &Server,
    old: &Branch,
    settings: &Settings,
    remote: &RemoteSettings,
    environments: &[EnvironmentSettings],
) -> bool {
    let has_same = |section, name: &str| running.settings.fingerprint.has_same(&settings.fingerprint, section, name);
    let names = environments.iter().map(|environment| environment.name.as_str());
    old.repository_name() == remote.name
        && old.branch_name() == remote.branch
        && has_same("[[config_repository]]", &remote.name)
        && names.clone().eq(old.environments().iter().map(|environment| environment.name.as_str()))
        && names.clone().all(|name| has_same("[[environment]]", name))
        // They also say under which other names manifests write images.
        && running.settings.fingerprint.has_all_same(&settings.fingerprint, "[[image]]")
}

/// Opens one branch of a config repository with the environments that are on it.
pub(super) async fn open(
    remote: RemoteSettings,
    environments: &[EnvironmentSettings],
) -> anyhow::Result<ConfigRepository> {
    let (name, branch) = (remote.name.clone(), remote.branch.clone());
    let opened = ConfigRepository::open(remote, paths(environments)).await;
    opened.with_context(|| cannot_be_opened(&name, &branch))
}

fn paths(environments: &[EnvironmentSettings]) -> Vec<EnvironmentPaths> {
    environments.iter().map(EnvironmentSettings::in_repository).collect()
}

fn cannot_be_opened(name: &str, branch: &str) -> String {
    format!("config repository `{name}`, branch `{branch}`, cannot be opened")
}

/// Returns what the pipeline knows of an environment.
fn environment(settings: EnvironmentSettings) -> Environment {
    let mode = match settings.update {
        settings::UpdateMode::Automatic => UpdateMode::Automatic,
        settings::UpdateMode::Manual => UpdateMode::Manual,
    };
    let EnvironmentSettings { name, promote_from, soak, freezes, .. } = settings;
    Environment { name, mode, promote_from, soak, freezes }
}
