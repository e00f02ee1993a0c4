//! A client of the API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::{Host, Url};

use super::super::{exit, output};
use super::context::Context;
use crate::api::Problem;
use crate::registry::install_tls_provider;
use tagrelay_secret::{ExposeSecret as _, Secret};

/// The environment variable with the token. A token on the command line would be visible in the list of processes.
const TOKEN_VARIABLE: &str = "TAGRELAY_TOKEN";

const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long a response may take, besides the time that a request asks the server to wait.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Pauses before retries of a request.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// The environment variable with the address.
const SERVER_VARIABLE: &str = "TAGRELAY_SERVER";

const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// The server and the token.
#[derive(Args)]
#[command(next_help_heading = "Server")]
pub(in crate::cli) struct ServerOptions {
    /// The address of Tagrelay [default: TAGRELAY_SERVER, the context, or http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", value_parser = parse_server)]
    server: Option<Url>,
    /// A file that holds the API token [default: the token in TAGRELAY_TOKEN, or of the context]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ServerOptions {
    /// Returns the options for a server, with the token in a file.
    pub(in crate::cli) fn at(server: Url, token_file: PathBuf) -> Self {
        Self { server: Some(server), token_file: Some(token_file) }
    }

    /// Returns no options: the environment and the context decide.
    pub(in crate::cli) fn unset() -> Self {
        Self { server: None, token_file: None }
    }

    /// Finds the server and the token: options first, then a context that was asked for, variables, and the default context.
    fn resolve(self) -> anyhow::Result<(Url, Secret)> {
        let context = match (&self.server, &self.token_file) {
            // Nothing is left to look up, so a broken file does not matter.
            (Some(_), Some(_)) => None,
            _ => Context::selected()?,
        };
        let asked = context.as_ref().filter(|context| context.is_asked);
        let variable = || std::env::var(SERVER_VARIABLE).ok().filter(|server| !server.is_empty());
        let server = match (self.server, asked, variable(), &context) {
            (Some(server), ..) => server,
            (None, Some(context), ..) => named(&context.server, &format!("context `{}`", context.name))?,
            (None, None, Some(server), _) => named(&server, SERVER_VARIABLE)?,
            (None, None, None, Some(context)) => named(&context.server, &format!("context `{}`", context.name))?,
            (None, None, None, None) => named(DEFAULT_SERVER, "default")?,
        };
        let variable = || Secret::from_environment(TOKEN_VARIABLE);
        let token = match (self.token_file, asked) {
            (Some(file), _) => Secret::from_file(file).context("--token-file")?,
            (None, Some(context)) => match context.token()? {
                Some(token) => token,
                None => variable()
                    .with_context(|| format!("context `{}` has no token, and TAGRELAY_TOKEN", context.name))?,
            },
            (None, None) => match (variable(), &context) {
                (Ok(token), _) => token,
                (Err(error), Some(context)) => context.token()?.ok_or(error).context(NO_TOKEN)?,
                (Err(error), None) => return Err(error).context(NO_TOKEN),
            },
        };
        Ok((server, token))
    }
}

const NO_TOKEN: &str =
    "no API token: set TAGRELAY_TOKEN, name a file that holds it with --token-file, or select a --context";

fn named(server: &str, place: &str) -> anyhow::Result<Url> {
    parse_server(server).map_err(|error| exit::usage(format!("{place}: `{}`: {error}", output::clean(server))))
}

fn parse_server(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}; write http://HOST:PORT or https://HOST"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("write http://HOST:PORT or https://HOST".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("it must not contain a user or password; the token belongs into {TOKEN_VARIABLE}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must end before `?` and `#`".to_owned());
    }
    Ok(url)
}

/// The API of one server.
pub(in crate::cli) struct Api {
    http: reqwest::Client,
    server: Url,
    authorization: HeaderValue,
}

