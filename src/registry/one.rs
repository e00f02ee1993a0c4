//! One registry: requests that carry what the registry wants to see, and what its answers mean.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use tokio::sync::Semaphore;
use url::Url;

use super::auth::{Authority, Context};
use super::body::read_at_most;
use super::client::TimeLimits;
use super::patience::{Patience, Quiet};
use super::setback::{Setback, passing, unanswered};
use super::{Credentials, UnverifiedImage};
use crate::image::Digest;

/// Registries take manifests of at most 4 MiB
/// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-manifests>); this is twice that.
pub(super) const MAX_MANIFEST_BYTES: usize = 8 << 20;

/// The host of Docker Hub in references, and the host that answers for it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Requests that one registry gets at a time: a thousand pushes at once neither flood it nor use up our files.
const MAX_REQUESTS_AT_ONCE: usize = 64;

/// What an answer about a tag may be.
const MANIFESTS: [&str; 4] =
    [OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];

/// One registry and what is known of it.
pub(super) struct Registry {
    host: String,
    base: Url,
    client: reqwest::Client,
    limits: TimeLimits,
    authority: Authority,
    places: Semaphore,
    patience: Patience,
    /// Whether it has ever given a link to a next page.
    gives_links: AtomicBool,
}

/// What a registry holds under a tag.
pub(super) enum Held {
    Nothing,
    Manifest(Digest),
}

impl Registry {
    /// `insecure` are the hosts that the settings call plain HTTP.
    pub(super) fn new(
        host: &str,
        (plain_http, insecure): (bool, Arc<HashSet<String>>),
        credentials: Option<Credentials>,
        client: reqwest::Client,
        limits: TimeLimits,
    ) -> Result<Self, url::ParseError> {
        let scheme = if plain_http { "http" } else { "https" };
        let answering = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        let base = Url::parse(&format!("{scheme}://{answering}/v2/"))?;
        let context =
            Context { host: host.to_owned(), plain_http, insecure, credentials, client: client.clone(), limits };
        let (authority, places) = (Authority::new(context), Semaphore::new(MAX_REQUESTS_AT_ONCE));
        Ok(Self {
            host: host.to_owned(),
            base,
            client,
            limits,
            authority,
            places,
            patience: Patience::default(),
            gives_links: AtomicBool::new(false),
        })
    }

