//! A small client of the API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::{Host, Url};

use super::super::output;
use crate::api::Problem;
use crate::registry::install_tls_provider;
use crate::secret::{ExposeSecret as _, Secret};

/// The variable that holds the token. A token on the command line would be seen by everybody who lists processes.
const TOKEN_VARIABLE: &str = "TAGRELAY_TOKEN";

const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long an answer may take that the server does not hold back on purpose.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Pauses before a request that may have been lost is sent again.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Which server, and with what token.
#[derive(Args)]
#[command(next_help_heading = "Server")]
pub(in crate::cli) struct ServerOptions {
    /// Where Tagrelay runs
    #[arg(long, value_name = "URL", env = "TAGRELAY_SERVER", hide_env_values = true, default_value = "http://127.0.0.1:8080",
          value_parser = parse_server)]
    server: Url,
    /// A file that holds the API token [default: the token in the variable TAGRELAY_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ServerOptions {
    /// Returns the options for a server whose address is known, with the token in a file.
    pub(in crate::cli) fn at(server: Url, token_file: PathBuf) -> Self {
        Self { server, token_file: Some(token_file) }
    }
}

fn parse_server(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}; write http://HOST:PORT or https://HOST"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("write http://HOST:PORT or https://HOST".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("it must hold no user or password; the token belongs into {TOKEN_VARIABLE}"));
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

/// A successful answer.
pub(in crate::cli) struct Answer {
    text: String,
}

/// Why there is no successful answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ApiError {
    /// The server said no.
    #[error("{detail}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it said, and what to do.
        detail: String,
    },
    /// There is no connection, so nothing happened.
    #[error("no connection to {server}: {reason}; say where Tagrelay runs with --server or TAGRELAY_SERVER")]
    Unreachable { server: Url, reason: String },
    /// The request was sent and the answer did not come.
    #[error("no answer from {server}: {reason}")]
    Lost { server: Url, reason: String },
}

impl ApiError {
    /// Returns whether the same request may succeed in a moment, though what it asks for may have been done already.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::Lost { .. } => true,
            Self::Unreachable { .. } => false,
        }
    }

    /// Returns whether a server that has answered a moment ago may answer again.
    pub(super) fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Unreachable { .. })
    }
}

impl Answer {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// When it is not what this version expects.
    pub(in crate::cli) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.text).context("the answer is not that of a Tagrelay API of this version")
    }

    /// Prints the body as it came, for scripts.
    pub(in crate::cli) fn print(&self) -> std::io::Result<()> {
        output::print(&format!("{}\n", self.text.trim_end()))
    }
}

