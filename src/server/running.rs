//! The running server: start, reload, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::parts::{begin_metrics, following, http_parts, open_branches, open_registries, receivers, retention};
use crate::http::{self, ConnectionLimits, CurrentRoutes, Reloads, Routes};
use crate::registry::install_tls_provider;
use crate::relay::{self, Relay, Running};
use crate::settings::Settings;
use crate::source_repo::Sources;
use crate::store::Store;
use crate::telemetry::{Metrics, Traces};

/// The minimum time to export the last spans, even if `stop_timeout` is over.
const LAST_SPANS: Duration = Duration::from_millis(200);

/// How long open requests may take after the server is told to stop.
///
/// Longer requests, such as the stream, are aborted; their clients can reconnect to the next process.
const ANSWERS_TIME: Duration = Duration::from_secs(5);

/// A running server. Dropping it without [`stop`](Self::stop) ends it as abruptly as killing the process.
pub struct Server {
    address: SocketAddr,
    operations_address: Option<SocketAddr>,
    /// The current settings.
    settings: Settings,
    relay: Relay,
    /// The tasks of the current generation; `None` only while a reload replaces them.
    running: Option<Running>,
    routes: Routes,
    main: CurrentRoutes,
    operations: Option<CurrentRoutes>,
    reloads: Option<Reloads>,
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Returns the address of webhooks and API, with the real port if the settings say 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of metrics; `None`: metrics have no separate address.
    pub fn operations_address(&self) -> Option<SocketAddr> {
        self.operations_address
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Applies new settings, all or none.
    ///
    /// The tasks of the old generation are drained first. Listeners stay up: webhooks and requests are stored, and the next
    /// generation finds them.
    ///
    /// # Errors
    ///
    /// The errors of [`start`]. The old settings then stay in use.
    pub async fn reload(&mut self, settings: Settings) -> anyhow::Result<()> {
        let old = &self.settings.fingerprint;
        let (store, metrics) = (self.relay.store().clone(), self.relay.metrics().clone());
        let branches = open_branches(&settings, &metrics, Some((&self.relay, &self.settings))).await?;
        let same = |section| old.has_all_same(&settings.fingerprint, section);
        let registries = if same("[[registry]]") && same("[registries]") {
            Arc::clone(self.relay.registries())
        } else {
            open_registries(&settings)?
        };
        let receivers = receivers(&settings)?;
        let following = following(&settings)?;
        // From here on, no step can fail.
        begin_metrics(&metrics, &settings);
        let traces = self.relay.traces().clone();
        let images = settings.images.clone();
        let sources = if old.has_all_same(&settings.fingerprint, "[[image]]") {
            Arc::clone(self.relay.sources())
        } else {
            Arc::new(Sources::new(settings.sources.clone()))
        };
        let retention = retention(&settings);
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
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
        let parts = http_parts(&settings, relay.clone(), receivers, self.reloads.clone(), self.stop.subscribe());
        let same_bodies = self.settings.server.max_body_bytes == settings.server.max_body_bytes;
        let is_same = |receiver: &str| same_bodies && old.has_same(&settings.fingerprint, "[[receiver]]", receiver);
        self.routes = self.routes.next(parts, is_same);
        self.main.set(self.routes.main(self.operations.is_none()), self.routes.receivers());
        if let Some(operations) = &self.operations {
            operations.set(self.routes.operations(), Arc::default());
        }
        self.relay = relay;
        self.running = Some(running);
        self.settings = settings;
        Ok(())
    }

    /// Waits until the server cannot continue, and returns the reason.
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

    /// Closes the listeners, lets open requests and running pushes finish, and stops. Takes at most `stop_timeout`.
    pub async fn stop(self) {
        let Self { relay, running, mut listeners, stop, settings, .. } = self;
        let (begun, limit) = (Instant::now(), settings.server.stop_timeout);
        stop.send_replace(true);
        let answers = async {
            let ended = async { while listeners.join_next().await.is_some() {} };
            if tokio::time::timeout(ANSWERS_TIME.min(limit), ended).await.is_err() {
                tracing::info!("open connections are closed");
            }
        };
        let pipeline = async {
            let ended = async {
                if let Some(running) = running {
                    running.stop().await;
                }
            };
            if tokio::time::timeout(limit, ended).await.is_err() {
                tracing::warn!(
                    "the pipeline did not stop within stop_timeout; pending updates continue at the next start"
                );
            }
        };
        tokio::join!(answers, pipeline);
        // `stop_timeout` counts from the signal.
        relay.traces().stop(limit.saturating_sub(begun.elapsed()).max(LAST_SPANS)).await;
    }
}

/// Starts the daemon. `reloads` receives the API's requests to reload the settings.
///
/// Config repositories and registries need not be reachable.
///
/// # Errors
///
/// If an address, the store, a mirror or a receiver cannot be opened.
pub async fn start(settings: Settings, reloads: Option<Reloads>) -> anyhow::Result<Server> {
    install_tls_provider();
    // First, because a second process for the same store must end here, before it makes a change.
    let main = bind(settings.server.listen, "listen").await?;
    let operations = match settings.server.operations_listen {
        Some(address) => Some(bind(address, "operations_listen").await?),
        None => None,
    };
    // Tracing is optional, so an error does not stop the daemon.
    let traces = Traces::from_environment().unwrap_or_else(|error| {
        tracing::error!(%error, "traces are off");
        Traces::off()
    });
    let metrics = Metrics::new();
    begin_metrics(&metrics, &settings);
    metrics.watch_store(&settings.store.path);
    let branches = open_branches(&settings, &metrics, None).await?;
    let following = following(&settings)?;
    let store = Store::open(&settings.store).await?;
    let registries = open_registries(&settings)?;
    let receivers = receivers(&settings)?;
    let images = settings.images.clone();
    let retention = retention(&settings);
    let sources = Arc::new(Sources::new(settings.sources.clone()));
    // Before the intake starts: a failed start must not count as a start of its work.
    let tls = settings.server.tls.clone().map(|tls| http::Tls::load(tls.certificate, tls.key)).transpose();
    let tls = tls.context("[server] tls cannot be used")?;
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
    let (stop, stopped) = watch::channel(false);
    let routes = Routes::new(http_parts(&settings, relay.clone(), receivers, reloads.clone(), stopped.clone()))
        .context("no HTTPS client can be made; install the system's CA certificates (Debian: ca-certificates)")?;

    let mut listeners = JoinSet::new();
    let address = main.local_addr()?;
    let operations_address = operations.as_ref().map(TcpListener::local_addr).transpose()?;
    let limits = ConnectionLimits::new(settings.server.max_connections);
    let main_routes = CurrentRoutes::new(routes.main(operations.is_none()), routes.receivers());
    listeners.spawn(http::serve(main, main_routes.clone(), limits, tls, stopped.clone()));
    let operations_routes = operations.map(|operations| {
        let current = CurrentRoutes::new(routes.operations(), Arc::default());
        listeners.spawn(http::serve(operations, current.clone(), limits, None, stopped));
        current
    });
    Ok(Server {
        address,
        operations_address,
        settings,
        relay,
        running: Some(running),
        routes,
        main: main_routes,
        operations: operations_routes,
        reloads,
        listeners,
        stop,
    })
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what listens there, or set `{key}` in [server] to another address")
    })
}
