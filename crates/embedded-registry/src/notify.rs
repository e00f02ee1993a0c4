//! Notifications in the form of CNCF Distribution 3
//! (<https://distribution.github.io/distribution/about/notifications/>).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

use super::Asked;
use super::storage::new_id;
use tagrelay_image::{Digest, Tag};

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.docker.distribution.events.v2+json");

/// Time limit of a notification. Distribution's is one second; a test machine may be slower.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The pause after the first failure. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Limit of queued notifications. More are dropped with a warning.
const MAX_WAITING: usize = 10_000;

/// The target of notifications.
#[derive(Clone)]
pub struct NotifyEndpoint {
    /// The URL, with plain HTTP.
    pub url: Url,
    /// Additional headers, such as `Authorization`.
    pub headers: HeaderMap,
}

/// Shows only the names of headers, because the values are credentials.
impl std::fmt::Debug for NotifyEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<_> = self.headers.keys().collect();
        f.debug_struct("NotifyEndpoint").field("url", &self.url.as_str()).field("headers", &headers).finish()
    }
}

/// A pushed blob or manifest.
pub(crate) struct Pushed<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) digest: &'a Digest,
    pub(crate) size: usize,
    pub(crate) repository: &'a str,
    /// `blobs` or `manifests`, as in its URL.
    pub(crate) kind: &'static str,
    pub(crate) tag: Option<&'a Tag>,
}

/// Passes events to the task that sends them one by one.
pub(crate) struct Notifier {
    queue: mpsc::Sender<Envelope>,
    source: Source,
}

#[derive(Serialize)]
struct Envelope {
    events: [Event; 1],
}

#[derive(Serialize)]
struct Event {
    id: String,
    timestamp: Timestamp,
    action: &'static str,
    target: Target,
    request: Request,
    actor: Actor,
    source: Source,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    media_type: String,
    digest: Digest,
    size: usize,
    length: usize,
    repository: String,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<Tag>,
}

#[derive(Serialize)]
struct Request {
    id: String,
    addr: String,
    host: String,
    method: String,
    useragent: String,
}

/// Always empty, because there is no authentication.
#[derive(Serialize)]
struct Actor {}

#[derive(Clone, Serialize)]
struct Source {
    addr: String,
    #[serde(rename = "instanceID")]
    instance_id: String,
}

impl Notifier {
    pub(crate) fn start(endpoint: NotifyEndpoint, address: SocketAddr) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let client = client().context("Failed to make an HTTP client for notifications")?;
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let task = tokio::spawn(send_all(client, endpoint, waiting));
        let source = Source { addr: address.to_string(), instance_id: new_id() };
        Ok((Self { queue, source }, task))
    }

    pub(crate) fn pushed(&self, asked: &Asked, pushed: Pushed<'_>) {
        let Pushed { media_type, digest, size, repository, kind, tag } = pushed;
        let target = Target {
            media_type: media_type.to_owned(),
            digest: digest.clone(),
            size,
            length: size,
            repository: repository.to_owned(),
            url: format!("http://{}/v2/{repository}/{kind}/{digest}", asked.host()),
            tag: tag.cloned(),
        };
        let request = Request {
            id: new_id(),
            addr: asked.from.to_string(),
            host: asked.host().to_owned(),
            method: asked.method.to_string(),
            useragent: asked.header(header::USER_AGENT).unwrap_or_default().to_owned(),
        };
        let event = Event {
            id: new_id(),
            timestamp: Timestamp::now(),
            action: "push",
            target,
            request,
            actor: Actor {},
            source: self.source.clone(),
        };
        if self.queue.try_send(Envelope { events: [event] }).is_err() {
            tracing::warn!(repository, "a notification of the embedded registry is dropped: {MAX_WAITING} are queued");
        }
    }
}

/// Returns a client without proxy or CA certificates, for plain HTTP on this machine.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    // `reqwest` needs a TLS provider even for plain HTTP. An error means that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER_LIMIT).build()
}

/// Sends the notifications in order, each until it is accepted.
async fn send_all(client: reqwest::Client, endpoint: NotifyEndpoint, mut waiting: mpsc::Receiver<Envelope>) {
    while let Some(envelope) = waiting.recv().await {
        let body = match indented(&envelope) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "a notification of the embedded registry cannot be written");
                continue;
            }
        };
        let mut pause = FIRST_PAUSE;
        while let Err(error) = send(&client, &endpoint, body.clone()).await {
            tracing::warn!(error, "a notification of the embedded registry failed; retrying");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn send(client: &reqwest::Client, endpoint: &NotifyEndpoint, body: Vec<u8>) -> Result<(), String> {
    let request = client.post(endpoint.url.clone()).headers(endpoint.headers.clone());
    let response = request.header(header::CONTENT_TYPE, MEDIA_TYPE).body(body).send().await;
    match response {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("the endpoint answered {}", response.status())),
        Err(error) => Err(error.without_url().to_string()),
    }
}

/// Formats JSON with an indentation of three spaces, like Distribution.
fn indented(envelope: &Envelope) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    envelope.serialize(&mut serde_json::Serializer::with_formatter(&mut body, formatter))?;
    Ok(body)
}
