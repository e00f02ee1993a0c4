use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, header, redirect};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use url::Url;

use super::application::{WireApplication, WireList, listed};
use super::webhook::{payload, signatures};
use super::{Access, Application, ApplicationName, ArgoCdError, ArgoCdSettings, PushedCommit, WatchedBranch};
use crate::secret::{Redaction, Secret};
use crate::telemetry::TraceContext;

/// How long to connect, and how long one answer may take. A refresh is answered when the controller has looked at the
/// application, which waits for the repository server to make the manifests.
const LIMITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// The longest answer that is read, in bytes: a list of some thousand applications has a few megabytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What a list has to tell: of everything that an application has it is the smaller part by far. Servers that do not know
/// the parameter send everything.
const FIELDS: &str = "items.metadata.name,items.metadata.namespace,items.metadata.annotations,items.spec,\
                      items.status.sync.status,items.status.health,items.status.operationState.phase,\
                      items.status.operationState.finishedAt";

/// Whether Argo CD is to look at the repository first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// It is to look; answered when it has.
    Normal,
    /// What it knows is enough.
    No,
}

/// A client of one Argo CD. It keeps connections alive.
#[derive(Debug)]
pub struct ArgoCd {
    http: reqwest::Client,
    settings: ArgoCdSettings,
}

impl ArgoCd {
    /// Makes a client. Asks nobody yet.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made, for instance because the CA bundle has changed for the worse.
    pub fn new(settings: ArgoCdSettings) -> Result<Self, ArgoCdError> {
        let failed = |reason: String| ArgoCdError::Unavailable(reason);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tagrelay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(LIMITS.0)
            .timeout(LIMITS.1)
            // A token is for the address that the settings give.
            .redirect(redirect::Policy::none());
        if let Some(path) = &settings.ca_bundle {
            let shown = path.display();
            let pem = std::fs::read(path).map_err(|error| failed(format!("the CA bundle {shown}: {error}")))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| failed(format!("the CA bundle {shown}: {error}")))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = match builder.build() {
            // Plain HTTP must work on a machine without CA certificates.
            Err(_) if settings.url.scheme() == "http" && settings.ca_bundle.is_none() => reqwest::Client::builder()
                .redirect(redirect::Policy::none())
                .timeout(LIMITS.1)
                .tls_certs_only([])
                .build(),
            built => built,
        };
        let http = http.map_err(|error| failed(format!("no HTTPS client can be made: {}", innermost(&error))))?;
        Ok(Self { http, settings })
    }

    /// Returns the settings.
    pub fn settings(&self) -> &ArgoCdSettings {
        &self.settings
    }

    /// Returns the applications that the token may see, without revisions; `selector` narrows them down by labels.
    ///
    /// # Errors
    ///
    /// What came in the place of a list.
    pub async fn applications(&self, selector: Option<&str>) -> Result<Vec<Application>, ArgoCdError> {
        let mut url = self.api(&["applications"]);
        url.query_pairs_mut().append_pair("fields", FIELDS);
        if let Some(selector) = selector {
            url.query_pairs_mut().append_pair("selector", selector);
        }
        let answer = self.ask(self.http.get(url), None, "the applications").await;
        let list: WireList = answer.map_err(|error| match error {
            ArgoCdError::NoApplication(_) => {
                ArgoCdError::Unauthorized("the token may not list applications (403, or no such API)".to_owned())
            }
            error => error,
        })?;
        Ok(list.items.unwrap_or_default().into_iter().filter_map(listed).collect())
    }

    /// Returns an application. `trace` is the span on whose behalf it is asked for.
    ///
    /// # Errors
    ///
    /// What came in its place.
    pub async fn application(
        &self,
        name: &ApplicationName,
        refresh: Refresh,
        trace: Option<&TraceContext>,
    ) -> Result<Application, ArgoCdError> {
        let mut url = self.api(&["applications", &name.name]);
        if let Some(namespace) = &name.namespace {
            url.query_pairs_mut().append_pair("appNamespace", namespace);
        }
        if refresh == Refresh::Normal {
            url.query_pairs_mut().append_pair("refresh", "normal");
        }
        let wire: WireApplication = self.ask(self.http.get(url), trace, &name.to_string()).await?;
        Ok(wire.into())
    }

