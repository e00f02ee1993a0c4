//! HTTP clients for registries: what they trust, how long they wait, where they follow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

/// Redirects that one request follows.
const MAX_REDIRECTS: usize = 5;

/// How long a registry is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// For one request from its start to the end of its answer.
    pub request: Duration,
}

impl Default for TimeLimits {
    /// 5 seconds to connect, 15 for the whole request.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(15) }
    }
}

/// Why no HTTP client could be made for a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be read.
    #[error("the CA bundle {path} cannot be read: {reason}")]
    UnreadableBundle {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// A file without a single certificate: taken silently, it would look like a registry with a bad certificate.
    #[error("the CA bundle {0} holds no certificate: it must be a PEM file with `-----BEGIN CERTIFICATE-----`")]
    EmptyBundle(PathBuf),
    /// A block that is no certificate.
    #[error("certificate {number} of the CA bundle {path} cannot be read: {reason}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Which of them, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No authorities to trust, or a TLS library that does not start.
    #[error(
        "no HTTPS client can be made: {0}; install the system's CA certificates (Debian: ca-certificates), or set \
         ca_bundle for the registry"
    )]
    Tls(String),
}

/// Makes ring the TLS provider of the process, unless there is one already.
///
/// `reqwest` and `rustls` are built without a provider of their own, and a client that finds none panics.
pub fn install_tls_provider() {
    // An error says that somebody was faster, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What a client is for.
pub(super) struct ClientFor<'a> {
    /// Certificates to trust besides the system's.
    pub(super) ca_bundle: Option<&'a Path>,
    /// A registry on this machine is not asked through the proxy of the environment.
    pub(super) loopback: bool,
    /// A registry over plain HTTP must work on a machine without CA certificates.
    pub(super) plain_http: bool,
    pub(super) limits: TimeLimits,
}

impl ClientFor<'_> {
    /// Returns the client. It keeps connections alive.
    pub(super) fn build(&self) -> Result<reqwest::Client, ClientError> {
        install_tls_provider();
        let certificates = self.ca_bundle.map(read_bundle).transpose()?.unwrap_or_default();
        let built = self.builder().tls_certs_merge(certificates).build();
        match built {
            // Such a client trusts nobody: a token service over HTTPS is then refused, as it should be.
            Err(_) if self.plain_http && self.ca_bundle.is_none() => self.builder().tls_certs_only([]).build(),
            built => built,
        }
        .map_err(|error| ClientError::Tls(describe(&error)))
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("tagrelay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.limits.connect)
            .timeout(self.limits.request)
            // The digest is that of the bytes as the registry keeps them.
            .no_gzip()
            .referer(false)
            .redirect(redirect::Policy::custom(follow));
        if self.loopback { builder.no_proxy() } else { builder }
    }
}

/// Follows a redirect unless it leaves HTTPS.
///
/// `reqwest` takes `Authorization` off when scheme, host or port change, so a token never reaches the storage service
/// that a registry redirects to; such services also refuse requests that are signed twice.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match refusal(attempt.previous(), attempt.url()) {
        Some(reason) => attempt.error(reason),
        None => attempt.follow(),
    }
}

fn refusal(previous: &[Url], next: &Url) -> Option<&'static str> {
    if next.scheme() != "https" && previous.last().is_some_and(|url| url.scheme() == "https") {
        return Some("it redirects from HTTPS to plain HTTP");
    }
    (previous.len() > MAX_REDIRECTS).then_some("it redirects too often")
}

/// Reads and tries every certificate, because `reqwest` takes a file without any silently.
fn read_bundle(path: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let pem = std::fs::read(path)
        .map_err(|error| ClientError::UnreadableBundle { path: path.to_owned(), reason: error.to_string() })?;
    let mut trusted = rustls::RootCertStore::empty();
    let mut certificates = Vec::new();
    for (index, found) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let bad = |reason: String| ClientError::BadCertificate { path: path.to_owned(), number: index + 1, reason };
        let certificate = found.map_err(|error| bad(error.to_string()))?;
        trusted.add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
        certificates.push(reqwest::Certificate::from_der(&certificate).map_err(|error| bad(describe(&error)))?);
    }
    if certificates.is_empty() { Err(ClientError::EmptyBundle(path.to_owned())) } else { Ok(certificates) }
}

/// `reqwest` says "builder error" and keeps the reason below it.
fn describe(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(text: &str) -> Result<Vec<reqwest::Certificate>, ClientError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        read_bundle(&path)
    }

    #[test]
    fn a_redirect_does_not_leave_https() {
        let url = |text: &str| Url::parse(text).unwrap();
        let refused = |previous: &str, next: &str| refusal(&[url(previous)], &url(next)).is_some();
        assert!(refused("https://r/v2/a", "http://r/v2/a"));
        assert!(!refused("https://r/v2/a", "https://storage/a"));
        assert!(!refused("http://r/v2/a", "http://storage/a"));
        assert!(!refused("http://r/v2/a", "https://r/v2/a"));
    }

    #[test]
    fn a_bundle_without_certificates_is_an_error() {
        for text in ["", "garbage", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(matches!(bundle(text), Err(ClientError::EmptyBundle(_))), "{text}");
        }
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(bundle(garbage), Err(ClientError::BadCertificate { number: 1, .. })));
        let missing = read_bundle(Path::new("/no/such/ca.pem"));
        assert!(matches!(missing, Err(ClientError::UnreadableBundle { .. })));
    }
}
