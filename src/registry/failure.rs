//! Failed requests to a registry or its token service, in words for operators.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::client::TimeLimits;
use tagrelay_git::retry_after;

/// The longest pause that a registry can ask for. Docker Hub's limits cover six hours.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Why a request got no usable answer. Cloned for every request that waits for the same token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RegistryFailure {
    /// Permanent: a retry fails too until the settings or the registry change.
    NotAllowed { reason: String },
    /// Temporary: a retry may succeed.
    NotNow { reason: String, ask_again_after: Option<Duration> },
}

impl RegistryFailure {
    pub(super) fn not_allowed(reason: impl Into<String>) -> Self {
        Self::NotAllowed { reason: reason.into() }
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            Self::NotAllowed { reason } | Self::NotNow { reason, .. } => reason,
        }
    }

    pub(super) fn not_now(reason: impl Into<String>) -> Self {
        Self::NotNow { reason: reason.into(), ask_again_after: None }
    }
}

/// Returns the failure for a temporary status (408, 425, 429, 5xx); `None`: another status.
///
/// `who` begins the message: "registry docker.io", "the token service auth.docker.io of registry docker.io".
pub(super) fn temporary(status: StatusCode, headers: &HeaderMap, who: &str, host: &str) -> Option<RegistryFailure> {
    let ask_again_after = retry_after(headers, Timestamp::now(), LONGEST_WAIT);
    let reason = match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let limit = headers.get("ratelimit-limit").and_then(|value| value.to_str().ok()).and_then(describe_limit);
            let limit = limit.map(|limit| format!(" ({limit})")).unwrap_or_default();
            format!(
                "{who} answered 429: rate limit reached{limit}; retrying later; credentials for [[registry]] host = \
                 \"{host}\" may raise the limit"
            )
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => format!("{who} answered {status}; retrying"),
        _ if status.is_server_error() => {
            format!("{who} answered {status}; retrying; if this lasts, see its log")
        }
        _ => return None,
    };
    Some(RegistryFailure::NotNow { reason, ask_again_after })
}

/// Formats Docker Hub's `100;w=21600` as "100 in 21600 s".
///
/// Source: <https://docs.docker.com/docker-hub/usage/pulls/>.
fn describe_limit(text: &str) -> Option<String> {
    let (count, window) = text.split_once(";w=")?;
    let (count, window) = (count.parse::<u64>().ok()?, window.parse::<u64>().ok()?);
    Some(format!("{count} in {window} s"))
}

/// Returns the failure of a request that got no complete answer. Contains no credential and no URL with a query.
pub(super) fn no_answer(error: reqwest::Error, who: &str, host: &str, limits: TimeLimits) -> RegistryFailure {
    let io = io_error(&error).map(std::io::Error::kind);
    let what = if error.is_timeout() && error.is_connect() {
        format!(
            "cannot be reached (connection timed out after {:?}); retrying; if this lasts, check host and network",
            limits.connect
        )
    } else if error.is_timeout() {
        format!("did not answer within {:?}; retrying", limits.request)
    } else if let Some(tls) = tls_error(&error) {
        describe_tls(tls, host)
    } else if error.is_connect() && io == Some(ErrorKind::UnexpectedEof) {
        // A server without TLS answers the handshake with an error or closes the connection.
        no_tls(host)
    } else if io == Some(ErrorKind::ConnectionRefused) {
        "cannot be reached (connection refused); retrying; if this lasts, check host and port".into()
    } else {
        let verb = if error.is_connect() { "cannot be reached" } else { "sent an incomplete answer" };
        let cause = innermost(&error.without_url());
        format!("{verb} ({cause}); retrying; if this lasts, check host and network")
    };
    RegistryFailure::not_now(format!("{who} {what}"))
}

fn describe_tls(error: &rustls::Error, host: &str) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => no_tls(host),
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => format!(
            "has a certificate of an unknown authority: set ca_bundle for [[registry]] host = \"{host}\" to the PEM \
             file of that authority"
        ),
        other => format!("failed the TLS handshake ({other}): check its certificate and TLS settings"),
    }
}

fn no_tls(host: &str) -> String {
    let docker = " (Docker uses plain HTTP for this machine by default, Tagrelay does not)";
    let loopback = if is_loopback(host) { docker } else { "" };
    format!(
        "does not speak TLS: if it speaks plain HTTP, set plain_http = true for [[registry]] host = \"{host}\"{loopback}"
    )
}

/// Returns whether the host, with or without a port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Iterates over an error and its causes. Includes the error that an `io::Error` wraps, which its `source()` skips.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &'a (dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a std::io::Error> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_is_shown_with_its_window() {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", "100;w=21600".parse().unwrap());
        let failure = temporary(StatusCode::TOO_MANY_REQUESTS, &headers, "registry docker.io", "docker.io");
        let Some(RegistryFailure::NotNow { reason, ask_again_after: None }) = failure else { panic!("{failure:?}") };
        assert!(reason.starts_with("registry docker.io answered 429: rate limit reached (100 in 21600 s)"), "{reason}");
        assert_eq!(temporary(StatusCode::NOT_FOUND, &headers, "", ""), None);
    }

    #[test]
    fn loopback_hosts_are_recognised() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1:5000", "[::2]:5000", "docker.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
