//! The answers of Argo CD's API server and of its webhooks.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::controller::tip;
use super::{App, FakeArgoCd, Inside, TOKEN};

/// The fields that a list can have. Argo CD omits unknown ones. Revisions, owners and messages of an operation cannot be requested:
/// https://github.com/argoproj/argo-cd/blob/v3.0.0/pkg/apiclient/application/forwarder_overwrite.go
const LIST_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.annotations",
    "metadata.labels",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "spec",
    "status.sourceHydrator",
    "status.sync.status",
    "status.health",
    "status.summary",
    "status.operationState.startedAt",
    "status.operationState.finishedAt",
    "status.resources",
    "status.operationState.phase",
];

/// A gRPC error as Argo CD's gateway returns it.
fn refusal(status: StatusCode, code: u8, message: &str) -> Response {
    (status, Json(json!({"error": message, "code": code, "message": message}))).into_response()
}

/// Records a request and returns the configured error, if any.
pub(super) fn obstacle(fake: &FakeArgoCd, headers: &HeaderMap, request: String) -> Option<Response> {
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

pub(super) async fn version(State(fake): State<FakeArgoCd>) -> Response {
    let (is_away, is_old) = {
        let inside = fake.inside.lock().unwrap();
        (inside.is_away, inside.is_old)
    };
    if is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let version = if is_old { "v2.8.0+804d4b8" } else { "v2.13.1+af54ef8" };
    Json(json!({"Version": version, "GoVersion": "go1.22.9", "Platform": "linux/amd64"})).into_response()
}

type Parameters = Query<HashMap<String, String>>;

/// Returns whether an application has the labels of a selector.
pub(super) fn is_selected(app: &App, query: &HashMap<String, String>) -> bool {
    let wanted = query.get("selector").map(String::as_str).unwrap_or_default();
    let mut pairs = wanted.split(',').filter_map(|one| one.split_once('='));
    pairs.all(|(key, value)| app.labels.get(key).is_some_and(|found| found == value))
}

pub(super) async fn list(
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
    let mut inside = fake.inside.lock().unwrap();
    let fields: Vec<&str> = query["fields"].split(',').map(|field| field.strip_prefix("items.").unwrap()).collect();
    assert!(fields.iter().all(|field| LIST_FIELDS.contains(field)), "{fields:?}");
    let names = inside.apps.iter().filter(|(_, app)| is_selected(app, &query)).map(|(name, _)| name.clone());
    let names: Vec<String> = names.collect();
    let items: Vec<Value> = names.iter().map(|name| filtered(&inside.document(name), &fields)).collect();
    let items = if items.is_empty() { Value::Null } else { items.into() };
    Json(json!({"metadata": {"resourceVersion": "4711"}, "items": items})).into_response()
}

/// Returns only the requested fields of a document.
pub(super) fn filtered(document: &Value, fields: &[&str]) -> Value {
    let mut kept = json!({});
    for field in fields {
        let parts: Vec<&str> = field.split('.').collect();
        let found = parts.iter().try_fold(document, |value, part| value.get(part));
        let Some(found) = found.filter(|found| !found.is_null()) else { continue };
        let mut place = &mut kept;
        for part in &parts {
            place = place.as_object_mut().unwrap().entry(*part).or_insert_with(|| json!({}));
        }
        *place = found.clone();
    }
    kept
}

pub(super) async fn show(
    State(fake): State<FakeArgoCd>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Parameters,
    uri: http::Uri,
) -> Response {
    if let Some(refusal) = obstacle(&fake, &headers, format!("GET {uri}")) {
        return refusal;
    }
    let document = {
        let mut inside = fake.inside.lock().unwrap();
        if !inside.has(&name, &query) {
            return refusal(StatusCode::FORBIDDEN, 7, "permission denied");
        }
        if query.get("refresh").map(String::as_str) == Some("normal") {
            inside.refresh(&name);
        }
        inside.advance(&name);
        inside.document(&name)
    };
    fake.notify();
    Json(document).into_response()
}

pub(super) async fn tree(
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
    if !inside.has(&name, &query) {
        return refusal(StatusCode::FORBIDDEN, 7, "permission denied");
    }
    let images = inside.images(&name);
    let nodes = inside.apps[&name].tree.clone().unwrap_or_else(|| {
        let pods = images.iter().enumerate().map(|(number, image)| {
            json!({"kind": "Pod", "group": null, "namespace": "uyou", "name": format!("{name}-{number}"), "images": [image],
                "parentRefs": [{"group": "apps", "version": "v1", "kind": "ReplicaSet", "namespace": "uyou",
                    "name": format!("{name}-rs{number}"), "uid": "92a74d5b"}],
                "health": {"status": "Healthy"}})
        });
        pods.collect()
    });
    Json(json!({ "nodes": nodes })).into_response()
}

pub(super) async fn sets(State(fake): State<FakeArgoCd>, headers: HeaderMap, uri: http::Uri) -> Response {
    if let Some(refusal) = obstacle(&fake, &headers, format!("GET {uri}")) {
        return refusal;
    }
    let inside = fake.inside.lock().unwrap();
    if inside.hides_sets {
        return refusal(StatusCode::FORBIDDEN, 7, "permission denied");
    }
    let items = inside.sets.iter().map(|(name, set)| {
        let generated = inside.apps.iter().filter(|(_, app)| set.reports && app.set.as_ref() == Some(name));
        let resources: Vec<Value> = generated
            .map(|(name, app)| json!({"group": "argoproj.io", "version": "v1alpha1", "kind": "Application",
                "namespace": app.namespace, "name": name, "status": app.sync}))
            .collect();
        json!({"metadata": {"name": name, "namespace": "argocd"},
            "spec": {"generators": [{"git": {"repoURL": set.repository, "revision": "main", "files": [{"path": set.files}]}}],
                "template": {"metadata": {}, "spec": {}}},
            "status": {"resources": resources}})
    });
    Json(json!({"metadata": {}, "items": items.collect::<Vec<Value>>()})).into_response()
}

impl Inside {
    fn has(&self, name: &str, query: &HashMap<String, String>) -> bool {
        let namespace = query.get("appNamespace").map_or("argocd", String::as_str);
        self.apps.get(name).is_some_and(|app| app.namespace == namespace)
    }

    /// Returns an application as `GET /api/v1/applications/NAME` does.
    pub(super) fn document(&mut self, name: &str) -> Value {
        let images = self.images(name);
        let (app, is_old) = (&self.apps[name], self.is_old);
        let revisions = match app.spec.get("sources") {
            Some(sources) => json!({"status": app.sync, "comparedTo": {"source": {"repoURL": ""}, "destination": {}},
                "revisions": vec![app.revision.clone(); sources.as_array().unwrap().len()]}),
            None => json!({"status": app.sync, "comparedTo": {"source": app.spec["source"], "destination": {}},
                "revision": app.revision}),
        };
        let mut resources = vec![json!({"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "uyou",
            "name": "user-service", "status": app.sync, "health": health(app, is_old)})];
        if !app.children.is_empty() {
            resources.clear();
        }
        resources.extend(app.children.iter().map(|child| {
            json!({"group": "argoproj.io", "version": "v1alpha1", "kind": "Application", "namespace": "argocd", "name": child,
                "status": "Synced"})
        }));
        resources.extend(app.resources.iter().map(|(group, kind)| {
            json!({"group": group, "version": "v1", "kind": kind, "namespace": "uyou", "name": "more", "status": app.sync})
        }));
        let mut summary = json!({});
        if !images.is_empty() && (app.children.is_empty() || app.images.is_some()) {
            summary["images"] = json!(images);
        }
        if !app.children.is_empty() && !is_old {
            summary["isAppOfApps"] = json!(true);
        }
        let mut document = json!({
            "metadata": {"name": name, "namespace": app.namespace, "uid": "0d7c", "resourceVersion": "4711", "generation": 7,
                "labels": app.labels, "annotations": app.annotations},
            "spec": spec(app),
            "status": {
                "sync": revisions,
                "health": health(app, is_old),
                "resources": resources,
                "history": [],
                "reconciledAt": "2026-11-23T10:00:00Z",
                "operationState": operation(app),
                "sourceType": "Directory",
                "summary": summary,
            },
        });
        if let Some(set) = &app.set {
            document["metadata"]["ownerReferences"] = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": set, "controller": true}]);
        }
        if app.is_deleted {
            document["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z");
        }
        if !is_old {
            let operation = app.hydrated.as_ref().map(|(phase, dry, hydrated)| {
                json!({"startedAt": "2026-11-23T10:00:00Z", "phase": phase, "message": app.hydration.1, "drySHA": dry,
                    "hydratedSHA": hydrated})
            });
            document["status"]["sourceHydrator"] = operation.map_or(json!({}), |one| json!({"currentOperation": one}));
        }
        document
    }
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

fn health(app: &App, is_old: bool) -> Value {
    let mut health = json!({"status": app.health});
    if !is_old {
        health["lastTransitionTime"] = app.times.0.clone();
    }
    if !app.message.is_empty() {
        health["message"] = json!(app.message);
    }
    health
}

/// Like Argo CD's handler: checks the signature only if there is a secret.
fn authenticated(inside: &Inside, headers: &HeaderMap, body: &str) -> Result<(), Response> {
    use hmac::{KeyInit as _, Mac as _};
    if inside.is_away {
        return Err(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    if let Some(secret) = &inside.webhook_secret {
        let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body.as_bytes());
        let expected = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        if headers.get("x-hub-signature-256").is_none_or(|found| found.as_bytes() != expected.as_bytes()) {
            let said = (StatusCode::BAD_REQUEST, "Webhook processing failed: HMAC verification failed");
            return Err(said.into_response());
        }
    }
    Ok(())
}

pub(super) async fn webhook(State(fake): State<FakeArgoCd>, headers: HeaderMap, body: String) -> Response {
    let mut inside = fake.inside.lock().unwrap();
    if let Err(refused) = authenticated(&inside, &headers, &body) {
        return refused;
    }
    inside.webhooks.push((headers, body));
    StatusCode::OK.into_response()
}

/// The webhook of the ApplicationSet controller: it generates the applications of its sets again.
pub(super) async fn set_webhook(State(fake): State<FakeArgoCd>, headers: HeaderMap, body: String) -> Response {
    {
        let mut inside = fake.inside.lock().unwrap();
        if let Err(refused) = authenticated(&inside, &headers, &body) {
            return refused;
        }
        inside.set_webhooks.push((headers, body));
        let commit = inside.upstream.as_deref().map(tip);
        let generated: Vec<String> =
            inside.apps.iter().filter(|(_, app)| app.set.is_some()).map(|(name, _)| name.clone()).collect();
        for (name, commit) in generated.iter().filter_map(|name| Some((name, commit.clone()?))) {
            inside.deploy(name, &commit);
        }
    }
    fake.notify();
    StatusCode::OK.into_response()
}
