//! Smart HTTP (<https://git-scm.com/docs/http-protocol>) over a kept connection.

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
use tagrelay_secret::{ExposeSecret as _, Redaction, Secret};
use url::Url;

use super::address::Address;
use super::cooldown::Cooldown;
use super::http_error::with_sources;
use super::installation_tokens::{self, InstallationTokens};
use super::limits::{CONNECT_LIMIT, SILENCE_LIMIT, silence_limit_for};
use super::pktline::PacketReader;
use super::protocol::{self, Advertisement, Boundary, Branches, Capabilities, HEADS, ReadError, Service};
use super::push::Push;
use super::report;
use super::server_text::one_line;
use crate::branch_name::BranchName;
use crate::credentials::Authentication;
use crate::error::{AddressError, PushError, RemoteError};
use crate::mirror::PackReceiver;
use crate::object::CommitId;
use crate::pack::Deltas;
use crate::retry_after::retry_after;

/// The longest wait that a host can ask for. GitHub asks for up to an hour, which is too long for a deployment.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// How many sent credentials are remembered for redaction. Several, because a push may end after its token was replaced.
const SENT_KEPT: usize = 4;

/// A repository behind an HTTP server.
pub(super) struct HttpRemote {
    client: Client,
    base: String,
    credentials: Credentials,
    /// The capabilities that the server advertised last. Kept to save a round trip per push.
    remembered: Mutex<Remembered>,
    /// User names and secrets that were sent last, newest first. The server may repeat them in its answers.
    sent: Mutex<VecDeque<(String, SecretString)>>,
    cooldown: Cooldown,
}

enum Credentials {
    None,
    Password { username: String, password: Secret },
    Tokens(Box<InstallationTokens>),
}

#[derive(Default)]
struct Remembered {
    /// Set after an answer in protocol version 2.
    speaks_version_2: bool,
    /// The capabilities for pushes.
    push: Option<Capabilities>,
    /// Set after the server failed to unpack a pack with deltas.
    whole_packs: bool,
}

