//! HTTP clients for registries: TLS trust, time limits, redirects.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

/// Redirects that one request may follow.
const MAX_REDIRECTS: usize = 5;

/// Time limits of requests to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// Time limit to connect, including the TLS handshake.
    pub connect: Duration,
    /// Time limit of one request, from its start to the end of the answer.
    pub request: Duration,
}

impl Default for TimeLimits {
    /// 5 seconds to connect, 15 seconds for the whole request.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(15) }
    }
}

/// Why the HTTP client of a registry cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be read.
    #[error("the CA bundle {path} cannot be read: {reason}")]
    UnreadableBundle {
        /// The CA bundle.
        path: PathBuf,
        /// The operating system's error.
        reason: String,
    },
    /// The file has no certificate.
    ///
    /// An error, because otherwise later requests would fail as if the registry were at fault.
    #[error("the CA bundle {0} contains no certificate: it must be a PEM file with `-----BEGIN CERTIFICATE-----`")]
    EmptyBundle(PathBuf),
    /// A PEM block is not a certificate.
    #[error("certificate {number} of the CA bundle {path} cannot be read: {reason}")]
    BadCertificate {
        path: PathBuf,
        /// Position in the file, from 1.
        number: usize,
        /// The parser's error.
        reason: String,
    },
    /// The system has no CA certificates, or the TLS library failed to start.
    #[error(
        "the HTTPS client cannot be created: {0}; install the system's CA certificates (Debian: ca-certificates), or set \
         ca_bundle for the registry"
    )]
    Tls(String),
}

/// Addresses that replace those of the DNS, for tests: host names, TLS and all checks stay as they are.
#[derive(Debug, Clone, Default)]
pub struct Addresses(pub Vec<(String, SocketAddr)>);

/// Makes ring the TLS provider of the process, unless a provider is installed already.
///
/// `reqwest` and `rustls` are built without a default provider, and a client without one panics.
pub fn install_tls_provider() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The parameters of an HTTP client.
pub(super) struct ClientFor<'a> {
    /// CA certificates to trust in addition to the system's.
    pub(super) ca_bundle: Option<&'a Path>,
    /// The server is on this machine or its node: ignore the proxy of the environment.
    pub(super) is_near: bool,
    /// The registry has plain HTTP, so the client must work without the system's CA certificates.
    pub(super) plain_http: bool,
    /// Whether redirects are followed.
    pub(super) redirects: bool,
    pub(super) limits: TimeLimits,
    pub(super) addresses: &'a Addresses,
}

impl ClientFor<'_> {
    /// Creates the client, which keeps connections alive.
    pub(super) fn build(&self) -> Result<reqwest::Client, ClientError> {
        install_tls_provider();
        let certificates = self.ca_bundle.map(read_bundle).transpose()?.unwrap_or_default();
        let built = self.builder().tls_certs_merge(certificates).build();
        match built {
            // Without CA certificates, requests to an HTTPS token service fail. Plain HTTP works.
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
            // The digest is computed over the uncompressed bytes.
            .no_gzip()
            .referer(false)
            .redirect(if self.redirects { redirect::Policy::custom(follow) } else { redirect::Policy::none() });
        let Addresses(addresses) = self.addresses;
        let builder = addresses.iter().fold(builder, |builder, (host, address)| builder.resolve(host, *address));
        if self.is_near || !addresses.is_empty() { builder.no_proxy() } else { builder }
    }
}

/// Follows a redirect unless it leads from HTTPS to HTTP.
///
/// `reqwest` removes `Authorization` if scheme, host or port change. The token therefore does not reach the storage service behind
/// a registry, which would also reject a request with two signatures.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match refusal(attempt.previous(), attempt.url()) {
        Some(reason) => attempt.error(reason),
        None => attempt.follow(),
    }
}

fn refusal(previous: &[Url], next: &Url) -> Option<&'static str> {
    if next.scheme() != "https" && previous.last().is_some_and(|url| url.scheme() == "https") {
        return Some("redirect from HTTPS to plain HTTP");
    }
    (previous.len() > MAX_REDIRECTS).then_some("too many redirects")
}

/// Reads and parses every certificate, because `reqwest` silently accepts a file without certificates.
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

/// Returns the innermost cause: the text of `reqwest`'s own error is only "builder error".
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
    fn redirect_from_https_to_http_is_refused() {
        let url = |text: &str| Url::parse(text).unwrap();
        let refused = |previous: &str, next: &str| refusal(&[url(previous)], &url(next)).is_some();
        assert!(refused("https://r/v2/a", "http://r/v2/a"));
        assert!(!refused("https://r/v2/a", "https://storage/a"));
        assert!(!refused("http://r/v2/a", "http://storage/a"));
        assert!(!refused("http://r/v2/a", "https://r/v2/a"));
    }

    #[test]
    fn ca_bundle_without_certificates_is_an_error() {
        for text in ["", "garbage", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(matches!(bundle(text), Err(ClientError::EmptyBundle(_))), "{text}");
        }
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(bundle(garbage), Err(ClientError::BadCertificate { number: 1, .. })));
        let missing = read_bundle(Path::new("/no/such/ca.pem"));
        assert!(matches!(missing, Err(ClientError::UnreadableBundle { .. })));
    }
}
