//! The built program together with a registry and a bare config repository.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_embedded_registry::push::{TinyImage, push};
use tagrelay_image::Digest;
use tempfile::TempDir;

use crate::settings::{self, FleetSettings};
pub use crate::settings::{API_TOKEN, GENERIC_SECRET, READ_TOKEN};
pub use crate::upstream::{Gate, Upstream};

/// Time limit of everything that must happen.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A commit id made of one repeated digit.
pub fn sha(digit: char) -> String {
    std::iter::repeat_n(digit, 40).collect()
}

/// A typical Deployment of one service.
pub fn deployment(image: &str) -> String {
    format!(
        "# The team's own comment.\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: some-service\nspec:\n  template:\n    \
         spec:\n      containers:\n        - name: main\n          image: {image} # moved by Tagrelay\n\n          ports: []\n"
    )
}

/// Options of a scenario.
pub struct Builder {
    files: Vec<(String, String)>,
    remote: Option<(String, String)>,
    registry_host: Option<String>,
    server_settings: String,
    repository_settings: String,
    environment_settings: std::collections::BTreeMap<String, String>,
    extra_settings: String,
    image_settings: String,
    receivers: String,
    log: String,
    authority: Option<PathBuf>,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
    binary: String,
}

pub struct Fleet {
    /// The embedded registry, unless the scenario has its own.
    registry: Option<EmbeddedRegistry>,
    registry_host: String,
    pub upstream: Upstream,
    folder: TempDir,
    port: u16,
    log: String,
    /// CA certificates that replace the system's.
    authority: Option<PathBuf>,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
    binary: String,
    process: Option<Process>,
    pub client: reqwest::Client,
}

struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Builder {
    /// Adds a file to the config repository. `REGISTRY` in its text becomes the registry's host.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Adds a Deployment of `service` in staging and production with the commit of zeros.
    pub fn service(self, service: &str) -> Self {
        let text = deployment(&format!("REGISTRY/uyou/{service}:{}", sha('0')));
        self.file(&format!("environments/staging/{service}.yaml"), &text)
            .file(&format!("environments/production/{service}.yaml"), &text)
    }

    /// Uses the config repository at `url` instead of over `file://`; `settings` are additional lines for it.
    pub fn remote(mut self, url: &str, settings: &str) -> Self {
        self.remote = Some((url.to_owned(), settings.to_owned()));
        self
    }

    /// Uses the registry at `host` instead of the embedded one.
    pub fn registry(mut self, host: &str) -> Self {
        self.registry_host = Some(host.to_owned());
        self
    }

    /// Adds lines to the only `[[image]]`.
    pub fn image(mut self, lines: &str) -> Self {
        self.image_settings.push_str(lines);
        self.image_settings.push('\n');
        self
    }

    /// Replaces the lines of `[server]`, which set `max_body_bytes` to 64 KiB.
    pub fn server(mut self, lines: &str) -> Self {
        self.server_settings = lines.to_owned();
        self
    }

    /// Adds lines to the config repository.
    pub fn repository_settings(mut self, lines: &str) -> Self {
        self.repository_settings = lines.to_owned();
        self
    }

    /// Adds lines to `staging` or `production`.
    pub fn environment_settings(mut self, name: &str, lines: &str) -> Self {
        self.environment_settings.insert(name.to_owned(), lines.to_owned());
        self
    }

    /// Adds lines at the end of the settings.
    pub fn settings(mut self, lines: &str) -> Self {
        self.extra_settings.push_str(lines);
        self
    }

    /// Sets an environment variable of the program. The log level is `debug` unless `TAGRELAY_LOG` is set.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program through a wrapper: the program and its arguments are appended to these words.
    pub fn launcher(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Uses the CA certificates in a file instead of the system's.
    pub fn authority(mut self, path: PathBuf) -> Self {
        self.authority = Some(path);
        self
    }

    /// Creates the bare repository early, so that a server for it can be started before the fleet.
    pub fn upstream(&self, registry_host: &str) -> Upstream {
        let files: Vec<_> =
            self.files.iter().map(|(path, text)| (path.clone(), text.replace("REGISTRY", registry_host))).collect();
        Upstream::new(&files)
    }

    pub async fn start(self) -> Fleet {
        let (registry, host) = match &self.registry_host {
            Some(host) => (None, host.clone()),
            None => {
                let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
                let host = registry.host();
                (Some(registry), host)
            }
        };
        let upstream = self.upstream(&host);
        self.start_with(registry, host, upstream, free_port()).await
    }

    /// Starts on a given port, with an existing config repository.
    pub async fn start_at(self, port: u16, upstream: Upstream) -> Fleet {
        let host = self.registry_host.clone().expect("a fleet with a given port brings its own registry");
        self.start_with(None, host, upstream, port).await
    }

    async fn start_with(
        self,
        registry: Option<EmbeddedRegistry>,
        host: String,
        upstream: Upstream,
        port: u16,
    ) -> Fleet {
        crate::install_tls_provider();
        let folder = tempfile::tempdir().unwrap();
        let (url, remote_settings) = self.remote.clone().unwrap_or_else(|| (upstream.url(), String::new()));
        let environment = |name: &str| self.environment_settings.get(name).map(String::as_str).unwrap_or_default();
        let settings = settings::fleet(&FleetSettings {
            port,
            folder: folder.path(),
            registry: &host,
            url: &url,
            remote: &remote_settings,
            server: &self.server_settings,
            repository: &self.repository_settings,
            staging: environment("staging"),
            production: environment("production"),
            image: &self.image_settings,
            receivers: &self.receivers,
            extra: &self.extra_settings,
        });
        std::fs::write(folder.path().join("tagrelay.toml"), settings).unwrap();
        // One connection per request: a kept connection may be closed just when it is used again.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let (log, authority, environment) = (self.log.clone(), self.authority.clone(), self.environment.clone());
        let (launcher, binary) = (self.launcher.clone(), self.binary.clone());
        let process = None;
        let mut fleet = Fleet {
            registry,
            registry_host: host,
            upstream,
            folder,
            port,
            log,
            authority,
            environment,
            launcher,
            binary,
            process,
            client,
        };
        fleet.start().await;
        fleet
    }

    /// Adds a `[[receiver]]`.
    pub fn receiver(mut self, lines: &str) -> Self {
        self.receivers.push_str("\n[[receiver]]\n");
        self.receivers.push_str(lines);
        self.receivers.push('\n');
        self
    }
}

/// The value of `X-Tagrelay-Signature` for the `generic` receiver.
pub fn signature(body: &str) -> String {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(GENERIC_SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Returns an unused port.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Fleet {
    /// A fleet of the program at `binary`.
    pub fn builder(binary: &str) -> Builder {
        Builder {
            files: Vec::new(),
            remote: None,
            registry_host: None,
            server_settings: "max_body_bytes = 65536".to_owned(),
            repository_settings: String::new(),
            environment_settings: std::collections::BTreeMap::new(),
            extra_settings: String::new(),
            image_settings: String::new(),
            receivers: String::new(),
            log: "debug".to_owned(),
            authority: None,
            environment: Vec::new(),
            launcher: Vec::new(),
            binary: binary.to_owned(),
        }
    }

    pub fn settings_file(&self) -> PathBuf {
        self.folder.path().join("tagrelay.toml")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn registry_host(&self) -> &str {
        &self.registry_host
    }

    pub fn repository(&self, service: &str) -> String {
        format!("{}/uyou/{service}", self.registry_host)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Starts the program and waits until it answers.
    pub async fn start(&mut self) {
        let mut words = self.launcher.iter().map(String::as_str).chain([self.binary.as_str()]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .args(["serve", "--log-format", "json", "--config"])
            .arg(self.settings_file())
            .env("TAGRELAY_LOG", &self.log)
            .envs(self.authority.iter().map(|path| ("SSL_CERT_FILE", path)))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = self.process.take().map(|process| process.log).unwrap_or_default();
        keep(child.stdout.take().unwrap(), Arc::clone(&log));
        keep(child.stderr.take().unwrap(), Arc::clone(&log));
        self.process = Some(Process { child, log });
        self.eventually("the program answers", async || {
            self.client.get(self.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().child.id()
    }

    /// Kills the program, like a power failure.
    pub fn kill(&mut self) {
        let process = self.process.as_mut().unwrap();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let process = self.process.as_mut().unwrap();
        let pid = process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = process.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the program did not stop; its log:\n{}", self.log());
    }

    /// The program's peak memory in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let id = self.process.as_ref().unwrap().child.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Standard output and error of the program so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(|process| process.log.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Pushes an image to the registry.
    pub async fn push_image(&self, service: &str, tag: &str) -> Digest {
        self.push_image_built(service, tag, Timestamp::now()).await
    }

    /// Pushes an image with this build time.
    pub async fn push_image_built(&self, service: &str, tag: &str, created: Timestamp) -> Digest {
        let image = TinyImage { revision: None, created, text: format!("{service} {tag} {created}") };
        push(&self.repository(service).parse().unwrap(), &tag.parse().unwrap(), &image, None).await.unwrap()
    }

    /// Sends a webhook for an image to the `generic` receiver. Returns status and body.
    pub async fn deliver(&self, service: &str, tag: &str) -> (u16, Value) {
        self.deliver_body(&json!({ "image": format!("{}:{tag}", self.repository(service)) }).to_string()).await
    }

    pub async fn deliver_body(&self, body: &str) -> (u16, Value) {
        self.deliver_with(body, &[]).await
    }

    /// Sends a body with additional headers to the `generic` receiver.
    pub async fn deliver_with(&self, body: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.client.post(self.url("/webhooks/ci")).header("X-Tagrelay-Signature", signature(body));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Pushes an image, sends its webhook and returns the event's id.
    pub async fn announce(&self, service: &str, tag: &str) -> String {
        self.push_image(service, tag).await;
        let (status, answer) = self.deliver(service, tag).await;
        assert_eq!(status, 202, "{answer}");
        answer["events"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Calls the API. Returns status and body.
    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.api_as(API_TOKEN, method, path, body, &[]).await
    }

    pub async fn api_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let mut request = self.client.request(method.parse().unwrap(), self.url(&format!("/api/v1{path}")));
        request = request.bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Requests a promotion or rollback, waits until it ended and returns it.
    pub async fn request(&self, path: &str, body: Value) -> Value {
        let (status, taken) = self.api("POST", path, Some(body)).await;
        assert_eq!(status, 202, "{taken}");
        let id = taken["id"].as_str().unwrap();
        let (status, ended) = self.api("GET", &format!("/promotions/{id}?wait=60"), None).await;
        assert_eq!(status, 200, "{ended}");
        assert_ne!(ended["state"], "pending", "{ended}\n{}", self.log());
        ended
    }

    /// Waits until an event ended or waits for a hold, and returns it.
    pub async fn settled(&self, id: &str) -> Value {
        let mut last = Value::Null;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            (_, last) = self.api("GET", &format!("/events/{id}"), None).await;
            if is_settled(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("event {id} does not end: {last:#}\n{}", self.log());
    }

    /// Waits until the condition holds.
    pub async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("timed out waiting until {what}; the log:\n{}", self.log());
    }

    /// The tag in the first `image:` line of a service's Deployment at the tip.
    pub fn running(&self, environment: &str, service: &str) -> String {
        let text = self.upstream.file(&format!("environments/{environment}/{service}.yaml"));
        let line = text.lines().find(|line| line.contains("image: ")).unwrap();
        let (_, image) = line.split_once("image: ").unwrap();
        let image = image.split(" #").next().unwrap();
        image.trim_start_matches(self.registry_host.as_str()).split_once(':').unwrap().1.to_owned()
    }

    /// Stops the embedded registry, so that it is unreachable.
    pub async fn stop_registry(&mut self) {
        self.registry.take().unwrap().stop().await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Whether an event has ended, or waits for something other than a missing fact.
pub fn is_settled(event: &Value) -> bool {
    // After a restart a build may wait a moment for a fact that is read again.
    let lacks_fact = event["reason"].as_str().is_none_or(|reason| reason.contains("not known yet"));
    let is_open = matches!(event["state"].as_str(), Some("queued" | "pending"));
    !is_open && (event["state"] != "waiting" || !lacks_fact)
}

fn keep(stream: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}
