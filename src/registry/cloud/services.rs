//! Requests to token services and metadata servers, and their refusals in words.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use reqwest::RequestBuilder;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use tagrelay_secret::{ExposeSecret as _, Redaction, Secret};
use url::Url;

use crate::registry::body::read_at_most;
use crate::registry::client::TimeLimits;
use crate::registry::failure::{RegistryFailure, no_answer, temporary};

/// A metadata server is on the node and answers in milliseconds, or never: a NetworkPolicy drops the packets.
pub(in crate::registry) const METADATA_LIMIT: TimeLimits =
    TimeLimits { connect: Duration::from_secs(2), request: Duration::from_secs(2) };

const MAX_ANSWER_BYTES: usize = 256 << 10;

/// The longest text of a service in a message.
const MAX_TEXT_CHARS: usize = 400;

/// Clouds accept a difference of up to five minutes.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(4 * 60);

/// Calls the services of a cloud for one registry.
#[derive(Clone)]
pub(in crate::registry) struct Services {
    /// The registry's host, for messages.
    pub(in crate::registry) registry: String,
    /// Follows no redirects, because they would carry a token to another host.
    pub(in crate::registry) client: reqwest::Client,
    pub(in crate::registry) limits: TimeLimits,
    /// As `client`, without a proxy and with [`METADATA_LIMIT`].
    pub(in crate::registry) metadata: reqwest::Client,
}

/// A service for messages, and what to check if it refuses.
pub(super) struct Service<'a> {
    /// `AWS STS at sts.eu-west-1.amazonaws.com`.
    pub(super) name: String,
    /// "check …", after a refusal.
    pub(super) advice: String,
    /// The secrets that the request carries.
    pub(super) secrets: Vec<&'a SecretString>,
}

/// A successful answer.
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// The service's own clock, or ours if it does not say.
    pub(super) date: Timestamp,
}

/// An access token of OAuth 2.0.
#[derive(Deserialize)]
pub(super) struct AccessToken {
    pub(super) access_token: SecretString,
    /// A number, or a number in a string (Azure's metadata server).
    expires_in: Value,
}

impl AccessToken {
    pub(super) fn life(&self) -> Option<Duration> {
        let seconds = self.expires_in.as_u64().or_else(|| self.expires_in.as_str()?.parse().ok());
        seconds.map(Duration::from_secs)
    }
}