/// A successful response.
pub(in crate::cli) struct Answer {
    text: String,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ApiError {
    /// The server answered with an error.
    #[error("{detail}")]
    Refused {
        status: StatusCode,
        /// The reason, and what to do.
        detail: String,
    },
    /// There is no connection, so the request had no effect.
    #[error("no connection to {server}: {reason}; set the address with --server, TAGRELAY_SERVER or a --context")]
    Unreachable { server: Url, reason: String },
    /// The request was sent, but the response was lost.
    #[error("no response from {server}: {reason}")]
    Lost { server: Url, reason: String },
}

impl ApiError {
    /// Returns the exit code.
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403 | 500..) => exit::UNREACHABLE,
            Self::Refused { status, .. } if status.is_redirection() => exit::UNREACHABLE,
            Self::Refused { .. } => exit::REFUSED,
            Self::Unreachable { .. } | Self::Lost { .. } => exit::UNREACHABLE,
        }
    }

    /// Whether the server does not know what was asked for.
    pub(in crate::cli) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// Returns whether a retry may succeed. The request may have had its effect already.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::Lost { .. } => true,
            Self::Unreachable { .. } => false,
        }
    }

    /// Returns whether the error may be temporary, for a server that has responded before.
    pub(in crate::cli) fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Unreachable { .. })
    }
}

impl Answer {
    /// Parses the body.
    pub(in crate::cli) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.text).context("the response is not one of this version of the Tagrelay API")
    }

    /// Prints the body unchanged, for scripts.
    pub(in crate::cli) fn print(&self) -> std::io::Result<()> {
        output::print(&format!("{}\n", self.text.trim_end()))
    }
}

