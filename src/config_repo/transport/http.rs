//! Smart HTTP (<https://git-scm.com/docs/http-protocol>) over a connection that is kept.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use jiff::Timestamp;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, redirect};
use secrecy::SecretString;
use url::Url;

use super::pktline::PacketReader;
use super::protocol::{self, Advertisement, Capabilities, ReadError, References, Service};
use super::quiet::Quiet;
use super::{CONNECT_PATIENCE, PATIENCE, Push, patience_for, report};
use crate::config_repo::error::{OpenError, PushError, RemoteError};
use crate::config_repo::github_app::{self, InstallationTokens};
use crate::config_repo::object::CommitId;
use crate::config_repo::pack::Deltas;
use crate::config_repo::receive::PackReceiver;
use crate::config_repo::settings::{Authentication, RemoteSettings};
use crate::retry_after::retry_after;
use crate::secret::{ExposeSecret as _, Redaction, Secret};

/// The longest wait that a host can ask for: an hour is GitHub's, and what waits are people's deployments.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// How many of the credentials are remembered that the server was shown: pushes may end long after tokens do.
const SHOWN_KEPT: usize = 4;

/// A repository behind an HTTP server.
pub(super) struct HttpRemote {
    client: Client,
    base: String,
    credentials: Credentials,
    /// What the server can do, from the last time it said so: asking again would be a round trip.
    remembered: Mutex<Remembered>,
    /// The credentials that the server has been shown last, user name and secret: it may repeat them in what it says, though they
    /// have been replaced since.
    shown: Mutex<VecDeque<(String, SecretString)>>,
    quiet: Quiet,
}

/// What we show the server.
enum Credentials {
    None,
    Password { username: String, password: Secret },
    Tokens(Box<InstallationTokens>),
}

#[derive(Default)]
struct Remembered {
    /// Set once the server has answered in version 2.
    speaks_version_2: bool,
    push: Option<Capabilities>,
    /// Set when a pack with deltas was not taken in.
    whole_packs: bool,
}

impl HttpRemote {
    pub(super) fn new(settings: &RemoteSettings) -> Result<Self, OpenError> {
        let tls = |reason: String| OpenError::Tls { name: settings.name.clone(), reason };
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            // A gateway that has forgotten the connection answers nothing at all: then what was sent is not received.
            .tcp_user_timeout(Duration::from_secs(20))
            // A redirect would carry the credentials to wherever it points; the settings are to name the real place.
            .redirect(redirect::Policy::none())
            .user_agent(format!("git/{}", protocol::AGENT));
        if let Some(path) = &settings.ca_bundle {
            let pem = std::fs::read(path)
                .map_err(|error| tls(format!("the certificates in {} cannot be read: {error}", path.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| tls(format!("the certificates in {} cannot be used: {error}", path.display())))?;
            if certificates.is_empty() {
                return Err(tls(format!("{} holds no PEM certificate", path.display())));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| tls(in_full(&error)))?;
        let credentials = match &settings.authentication {
            Authentication::None => Credentials::None,
            Authentication::Basic { username, password } => {
                Credentials::Password { username: username.clone(), password: password.clone() }
            }
            Authentication::GitHubApp(app) => {
                Credentials::Tokens(Box::new(InstallationTokens::new(app.clone(), client.clone(), &settings.url)))
            }
            Authentication::SshKey { .. } => {
                return Err(OpenError::Address {
                    name: settings.name.clone(),
                    reason: "an SSH key cannot be shown to an HTTP server; use an ssh address or a password".to_owned(),
                });
            }
        };
        let base = base_address(&settings.url);
        Ok(Self {
            client,
            base,
            credentials,
            remembered: Mutex::default(),
            shown: Mutex::default(),
            quiet: Quiet::default(),
        })
    }

    pub(super) fn read<'a>(&'a self, branch: &'a str, reference: &'a str) -> HttpReading<'a> {
        HttpReading { remote: self, branch, reference, version0: None }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the credentials, unless the server is to be left alone. Every request comes through here.
    async fn authorised(&self, request: RequestBuilder) -> Result<RequestBuilder, RemoteError> {
        self.quiet.may_ask()?;
        let unusable = |reason: String| RemoteError::Unauthorized { reason };
        let (username, password) = match &self.credentials {
            Credentials::None => return Ok(request),
            Credentials::Password { username, password } => {
                (username.as_str(), password.reveal().map_err(|error| unusable(error.to_string()))?)
            }
            Credentials::Tokens(tokens) => {
                let token = tokens.token().await.inspect_err(|error| self.quiet.hear(error))?;
                (github_app::USERNAME, (*token).clone())
            }
        };
        let pair = format!("{username}:{}", password.expose_secret());
        self.note_shown(username, password);
        let header = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut header = HeaderValue::from_str(&header).map_err(|error| unusable(error.to_string()))?;
        header.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, header))
    }