impl Services {
    /// Creates a request with a form.
    pub(super) fn post_form(&self, address: Url, form: &[(&str, &str)]) -> RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.client.post(address).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
    }

    /// Sends a request to a token service.
    pub(super) async fn call(&self, service: &Service<'_>, request: RequestBuilder) -> Result<Answer, RegistryFailure> {
        self.send(service, request, self.limits).await
    }

    /// Sends a request to a metadata server, with its short time limit.
    pub(super) async fn call_metadata(
        &self,
        service: &Service<'_>,
        request: RequestBuilder,
    ) -> Result<Answer, RegistryFailure> {
        self.send(service, request, METADATA_LIMIT).await.map_err(|failure| match failure {
            RegistryFailure::NotNow { reason, ask_again_after } => {
                let reason = format!("{reason}; {}", service.advice);
                RegistryFailure::NotNow { reason, ask_again_after }
            }
            denied => denied,
        })
    }

    async fn send(
        &self,
        service: &Service<'_>,
        request: RequestBuilder,
        limits: TimeLimits,
    ) -> Result<Answer, RegistryFailure> {
        let who = self.who(service);
        let failed = |error| no_answer(error, &who, &self.registry, limits);
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_at_most(response, MAX_ANSWER_BYTES).await.map_err(failed)?.unwrap_or_default();
        if status.is_success() {
            return Ok(Answer { body, date: date_of(&headers).unwrap_or_else(Timestamp::now) });
        }
        Err(self.refusal(service, status, &headers, &body))
    }

    /// Returns the failure for an answer that lacks what it must have.
    pub(super) fn unreadable(&self, service: &Service<'_>, what: &str) -> RegistryFailure {
        RegistryFailure::not_now(format!("{} answered without {what}; retrying", self.who(service)))
    }

    /// Reads a JSON answer.
    pub(super) fn json<'a, T: Deserialize<'a>>(
        &self,
        service: &Service<'_>,
        answer: &'a Answer,
        what: &str,
    ) -> Result<T, RegistryFailure> {
        serde_json::from_slice(&answer.body).map_err(|_| self.unreadable(service, what))
    }

    /// Returns the failure for a setting or variable that cannot be used.
    pub(super) fn unusable(&self, reason: &str) -> RegistryFailure {
        RegistryFailure::not_allowed(format!("login to registry {} failed: {reason}", self.registry))
    }

    /// Reads a file of the identity, such as a projected service account token.
    pub(super) fn read_file(&self, variable: &str, path: &str) -> Result<SecretString, RegistryFailure> {
        // Temporary: a mounted file may appear later.
        Secret::from_file(path).and_then(|secret| secret.reveal()).map_err(|error| {
            let registry = &self.registry;
            RegistryFailure::not_now(format!("login to registry {registry} failed: {variable}: {error}; retrying"))
        })
    }

    fn who(&self, service: &Service<'_>) -> String {
        format!("{} (login to registry {})", service.name, self.registry)
    }

    fn refusal(&self, service: &Service<'_>, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> RegistryFailure {
        let who = self.who(service);
        if status != StatusCode::TOO_MANY_REQUESTS
            && let Some(failure) = temporary(status, headers, &who, &self.registry)
        {
            return failure;
        }
        let redaction = service
            .secrets
            .iter()
            .fold(Redaction::none(), |redaction, secret| redaction.and("", secret.expose_secret()));
        let said = redaction.clean(&said(body));
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let answered = format!("{who} answered {}{said}", status.as_u16());
        let is_throttled = said.contains("ThrottlingException") || said.contains("(Throttling");
        if status == StatusCode::TOO_MANY_REQUESTS || is_throttled {
            return RegistryFailure::not_now(format!("{answered}: too many requests; retrying later"));
        }
        let now = Timestamp::now();
        if let Some(date) = date_of(headers)
            && now.duration_since(date).unsigned_abs() > MAX_CLOCK_SKEW
        {
            let (minutes, direction) = skew(now, date);
            return RegistryFailure::not_now(format!(
                "{answered}: this machine's clock is {minutes} minutes {direction} the service's clock: correct it, for example \
                 with NTP; retrying"
            ));
        }
        let expired = service.secrets.iter().filter_map(|secret| expiry_of(secret.expose_secret()));
        if let Some(expired) = expired.filter(|expiry| *expiry <= now).max() {
            return RegistryFailure::not_now(format!(
                "{answered}: the token in the file expired at {expired}: check that the token file is a projected volume, which \
                 kubelet renews, and not a copy; retrying"
            ));
        }
        RegistryFailure::not_allowed(format!("{answered}: {}", service.advice))
    }
}

fn skew(now: Timestamp, date: Timestamp) -> (u64, &'static str) {
    let minutes = now.duration_since(date).unsigned_abs().as_secs() / 60;
    (minutes, if now > date { "ahead of" } else { "behind" })
}

fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp())
}

/// Returns when a JSON Web Token expires, without verifying it; `None`: it is not one, or does not say.
pub(super) fn expiry_of(token: &str) -> Option<Timestamp> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims.get("exp")?.as_i64()?).ok()
}