impl Api {
    /// Makes a client without connecting.
    ///
    /// # Errors
    ///
    /// If there is no token, or the system has no CA certificates.
    pub(in crate::cli) fn new(options: ServerOptions) -> anyhow::Result<Self> {
        let (server, token) = options.resolve()?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.reveal()?.expose_secret()))
            .context("the API token contains characters that a header cannot contain, such as a line feed")?;
        authorization.set_sensitive(true);
        let local = is_loopback(&server);
        if server.scheme() == "http" && !local {
            output::note(&format!(
                "warning: the token is sent to {server} without encryption; use https:// if possible"
            ));
        }
        install_tls_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tagrelay/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME);
        if local {
            builder = builder.no_proxy();
        }
        if server.scheme() == "http" {
            // Plain HTTP needs no CA certificates.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().context("the HTTPS client cannot be built: install the system's CA certificates")?;
        Ok(Self { http, server, authorization })
    }

    /// Sends a GET to `/api/v1/` and the segments of `path`, with retries.
    pub(in crate::cli) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Answer, ApiError> {
        self.send_with_retries(|| self.http.request(Method::GET, self.address(path, query)).timeout(ANSWER_TIME)).await
    }

    /// Sends a GET that the server may answer up to `wait` later. No retries.
    pub(in crate::cli) async fn get_when_done(&self, path: &[&str], wait: Duration) -> Result<Answer, ApiError> {
        let address = self.address(path, &[("wait", wait.as_secs().to_string())]);
        self.send(self.http.request(Method::GET, address).timeout(wait + ANSWER_TIME)).await
    }

    /// Sends a GET whose response is a stream. No retries.
    pub(in crate::cli) async fn open(&self, path: &[&str]) -> Result<reqwest::Response, ApiError> {
        self.receive(self.http.request(Method::GET, self.address(path, &[]))).await
    }

    /// Opens the stream of changes, after the message with this id.
    pub(in crate::cli) async fn stream(&self, after: Option<&str>) -> Result<reqwest::Response, ApiError> {
        let request = self.http.request(Method::GET, self.address(&["stream"], &[]));
        let request = request.header(header::ACCEPT, "text/event-stream");
        self.receive(match after {
            Some(id) => request.header("last-event-id", id),
            None => request,
        })
        .await
    }

    /// Sends a POST. No retries.
    pub(in crate::cli) async fn post(&self, path: &[&str], body: &impl Serialize) -> Result<Answer, ApiError> {
        self.send(self.http.request(Method::POST, self.address(path, &[])).timeout(ANSWER_TIME).json(body)).await
    }

    /// Sends a POST with an idempotency key, with retries.
    pub(super) async fn post_once(&self, path: &[&str], body: &impl Serialize, key: &str) -> Result<Answer, ApiError> {
        let request = || {
            let request = self.http.request(Method::POST, self.address(path, &[])).timeout(ANSWER_TIME);
            request.header("idempotency-key", key).json(body)
        };
        self.send_with_retries(request).await
    }

    /// Sends a DELETE. No retries.
    pub(in crate::cli) async fn delete(&self, path: &[&str]) -> Result<Answer, ApiError> {
        self.send(self.http.request(Method::DELETE, self.address(path, &[])).timeout(ANSWER_TIME)).await
    }

    /// Sends a request that may be repeated, with retries after temporary errors.
    async fn send_with_retries(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Answer, ApiError> {
        for pause in RETRY_PAUSES {
            match self.send(request()).await {
                Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        self.send(request()).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, ApiError> {
        let text = self.receive(request).await?.text().await.map_err(|error| self.failed(&error))?;
        Ok(Answer { text })
    }

    /// Sends a request and returns the response before its body, unless it is an error.
    async fn receive(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ApiError> {
        let response = request.header(header::AUTHORIZATION, self.authorization.clone()).send().await;
        let response = response.map_err(|error| self.failed(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.map_err(|error| self.failed(&error))?;
        let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        Err(ApiError::Refused { status, detail: self.explain(status, location, &text) })
    }

    fn failed(&self, error: &reqwest::Error) -> ApiError {
        let (server, reason) = (self.server.clone(), root_cause(error));
        if error.is_connect() { ApiError::Unreachable { server, reason } } else { ApiError::Lost { server, reason } }
    }

    /// Explains an error in one line.
    fn explain(&self, status: StatusCode, location: Option<&str>, body: &str) -> String {
        if status.is_redirection() {
            let to = location.map(|to| format!(" to {}", output::clean(to))).unwrap_or_default();
            return format!("{} redirects{to}: give --server the address of Tagrelay itself", self.server);
        }
        if status == StatusCode::UNAUTHORIZED {
            return format!(
                "authentication to {} failed: set {TOKEN_VARIABLE} (or --token-file) to the token of an [[api_token]]",
                self.server
            );
        }
        let problem = serde_json::from_str::<Problem>(body).ok();
        let texts = problem.into_iter().flat_map(|problem| [problem.detail, problem.title]);
        match texts.into_iter().find(|text| !text.is_empty()) {
            Some(detail) => output::clean_lines(&detail),
            // From a proxy, or from another program.
            None => format!("{} answered {status}; is it Tagrelay?", self.server),
        }
    }

    fn address(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut address = self.server.clone();
        // Fails only for addresses without a path, which `parse_server` rejects.
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        address
    }
}

fn is_loopback(server: &Url) -> bool {
    match server.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns the innermost cause: the outer ones repeat the address with its query.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    // What rustls says about an answer in plain HTTP.
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return "the server does not speak TLS at this address: use http://, or the port for HTTPS".to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(server: &str) -> Api {
        install_tls_provider();
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        Api { http, server: parse_server(server).unwrap(), authorization: HeaderValue::from_static("Bearer x") }
    }

    #[test]
    fn address_keeps_the_path_of_the_server() {
        let address = api("http://127.0.0.1:8080").address(&["events", "a/b?"], &[("limit", "3".to_owned())]);
        assert_eq!(address.as_str(), "http://127.0.0.1:8080/api/v1/events/a%2Fb%3F?limit=3");
        let below = api("https://tools.example.com/tagrelay/").address(&["holds"], &[]);
        assert_eq!(below.as_str(), "https://tools.example.com/tagrelay/api/v1/holds");
    }

    #[test]
    fn server_with_a_secret_is_rejected() {
        for wrong in ["127.0.0.1:8080", "ftp://host", "http://me:pw@host", "http://host/?a=b", "nonsense"] {
            assert!(parse_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn error_is_explained_in_one_line() {
        let api = api("http://127.0.0.1:8080");
        let explain = |status, location, body: &str| api.explain(status, location, body);
        let detail = r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"it runs\nsomething else"}"#;
        assert_eq!(explain(StatusCode::CONFLICT, None, detail), "it runs\n  something else");
        assert!(explain(StatusCode::UNAUTHORIZED, None, detail).contains("TAGRELAY_TOKEN"));
        assert!(explain(StatusCode::FOUND, Some("https://sso/"), "").contains("redirects to https://sso/"));
        assert!(explain(StatusCode::BAD_GATEWAY, None, "<html>").contains("502 Bad Gateway; is it Tagrelay?"));
    }

    #[test]
    fn loopback_addresses_are_recognised() {
        for (server, local) in [
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://127.0.0.2", true),
            ("http://t.test", false),
        ] {
            assert_eq!(is_loopback(&parse_server(server).unwrap()), local, "{server}");
        }
    }
}