    fn note_shown(&self, username: &str, password: SecretString) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.iter().any(|(_, known)| known.expose_secret() == password.expose_secret()) {
            return;
        }
        shown.truncate(SHOWN_KEPT - 1);
        shown.push_front((username.to_owned(), password));
    }

    /// Returns what takes out of the server's words what we have shown it.
    pub(super) fn redaction(&self) -> Redaction {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.iter().fold(Redaction::none(), |all, (username, secret)| all.and(username, secret.expose_secret()))
    }

    /// Returns the answer's packets, or what the server says instead of the answer that was asked for.
    async fn accepted(&self, response: Response, content_type: &str) -> Result<PacketReader, RemoteError> {
        if let (Credentials::Tokens(tokens), StatusCode::UNAUTHORIZED) = (&self.credentials, response.status()) {
            tokens.forget().await;
        }
        accepted(response, content_type).await.inspect_err(|error| self.quiet.hear(error))
    }

    /// Asks what a service can do.
    pub(super) async fn advertisement(&self, service: Service, reference: &str) -> Result<Advertisement, RemoteError> {
        let request = self.client.get(format!("{}/info/refs?service={}", self.base, service.name()));
        let mut request = self.authorised(request).await?;
        if service == Service::UploadPack {
            request = request.header("Git-Protocol", "version=2");
        }
        let response = send(request).await.map_err(SendError::before_anything_happened)?;
        let content_type = format!("application/x-{}-advertisement", service.name());
        let mut reader = self.accepted(response, &content_type).await?;
        protocol::read_advertisement(&mut reader, reference).await.map_err(explain)
    }

    async fn post(&self, service: Service, body: Bytes) -> Result<RequestBuilder, RemoteError> {
        let name = service.name();
        let request = self
            .client
            .post(format!("{}/{name}", self.base))
            .header(CONTENT_TYPE, format!("application/x-{name}-request"))
            .header(ACCEPT, format!("application/x-{name}-result"))
            .body(body);
        self.authorised(request).await
    }

    pub(super) async fn push(&self, reference: &str, push: &Push) -> Result<(), PushError> {
        let (remembered, deltas) = {
            let remembered = self.remembered();
            (remembered.push.clone(), if remembered.whole_packs { Deltas::Whole } else { Deltas::Allowed })
        };
        let capabilities = match remembered {
            Some(capabilities) => capabilities,
            None => self.push_capabilities(reference, push).await?,
        };
        let command = report::push_command(reference, push.old, push.new, &capabilities)?;
        let body = report::push_body(command, push.pack(&capabilities, deltas).await?);
        let patience = patience_for(body.len());
        let response = match send_within(patience, self.post(Service::ReceivePack, body).await?).await {
            Ok(response) => response,
            Err(error) => return Err(error.into_push_error()),
        };
        let status = response.status();
        if !status.is_success() {
            // Whatever was remembered may be wrong: the next push asks again.
            self.remembered().push = None;
        }
        let mut reader = match self.accepted(response, "application/x-git-receive-pack-result").await {
            Ok(reader) => reader,
            // A gateway that gave up says nothing about what the server behind it did.
            Err(error) if status.is_server_error() || status.is_success() => {
                let ask_again_after = error.ask_again_after();
                return Err(PushError::Unknown { reason: error.to_string(), ask_again_after });
            }
            // A limit of the server or of a proxy before it: fewer changes make a smaller push.
            Err(error) if status == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(PushError::Refused { reason: format!("the push is too large: {error}") });
            }
            Err(error) => return Err(error.into()),
        };
        let report = report::read_report(&mut reader, reference, capabilities.has("side-band-64k"))
            .await
            .map_err(|error| PushError::unknown(explain(error).to_string()))?;
        if report.pack_was_refused() {
            self.remembered().whole_packs = true;
        }
        // To its end, so that the connection can be used again; hooks that run afterwards are not waited for.
        tokio::spawn(reader.drain());
        report.judge()
    }

    async fn push_capabilities(&self, reference: &str, push: &Push) -> Result<Capabilities, PushError> {
        match self.advertisement(Service::ReceivePack, reference).await? {
            Advertisement::Version0 { capabilities, references } => {
                self.remembered().push = Some(capabilities.clone());
                if references.tip == Some(push.old.0) {
                    Ok(capabilities)
                } else {
                    Err(PushError::Outdated { reason: format!("it is no longer at {}", push.old) })
                }
            }
            Advertisement::Version2(_) => Err(PushError::Refused { reason: report::UNKNOWN_PUSH_PROTOCOL.to_owned() }),
        }
    }
}