    /// Returns the version of the server. Needs no token.
    ///
    /// # Errors
    ///
    /// What came in its place.
    pub async fn version(&self) -> Result<String, ArgoCdError> {
        #[derive(serde::Deserialize)]
        struct Version {
            #[serde(rename = "Version")]
            version: String,
        }
        let version: Version =
            read(self.http.get(self.url(&["api", "version"])), "its version", &Redaction::none()).await?;
        Ok(version.version)
    }

    /// Tells Argo CD's webhook of a push.
    ///
    /// # Errors
    ///
    /// When it did not take it.
    pub async fn announce(&self, branch: &WatchedBranch, push: &PushedCommit) -> Result<(), ArgoCdError> {
        let Access::Webhook { url, secret } = &self.settings.access else {
            return Err(ArgoCdError::Unexpected("there is no webhook beside a token".to_owned()));
        };
        let body = payload(branch, push).ok_or_else(|| {
            let message = "the config repository has no host that it could know it by: set its `argocd_url`";
            ArgoCdError::Unexpected(message.to_owned())
        })?;
        let body = body.to_string();
        let mut redaction = Redaction::none();
        let mut request = self
            .http
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("X-GitHub-Event", "push")
            .header("X-GitHub-Delivery", ulid::Ulid::new().to_string());
        if let Some(secret) = secret {
            let secret = reveal(secret)?;
            redaction = redaction.and("", secret.expose_secret());
            for (name, value) in signatures(secret.expose_secret().as_bytes(), body.as_bytes()) {
                request = request.header(name, value);
            }
        }
        let answer = request.body(body).send().await.map_err(|error| unavailable(error, "the webhook"))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            // "Webhook processing failed": the secret is not the one that it has.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = answer.text().await.unwrap_or_default();
                Err(ArgoCdError::Unauthorized(format!("its webhook says: {}", shorten(&redaction.clean_whole(&text)))))
            }
            status => Err(by_status(status, "its webhook")),
        }
    }

    fn api(&self, path: &[&str]) -> Url {
        self.url(&[&["api", "v1"], path].concat())
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.settings.url.clone();
        // The settings take URLs that have a path only.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        trace: Option<&TraceContext>,
        what: &str,
    ) -> Result<T, ArgoCdError> {
        let Access::Token(token) = &self.settings.access else {
            return Err(ArgoCdError::Unauthorized("there is no token".to_owned()));
        };
        let token = reveal(token)?;
        let request = request.bearer_auth(token.expose_secret());
        let request = match trace {
            Some(trace) => request.header("traceparent", trace.to_string()),
            None => request,
        };
        read(request, what, &Redaction::of("", token.expose_secret())).await
    }
}

/// Sends a request and reads the answer, out of which `redaction` takes what the request has shown: what applications say of
/// themselves is kept.
async fn read<T: DeserializeOwned>(
    request: RequestBuilder,
    what: &str,
    redaction: &Redaction,
) -> Result<T, ArgoCdError> {
    let mut answer = request.send().await.map_err(|error| unavailable(error, what))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(by_status(status, what));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unavailable(error, what))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(ArgoCdError::Unexpected(format!("more than {MAX_ANSWER} bytes for {what}")));
        }
    }
    serde_json::from_slice(&redaction.clean_bytes(body))
        .map_err(|error| ArgoCdError::Unexpected(format!("for {what}: {error}")))
}

fn by_status(status: StatusCode, what: &str) -> ArgoCdError {
    match status {
        StatusCode::UNAUTHORIZED => ArgoCdError::Unauthorized("the token is not taken (401)".to_owned()),
        // 403 is also the answer for an application that is not there.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => ArgoCdError::NoApplication(what.to_owned()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ArgoCdError::Unavailable(status.to_string()),
        status if status.is_server_error() => ArgoCdError::Unavailable(status.to_string()),
        status if status.is_redirection() => {
            ArgoCdError::Unexpected(format!("{status}: it redirects, so that `url` is not its address"))
        }
        status => ArgoCdError::Unexpected(format!("{status} for {what}")),
    }
}

fn reveal(secret: &Secret) -> Result<secrecy::SecretString, ArgoCdError> {
    secret.reveal().map_err(|error| ArgoCdError::Unauthorized(error.to_string()))
}

fn unavailable(error: reqwest::Error, what: &str) -> ArgoCdError {
    if error.is_timeout() && !error.is_connect() {
        return ArgoCdError::TooSlow(what.to_owned());
    }
    ArgoCdError::Unavailable(innermost(&error.without_url()))
}

/// `reqwest` says "error sending request" and keeps the reason below it.
fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn shorten(text: &str) -> String {
    text.trim().chars().take(200).collect()
}
