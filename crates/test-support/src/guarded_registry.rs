//! The embedded registry behind a guard that counts requests, demands authentication and injects faults.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_embedded_registry::push::{TinyImage, push};
use tagrelay_image::{Digest, Repository, Tag};

/// The only valid account.
pub const READER: (&str, &str) = ("reader", "hunter2 is no password");

/// The sign-in that the registry demands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    None,
    /// User name and password.
    Basic,
    /// A token of `/token`, which is good for this many seconds and given without sign-in.
    Bearer {
        expires_in: u64,
    },
    /// The same, given to [`READER`] only.
    BearerForReader,
}

/// An injected fault.
#[derive(Clone)]
pub enum Fault {
    /// This answer instead.
    Answer(StatusCode, Vec<(&'static str, String)>, Vec<u8>),
    /// No answer, while the connection stays open.
    Hang,
    /// The right answer with another digest, or without one.
    Digest(Option<&'static str>),
}

impl Fault {
    pub fn status(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::Answer(StatusCode::from_u16(status).unwrap(), headers, Vec::new())
    }
}

pub struct GuardedRegistry {
    registry: EmbeddedRegistry,
    guard: Arc<Guard>,
}

struct Guard {
    sign_in: SignIn,
    state: Mutex<GuardState>,
}

#[derive(Default)]
struct GuardState {
    open: bool,
    log: Vec<String>,
    faults: VecDeque<Fault>,
    token_faults: VecDeque<Fault>,
    /// The scope of each token.
    tokens: HashMap<String, String>,
    seen_authorization: HashSet<String>,
    heads_before_token: usize,
    issued: usize,
}

impl GuardState {
    fn holds_tokens(&self) -> bool {
        self.log.iter().filter(|line| line.contains("/v2/")).count() < self.heads_before_token
    }
}

impl GuardedRegistry {
    pub async fn start(sign_in: SignIn) -> Self {
        let guard = Arc::new(Guard { sign_in, state: Mutex::default() });
        let front = Arc::clone(&guard);
        let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, |routes| {
            // The wildcard routes do not match `/token`.
            let routes = routes.fallback(async || StatusCode::NOT_FOUND);
            routes.layer(from_fn_with_state(front, stand_guard))
        });
        Self { registry: registry.await.unwrap(), guard }
    }

    pub fn host(&self) -> String {
        self.registry.host()
    }

    pub fn repository(&self, path: &str) -> Repository {
        Repository::new(&self.host(), path).unwrap()
    }

    /// Pushes an image without the guard and returns its digest.
    pub async fn push(&self, path: &str, tag: &str) -> Digest {
        let image = TinyImage {
            revision: None,
            created: "2026-11-23T08:00:00Z".parse().unwrap(),
            text: format!("{path}:{tag}"),
        };
        let repository = self.repository(path);
        self.guard.state.lock().unwrap().open = true;
        let digest = push(&repository, &tag.parse::<Tag>().unwrap(), &image, None).await.unwrap();
        self.guard.state.lock().unwrap().open = false;
        digest
    }

    /// The requests since the last call: `HEAD /v2/a/manifests/1`, `GET /token`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.guard.state.lock().unwrap().log)
    }

    /// Injects these faults into the next requests to `/v2/`, one each.
    pub fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.guard.state.lock().unwrap().faults.extend(faults);
    }

    /// Injects these faults into the next requests to `/token`, one each.
    pub fn next_token(&self, faults: impl IntoIterator<Item = Fault>) {
        self.guard.state.lock().unwrap().token_faults.extend(faults);
    }

    /// Invalidates all issued tokens.
    pub fn forget_tokens(&self) {
        self.guard.state.lock().unwrap().tokens.clear();
    }

    /// Issues no token until this many requests to `/v2/` have arrived.
    pub fn hold_tokens_until(&self, requests: usize) {
        self.guard.state.lock().unwrap().heads_before_token = requests;
    }

    /// All values of `Authorization` so far.
    pub fn seen_authorization(&self) -> HashSet<String> {
        self.guard.state.lock().unwrap().seen_authorization.clone()
    }
}

async fn stand_guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_token = path == "/token";
    if guard.state.lock().unwrap().open {
        return next.run(request).await;
    }
    let fault = {
        let mut state = guard.state.lock().unwrap();
        state.log.push(format!("{method} {path}"));
        if let Some(authorization) = request.headers().get(header::AUTHORIZATION) {
            state.seen_authorization.insert(authorization.to_str().unwrap().to_owned());
        }
        if is_token { state.token_faults.pop_front() } else { state.faults.pop_front() }
    };
    match fault {
        Some(Fault::Answer(status, headers, body)) => {
            let named = |(name, value): (&str, String)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            let headers: HeaderMap = headers.into_iter().map(named).collect();
            let body = if method == Method::HEAD { Vec::new() } else { body };
            return (status, headers, body).into_response();
        }
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Digest(digest)) => {
            let mut response = next.run(request).await;
            let digest = digest.map(HeaderValue::from_static);
            match digest {
                Some(digest) => response.headers_mut().insert("docker-content-digest", digest),
                None => response.headers_mut().remove("docker-content-digest"),
            };
            return response;
        }
        None => {}
    }
    if is_token {
        let query = request.uri().query().unwrap_or_default().to_owned();
        return guard.give_token(request.headers().get(header::AUTHORIZATION).cloned(), query).await;
    }
    match guard.challenge(&request, &path) {
        Some(challenge) => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response(),
        None => next.run(request).await,
    }
}

impl Guard {
    /// Returns the challenge if the request lacks authentication.
    fn challenge(&self, request: &Request, path: &str) -> Option<String> {
        let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let place = path.strip_prefix("/v2/").unwrap_or_default();
        let repository = place.split("/manifests/").next().unwrap_or_default().trim_end_matches("/tags/list");
        let scope = format!("repository:{repository}:pull");
        match self.sign_in {
            SignIn::None => None,
            SignIn::Basic if sent == Some(&basic()) => None,
            SignIn::Basic => Some("Basic realm=\"tests\"".to_owned()),
            SignIn::Bearer { .. } | SignIn::BearerForReader => {
                let token = sent.and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default();
                if self.state.lock().unwrap().tokens.get(token) == Some(&scope) {
                    return None;
                }
                let host = request.headers()[header::HOST].to_str().unwrap();
                Some(format!("Bearer scope=\"{scope}\",service=\"tests\",realm=\"http://{host}/token?from=challenge\""))
            }
        }
    }

    async fn give_token(&self, sent: Option<HeaderValue>, query: String) -> Response {
        while self.state.lock().unwrap().holds_tokens() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let expires_in = match self.sign_in {
            SignIn::Bearer { expires_in } => expires_in,
            _ => 300,
        };
        if self.sign_in == SignIn::BearerForReader && sent.is_none_or(|sent| sent != basic().as_str()) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let query: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        assert_eq!(query.get("service").map(String::as_str), Some("tests"));
        assert_eq!(query.get("from").map(String::as_str), Some("challenge"), "the realm's own query is kept");
        let mut state = self.state.lock().unwrap();
        state.issued += 1;
        let token = format!("token-{}", state.issued);
        state.tokens.insert(token.clone(), query["scope"].clone());
        axum::Json(serde_json::json!({ "access_token": token, "expires_in": expires_in })).into_response()
    }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", READER.0, READER.1)))
}
