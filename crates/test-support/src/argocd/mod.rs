//! A fake Argo CD in memory: its webhooks and the part of its API that Tagrelay uses, with answers shaped like recorded ones
//! (`src/argocd/recorded`) and, for the rest, like its published API (`assets/swagger.json` of argoproj/argo-cd).
//!
//! A refresh compares an application with the tip of the branch, like the real controller. The pods of an application run the images
//! that its manifests name at its revision. The test decides the result of a sync.

mod answers;
mod controller;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{get, post};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::watch;

pub const TOKEN: &str = "argocd-token-2b7e";

/// An application and the result of its next sync.
#[derive(Debug, Clone)]
pub struct App {
    pub namespace: String,
    pub project: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// `spec.source`, `spec.sources` or `spec.sourceHydrator`.
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
    /// It is being deleted.
    pub is_deleted: bool,
    /// The states after the next refresh, one for each request.
    pub script: Vec<(&'static str, &'static str)>,
    /// The folder or file whose images it deploys, if it is not the path of its source.
    pub renders: Option<String>,
    /// The images of its pods, if they do not follow from its manifests.
    pub images: Option<Vec<String>>,
    /// Its resources besides the Deployment, as `GROUP/KIND`.
    pub resources: Vec<(String, String)>,
    /// The nodes of its resource tree, if they are not those of one Deployment.
    pub tree: Option<Value>,
    /// Its child applications: they are synced when it is.
    pub children: Vec<String>,
    /// The ApplicationSet that generates it.
    pub set: Option<String>,
    /// The phases of the next hydration, one for each request, and the message of the last one.
    pub hydration: (Vec<&'static str>, String),
    steps: Vec<(&'static str, &'static str)>,
    phases: Vec<&'static str>,
    /// The commit whose manifests it deploys, if it is not its revision.
    deploys: Option<String>,
    /// The commit whose manifests it deploys with its next sync.
    next: Option<String>,
    /// The images that ran before the current rollout.
    running: Vec<String>,
    /// The current hydration: phase, dry and hydrated commit.
    hydrated: Option<(String, String, String)>,
}

/// An ApplicationSet with a Git generator.
#[derive(Debug, Clone)]
pub struct Set {
    pub repository: String,
    /// The glob of its files.
    pub files: String,
    /// Whether it reports its applications in its status.
    pub reports: bool,
}

#[derive(Default)]
struct Inside {
    apps: BTreeMap<String, App>,
    sets: BTreeMap<String, Set>,
    /// Whether the token may list ApplicationSets.
    hides_sets: bool,
    upstream: Option<PathBuf>,
    /// The images below a path at a commit.
    rendered: HashMap<(String, String), Vec<String>>,
    /// Method, path and query of each authenticated request.
    requests: Vec<String>,
    traceparents: Vec<String>,
    webhooks: Vec<(HeaderMap, String)>,
    set_webhooks: Vec<(HeaderMap, String)>,
    webhook_secret: Option<String>,
    is_away: bool,
    is_stalled: bool,
    /// Whether it is Argo CD 2.8, without `lastTransitionTime`, `isAppOfApps` and hydrator.
    is_old: bool,
    streaming: stream::Streaming,
}

#[derive(Clone)]
pub struct FakeArgoCd {
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    /// Counts changes, for the streams.
    changed: watch::Sender<u64>,
}

impl FakeArgoCd {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake =
            Self { address: listener.local_addr().unwrap(), inside: Arc::default(), changed: watch::Sender::new(0) };
        let routes = Router::new()
            .route("/api/version", get(answers::version))
            .route("/api/v1/applications", get(answers::list))
            .route("/api/v1/applications/{name}", get(answers::show))
            .route("/api/v1/applications/{name}/resource-tree", get(answers::tree))
            .route("/api/v1/applicationsets", get(answers::sets))
            .route("/api/v1/stream/applications", get(stream::stream))
            .route("/api/webhook", post(answers::webhook))
            .route("/applicationset/api/webhook", post(answers::set_webhook))
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
            is_deleted: false,
            script: vec![("OutOfSync", "Healthy"), ("Synced", "Progressing"), ("Synced", "Healthy")],
            renders: None,
            images: None,
            resources: Vec::new(),
            tree: None,
            children: Vec::new(),
            set: None,
            hydration: (vec!["Hydrating", "Hydrated"], String::new()),
            steps: Vec::new(),
            phases: Vec::new(),
            deploys: None,
            next: None,
            running: Vec::new(),
            hydrated: None,
        };
        self.inside.lock().unwrap().apps.insert(name.to_owned(), app);
        self.notify();
    }

    /// Adds an ApplicationSet that reads files of a repository.
    pub fn add_set(&self, name: &str, repository: &str, files: &str) {
        let set = Set { repository: repository.to_owned(), files: files.to_owned(), reports: true };
        self.inside.lock().unwrap().sets.insert(name.to_owned(), set);
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut App)) {
        change(self.inside.lock().unwrap().apps.get_mut(name).unwrap());
        self.notify();
    }

    pub fn change_set(&self, name: &str, change: impl FnOnce(&mut Set)) {
        change(self.inside.lock().unwrap().sets.get_mut(name).unwrap());
    }

    pub fn remove(&self, name: &str) {
        self.inside.lock().unwrap().apps.remove(name).unwrap();
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub fn goes_away(&self, is_away: bool) {
        self.inside.lock().unwrap().is_away = is_away;
        self.notify();
    }

    /// Makes list requests hang.
    pub fn stalls(&self, is_stalled: bool) {
        self.inside.lock().unwrap().is_stalled = is_stalled;
    }

    /// Answers as Argo CD 2.8 does.
    pub fn is_old(&self) {
        self.inside.lock().unwrap().is_old = true;
    }

    /// Forbids the token to list ApplicationSets.
    pub fn hides_sets(&self) {
        self.inside.lock().unwrap().hides_sets = true;
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
        parsed(&self.inside.lock().unwrap().webhooks)
    }

    /// Headers and body of each accepted webhook of the ApplicationSet controller.
    pub fn set_webhooks(&self) -> Vec<(HeaderMap, Value)> {
        parsed(&self.inside.lock().unwrap().set_webhooks)
    }
}

fn parsed(webhooks: &[(HeaderMap, String)]) -> Vec<(HeaderMap, Value)> {
    webhooks.iter().map(|(headers, body)| (headers.clone(), serde_json::from_str(body).unwrap())).collect()
}
