//! Requests to one registry: authentication, concurrency limit, interpretation of answers.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use tokio::sync::Semaphore;
use url::Url;

use super::UnverifiedImage;
use super::auth::{Authenticator, Context};
use super::body::read_at_most;
use super::client::TimeLimits;
use super::cloud::Cloud;
use super::failure::{RegistryFailure, no_answer, temporary};
use super::login::Login;
use super::throttle::{Pause, Throttle};
use tagrelay_image::Digest;

/// The maximum size of a manifest: 4 MiB, which registries accept at least.
///
/// Source: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-manifests>.
pub(super) const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// Docker Hub's host in references, and the host of its API.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The maximum number of concurrent requests to one registry.
///
/// Limits the load and our open sockets if 1,000 events arrive at once.
const MAX_REQUESTS_AT_ONCE: usize = 64;

/// Media types accepted as a manifest.
const MANIFESTS: [&str; 4] =
    [OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];

/// One registry with its client, tokens and pauses.
pub(super) struct Registry {
    host: String,
    base: Url,
    client: reqwest::Client,
    limits: TimeLimits,
    authenticator: Authenticator,
    slots: Semaphore,
    throttle: Throttle,
    /// Whether the registry has ever linked a tag list to a next page.
    gives_links: AtomicBool,
    manifests: ManifestCache,
}

/// The result of looking up a tag.
pub(super) enum Held {
    Nothing,
    Manifest(Digest),
}

/// The extent of a lookup of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Only the digest.
    Digest,
    /// The manifest too, because the build time is needed next.
    Manifest,
}

/// The manifests of recent lookups, until their build time is read.
#[derive(Default)]
struct ManifestCache(Mutex<VecDeque<(String, Digest, Bytes)>>);

impl ManifestCache {
    /// The maximum number of manifests, and the maximum bytes of each: 4 MiB in total.
    const MOST: (usize, usize) = (64, 64 << 10);

    fn keep(&self, path: &str, digest: &Digest, body: Bytes) {
        if body.len() > Self::MOST.1 {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= Self::MOST.0 {
            kept.pop_front();
        }
        kept.push_back((path.to_owned(), digest.clone(), body));
    }

    fn take(&self, path: &str, digest: &Digest) -> Option<Bytes> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().position(|(known, of, _)| known == path && of == digest)?;
        kept.remove(index).map(|(_, _, body)| body)
    }
}

impl Registry {
    /// `insecure`: the hosts with `plain_http = true`, including those of other registries.
    pub(super) fn new(
        host: &str,
        (plain_http, insecure): (bool, Arc<HashSet<String>>),
        login: Login,
        client: reqwest::Client,
        limits: TimeLimits,
    ) -> Result<Self, url::ParseError> {
        let scheme = if plain_http { "http" } else { "https" };
        let answering = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        let base = Url::parse(&format!("{scheme}://{answering}/v2/"))?;
        let context = Context { host: host.to_owned(), plain_http, insecure, login, client: client.clone(), limits };
        let (authenticator, slots) = (Authenticator::new(context), Semaphore::new(MAX_REQUESTS_AT_ONCE));
        Ok(Self {
            host: host.to_owned(),
            base,
            client,
            limits,
            authenticator,
            slots,
            throttle: Throttle::default(),
            gives_links: AtomicBool::new(false),
            manifests: ManifestCache::default(),
        })
    }

    /// Returns the digest of a tag.
    ///
    /// [`Read::Digest`] takes one `HEAD`, which Docker Hub does not count as a pull. [`Read::Manifest`] takes one `GET`. Its body
    /// is kept for the build time, which saves a request.
    pub(super) async fn look_up(&self, image: &UnverifiedImage, read: Read) -> Result<Held, RegistryFailure> {
        let path = image.repository.path();
        let place = format!("{path}/manifests/{}", image.tag);
        if read == Read::Manifest {
            return self.hash(path, &place).await;
        }
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

    /// Fetches the manifest and hashes it, for registries without a digest header.
    async fn hash(&self, path: &str, place: &str) -> Result<Held, RegistryFailure> {
        let response = self.ask(Method::GET, path, place).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(Held::Nothing);
        }
        if !status.is_success() {
            return Err(self.unexpected(status, response.headers(), place));
        }
        let body = read_at_most(response, MAX_MANIFEST_BYTES).await.map_err(|error| self.no_answer(error))?;
        // A login page also has status 200.
        match body {
            Some(body) if is_manifest(&body) => {
                let digest = Digest::of(&body);
                self.manifests.keep(path, &digest, body);
                Ok(Held::Manifest(digest))
            }
            Some(_) => Err(self.no_registry(place, "with something other than a manifest")),
            None => Err(self.no_registry(place, "with more than 4 MiB, too much for a manifest")),
        }
    }

    /// Removes and returns a manifest that a lookup has kept.
    pub(super) fn take_manifest(&self, path: &str, digest: &Digest) -> Option<Bytes> {
        self.manifests.take(path, digest)
    }

