//! A fake Argo CD in memory: its webhook and the part of its API that Tagrelay uses, with answers shaped like its published
//! API (`assets/swagger.json` of argoproj/argo-cd).
//!
//! A refresh compares an application with the tip of the branch, like the real controller. The test decides the result of a
//! sync.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

pub const TOKEN: &str = "argocd-token-2b7e";

/// An application and the result of its next sync.
#[derive(Debug, Clone)]
pub struct App {
    pub namespace: String,
    pub project: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// `spec.source` or `spec.sources`.
    pub spec: Value,
    pub sync: String,
    pub health: String,
    pub message: String,
    /// Why the last sync failed; empty if it succeeded.
    pub failed_sync: String,
    pub revision: String,
    /// `lastTransitionTime` of the health and `finishedAt` of the last sync, if the server reports them.
    pub times: (Value, Value),
    /// The source cannot be read, so a refresh changes nothing.
    pub is_stuck: bool,
    /// The states after the next refresh, one for each request.
    pub script: Vec<(&'static str, &'static str)>,
    steps: Vec<(&'static str, &'static str)>,
}

#[derive(Default)]
struct Inside {
    apps: BTreeMap<String, App>,
    upstream: Option<PathBuf>,
    /// Method, path and query of each authenticated request.
    requests: Vec<String>,
    traceparents: Vec<String>,
    webhooks: Vec<(HeaderMap, String)>,
    webhook_secret: Option<String>,
    is_away: bool,
    is_stalled: bool,
}

#[derive(Clone)]
pub struct FakeArgoCd {
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

impl FakeArgoCd {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { address: listener.local_addr().unwrap(), inside: Arc::default() };
        let routes = Router::new()
            .route("/api/version", get(version))
            .route("/api/v1/applications", get(list))
            .route("/api/v1/applications/{name}", get(show))
            .route("/api/webhook", post(webhook))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The settings for this server, with its token.
    pub fn settings(&self) -> String {
        format!("\n[argocd]\nurl = \"{}\"\ntoken = {{ value = \"{TOKEN}\" }}\n", self.url())
    }

    /// Adds an application that reads a folder of the branch `main`, Synced and Healthy.
    pub fn add(&self, name: &str, repository: &str, path: &str) {
        let app = App {
            namespace: "argocd".to_owned(),
            project: "platform".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: json!({"source": {"repoURL": repository, "path": path, "targetRevision": "main"}}),
            sync: "Synced".to_owned(),
            health: "Healthy".to_owned(),
            message: String::new(),
            failed_sync: String::new(),
            revision: "0".repeat(40),
            times: (Value::Null, Value::Null),
            is_stuck: false,
            script: vec![("OutOfSync", "Healthy"), ("Synced", "Progressing"), ("Synced", "Healthy")],
            steps: Vec::new(),
        };
        self.inside.lock().unwrap().apps.insert(name.to_owned(), app);
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut App)) {
        change(self.inside.lock().unwrap().apps.get_mut(name).unwrap());
    }

    /// Makes the branch readable. Readable applications are compared with the tip.
    pub fn reads(&self, upstream: PathBuf) {
        let mut inside = self.inside.lock().unwrap();
        let tip = tip(upstream.clone());
        inside.apps.values_mut().filter(|app| !app.is_stuck).for_each(|app| app.revision = tip.clone());
        inside.upstream = Some(upstream);
    }

    pub fn goes_away(&self, is_away: bool) {
        self.inside.lock().unwrap().is_away = is_away;
    }

    /// Makes list requests hang.
    pub fn stalls(&self, is_stalled: bool) {
        self.inside.lock().unwrap().is_stalled = is_stalled;
    }

    pub fn wants_secret(&self, secret: &str) {
        self.inside.lock().unwrap().webhook_secret = Some(secret.to_owned());
    }

    pub fn requests(&self) -> Vec<String> {
        self.inside.lock().unwrap().requests.clone()
    }

