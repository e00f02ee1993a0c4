//! The API of the running server, as its clients see it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use reqwest::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::image::{Digest, Tag};
use crate::secret::{ExposeSecret as _, Secret};

/// How long the server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A client of the API. Requests have no limit of their own: some wait, and whoever asks knows how long.
pub(super) struct Api {
    client: reqwest::Client,
    base: Url,
    token: Secret,
}

/// What an environment runs.
#[derive(Debug, Deserialize)]
pub(super) struct Environment {
    pub(super) name: String,
    pub(super) repositories: Vec<Cell>,
}

/// What an environment runs of one repository.
#[derive(Debug, Deserialize)]
pub(super) struct Cell {
    pub(super) repository: String,
    pub(super) versions: Vec<Version>,
    pub(super) cause: Option<String>,
    pub(super) holds: Vec<Hold>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Hold {
    pub(super) actor: String,
    pub(super) reason: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
}

impl Environment {
    pub(super) fn cell(&self, repository: &str) -> Option<&Cell> {
        self.repositories.iter().find(|cell| cell.repository == repository)
    }
}

impl Cell {
    /// Tells whether every site names this tag.
    pub(super) fn runs(&self, tag: &Tag) -> bool {
        let is_tag = |version: &Version| version.tag.as_deref() == Some(tag.as_str());
        !self.versions.is_empty() && self.versions.iter().all(is_tag)
    }
}

impl Version {
    /// Returns the tag, or else the digest, in a form for people.
    pub(super) fn short(&self) -> String {
        let text = self.tag.as_deref().or(self.digest.as_deref()).unwrap_or_default();
        short(text)
    }
}

/// Returns the short form of a tag or a digest, and anything else as it is.
pub(super) fn short(version: &str) -> String {
    if let Ok(digest) = version.parse::<Digest>() {
        return digest.short();
    }
    version.parse::<Tag>().map_or_else(|_| version.to_owned(), |tag| tag.short().to_owned())
}

/// A push event.
#[derive(Debug, Deserialize)]
pub(super) struct PushEvent {
    pub(super) receiver: String,
    pub(super) digest: Option<String>,
    pub(super) matched_rule: Option<String>,
    pub(super) note: Option<String>,
    pub(super) pushed_at: Option<Timestamp>,
    pub(super) received_at: Timestamp,
    pub(super) verified_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
}

/// What a promotion would do.
#[derive(Debug, Deserialize)]
pub(super) struct Preview {
    pub(super) parent: String,
    pub(super) diff: String,
    pub(super) updates: Vec<PreviewedUpdate>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PreviewedUpdate {
    pub(super) repository: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

/// A promotion or rollback.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) commit: Option<String>,
    pub(super) reason: Option<String>,
}

/// An error of the API (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
}

impl Api {
    /// Makes a client of the server at `base`.
    pub(super) fn new(base: Url, token: Secret) -> anyhow::Result<Self> {
        crate::registry::install_tls_provider();
        // Loopback: no proxy, and no certificate is ever looked at.
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).connect_timeout(CONNECT_LIMIT).build();
        Ok(Self { client: client.context("no HTTP client can be made")?, base, token })
    }

    /// Returns the address of the server.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// Tells whether the server is ready.
    pub(super) async fn is_ready(&self) -> anyhow::Result<bool> {
        let response = self.client.get(self.base.join("readyz")?).send().await;
        Ok(response.with_context(|| format!("{} does not answer", self.base))?.status().is_success())
    }

    pub(super) async fn environments(&self) -> anyhow::Result<Vec<Environment>> {
        #[derive(Deserialize)]
        struct Matrix {
            environments: Vec<Environment>,
        }
        Ok(self.get::<Matrix>("api/v1/environments").await?.environments)
    }

    pub(super) async fn event(&self, id: &str) -> anyhow::Result<PushEvent> {
        self.get(&format!("api/v1/events/{id}")).await
    }

    /// Returns what a promotion would do; `order` asks for a dry run.
    pub(super) async fn preview(&self, order: &Value) -> anyhow::Result<Preview> {
        self.post("api/v1/promotions", order).await
    }

    pub(super) async fn promote(&self, order: &Value) -> anyhow::Result<Request> {
        self.post("api/v1/promotions", order).await
    }

    pub(super) async fn roll_back(&self, order: &Value) -> anyhow::Result<Request> {
        self.post("api/v1/rollbacks", order).await
    }

    /// Returns a promotion or rollback when it has ended, or as it is after `wait`.
    pub(super) async fn wait(&self, id: &str, wait: Duration) -> anyhow::Result<Request> {
        self.get(&format!("api/v1/promotions/{id}?wait={}", wait.as_secs())).await
    }

