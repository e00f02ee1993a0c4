//! The routes: webhooks in, the API, and what operations needs.
//!
//! Handlers turn requests into calls of `relay` and its answers into JSON; they decide nothing. Bodies are
//! bounded before they are read, credentials are compared in constant time, and no access log shows a query.

mod access_log;
mod api;
mod auth;
mod bodies;
mod connections;
mod gate;
mod operations;
mod problem;
mod trace;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

pub use api::document;
pub use connections::{ConnectionLimits, serve};
pub use problem::Problem;

use gate::Gate;

use crate::relay::Relay;
use crate::settings::ApiTokenSettings;
use crate::webhook::Receiver;

/// What the routes are made of.
pub struct Parts {
    /// The pipeline.
    pub relay: Relay,
    /// Who may send webhooks.
    pub receivers: Vec<Receiver>,
    /// Who may use the API.
    pub tokens: Vec<ApiTokenSettings>,
    /// The largest body that is read, in bytes.
    pub max_body_bytes: usize,
}

/// What every handler sees.
#[derive(Clone)]
struct App(Arc<Inner>);

struct Inner {
    relay: Relay,
    receivers: BTreeMap<String, Gate>,
    /// A write of what receivers have heard is on its way.
    keeping_heard: AtomicBool,
    tokens: Vec<ApiTokenSettings>,
    max_body_bytes: usize,
    /// For what a sender wants to be fetched: a certificate, or a visit that confirms a subscription.
    errands: reqwest::Client,
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
        let Parts { relay, receivers, tokens, max_body_bytes } = parts;
        let errands = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .https_only(true)
            .build()?;
        let gate = |receiver: Receiver| (receiver.name().to_owned(), Gate::new(receiver, max_body_bytes));
        let receivers = receivers.into_iter().map(gate).collect();
        let keeping_heard = AtomicBool::new(false);
        let inner = Inner { relay, receivers, keeping_heard, tokens, max_body_bytes, errands };
        Ok(Self { app: App(Arc::new(inner)) })
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

fn finish(router: Router<App>, app: &App) -> Router {
    router
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), trace::trace))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(axum::middleware::from_fn(access_log::log))
        .with_state(app.clone())
}