/// Returns code and message of an error: JSON of the clouds' APIs, or XML of STS. On one line.
fn said(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let parts = match serde_json::from_str::<Value>(text) {
        Ok(json) => said_in_json(&json),
        Err(_) => said_in_xml(text),
    };
    let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn said_in_json(json: &Value) -> Vec<String> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let error = match json.get("error") {
        Some(error) if error.is_object() => error,
        _ => json.pointer("/errors/0").unwrap_or(json),
    };
    // `com.amazonaws.ecr#AccessDeniedException`
    let code = text(error, "__type").map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
    let code = code.or_else(|| ["code", "status", "error"].iter().find_map(|name| text(error, name)));
    let names = ["message", "Message", "error_description"];
    code.into_iter().chain(names.iter().find_map(|name| text(error, name))).collect()
}

fn said_in_xml(text: &str) -> Vec<String> {
    ["Code", "Message"].iter().filter_map(|name| element(text, name)).collect()
}

/// Returns the text of the first XML element of this name.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let found = document.descendants().find(|node| node.tag_name().name() == name)?;
    found.text().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Services {
        crate::registry::install_tls_provider();
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let limits = TimeLimits::default();
        Services { registry: "r.azurecr.io".to_owned(), metadata: client.clone(), client, limits }
    }

    fn service<'a>(secrets: Vec<&'a SecretString>) -> Service<'a> {
        Service { name: "the service".to_owned(), advice: "check the role".to_owned(), secrets }
    }

    fn refusal(secret: &str, date: Option<Timestamp>, status: u16, body: &str) -> RegistryFailure {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
            headers.insert(header::DATE, date.parse().unwrap());
        }
        let secret = SecretString::from(secret);
        let status = StatusCode::from_u16(status).unwrap();
        services().refusal(&service(vec![&secret]), status, &headers, body.as_bytes())
    }

    fn token(expiry: Timestamp) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{}}}"#, expiry.as_second())))
    }

    #[test]
    fn errors_of_each_api_are_read() {
        for (body, expected) in [
            (
                r#"{"__type":"com.amazonaws.ecr#AccessDeniedException","Message":"not authorized"}"#,
                "AccessDeniedException: not authorized",
            ),
            (
                "<ErrorResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><Error><Code>AccessDenied</Code>\
                 <Message>Not &amp; authorized</Message></Error></ErrorResponse>",
                "AccessDenied: Not & authorized",
            ),
            (r#"{"error":"invalid_grant","error_description":"Invalid\r\nJWT"}"#, "invalid_grant: Invalid  JWT"),
            (r#"{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}"#, "PERMISSION_DENIED: denied"),
            (r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#, "UNAUTHORIZED: no"),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(said(body.as_bytes()), expected);
        }
        assert_eq!(said(format!(r#"{{"message":"{}"}}"#, "ä".repeat(500)).as_bytes()).chars().count(), 401);
    }

    #[test]
    fn refusal_names_clock_skew_and_expired_tokens() {
        let now = Timestamp::now();
        let hour = jiff::SignedDuration::from_hours(1);
        let RegistryFailure::NotNow { reason, .. } = refusal("secret", Some(now - hour), 403, "{}") else { panic!() };
        assert!(reason.contains("this machine's clock is 60 minutes ahead of the service's clock"), "{reason}");
        let RegistryFailure::NotNow { reason, .. } = refusal(&token(now - hour), Some(now), 400, "") else { panic!() };
        assert!(reason.contains("the token in the file expired at"), "{reason}");
        let RegistryFailure::NotAllowed { reason } = refusal(&token(now + hour), Some(now), 400, "") else { panic!() };
        assert_eq!(reason, "the service (login to registry r.azurecr.io) answered 400: check the role");
    }

    #[test]
    fn secrets_quoted_by_a_service_are_redacted() {
        let failure = refusal("hunter2 secret", None, 400, r#"{"message":"no hunter2 secret"}"#);
        let RegistryFailure::NotAllowed { reason } = failure else { panic!("{failure:?}") };
        assert!(reason.contains("no [redacted]") && !reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn throttled_requests_are_repeated() {
        for (status, body) in [(429, ""), (400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#)] {
            assert!(matches!(refusal("secret", None, status, body), RegistryFailure::NotNow { .. }), "{status}");
        }
    }
}