    /// Returns the digest of what the tag points at: one `HEAD`, unless the registry leaves the digest out.
    pub(super) async fn look_up(&self, image: &UnverifiedImage) -> Result<Held, Setback> {
        let path = image.repository.path();
        let place = format!("{path}/manifests/{}", image.tag);
        let response = self.ask(Method::HEAD, path, &place).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(Held::Nothing);
        }
        if status.is_success() {
            if let Some(digest) = digest_header(response.headers()) {
                return Ok(Held::Manifest(digest));
            }
        } else if !matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            return Err(self.unexpected(status, response.headers(), &place));
        }
        self.hash(path, &place).await
    }

    /// Fetches the manifest and hashes it, for registries that do not say the digest.
    async fn hash(&self, path: &str, place: &str) -> Result<Held, Setback> {
        let response = self.ask(Method::GET, path, place).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(Held::Nothing);
        }
        if !status.is_success() {
            return Err(self.unexpected(status, response.headers(), place));
        }
        let body = read_at_most(response, MAX_MANIFEST_BYTES).await.map_err(|error| self.unanswered(error))?;
        // A login page is a 200 as well.
        match body {
            Some(body) if is_manifest(&body) => Ok(Held::Manifest(Digest::of(&body))),
            Some(_) => Err(self.no_registry(place, "something that is no manifest")),
            None => Err(self.no_registry(place, "more than 8 MiB, which no manifest has")),
        }
    }

    /// Returns the registry as references write it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Takes our account out of the words of a setback.
    pub(super) fn redacted(&self, setback: Setback) -> Setback {
        self.authority.redacted(setback)
    }

    /// Returns the address of a place behind `/v2/`.
    pub(super) fn address(&self, place: &str) -> Result<Url, Setback> {
        self.base.join(place).map_err(|error| {
            Setback::not_allowed(format!("registry {} cannot be asked for {place}: {error}", self.host))
        })
    }

    pub(super) fn note_link(&self, is_there: bool) {
        self.gives_links.fetch_or(is_there, Ordering::Relaxed);
    }

    pub(super) fn gives_links(&self) -> bool {
        self.gives_links.load(Ordering::Relaxed)
    }

    /// Returns why and how long nobody but whoever confirms images is to ask the registry.
    pub(super) fn quiet(&self) -> Option<Quiet> {
        self.patience.quiet(Instant::now())
    }

    /// Asks for a manifest or blob of the repository `path`, as [`Registry::ask_at`] does.
    pub(super) async fn ask(&self, method: Method, path: &str, place: &str) -> Result<reqwest::Response, Setback> {
        self.ask_at(method, path, &self.address(place)?, &MANIFESTS).await
    }

    /// Sends one request about the repository `path` (two after a challenge) and returns what is no 401.
    pub(super) async fn ask_at(
        &self,
        method: Method,
        path: &str,
        address: &Url,
        accept: &[&str],
    ) -> Result<reqwest::Response, Setback> {
        let scope = format!("repository:{path}:pull");
        let pass = self.authority.pass(&scope).await?;
        let response = self.send(method.clone(), address, accept, pass.header()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let pass = self.authority.pass_after(pass, response.headers(), &scope).await?;
        // The connection is free for the second request once the answer to the first is gone.
        drop(response);
        let response = self.send(method, address, accept, pass.header()).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(self.authority.refused()),
            _ => Ok(response),
        }
    }

    async fn send(
        &self,
        method: Method,
        address: &Url,
        accept: &[&str],
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, Setback> {
        let mut request = self.client.request(method, address.clone());
        for media_type in accept {
            request = request.header(header::ACCEPT, *media_type);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        // The time limit begins with the place. Nobody closes the semaphore, so there is always one.
        let _place = self.places.acquire().await;
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        self.patience.hear(response.status(), response.headers(), Instant::now());
        Ok(response)
    }

    pub(super) fn unanswered(&self, error: reqwest::Error) -> Setback {
        unanswered(error, &format!("registry {}", self.host), &self.host, self.limits)
    }

    pub(super) fn unexpected(&self, status: StatusCode, headers: &HeaderMap, place: &str) -> Setback {
        if let Some(setback) = passing(status, headers, &format!("registry {}", self.host), &self.host) {
            return setback;
        }
        match status {
            StatusCode::FORBIDDEN => self.authority.refused(),
            StatusCode::BAD_REQUEST if self.base.scheme() == "http" => self
                .no_registry(place, "400 Bad Request to plain HTTP (it may want HTTPS: then remove plain_http = true)"),
            _ => self.no_registry(place, status.as_str()),
        }
    }

    /// Returns the host that answered in the place of the registry, to which the registry has redirected us.
    pub(super) fn storage_behind(&self, response: &reqwest::Response) -> Option<String> {
        let place = |url: &Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?));
        let answered = place(response.url())?;
        (Some(&answered) != place(&self.base).as_ref()).then_some(answered.0)
    }

    fn no_registry(&self, place: &str, answer: &str) -> Setback {
        Setback::not_allowed(format!(
            "registry {} answered {answer} when asked for /v2/{place}: check that the host is a registry",
            self.host
        ))
    }
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Every manifest and every index is a JSON object with a schema version.
fn is_manifest(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Versioned {
        #[serde(rename = "schemaVersion")]
        _schema_version: u32,
    }
    serde_json::from_slice::<Versioned>(body).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_answers_elsewhere() {
        let client = || {
            super::super::client::install_tls_provider();
            reqwest::Client::builder().tls_certs_only([]).build().unwrap()
        };
        let base = |host: &str, plain_http| {
            let registry =
                Registry::new(host, (plain_http, Arc::default()), None, client(), TimeLimits::default()).unwrap();
            registry.base.to_string()
        };
        assert_eq!(base("docker.io", false), "https://registry-1.docker.io/v2/");
        assert_eq!(base("localhost:5000", false), "https://localhost:5000/v2/");
        assert_eq!(base("[::1]:5000", true), "http://[::1]:5000/v2/");
    }

    #[test]
    fn a_login_page_is_no_manifest() {
        assert!(is_manifest(br#"{"schemaVersion":2,"layers":[]}"#));
        for body in ["", "<html></html>", "{}", "[]", r#"{"schemaVersion":"2"}"#] {
            assert!(!is_manifest(body.as_bytes()), "{body}");
        }
    }
}