impl Api {
    /// Returns the client that the options describe. Sends nothing.
    ///
    /// # Errors
    ///
    /// When there is no token or no way to speak TLS.
    pub(in crate::cli) fn new(options: ServerOptions) -> anyhow::Result<Self> {
        let ServerOptions { server, token_file } = options;
        let token = read_token(token_file)?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.reveal()?.expose_secret()))
            .context("the API token holds characters that no header can hold, such as a line feed")?;
        authorization.set_sensitive(true);
        let local = is_loopback(&server);
        if server.scheme() == "http" && !local {
            output::note(&format!(
                "warning: the token goes to {server} without encryption; use https:// where you can"
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
            // Works on a machine without certificate authorities, too.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().context("no HTTPS client can be made: install the system's CA certificates")?;
        Ok(Self { http, server, authorization })
    }

    /// Asks for something that is there, at `/api/v1/` and the segments of `path`.
    pub(in crate::cli) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Answer, ApiError> {
        self.again(|| self.http.request(Method::GET, self.address(path, query)).timeout(ANSWER_TIME)).await
    }

    /// Asks for something that the server may hold back for `wait`. One attempt.
    pub(in crate::cli) async fn get_when_done(&self, path: &[&str], wait: Duration) -> Result<Answer, ApiError> {
        let address = self.address(path, &[("wait", wait.as_secs().to_string())]);
        self.send(self.http.request(Method::GET, address).timeout(wait + ANSWER_TIME)).await
    }

    /// Asks for something that never ends. One attempt.
    pub(in crate::cli) async fn open(&self, path: &[&str]) -> Result<reqwest::Response, ApiError> {
        self.receive(self.http.request(Method::GET, self.address(path, &[]))).await
    }

    /// Asks for something to be done. One attempt.
    pub(in crate::cli) async fn post(&self, path: &[&str], body: &impl Serialize) -> Result<Answer, ApiError> {
        self.send(self.http.request(Method::POST, self.address(path, &[])).timeout(ANSWER_TIME).json(body)).await
    }

    /// Asks for something to be done once, however often it has to be asked for.
    pub(super) async fn post_once(&self, path: &[&str], body: &impl Serialize, key: &str) -> Result<Answer, ApiError> {
        let request = || {
            let request = self.http.request(Method::POST, self.address(path, &[])).timeout(ANSWER_TIME);
            request.header("idempotency-key", key).json(body)
        };
        self.again(request).await
    }

    /// Removes something. One attempt.
    pub(in crate::cli) async fn delete(&self, path: &[&str]) -> Result<Answer, ApiError> {
        self.send(self.http.request(Method::DELETE, self.address(path, &[])).timeout(ANSWER_TIME)).await
    }

    /// Sends a request that is harmless to repeat, until there is an answer that counts.
    async fn again(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Answer, ApiError> {
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

    /// Sends a request and returns the answer as soon as it begins, if it is a good one.
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

    /// Says in one line why the server did not do it.
    fn explain(&self, status: StatusCode, location: Option<&str>, body: &str) -> String {
        if status.is_redirection() {
            let to = location.map(|to| format!(" to {}", output::clean(to))).unwrap_or_default();
            return format!("{} redirects{to}: give --server the address of Tagrelay itself", self.server);
        }
        if status == StatusCode::UNAUTHORIZED {
            return format!(
                "{} does not know this token: set {TOKEN_VARIABLE} (or --token-file) to the token of an [[api_token]]",
                self.server
            );
        }
        let problem = serde_json::from_str::<Problem>(body).ok();
        let texts = problem.into_iter().flat_map(|problem| [problem.detail, problem.title]);
        match texts.into_iter().find(|text| !text.is_empty()) {
            Some(detail) => output::clean(&detail).into_owned(),
            // A proxy, or something that is no Tagrelay at all.
            None => format!("{} answers {status}; is it Tagrelay?", self.server),
        }
    }

    fn address(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut address = self.server.clone();
        // Only addresses that cannot have a path refuse, and those are not taken as servers.
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        address
    }
}

fn read_token(file: Option<PathBuf>) -> anyhow::Result<Secret> {
    match file {
        Some(file) => Secret::from_file(file).context("--token-file"),
        None => Secret::from_environment(TOKEN_VARIABLE)
            .context("no API token: set TAGRELAY_TOKEN, or name a file that holds it with --token-file"),
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

/// Returns the innermost reason: the outer ones repeat the address, whose query is nobody's business.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
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
    fn addresses_are_below_the_server() {
        let address = api("http://127.0.0.1:8080").address(&["events", "a/b?"], &[("limit", "3".to_owned())]);
        assert_eq!(address.as_str(), "http://127.0.0.1:8080/api/v1/events/a%2Fb%3F?limit=3");
        let below = api("https://tools.example.com/tagrelay/").address(&["holds"], &[]);
        assert_eq!(below.as_str(), "https://tools.example.com/tagrelay/api/v1/holds");
    }

    #[test]
    fn servers_are_addresses_without_secrets() {
        for wrong in ["127.0.0.1:8080", "ftp://host", "http://me:pw@host", "http://host/?a=b", "nonsense"] {
            assert!(parse_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_are_told_in_one_line() {
        let api = api("http://127.0.0.1:8080");
        let explain = |status, location, body: &str| api.explain(status, location, body);
        let detail = r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"it runs\nsomething else"}"#;
        assert_eq!(explain(StatusCode::CONFLICT, None, detail), "it runs something else");
        assert!(explain(StatusCode::UNAUTHORIZED, None, detail).contains("TAGRELAY_TOKEN"));
        assert!(explain(StatusCode::FOUND, Some("https://sso/"), "").contains("redirects to https://sso/"));
        assert!(explain(StatusCode::BAD_GATEWAY, None, "<html>").contains("502 Bad Gateway; is it Tagrelay?"));
    }

    #[test]
    fn the_machine_itself_is_known() {
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
