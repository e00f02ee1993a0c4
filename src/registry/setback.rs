//! Why a registry gave no answer to build on, in words for the person who reads the event.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::client::TimeLimits;
use tagrelay_git::retry_after;

/// The longest wait that a registry can ask for: Docker Hub's limits are counted over six hours.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Why there is no answer to build on. Cheap to clone, because everybody who waits for one token gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setback {
    /// Asking again changes nothing until somebody does something.
    NotAllowed { reason: String },
    /// The same question may be answered later.
    NotNow { reason: String, ask_again_after: Option<Duration> },
}

impl Setback {
    pub(super) fn not_allowed(reason: impl Into<String>) -> Self {
        Self::NotAllowed { reason: reason.into() }
    }

    pub(super) fn not_now(reason: impl Into<String>) -> Self {
        Self::NotNow { reason: reason.into(), ask_again_after: None }
    }
}

/// Returns the setback of a status that passes by itself, or `None` for any other status.
///
/// `who` begins the sentence: "registry docker.io", "the token service auth.docker.io of registry docker.io".
pub(super) fn passing(status: StatusCode, headers: &HeaderMap, who: &str, host: &str) -> Option<Setback> {
    let ask_again_after = retry_after(headers, Timestamp::now(), LONGEST_WAIT);
    let reason = match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let limit = headers.get("ratelimit-limit").and_then(|value| value.to_str().ok()).and_then(describe_limit);
            let limit = limit.map(|limit| format!(" ({limit})")).unwrap_or_default();
            format!(
                "{who} limits how often it may be asked{limit} and answered 429: it is asked again later; credentials \
                 for [[registry]] host = \"{host}\" may raise the limit"
            )
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => format!("{who} answered {status}: it is asked again"),
        _ if status.is_server_error() => {
            format!("{who} answered {status}: it is asked again; see its own log if this lasts")
        }
        _ => return None,
    };
    Some(Setback::NotNow { reason, ask_again_after })
}

/// Says Docker Hub's `100;w=21600` in words (<https://docs.docker.com/docker-hub/usage/pulls/>).
fn describe_limit(text: &str) -> Option<String> {
    let (count, window) = text.split_once(";w=")?;
    let (count, window) = (count.parse::<u64>().ok()?, window.parse::<u64>().ok()?);
    Some(format!("{count} in {window} s"))
}

/// Says why a request to `host` was not answered. Neither credentials nor addresses with a query get into it.
pub(super) fn unanswered(error: reqwest::Error, who: &str, host: &str, limits: TimeLimits) -> Setback {
    let io = io_error(&error).map(std::io::Error::kind);
    let what = if error.is_timeout() && error.is_connect() {
        format!(
            "cannot be reached within {:?}: it is asked again; check host and network if this lasts",
            limits.connect
        )
    } else if error.is_timeout() {
        format!("did not answer within {:?}: it is asked again", limits.request)
    } else if let Some(tls) = tls_error(&error) {
        describe_tls(tls, host)
    } else if error.is_connect() && io == Some(ErrorKind::UnexpectedEof) {
        // Servers without TLS answer the handshake by an error or hang up.
        no_tls(host)
    } else if io == Some(ErrorKind::ConnectionRefused) {
        "cannot be reached, because nothing listens there: it is asked again; check host and port if this lasts".into()
    } else {
        let verb = if error.is_connect() { "cannot be reached" } else { "broke off its answer" };
        let cause = innermost(&error.without_url());
        format!("{verb} ({cause}): it is asked again; check host and network if this lasts")
    };
    Setback::not_now(format!("{who} {what}"))
}

fn describe_tls(error: &rustls::Error, host: &str) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => no_tls(host),
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => format!(
            "has a certificate of an authority that this machine does not know: set ca_bundle for [[registry]] host = \
             \"{host}\" to the PEM file of that authority"
        ),
        other => format!("could not agree on TLS with Tagrelay ({other}): check its certificate and its settings"),
    }
}

fn no_tls(host: &str) -> String {
    let docker = " (Docker does so unasked on this machine, Tagrelay does not)";
    let loopback = if is_loopback(host) { docker } else { "" };
    format!(
        "does not speak TLS: if it speaks plain HTTP, set plain_http = true for [[registry]] host = \"{host}\"{loopback}"
    )
}

/// Returns whether the host with its optional port is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Walks to the errors below, through `io::Error`, whose `source()` skips the error that it wraps.
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
    fn a_limit_is_said_in_words() {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", "100;w=21600".parse().unwrap());
        let setback = passing(StatusCode::TOO_MANY_REQUESTS, &headers, "registry docker.io", "docker.io");
        let Some(Setback::NotNow { reason, ask_again_after: None }) = setback else { panic!("{setback:?}") };
        assert!(reason.starts_with("registry docker.io limits how often it may be asked (100 in 21600 s)"), "{reason}");
        assert_eq!(passing(StatusCode::NOT_FOUND, &headers, "", ""), None);
    }

    #[test]
    fn knows_this_machine() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1:5000", "[::2]:5000", "docker.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
