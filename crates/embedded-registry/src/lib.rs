//! A small OCI registry in memory, for the demo and for tests.
//!
//! Implements pushing, pulling and tag lists of the distribution API
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md>), and sends notifications like CNCF
//! Distribution. Its content is lost when it stops.
//!
//! - `storage.rs` stores and validates blobs, manifests and tags;
//! - `blobs.rs`, `manifests.rs`, `tags.rs`: the routes; `problem.rs`: their errors;
//! - `notify.rs` sends notifications in order, with retries;
//! - `push.rs` pushes small images to any registry.

#![warn(unreachable_pub)]

mod blobs;
mod manifests;
mod notify;
mod problem;
pub mod push;
mod storage;
mod tags;
mod target;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use http::{HeaderMap, HeaderValue, Method};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use notify::NotifyEndpoint;

use notify::{Notifier, Pushed};
use problem::Problem;
use storage::Storage;
use target::Target;

/// Limit of a blob, in bytes. Blobs are held in memory.
const MAX_BLOB_BYTES: usize = 64 << 20;

/// The limit of the distribution specification.
const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// Time for running requests to end when the registry stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running registry. It stops on drop.
#[derive(Debug)]
pub struct EmbeddedRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
    notifier: Option<JoinHandle<()>>,
}

impl EmbeddedRegistry {
    /// Starts a registry on `listen` (port 0: any free port) that notifies `notify` of every push.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub async fn start(listen: SocketAddr, notify: Option<NotifyEndpoint>) -> anyhow::Result<Self> {
        Self::start_behind(listen, notify, |routes| routes).await
    }

    /// Starts a registry with its routes wrapped by `front`, for authentication, request logs or faults.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub async fn start_behind(
        listen: SocketAddr,
        notify: Option<NotifyEndpoint>,
        front: impl FnOnce(Router) -> Router,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("The registry cannot listen on {listen}"))?;
        let address = listener.local_addr().context("Failed to ask for the registry's own address")?;
        let shared = Arc::new(Shared { storage: Mutex::default(), notifier: OnceLock::new() });
        let routes = front(routes(Arc::clone(&shared)));
        let mut registry = Self { address, shared, stop: None, server: None, notifier: None };
        if let Some(endpoint) = notify {
            registry.notify(endpoint)?;
        }
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let service = routes.into_make_service_with_connect_info::<SocketAddr>();
            // An error of the receiver means that the registry was dropped, so stop.
            let serving = axum::serve(listener, service).with_graceful_shutdown(async { drop(stopped.await) });
            if let Err(error) = serving.await {
                tracing::error!(%address, %error, "the embedded registry stopped");
            }
        });
        registry.stop = Some(stop);
        registry.server = Some(server);
        Ok(registry)
    }

    /// Notifies `endpoint` of every push from now on.
    ///
    /// # Errors
    ///
    /// If there is an endpoint already.
    pub fn notify(&mut self, endpoint: NotifyEndpoint) -> anyhow::Result<()> {
        let (notifier, task) = Notifier::start(endpoint, self.address)?;
        if self.shared.notifier.set(notifier).is_err() {
            task.abort();
            anyhow::bail!("The registry notifies another endpoint already");
        }
        self.notifier = Some(task);
        Ok(())
    }

    /// Returns the listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the host for image references: `127.0.0.1:41873`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Stops the registry and waits at most five seconds for running requests. Unsent notifications are lost.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            let abort = server.abort_handle();
            if tokio::time::timeout(STOP_LIMIT, server).await.is_err() {
                abort.abort();
            }
        }
    }
}

impl Drop for EmbeddedRegistry {
    fn drop(&mut self) {
        // The server ends after its sender is dropped. `drop` cannot wait for it.
        drop(self.stop.take());
        if let Some(notifier) = self.notifier.take() {
            notifier.abort();
        }
    }
}

/// State shared by the routes.
struct Shared {
    storage: Mutex<Storage>,
    notifier: OnceLock<Notifier>,
}

/// Omits the stored content.
impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Never held across an `await`.
    fn storage(&self) -> MutexGuard<'_, Storage> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, asked: &Asked, pushed: Pushed<'_>) {
        if let Some(notifier) = self.notifier.get() {
            notifier.pushed(asked, pushed);
        }
    }
}

/// A request without its body.
struct Asked {
    method: Method,
    from: SocketAddr,
    query: String,
    headers: HeaderMap,
}

impl Asked {
    /// Returns the parameter `name` of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the host that the client used.
    fn host(&self) -> &str {
        self.header(http::header::HOST).unwrap_or_default()
    }
}

fn routes(shared: Arc<Shared>) -> Router {
    let base = get(async || with_version(axum::Json(serde_json::json!({})).into_response()));
    Router::new()
        .route("/v2/", base.clone())
        .route("/v2", base)
        .route("/v2/{*place}", any(dispatch))
        // Each route has its own limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

async fn dispatch(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    method: Method,
    Path(place): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let asked = Asked { method, from, query: query.unwrap_or_default(), headers };
    let answer = match Target::parse(&place) {
        Ok(Target::Manifest { repository, reference }) => {
            manifests::answer(&shared, &asked, &repository, &reference, body).await
        }
        Ok(Target::Blob { repository, digest }) => blobs::answer(&shared, &asked, &repository, &digest),
        Ok(Target::Uploads { repository }) => blobs::begin(&shared, &asked, &repository, body).await,
        Ok(Target::Upload { repository, id }) => blobs::resume(&shared, &asked, &repository, &id, body).await,
        Ok(Target::Tags { repository }) => tags::answer(&shared, &asked, &repository),
        Err(problem) => Err(problem),
    };
    with_version(answer.unwrap_or_else(Problem::into_response))
}

fn with_version(mut response: Response) -> Response {
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn read(body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    axum::body::to_bytes(body, max_bytes).await.map_err(|error| Problem::unreadable_body(&error, max_bytes))
}