/// A conversation in which a remote is read: a request for each step.
pub(in crate::config_repo) struct HttpReading<'a> {
    pub(super) remote: &'a HttpRemote,
    branch: &'a str,
    reference: &'a str,
    /// What a server said that does not speak version 2.
    pub(super) version0: Option<Capabilities>,
}

impl HttpReading<'_> {
    pub(super) async fn tip(&mut self) -> Result<CommitId, RemoteError> {
        if !self.remote.remembered().speaks_version_2 {
            match self.remote.advertisement(Service::UploadPack, self.reference).await? {
                Advertisement::Version2(_) => self.remote.remembered().speaks_version_2 = true,
                Advertisement::Version0 { capabilities, references } => {
                    self.version0 = Some(capabilities);
                    return references.tip_of(self.branch);
                }
            }
        }
        let references = self.list(self.reference).await;
        if references.is_err() {
            self.remote.remembered().speaks_version_2 = false;
        }
        let references = references?;
        if references.tip.is_some() {
            return references.tip_of(self.branch);
        }
        self.list("refs/heads/").await?.tip_of(self.branch)
    }

    async fn list(&self, prefix: &str) -> Result<References, RemoteError> {
        let mut reader = self.request(protocol::list_request(prefix)).await?;
        let references = protocol::read_list(&mut reader, self.reference).await.map_err(explain)?;
        reader.drain().await;
        Ok(references)
    }

    pub(super) async fn fetch(
        &mut self,
        want: CommitId,
        have: Option<CommitId>,
        receiver: &mut PackReceiver,
    ) -> Result<(), RemoteError> {
        let request = match &self.version0 {
            None => protocol::fetch_request_v2(want, have),
            Some(capabilities) => protocol::fetch_request_v0(want, have, capabilities)?,
        };
        let mut reader = self.request(request).await?;
        protocol::read_pack(&mut reader, receiver).await.map_err(explain)?;
        reader.drain().await;
        Ok(())
    }

    pub(super) async fn request(&self, body: Vec<u8>) -> Result<PacketReader, RemoteError> {
        let mut request = self.remote.post(Service::UploadPack, body.into()).await?;
        if self.version0.is_none() {
            request = request.header("Git-Protocol", "version=2");
        }
        let response = send(request).await.map_err(SendError::before_anything_happened)?;
        self.remote.accepted(response, "application/x-git-upload-pack-result").await
    }
}

/// The address without what does not belong in it, and without a slash at its end.
fn base_address(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Credentials travel in a header. An address cannot lack a host here, which is all that these could fail on.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// Why a request has no answer.
enum SendError {
    /// Nothing was sent.
    NotSent(String),
    /// All of it may have been sent.
    NoAnswer(String),
}

impl SendError {
    fn before_anything_happened(self) -> RemoteError {
        match self {
            Self::NotSent(reason) | Self::NoAnswer(reason) => RemoteError::unavailable(reason),
        }
    }

    fn into_push_error(self) -> PushError {
        match self {
            Self::NotSent(reason) => PushError::Unavailable { reason, ask_again_after: None },
            Self::NoAnswer(reason) => PushError::unknown(reason),
        }
    }
}

async fn send(request: RequestBuilder) -> Result<Response, SendError> {
    send_within(PATIENCE, request).await
}

async fn send_within(patience: Duration, request: RequestBuilder) -> Result<Response, SendError> {
    match tokio::time::timeout(patience, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let not_sent = error.is_connect() || error.is_builder();
            let reason = in_full(&error.without_url());
            Err(if not_sent { SendError::NotSent(reason) } else { SendError::NoAnswer(reason) })
        }
        Err(_) => Err(SendError::NoAnswer(format!("no answer in {} seconds", patience.as_secs()))),
    }
}

