//! The routes: webhooks in, the API, and what operations needs.
//!
//! Handlers turn requests into calls of `relay` and its answers into JSON; they decide nothing. Bodies are
//! bounded before they are read, credentials are compared in constant time, and no access log shows a query.

mod access_log;
mod api;
mod auth;
mod bodies;
mod connections;
mod detach;
mod gate;
mod operations;
mod problem;
mod trace;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

pub use api::{ReloadRequest, Reloads, document};
pub use connections::{ConnectionLimits, serve};

use detach::Orphans;
use gate::Gate;

use crate::access::ApiToken;
use crate::api::Problem;
use crate::relay::Relay;
use crate::webhook::Receiver;

/// What the routes are made of.
pub struct Parts {
    /// The pipeline.
    pub relay: Relay,
    /// Who may send webhooks.
    pub receivers: Vec<Receiver>,
    /// Who may use the API.
    pub tokens: Vec<ApiToken>,
    /// The largest body that is read, in bytes.
    pub max_body_bytes: usize,
    /// Who reads the settings again when the API is asked to; `None`: nobody.
    pub reloads: Option<Reloads>,
}

/// What every handler sees.
#[derive(Clone)]
struct App(Arc<Inner>);

struct Inner {
    relay: Relay,
    receivers: BTreeMap<String, Arc<Gate>>,
    /// A write of what receivers have heard is on its way.
    keeping_heard: AtomicBool,
    tokens: Vec<Arc<ApiToken>>,
    max_body_bytes: usize,
    /// For what a sender wants to be fetched: a certificate, or a visit that confirms a subscription.
    errands: reqwest::Client,
    reloads: Option<Reloads>,
    /// Every config repository has been read at least once. One that comes with later settings does not change that.
    has_been_ready: Arc<AtomicBool>,
    orphans: Orphans,
}

/// The routes, ready to be served.
pub struct Routes {
    app: App,
}

impl Routes {
    /// Joins the parts.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made, for instance because the system's certificates cannot be read.
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
        Ok(Self::join(parts, gates, errands, (Arc::default(), Orphans::default())))
    }

    /// Joins the parts to routes that take the place of these. Receivers of which `is_same` says that their settings have
    /// not changed go on as they are, and all keep what they have heard.
    pub fn next(&self, parts: Parts, is_same: impl Fn(&str) -> bool) -> Self {
        let gate = |receiver: &Receiver| match self.app.0.receivers.get(receiver.name()) {
            Some(old) if is_same(receiver.name()) => Arc::clone(old),
            Some(old) => Arc::new(old.next(receiver.clone(), parts.max_body_bytes)),
            None => Arc::new(Gate::new(receiver.clone(), parts.max_body_bytes)),
        };
        let gates = parts.receivers.iter().map(gate).collect();
        let old = &self.app.0;
        let kept = (Arc::clone(&old.has_been_ready), old.orphans.clone());
        Self::join(parts, gates, old.errands.clone(), kept)
    }

    fn join(parts: Parts, gates: Vec<Arc<Gate>>, errands: reqwest::Client, kept: (Arc<AtomicBool>, Orphans)) -> Self {
        let (has_been_ready, orphans) = kept;
        let Parts { relay, receivers: _, tokens, max_body_bytes, reloads } = parts;
        let receivers = gates.into_iter().map(|gate| (gate.receiver.name().to_owned(), gate)).collect();
        let tokens = tokens.into_iter().map(Arc::new).collect();
        let keeping_heard = AtomicBool::new(false);
        let inner = Inner {
            relay,
            receivers,
            keeping_heard,
            tokens,
            max_body_bytes,
            errands,
            reloads,
            has_been_ready,
            orphans,
        };
        Self { app: App(Arc::new(inner)) }
    }

    /// Returns the routes of the main address. With `with_metrics`, `/metrics` is among them.
    pub fn main(&self, with_metrics: bool) -> Router {
        let mut router = Router::new()
            .merge(webhooks::routes())
            .nest("/api/v1", api::routes(self.app.clone()))
            .merge(operations::health_routes());
        if with_metrics {
            router = router.route("/metrics", get(operations::metrics));
        }
        finish(router, &self.app)
    }

    /// Returns the routes of the address for operations: health and `/metrics`.
    pub fn operations(&self) -> Router {
        finish(operations::health_routes().route("/metrics", get(operations::metrics)), &self.app)
    }
}

/// The routes that answer now. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct CurrentRoutes(Arc<RwLock<Router>>);

impl CurrentRoutes {
    /// Begins with these.
    pub fn new(routes: Router) -> Self {
        Self(Arc::new(RwLock::new(routes)))
    }

    /// Answers requests that come from now on with these. Those that are being answered go on with the old ones.
    pub fn set(&self, routes: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    fn get(&self) -> Router {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn finish(router: Router<App>, app: &App) -> Router {
    router
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), trace::trace))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(axum::middleware::from_fn(access_log::log))
        .layer(axum::middleware::from_fn_with_state(app.0.orphans.clone(), detach::detach))
        .with_state(app.clone())
}