impl HttpRemote {
    pub(super) fn new(address: &Address) -> Result<Self, AddressError> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            // Detects a gateway that dropped the connection: sent bytes are then never acknowledged.
            .tcp_user_timeout(Duration::from_secs(20))
            // A redirect would send the credentials to another server. The settings must name the final URL.
            .redirect(redirect::Policy::none())
            .user_agent(format!("git/{}", protocol::AGENT));
        if let Some(path) = &address.ca_bundle {
            let shown = path.display();
            let pem = std::fs::read(path)
                .map_err(|error| AddressError::Tls(format!("the certificates in {shown} cannot be read: {error}")))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| AddressError::Tls(format!("the certificates in {shown} cannot be used: {error}")))?;
            if certificates.is_empty() {
                return Err(AddressError::Tls(format!("{shown} contains no PEM certificate")));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| AddressError::Tls(with_sources(&error)))?;
        let credentials = match &address.authentication {
            Authentication::None => Credentials::None,
            Authentication::Basic { username, password } => {
                Credentials::Password { username: username.clone(), password: password.clone() }
            }
            Authentication::GitHubApp(app) => {
                Credentials::Tokens(Box::new(InstallationTokens::new(app.clone(), client.clone(), &address.url)))
            }
            Authentication::SshKey { .. } => {
                let reason = "an http URL cannot be used with an SSH key; use an ssh URL or a password";
                return Err(AddressError::Url(reason.to_owned()));
            }
        };
        let base = base_url(&address.url);
        Ok(Self {
            client,
            base,
            credentials,
            remembered: Mutex::default(),
            sent: Mutex::default(),
            cooldown: Cooldown::default(),
        })
    }

    pub(super) fn read(&self) -> HttpReading<'_> {
        HttpReading { remote: self, version0: None }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the credentials to a request, or fails during a cooldown. Every request passes here.
    async fn authorised(&self, request: RequestBuilder) -> Result<RequestBuilder, RemoteError> {
        self.cooldown.check()?;
        let unusable = |reason: String| RemoteError::Unauthorized { reason };
        let (username, password) = match &self.credentials {
            Credentials::None => return Ok(request),
            Credentials::Password { username, password } => {
                (username.as_str(), password.reveal().map_err(|error| unusable(error.to_string()))?)
            }
            Credentials::Tokens(tokens) => {
                let token = tokens.token().await.inspect_err(|error| self.cooldown.record(error))?;
                (installation_tokens::USERNAME, (*token).clone())
            }
        };
        let pair = format!("{username}:{}", password.expose_secret());
        self.remember_sent(username, password);
        let header = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut header = HeaderValue::from_str(&header).map_err(|error| unusable(error.to_string()))?;
        header.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, header))
    }

    fn remember_sent(&self, username: &str, password: SecretString) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.iter().any(|(_, known)| known.expose_secret() == password.expose_secret()) {
            return;
        }
        sent.truncate(SENT_KEPT - 1);
        sent.push_front((username.to_owned(), password));
    }

    /// Returns the redaction of the sent credentials, for texts of the server.
    pub(super) fn redaction(&self) -> Redaction {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().fold(Redaction::none(), |all, (username, secret)| all.and(username, secret.expose_secret()))
    }

    /// Returns the packets of the expected answer, or the error that the server reports instead.
    async fn accepted(&self, response: Response, content_type: &str) -> Result<PacketReader, RemoteError> {
        if let (Credentials::Tokens(tokens), StatusCode::UNAUTHORIZED) = (&self.credentials, response.status()) {
            tokens.forget().await;
        }
        accepted(response, content_type).await.inspect_err(|error| self.cooldown.record(error))
    }

    async fn advertisement(&self, service: Service) -> Result<Advertisement, RemoteError> {
        let request = self.client.get(format!("{}/info/refs?service={}", self.base, service.name()));
        let mut request = self.authorised(request).await?;
        if service == Service::UploadPack {
            request = request.header("Git-Protocol", "version=2");
        }
        let response = send(request).await.map_err(SendError::into_remote_error)?;
        let content_type = format!("application/x-{}-advertisement", service.name());
        let mut reader = self.accepted(response, &content_type).await?;
        protocol::read_advertisement(&mut reader).await.map_err(explain)
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

    pub(super) async fn push(&self, branch: &BranchName, push: &Push) -> Result<(), PushError> {
        let (remembered, deltas) = {
            let remembered = self.remembered();
            (remembered.push.clone(), if remembered.whole_packs { Deltas::Whole } else { Deltas::Allowed })
        };
        let capabilities = match remembered {
            Some(capabilities) => capabilities,
            None => self.push_capabilities(branch, push).await?,
        };
        let body = push.body(branch, &capabilities, deltas).await?;
        let limit = silence_limit_for(body.len());
        let response = match send_within(limit, self.post(Service::ReceivePack, body).await?).await {
            Ok(response) => response,
            Err(error) => return Err(error.into_push_error()),
        };
        let status = response.status();
        if !status.is_success() {
            // The remembered capabilities may be outdated.
            self.remembered().push = None;
        }
        let mut reader = match self.accepted(response, "application/x-git-receive-pack-result").await {
            Ok(reader) => reader,
            // A gateway's error does not show whether the server behind it moved the branch.
            Err(error) if status.is_server_error() || status.is_success() => {
                let ask_again_after = error.ask_again_after();
                return Err(PushError::Unknown { reason: error.to_string(), ask_again_after });
            }
            // A limit of the server or of a proxy. A push with fewer changes may fit.
            Err(error) if status == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(PushError::Refused { reason: format!("the push is too large: {error}") });
            }
            Err(error) => return Err(error.into()),
        };
        let report = report::read_report(&mut reader, branch.reference(), capabilities.has("side-band-64k"))
            .await
            .map_err(|error| PushError::unknown(explain(error).to_string()))?;
        if report.pack_failed() {
            self.remembered().whole_packs = true;
        }
        // The connection can be reused only after the end of the answer. Post-receive hooks delay that end, so read it in the
        // background.
        tokio::spawn(reader.drain());
        report.into_result()
    }

    async fn push_capabilities(&self, branch: &BranchName, push: &Push) -> Result<Capabilities, PushError> {
        match self.advertisement(Service::ReceivePack).await? {
            Advertisement::Version0 { capabilities, branches } => {
                self.remembered().push = Some(capabilities.clone());
                if branches.find(branch) == Some(push.old) {
                    Ok(capabilities)
                } else {
                    Err(PushError::Outdated { reason: format!("the branch is no longer at {}", push.old) })
                }
            }
            Advertisement::Version2(_) => Err(PushError::Refused { reason: report::UNKNOWN_PUSH_PROTOCOL.to_owned() }),
        }
    }
}

/// A conversation that reads a repository, one request per step.
pub(super) struct HttpReading<'a> {
    pub(super) remote: &'a HttpRemote,
    /// The capabilities of a server that does not speak version 2.
    version0: Option<Capabilities>,
}

