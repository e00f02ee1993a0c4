//! The routes: webhooks, the API, health and metrics.
//!
//! Handlers turn requests into calls of `relay`, and the results into the wire types of `api`; they decide nothing. Bodies are
//! bounded before they are read, credentials are compared in constant time, and the log never contains a query.
//!
//! In reading order: `connections` with `tls`, `detach`, `access_log`, `trace`, `well_formed` (layers, from the outside in), `webhooks` with `gate` and
//! `bodies`, `auth`, `api`, `operations`, `problem`.

mod access_log;
mod api;
mod auth;
mod bodies;
mod connections;
mod detach;
mod gate;
mod operations;
mod problem;
mod slots;
mod tls;
mod trace;
mod webhooks;
mod well_formed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

pub use api::{ReloadRequest, Reloads, document};
pub use connections::{ConnectionLimits, serve};
pub use tls::{Tls, TlsError};

use api::OpenStreams;
use detach::Orphans;
use gate::Gate;

use crate::access::ApiToken;
use crate::api::Problem;
use crate::relay::Relay;
use tagrelay_webhook::Receiver;

/// The dependencies of the routes.
pub struct Parts {
    pub relay: Relay,
    pub receivers: Vec<Receiver>,
    /// The tokens of the API.
    pub tokens: Vec<ApiToken>,
    /// The size of the largest accepted body, in bytes.
    pub max_body_bytes: usize,
    /// Receives the API's requests to reload the settings; `None`: they were not read from a file.
    pub reloads: Option<Reloads>,
    /// Becomes true when the server stops.
    pub stopped: watch::Receiver<bool>,
}

/// The state that every handler gets.
#[derive(Clone)]
struct App(Arc<Inner>);

struct Inner {
    relay: Relay,
    receivers: BTreeMap<String, Arc<Gate>>,
    /// A task will store the last requests of the receivers soon.
    storing_last: AtomicBool,
    /// The tokens in force. A reload replaces them for open streams, too.
    tokens: Arc<watch::Sender<Vec<Arc<ApiToken>>>>,
    streams: OpenStreams,
    max_body_bytes: usize,
    /// Fetches certificates and keys, and confirms subscriptions, if a sender asks for it.
    errands: reqwest::Client,
    reloads: Option<Reloads>,
    /// Every config repository has been read once. A reload that adds one does not reset this.
    has_been_ready: Arc<AtomicBool>,
    orphans: Orphans,
    stopped: watch::Receiver<bool>,
}

impl App {
    /// Returns when the server stops: an answer that waits for news is given then.
    async fn stopped(self) {
        // An error means that the sender was dropped, so the server is gone.
        let _ = self.0.stopped.clone().wait_for(|stop| *stop).await;
    }
}

/// The routes, ready to be served.
pub struct Routes {
    app: App,
}

impl Routes {
    /// # Errors
    ///
    /// If the HTTP client cannot be built, for instance because the system's certificates cannot be read.
    pub fn new(parts: Parts) -> Result<Self, reqwest::Error> {
        let errands = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .https_only(true)
            .build()?;
        let gates = parts
            .receivers
            .iter()
            .map(|receiver| Arc::new(Gate::new(receiver.clone(), parts.max_body_bytes)))
            .collect();
        let (has_been_ready, orphans) = Default::default();
        let kept = Kept { has_been_ready, orphans, tokens: Arc::default(), streams: OpenStreams::default() };
        Ok(Self::join(parts, gates, errands, kept))
    }

    /// Returns the routes after a reload. Receivers for which `is_same` returns true are kept with their limits; all keep
    /// their last request.
    pub fn next(&self, parts: Parts, is_same: impl Fn(&str) -> bool) -> Self {
        let gate = |receiver: &Receiver| match self.app.0.receivers.get(receiver.name()) {
            Some(old) if is_same(receiver.name()) => Arc::clone(old),
            Some(old) => Arc::new(old.next(receiver.clone(), parts.max_body_bytes)),
            None => Arc::new(Gate::new(receiver.clone(), parts.max_body_bytes)),
        };
        let gates = parts.receivers.iter().map(gate).collect();
        let old = &self.app.0;
        let has_been_ready = Arc::clone(&old.has_been_ready);
        let (orphans, streams) = (old.orphans.clone(), old.streams.clone());
        let kept = Kept { has_been_ready, orphans, tokens: Arc::clone(&old.tokens), streams };
        Self::join(parts, gates, old.errands.clone(), kept)
    }

    fn join(parts: Parts, gates: Vec<Arc<Gate>>, errands: reqwest::Client, kept: Kept) -> Self {
        let Kept { has_been_ready, orphans, tokens, streams } = kept;
        tokens.send_replace(parts.tokens.into_iter().map(Arc::new).collect());
        let Parts { relay, max_body_bytes, reloads, stopped, .. } = parts;
        let receivers = gates.into_iter().map(|gate| (gate.receiver.name().to_owned(), gate)).collect();
        let storing_last = AtomicBool::new(false);
        let inner = Inner {
            relay,
            receivers,
            storing_last,
            tokens,
            streams,
            max_body_bytes,
            errands,
            reloads,
            has_been_ready,
            orphans,
            stopped,
        };
        Self { app: App(Arc::new(inner)) }
    }

    /// Returns the routes of the main address, with `/metrics` if `with_metrics`.
    pub fn main(&self, with_metrics: bool) -> Router {
        let mut router = Router::new()
            .route("/", get(operations::front_page))
            .merge(webhooks::routes())
            .nest("/api/v1", api::routes(self.app.clone()))
            .merge(operations::health_routes());
        if with_metrics {
            router = router.route("/metrics", get(operations::metrics));
        }
        finish(router, &self.app)
    }

    /// Returns the names of the receivers.
    pub fn receivers(&self) -> Arc<BTreeSet<String>> {
        Arc::new(self.app.0.receivers.keys().cloned().collect())
    }

    /// Returns the routes of the address for operations: health and `/metrics`.
    pub fn operations(&self) -> Router {
        finish(operations::health_routes().route("/metrics", get(operations::metrics)), &self.app)
    }
}

/// What the routes take over at a reload.
struct Kept {
    has_been_ready: Arc<AtomicBool>,
    orphans: Orphans,
    tokens: Arc<watch::Sender<Vec<Arc<ApiToken>>>>,
    streams: OpenStreams,
}

/// The routes in force. Clones share them.
#[derive(Clone)]
pub struct CurrentRoutes(Arc<RwLock<(Router, Arc<BTreeSet<String>>)>>);

impl CurrentRoutes {
    /// `receivers`: the names in `/webhooks/NAME`.
    pub fn new(routes: Router, receivers: Arc<BTreeSet<String>>) -> Self {
        Self(Arc::new(RwLock::new((routes, receivers))))
    }

    /// Replaces the routes. Running requests finish with the old ones.
    pub fn set(&self, routes: Router, receivers: Arc<BTreeSet<String>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (routes, receivers);
    }

    fn get(&self) -> (Router, Arc<BTreeSet<String>>) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn finish(router: Router<App>, app: &App) -> Router {
    router
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn(well_formed::check))
        .layer(axum::middleware::from_fn_with_state(app.clone(), trace::trace))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(axum::middleware::from_fn(access_log::log))
        .layer(axum::middleware::from_fn_with_state(app.0.orphans.clone(), detach::detach))
        .with_state(app.clone())
}