    /// Names of the refreshed applications, in request order.
    pub fn refreshed(&self) -> Vec<String> {
        let is_refresh = |request: &String| request.contains("refresh=normal");
        let name = |request: String| {
            request.trim_start_matches("GET /api/v1/applications/").split('?').next().unwrap().to_owned()
        };
        self.requests().into_iter().filter(is_refresh).map(name).collect()
    }

    pub fn traceparents(&self) -> Vec<String> {
        self.inside.lock().unwrap().traceparents.clone()
    }

    /// Headers and body of each accepted webhook.
    pub fn webhooks(&self) -> Vec<(HeaderMap, Value)> {
        let inside = self.inside.lock().unwrap();
        inside.webhooks.iter().map(|(headers, body)| (headers.clone(), serde_json::from_str(body).unwrap())).collect()
    }
}

/// A gRPC error as Argo CD's gateway returns it.
fn refusal(status: StatusCode, code: u8, message: &str) -> Response {
    (status, Json(json!({"error": message, "code": code, "message": message}))).into_response()
}

/// Records a request and returns the configured error, if any.
fn obstacle(fake: &FakeArgoCd, headers: &HeaderMap, request: String) -> Option<Response> {
    let mut inside = fake.inside.lock().unwrap();
    if inside.is_away {
        return Some((StatusCode::SERVICE_UNAVAILABLE, "upstream connect error").into_response());
    }
    if headers.get("authorization").and_then(|value| value.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
        return Some(refusal(StatusCode::UNAUTHORIZED, 16, "invalid session: token is malformed"));
    }
    inside.requests.push(request);
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    inside.traceparents.extend(traceparent);
    None
}

async fn version(State(fake): State<FakeArgoCd>) -> Response {
    if fake.inside.lock().unwrap().is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({"Version": "v2.13.1+af54ef8", "GoVersion": "go1.22.9", "Platform": "linux/amd64"})).into_response()
}

type Parameters = Query<HashMap<String, String>>;