    /// Listens to everything that happens from now on.
    pub(super) async fn listen(&self) -> anyhow::Result<Happenings> {
        let request = self.client.get(self.base.join("api/v1/stream")?);
        Ok(Happenings { response: self.send(request).await?, unread: Vec::new() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.client.get(self.base.join(path)?);
        read(self.send(request).await?, path).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let request = self.client.post(self.base.join(path)?).json(body);
        read(self.send(request).await?, path).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let request = request.bearer_auth(self.token.reveal()?.expose_secret());
        let response = request.send().await.with_context(|| format!("{} does not answer", self.base))?;
        let (status, path) = (response.status(), response.url().path().to_owned());
        if status.is_success() {
            return Ok(response);
        }
        let detail = response.json::<Problem>().await.ok().and_then(|problem| problem.detail);
        bail!("{path} answered {status}: {}", detail.unwrap_or_else(|| "it does not say why".to_owned()))
    }
}

async fn read<T: DeserializeOwned>(response: Response, path: &str) -> anyhow::Result<T> {
    response.json().await.with_context(|| format!("/{path} answered something unexpected"))
}

/// Something that has just happened, as `/api/v1/stream` tells it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Happening {
    pub(super) at: Timestamp,
    #[serde(flatten)]
    pub(super) subject: Subject,
}

/// What a happening is about.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Subject {
    Event {
        id: String,
        repository: String,
        tag: String,
        state: String,
        reason: Option<String>,
    },
    Update {
        cause_id: String,
        environment: String,
        repository: String,
        version: String,
        state: String,
        commit: Option<String>,
        reason: Option<String>,
    },
    Request {
        id: String,
        request: String,
        environment: String,
        actor: String,
    },
    Hold {
        environment: String,
        repository: String,
        state: String,
    },
    #[serde(other)]
    Other,
}

/// Reads server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
pub(super) struct Happenings {
    response: Response,
    unread: Vec<u8>,
}

impl Happenings {
    /// Returns the next happening. May be dropped and called again without losing one.
    ///
    /// # Errors
    ///
    /// The server has gone.
    pub(super) async fn next(&mut self) -> anyhow::Result<Happening> {
        loop {
            while let Some(block) = take_block(&mut self.unread) {
                if let Some(happening) = parse(&block)? {
                    return Ok(happening);
                }
            }
            let chunk = self.response.chunk().await.context("the stream of the server broke off")?;
            self.unread.extend_from_slice(&chunk.context("the server has ended its stream")?);
        }
    }
}

/// Takes what stands before the next blank line, or nothing while there is none.
fn take_block(unread: &mut Vec<u8>) -> Option<String> {
    let end = unread.windows(2).position(|pair| pair == b"\n\n")?;
    let block = unread.drain(..end + 2).collect::<Vec<u8>>();
    Some(String::from_utf8_lossy(&block).into_owned())
}

/// Returns `None` for comments, which keep the connection alive, and for the note that happenings were missed.
fn parse(block: &str) -> anyhow::Result<Option<Happening>> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    match (field("event"), field("data")) {
        (None, _) | (_, None) | (Some("missed"), _) => Ok(None),
        (Some(_), Some(data)) => serde_json::from_str(data).map(Some).context("the stream tells something unexpected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay;

    #[test]
    fn what_the_server_tells_is_understood() {
        let notice = relay::Notice {
            at: "2026-11-23T08:00:00Z".parse().unwrap(),
            subject: relay::Subject::Hold {
                id: "1".to_owned(),
                environment: "production".to_owned(),
                repository: "r/a".to_owned(),
                state: "made".to_owned(),
            },
        };
        let data = serde_json::to_string(&notice).unwrap();
        let mut unread =
            format!(": alive\n\nevent: missed\ndata: 3\n\nevent: hold\ndata: {data}\n\nevent: ho").into_bytes();
        let blocks: Vec<_> = std::iter::from_fn(|| take_block(&mut unread)).collect();
        assert_eq!(unread, b"event: ho");
        let told: Vec<_> = blocks.iter().filter_map(|block| parse(block).unwrap()).collect();
        let [Happening { at, subject: Subject::Hold { environment, repository, state } }] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!(*at, notice.at);
        assert_eq!([environment, repository, state], ["production", "r/a", "made"]);
    }

    #[test]
    fn a_kind_of_tomorrow_is_no_error() {
        let block = "event: freeze\ndata: {\"at\":\"2026-11-23T08:00:00Z\",\"kind\":\"freeze\",\"until\":1}\n\n";
        assert_eq!(parse(block).unwrap().unwrap().subject, Subject::Other);
    }
}
