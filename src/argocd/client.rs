use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, header, redirect};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use url::Url;

use super::application_set::WireSets;
use super::document::{WireApplication, WireList};
use super::tree::WireTree;
use super::webhook::{payload, signatures};
use super::{
    Access, Application, ApplicationName, ApplicationSet, ArgoCdError, ArgoCdSettings, LivePods, PushedCommit,
    WatchedBranch, Webhook,
};
use crate::telemetry::TraceContext;
use tagrelay_secret::{Redaction, Secret};

/// Time limits for the connection and for one request. The answer to a refresh comes only after the repository server has
/// rendered the manifests.
const LIMITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Limit for one answer, in bytes. A list of some thousand applications has a few megabytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The fields requested in a list, a small part of each application. Servers that do not know the parameter send all.
const FIELDS: &str = "items.metadata.name,items.metadata.namespace,items.metadata.annotations,\
                      items.metadata.deletionTimestamp,items.spec,items.status.sync.status,items.status.health,\
                      items.status.summary,items.status.resources,items.status.sourceHydrator,\
                      items.status.operationState.phase,items.status.operationState.finishedAt";

/// Whether Argo CD fetches the repository before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// It fetches and compares first; the answer comes after that.
    Normal,
    /// It answers from its cache.
    No,
}

/// A client of one Argo CD. Keeps connections alive.
#[derive(Debug)]
pub struct ArgoCd {
    http: reqwest::Client,
    settings: ArgoCdSettings,
}

impl ArgoCd {
    /// Creates a client. Sends nothing.
    ///
    /// # Errors
    ///
    /// If the CA bundle or the system's CA certificates cannot be used.
    pub fn new(settings: ArgoCdSettings) -> Result<Self, ArgoCdError> {
        let failed = |reason: String| ArgoCdError::Unavailable(reason);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tagrelay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(LIMITS.0)
            .timeout(LIMITS.1)
            // The token must not reach any other host.
            .redirect(redirect::Policy::none());
        if let Some(path) = &settings.ca_bundle {
            let shown = path.display();
            let pem = std::fs::read(path).map_err(|error| failed(format!("the CA bundle {shown}: {error}")))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| failed(format!("the CA bundle {shown}: {error}")))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = match builder.build() {
            // Plain HTTP must work without the system's CA certificates.
            Err(_) if settings.url.scheme() == "http" && settings.ca_bundle.is_none() => reqwest::Client::builder()
                .redirect(redirect::Policy::none())
                .timeout(LIMITS.1)
                .tls_certs_only([])
                .build(),
            built => built,
        };
        let http =
            http.map_err(|error| failed(format!("the HTTPS client cannot be created: {}", innermost(&error))))?;
        Ok(Self { http, settings })
    }

    pub fn settings(&self) -> &ArgoCdSettings {
        &self.settings
    }

    /// Lists the applications that the token may see, without revisions.
    ///
    /// `selector`: a Kubernetes label selector; `None`: all applications.
    ///
    /// # Errors
    ///
    /// [`ArgoCdError`], of any kind but `NoApplication`.
    pub async fn applications(&self, selector: Option<&str>) -> Result<Vec<Application>, ArgoCdError> {
        let mut url = self.api(&["applications"]);
        url.query_pairs_mut().append_pair("fields", FIELDS);
        if let Some(selector) = selector {
            url.query_pairs_mut().append_pair("selector", selector);
        }
        let answer = self.ask(self.http.get(url), None, "the applications").await;
        let list: WireList = answer.map_err(|error| match error {
            ArgoCdError::NoApplication(_) => {
                ArgoCdError::Unauthorized("the token may not list applications (403 or 404)".to_owned())
            }
            error => error,
        })?;
        Ok(list.items.unwrap_or_default().0)
    }