async fn list(
    State(fake): State<FakeArgoCd>,
    headers: HeaderMap,
    Query(query): Parameters,
    uri: http::Uri,
) -> Response {
    if let Some(refusal) = obstacle(&fake, &headers, format!("GET {uri}")) {
        return refusal;
    }
    let is_stalled = fake.inside.lock().unwrap().is_stalled;
    if is_stalled {
        std::future::pending::<()>().await;
    }
    let inside = fake.inside.lock().unwrap();
    let wanted: Vec<(String, String)> = query
        .get("selector")
        .map(|text| text.split(',').filter_map(|one| one.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
        .unwrap_or_default();
    let is_selected = |app: &App| wanted.iter().all(|(key, value)| app.labels.get(key) == Some(value));
    // With `fields`, a list has only the requested fields, and Argo CD omits unknown ones. Revisions and messages of an
    // operation cannot be requested:
    // https://github.com/argoproj/argo-cd/blob/v3.0.0/pkg/apiclient/application/forwarder_overwrite.go
    let mut fields: Vec<&str> = query["fields"].split(',').collect();
    fields.sort_unstable();
    let known = [
        "metadata.annotations",
        "metadata.name",
        "metadata.namespace",
        "spec",
        "status.health",
        "status.operationState.finishedAt",
        "status.operationState.phase",
        "status.sync.status",
    ];
    assert_eq!(fields, known.map(|field| format!("items.{field}")));
    let items: Vec<Value> = inside
        .apps
        .iter()
        .filter(|(_, app)| is_selected(app))
        .map(|(name, app)| {
            json!({"metadata": {"name": name, "namespace": app.namespace, "annotations": app.annotations},
                "spec": spec(app),
                "status": {"sync": {"status": app.sync}, "health": health(app),
                    "operationState": {"phase": operation(app)["phase"], "finishedAt": app.times.1}}})
        })
        .collect();
    let items = if items.is_empty() { Value::Null } else { items.into() };
    Json(json!({"metadata": {"resourceVersion": "4711"}, "items": items})).into_response()
}

/// The last sync, of the application's current commit.
fn operation(app: &App) -> Value {
    let (phase, message) = match (app.failed_sync.as_str(), app.sync.as_str()) {
        ("", "OutOfSync") => ("Running", "waiting for completion of hook"),
        ("", _) => ("Succeeded", "successfully synced (all tasks run)"),
        (message, _) => ("Failed", message),
    };
    json!({"operation": {"sync": {"revision": app.revision}}, "phase": phase, "message": message,
        "syncResult": {"revision": app.revision}, "startedAt": "2026-11-23T10:00:00Z", "finishedAt": app.times.1})
}

fn spec(app: &App) -> Value {
    let mut spec = app.spec.clone();
    spec["project"] = json!(app.project);
    spec["destination"] = json!({"server": "https://kubernetes.default.svc", "namespace": "uyou"});
    spec
}

fn health(app: &App) -> Value {
    let mut health = json!({"status": app.health, "lastTransitionTime": app.times.0});
    if !app.message.is_empty() {
        health["message"] = json!(app.message);
    }
    health
}

async fn show(
    State(fake): State<FakeArgoCd>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Parameters,
    uri: http::Uri,
) -> Response {
    if let Some(refusal) = obstacle(&fake, &headers, format!("GET {uri}")) {
        return refusal;
    }
    let mut inside = fake.inside.lock().unwrap();
    let upstream = inside.upstream.clone();
    let namespace = query.get("appNamespace").cloned().unwrap_or_else(|| "argocd".to_owned());
    let Some(app) = inside.apps.get_mut(&name).filter(|app| app.namespace == namespace) else {
        return refusal(StatusCode::FORBIDDEN, 7, "permission denied");
    };
    if query.get("refresh").map(String::as_str) == Some("normal") && !app.is_stuck {
        let tip = tip(upstream.expect("the test has not set the branch of a refreshed application"));
        if tip != app.revision {
            app.revision = tip;
            app.steps = app.script.clone();
        }
    }
    if !app.steps.is_empty() {
        let (sync, health) = app.steps.remove(0);
        (app.sync, app.health) = (sync.to_owned(), health.to_owned());
    }
    let revisions = match app.spec.get("sources") {
        Some(sources) => json!({"status": app.sync, "comparedTo": {"source": {"repoURL": ""}, "destination": {}},
            "revisions": vec![app.revision.clone(); sources.as_array().unwrap().len()]}),
        None => json!({"status": app.sync, "comparedTo": {"source": app.spec["source"], "destination": {}},
            "revision": app.revision}),
    };
    Json(json!({
        "metadata": {"name": name, "namespace": app.namespace, "uid": "0d7c", "resourceVersion": "4711", "generation": 7,
            "labels": app.labels, "annotations": app.annotations},
        "spec": spec(app),
        "status": {
            "sync": revisions,
            "health": health(app),
            "resources": [{"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "uyou", "name": "user-service",
                "status": app.sync, "health": health(app)}],
            "history": [],
            "reconciledAt": "2026-11-23T10:00:00Z",
            "operationState": operation(app),
            "sourceType": "Directory",
            "summary": {},
        },
    }))
    .into_response()
}

fn tip(upstream: PathBuf) -> String {
    let output = Command::new("git").args(["rev-parse", "main"]).current_dir(upstream).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Like Argo CD's handler: checks the signature only if there is a secret.
async fn webhook(State(fake): State<FakeArgoCd>, headers: HeaderMap, body: String) -> Response {
    use hmac::{KeyInit as _, Mac as _};
    let mut inside = fake.inside.lock().unwrap();
    if inside.is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(secret) = &inside.webhook_secret {
        let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body.as_bytes());
        let expected = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        if headers.get("x-hub-signature-256").is_none_or(|found| found.as_bytes() != expected.as_bytes()) {
            return (StatusCode::BAD_REQUEST, "Webhook processing failed: HMAC verification failed").into_response();
        }
    }
    inside.webhooks.push((headers, body));
    StatusCode::OK.into_response()
}