impl HttpReading<'_> {
    /// Requests the capabilities of the server and, in version 0, its branches.
    pub(super) async fn advertisement(&mut self) -> Result<Advertisement, RemoteError> {
        let advertisement = self.remote.advertisement(Service::UploadPack).await?;
        if let Advertisement::Version0 { capabilities, .. } = &advertisement {
            self.version0 = Some(capabilities.clone());
        }
        Ok(advertisement)
    }

    pub(super) async fn tip(&mut self, branch: &BranchName) -> Result<CommitId, RemoteError> {
        if !self.remote.remembered().speaks_version_2 {
            match self.advertisement().await? {
                Advertisement::Version2(_) => self.remote.remembered().speaks_version_2 = true,
                Advertisement::Version0 { branches, .. } => return branches.tip_of(branch),
            }
        }
        let branches = self.list(branch.reference()).await;
        if branches.is_err() {
            self.remote.remembered().speaks_version_2 = false;
        }
        match branches?.find(branch) {
            Some(tip) => Ok(tip),
            None => self.list(HEADS).await?.tip_of(branch),
        }
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Branches, RemoteError> {
        let mut reader = self.request(protocol::list_request(prefix)).await?;
        let branches = protocol::read_list(&mut reader).await.map_err(explain)?;
        reader.drain().await;
        Ok(branches)
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
        self.receive_pack(request, receiver).await.map(|_| ())
    }

    /// Sends a fetch request and passes the pack of the answer to `receiver`.
    pub(super) async fn receive_pack(
        &self,
        request: Vec<u8>,
        receiver: &mut PackReceiver,
    ) -> Result<Boundary, RemoteError> {
        let mut reader = self.request(request).await?;
        let boundary = protocol::read_pack(&mut reader, receiver).await.map_err(explain)?;
        reader.drain().await;
        Ok(boundary)
    }

    async fn request(&self, body: Vec<u8>) -> Result<PacketReader, RemoteError> {
        let mut request = self.remote.post(Service::UploadPack, body.into()).await?;
        if self.version0.is_none() {
            request = request.header("Git-Protocol", "version=2");
        }
        let response = send(request).await.map_err(SendError::into_remote_error)?;
        self.remote.accepted(response, "application/x-git-upload-pack-result").await
    }
}

/// Returns the URL without query, fragment, credentials and trailing slash.
fn base_url(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Credentials are sent in a header. These calls fail only for a URL without a host, which an http URL always has.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// Why a request got no answer.
enum SendError {
    /// Nothing was sent.
    NotSent(String),
    /// The request may have been sent completely.
    NoAnswer(String),
}

impl SendError {
    fn into_remote_error(self) -> RemoteError {
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
    send_within(SILENCE_LIMIT, request).await
}

async fn send_within(limit: Duration, request: RequestBuilder) -> Result<Response, SendError> {
    match tokio::time::timeout(limit, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let not_sent = error.is_connect() || error.is_builder();
            let reason = with_sources(&error.without_url());
            Err(if not_sent { SendError::NotSent(reason) } else { SendError::NoAnswer(reason) })
        }
        Err(_) => Err(SendError::NoAnswer(format!("no answer in {} seconds", limit.as_secs()))),
    }
}

async fn accepted(response: Response, content_type: &str) -> Result<PacketReader, RemoteError> {
    let status = response.status();
    if !status.is_success() {
        return Err(explain_status(status, response).await);
    }
    let found = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if found != content_type {
        let reason = format!("the URL is not a Git repository: it answers with content type `{found}`");
        return Err(RemoteError::NotFound { reason });
    }
    let chunks = response.bytes_stream().map_err(|error| io::Error::other(with_sources(&error.without_url())));
    Ok(PacketReader::new(chunks.boxed()))
}

async fn explain_status(status: StatusCode, response: Response) -> RemoteError {
    let ask_again_after = retry_after(response.headers(), Timestamp::now(), LONGEST_WAIT);
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(repository_at);
    let text = plain_text(response).await;
    let reason = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
    match status {
        // GitHub's secondary rate limit
        // (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>).
        StatusCode::FORBIDDEN if ask_again_after.is_some() => RemoteError::Unavailable { reason, ask_again_after },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            RemoteError::Unauthorized { reason }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => RemoteError::NotFound { reason },
        status if status.is_redirection() => RemoteError::NotFound {
            reason: match location {
                Some(location) => format!("it moved to {location}: write that URL into the settings"),
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

/// Returns the repository URL of a redirect: without the path of the request, and without credentials.
fn repository_at(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let mut url = &location[..end];
    for suffix in ["/info/refs", "/git-receive-pack", "/git-upload-pack"] {
        url = url.strip_suffix(suffix).unwrap_or(url);
    }
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.find('/').unwrap_or(rest.len());
            format!("{scheme}://{}", &rest[rest[..host].rfind('@').map_or(0, |at| at + 1)..])
        }
        None => url.to_owned(),
    };
    one_line(shown.as_bytes())
}

/// Returns the beginning of a `text/plain` answer; empty for other content types.
async fn plain_text(mut response: Response) -> String {
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
    one_line(&text)
}

fn explain(error: ReadError) -> RemoteError {
    match error {
        ReadError::Server(error) => error,
        ReadError::Connection(error) if error.kind() == io::ErrorKind::InvalidData => {
            RemoteError::Protocol { reason: error.to_string() }
        }
        ReadError::Connection(error) => RemoteError::unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_is_shown_without_credentials() {
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