    /// Lists the ApplicationSets that the token may see. Empty if it may see none: the permission is optional.
    ///
    /// # Errors
    ///
    /// [`ArgoCdError`], of any kind but `NoApplication`.
    pub async fn application_sets(&self) -> Result<Vec<ApplicationSet>, ArgoCdError> {
        let answer = self.ask::<WireSets>(self.http.get(self.api(&["applicationsets"])), None, "the ApplicationSets");
        match answer.await {
            Ok(sets) => Ok(sets.into_sets()),
            Err(ArgoCdError::NoApplication(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Returns the images of the pods of an application, from its resource tree.
    ///
    /// # Errors
    ///
    /// As [`Self::application`].
    pub async fn pods(&self, name: &ApplicationName) -> Result<LivePods, ArgoCdError> {
        let mut url = self.api(&["applications", &name.name, "resource-tree"]);
        if let Some(namespace) = &name.namespace {
            url.query_pairs_mut().append_pair("appNamespace", namespace);
        }
        let tree: WireTree = self.ask(self.http.get(url), None, &name.to_string()).await?;
        Ok(tree.pods())
    }

    /// Fetches one application. `trace`: the span that the request belongs to.
    ///
    /// # Errors
    ///
    /// [`ArgoCdError`]; `NoApplication` if it does not exist or the token may not see it.
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

    /// Returns the server's version. Needs no token.
    ///
    /// # Errors
    ///
    /// [`ArgoCdError`].
    pub async fn version(&self) -> Result<String, ArgoCdError> {
        #[derive(serde::Deserialize)]
        struct Version {
            #[serde(rename = "Version")]
            version: String,
        }
        let version: Version =
            read(self.http.get(self.url(&["api", "version"])), "the version", &Redaction::none()).await?;
        Ok(version.version)
    }

    /// Sends a push event to Argo CD's webhook.
    ///
    /// # Errors
    ///
    /// [`ArgoCdError`]; `Unexpected` if the settings have a token instead of a webhook, or the repository has no host.
    pub async fn announce(&self, branch: &WatchedBranch, push: &PushedCommit) -> Result<(), ArgoCdError> {
        let Access::Webhook(webhook) = &self.settings.access else {
            return Err(ArgoCdError::Unexpected("the settings have a token and no webhook".to_owned()));
        };
        self.notify(webhook, branch, push).await
    }

    /// Sends a push event to the webhook of the ApplicationSet controller, if the settings have one.
    ///
    /// # Errors
    ///
    /// As [`Self::announce`].
    pub async fn announce_to_sets(&self, branch: &WatchedBranch, push: &PushedCommit) -> Result<(), ArgoCdError> {
        match &self.settings.set_webhook {
            Some(webhook) => self.notify(webhook, branch, push).await,
            None => Ok(()),
        }
    }

    async fn notify(
        &self,
        Webhook { url, secret }: &Webhook,
        branch: &WatchedBranch,
        push: &PushedCommit,
    ) -> Result<(), ArgoCdError> {
        let body = payload(branch, push).ok_or_else(|| {
            let message = "the URL of the config repository has no host: set `argocd_url`";
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
            // "Webhook processing failed": the secrets differ.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = answer.text().await.unwrap_or_default();
                Err(ArgoCdError::Unauthorized(format!("webhook: {}", shorten(&redaction.clean_whole(&text)))))
            }
            status => Err(by_status(status, "the webhook")),
        }
    }

    fn api(&self, path: &[&str]) -> Url {
        self.url(&[&["api", "v1"], path].concat())
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.settings.url.clone();
        // The settings accept only URLs with a path, so this always succeeds.
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
            return Err(ArgoCdError::Unauthorized("no token is configured".to_owned()));
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

/// Sends a request and parses the answer, after `redaction` has removed the token: an application may quote it, and parts
/// of the answer are stored.
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
        StatusCode::UNAUTHORIZED => ArgoCdError::Unauthorized("the token was rejected (401)".to_owned()),
        // Argo CD answers 403 also if the application does not exist.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => ArgoCdError::NoApplication(what.to_owned()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ArgoCdError::Unavailable(status.to_string()),
        status if status.is_server_error() => ArgoCdError::Unavailable(status.to_string()),
        status if status.is_redirection() => {
            ArgoCdError::Unexpected(format!("{status} (redirect): `url` is not the address of its API"))
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

/// Returns the innermost cause: the text of `reqwest`'s own error is only "error sending request".
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