    /// Returns the cloud of a login that the settings do not mention.
    pub(super) fn automatic_login(&self) -> Option<Cloud> {
        self.authenticator.automatic_login()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Removes our credentials from a message, which may quote the registry.
    pub(super) fn redacted(&self, failure: RegistryFailure) -> RegistryFailure {
        self.authenticator.redacted(failure)
    }

    /// Returns the URL of `place`, a path below `/v2/`.
    pub(super) fn address(&self, place: &str) -> Result<Url, RegistryFailure> {
        self.base.join(place).map_err(|error| {
            RegistryFailure::not_allowed(format!("registry {}: /v2/{place} does not form a URL: {error}", self.host))
        })
    }

    pub(super) fn record_link(&self, is_there: bool) {
        self.gives_links.fetch_or(is_there, Ordering::Relaxed);
    }

    pub(super) fn gives_links(&self) -> bool {
        self.gives_links.load(Ordering::Relaxed)
    }

    /// Returns the pause for requests that can wait; `None`: no pause.
    pub(super) fn pause(&self) -> Option<Pause> {
        self.throttle.pause(Instant::now())
    }

    /// Requests a manifest or blob of the repository `path`. See [`Registry::ask_at`].
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        place: &str,
    ) -> Result<reqwest::Response, RegistryFailure> {
        self.ask_at(method, path, &self.address(place)?, &MANIFESTS).await
    }

    /// Sends a request about the repository `path`, and repeats it after a 401 challenge.
    ///
    /// Returns any other answer.
    pub(super) async fn ask_at(
        &self,
        method: Method,
        path: &str,
        address: &Url,
        accept: &[&str],
    ) -> Result<reqwest::Response, RegistryFailure> {
        let scope = format!("repository:{path}:pull");
        let sent = self.authenticator.authorization(&scope).await?;
        let response = self.send(method.clone(), address, accept, sent.header()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let next = self.authenticator.authorization_after(sent, response.headers(), &scope).await?;
        // Dropping the first answer frees its connection for the second request.
        drop(response);
        let response = self.send(method, address, accept, next.header()).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(self.authenticator.refused()),
            _ => Ok(response),
        }
    }

    async fn send(
        &self,
        method: Method,
        address: &Url,
        accept: &[&str],
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, RegistryFailure> {
        let mut request = self.client.request(method, address.clone());
        for media_type in accept {
            request = request.header(header::ACCEPT, *media_type);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        // The request's time limit starts after this wait. The semaphore is never closed, so `acquire` cannot fail.
        let _slot = self.slots.acquire().await;
        let response = request.send().await.map_err(|error| self.no_answer(error))?;
        self.throttle.record(response.status(), response.headers(), Instant::now());
        Ok(response)
    }

    pub(super) fn no_answer(&self, error: reqwest::Error) -> RegistryFailure {
        no_answer(error, &format!("registry {}", self.host), &self.host, self.limits)
    }

    pub(super) fn unexpected(&self, status: StatusCode, headers: &HeaderMap, place: &str) -> RegistryFailure {
        if let Some(failure) = temporary(status, headers, &format!("registry {}", self.host), &self.host) {
            return failure;
        }
        match status {
            StatusCode::FORBIDDEN => self.authenticator.refused(),
            StatusCode::BAD_REQUEST if self.base.scheme() == "http" => {
                self.no_registry(place, "400 Bad Request to plain HTTP (if it needs HTTPS, remove plain_http = true)")
            }
            _ => self.no_registry(place, status.as_str()),
        }
    }

    /// Returns the storage host that answered after a redirect; `None`: the registry answered itself.
    pub(super) fn storage_behind(&self, response: &reqwest::Response) -> Option<String> {
        let place = |url: &Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?));
        let answered = place(response.url())?;
        (Some(&answered) != place(&self.base).as_ref()).then_some(answered.0)
    }

    fn no_registry(&self, place: &str, answer: &str) -> RegistryFailure {
        RegistryFailure::not_allowed(format!(
            "registry {} answered {answer} for /v2/{place}: check that the host is a registry",
            self.host
        ))
    }
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Returns whether the body is a JSON object with a schema version. Every manifest and index has one.
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
    fn docker_hub_has_its_own_api_host() {
        let client = || {
            super::super::client::install_tls_provider();
            reqwest::Client::builder().tls_certs_only([]).build().unwrap()
        };
        let base = |host: &str, plain_http| {
            let registry =
                Registry::new(host, (plain_http, Arc::default()), Login::Anonymous, client(), TimeLimits::default())
                    .unwrap();
            registry.base.to_string()
        };
        assert_eq!(base("docker.io", false), "https://registry-1.docker.io/v2/");
        assert_eq!(base("localhost:5000", false), "https://localhost:5000/v2/");
        assert_eq!(base("[::1]:5000", true), "http://[::1]:5000/v2/");
    }

    #[test]
    fn login_page_is_not_a_manifest() {
        assert!(is_manifest(br#"{"schemaVersion":2,"layers":[]}"#));
        for body in ["", "<html></html>", "{}", "[]", r#"{"schemaVersion":"2"}"#] {
            assert!(!is_manifest(body.as_bytes()), "{body}");
        }
    }
}