/// Returns the answer's packets if it is the answer that was asked for, else what the server says instead.
async fn accepted(response: Response, content_type: &str) -> Result<PacketReader, RemoteError> {
    let status = response.status();
    if !status.is_success() {
        return Err(explain_status(status, response).await);
    }
    let found = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if found != content_type {
        let reason = format!("the address is not that of a Git repository: it answers with `{found}`");
        return Err(RemoteError::NotFound { reason });
    }
    let chunks = response.bytes_stream().map_err(|error| io::Error::other(in_full(&error.without_url())));
    Ok(PacketReader::new(chunks.boxed()))
}

async fn explain_status(status: StatusCode, response: Response) -> RemoteError {
    let ask_again_after = retry_after(response.headers(), Timestamp::now(), LONGEST_WAIT);
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(repository_at);
    let said = said(response).await;
    let reason = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status {
        // GitHub's way of saying that its second rate limit is reached
        // (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>).
        StatusCode::FORBIDDEN if ask_again_after.is_some() => RemoteError::Unavailable { reason, ask_again_after },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            RemoteError::Unauthorized { reason }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => RemoteError::NotFound { reason },
        status if status.is_redirection() => RemoteError::NotFound {
            reason: match location {
                Some(location) => format!("it has moved to {location}: write that address into the settings"),
                None => reason,
            },
        },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            RemoteError::Unavailable { reason, ask_again_after }
        }
        status if status.is_server_error() => RemoteError::Unavailable { reason, ask_again_after },
        _ => RemoteError::Protocol { reason },
    }
}

/// Returns an address as it belongs in the settings: without what we asked for there, and without anybody's credentials.
fn repository_at(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let mut address = &location[..end];
    for asked in ["/info/refs", "/git-receive-pack", "/git-upload-pack"] {
        address = address.strip_suffix(asked).unwrap_or(address);
    }
    let shown = match address.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.find('/').unwrap_or(rest.len());
            format!("{scheme}://{}", &rest[rest[..host].rfind('@').map_or(0, |at| at + 1)..])
        }
        None => address.to_owned(),
    };
    super::readable(shown.as_bytes())
}

/// Returns the beginning of an answer that is written for people.
async fn said(mut response: Response) -> String {
    let is_text = response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    if !is_text {
        return String::new();
    }
    let mut text = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_secs(5), response.chunk()).await {
        text.extend_from_slice(&chunk);
        if text.len() > 500 {
            break;
        }
    }
    text.truncate(500);
    super::readable(&text)
}

pub(super) fn explain(error: ReadError) -> RemoteError {
    match error {
        ReadError::Said(error) => error,
        ReadError::Lost(error) if error.kind() == io::ErrorKind::InvalidData => {
            RemoteError::Protocol { reason: error.to_string() }
        }
        ReadError::Lost(error) => RemoteError::unavailable(error.to_string()),
    }
}

/// An error of reqwest says what it was doing, and only its sources say what went wrong.
pub(in crate::config_repo) fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_told_has_nobodys_credentials() {
        for (location, shown) in [
            ("https://git.example.com/u/c.git/info/refs?service=git-receive-pack", "https://git.example.com/u/c.git"),
            ("https://u:p@git.example.com:8443/u/c.git/git-receive-pack", "https://git.example.com:8443/u/c.git"),
            ("http://h/u@x/c.git/git-upload-pack#x", "http://h/u@x/c.git"),
            ("/u/c.git/info/refs", "/u/c.git"),
        ] {
            assert_eq!(repository_at(location), shown);
        }
    }
}
