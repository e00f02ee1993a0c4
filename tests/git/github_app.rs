//! A config repository with a GitHub App, against a small server that checks GitHub's documented rules.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::setup::{Setup, apply, deployment, plan};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tagrelay::config_repo::{Authentication, GitHubApp, RemoteError};
use tagrelay_secret::Secret;
use tagrelay_test_support::git::{self, Remote};
use tagrelay_test_support::git_http::Server;

const TOKEN: &str = "ghs_16C7e42F292c6912E7710c838347Ae178B4a";

/// Scripted answers and recorded requests.
struct GitHub {
    public_key: Vec<u8>,
    /// The tokens to return; the last one is repeated.
    tokens: Vec<&'static str>,
    lifetime: Duration,
    refuse: Option<(StatusCode, &'static str)>,
    asked: usize,
}

/// `POST /app/installations/{id}/access_tokens`
/// (<https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>).
async fn make_token(
    State(github): State<Arc<Mutex<GitHub>>>,
    Path(installation): Path<u64>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let mut github = github.lock().unwrap();
    github.asked += 1;
    if let Some((status, message)) = github.refuse {
        return (status, [("retry-after", "3")], Json(json!({ "message": message }))).into_response();
    }
    if installation != 4711 {
        return (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response();
    }
    check_proof(headers["authorization"].to_str().unwrap(), &github.public_key);
    assert_eq!(headers["accept"], "application/vnd.github+json");
    assert!(headers.contains_key("x-github-api-version") && headers.contains_key("user-agent"));
    assert_eq!(body, json!({ "repositories": ["config"], "permissions": { "contents": "write" } }));
    let token = if github.tokens.len() > 1 { github.tokens.remove(0) } else { github.tokens[0] };
    let expires_at = (Timestamp::now() + github.lifetime).to_string();
    (StatusCode::CREATED, Json(json!({ "token": token, "expires_at": expires_at }))).into_response()
}

/// Checks a JSON Web Token like GitHub does: RS256, and at most ten minutes between its times.
fn check_proof(authorization: &str, public_key: &[u8]) {
    let (signed, signature) = authorization.strip_prefix("Bearer ").unwrap().rsplit_once('.').unwrap();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, public_key);
    key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    assert_eq!(part(header), json!({ "alg": "RS256", "typ": "JWT" }));
    let claims = part(claims);
    assert_eq!(claims["iss"], "Iv23liABCDEF");
    let (issued, expires, now) =
        (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap(), Timestamp::now().as_second());
    assert!(issued <= now - 30 && expires > now && expires - issued <= 600, "{claims}");
}

struct World {
    remote: Remote,
    server: Server,
    github: Arc<Mutex<GitHub>>,
    api: String,
    key: Secret,
}

impl World {
    async fn start() -> Self {
        let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:0"))]);
        git::git(&remote.bare(), &["config", "http.receivepack", "true"]);
        let server = Server::start(remote.root(), "x-access-token", TOKEN);
        // PKCS #1, like the keys that GitHub generates.
        let pem = run(&["genrsa", "-traditional", "2048"], "");
        let der = run(&["rsa", "-RSAPublicKey_out"], &pem);
        let body: String = der.lines().filter(|line| !line.starts_with("-----")).collect();
        let github = Arc::new(Mutex::new(GitHub {
            public_key: STANDARD.decode(body).unwrap(),
            tokens: vec![TOKEN],
            lifetime: Duration::from_secs(3600),
            refuse: None,
            asked: 0,
        }));
        let router = Router::new().route("/app/installations/{id}/access_tokens", post(make_token));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let router = router.with_state(github.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { remote, server, github, api, key: Secret::inline(pem).unwrap() }
    }

    fn setup(&self, installation: u64) -> Setup {
        let setup = Setup::new(&format!("{}/config.git", self.server.url));
        let api = self.api.parse().unwrap();
        let app =
            GitHubApp::new("Iv23liABCDEF".to_owned(), installation, self.key.clone(), Some(&api), &setup.settings.url);
        setup.with_authentication(Authentication::GitHubApp(app.unwrap()))
    }

    fn asked(&self) -> usize {
        self.github.lock().unwrap().asked
    }
}

fn run(arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn token_is_reused_until_shortly_before_it_expires() {
    let world = World::start().await;
    let setup = world.setup(4711);
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    for tag in ["1", "2", "3"] {
        apply(&repository, plan("staging", &[("uyou/user-service", tag)])).await;
    }
    assert_eq!(world.asked(), 1);
    assert_eq!(world.remote.log().len(), 4);

    // Tokens that live for two seconds are replaced before they expire, and no request fails.
    world.github.lock().unwrap().lifetime = Duration::from_secs(2);
    let rival = setup.open_rival("rival").await;
    let mut refreshes = 0;
    while world.asked() < 3 {
        rival.refresh().await.unwrap();
        refreshes += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refreshes > 2, "each refresh asked for a token");
}

#[tokio::test]
async fn revoked_token_is_replaced() {
    let world = World::start().await;
    world.github.lock().unwrap().tokens = vec!["ghs_revoked", TOKEN];
    let setup = world.setup(4711);
    let repository = setup.open().await;
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(error, RemoteError::Unauthorized { .. }), "{error}");
    assert!(!error.to_string().contains("ghs_"), "{error}");
    repository.refresh().await.unwrap();
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn refusals_of_github_are_explained() {
    let world = World::start().await;
    let setup = world.setup(4712);
    let error = setup.open().await.refresh().await.unwrap_err();
    assert!(matches!(error, RemoteError::Unauthorized { .. }), "{error}");
    assert!(
        error.to_string().contains("404 Not Found Not Found; does `installation_id` belong to this app?"),
        "{error}"
    );
    for (status, message, is_transient) in [
        (StatusCode::UNAUTHORIZED, "A JSON web token could not be decoded", false),
        (StatusCode::UNPROCESSABLE_ENTITY, "There is at least one repository that does not exist", false),
        (StatusCode::FORBIDDEN, "You have exceeded a secondary rate limit", true),
        (StatusCode::BAD_GATEWAY, "", true),
    ] {
        world.github.lock().unwrap().refuse = Some((status, message));
        let setup = world.setup(4711);
        let error = setup.open().await.refresh().await.unwrap_err();
        assert_eq!(error.is_transient(), is_transient, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.ask_again_after().is_some(), is_transient, "{error}");
    }
}

#[tokio::test]
async fn github_outage_matters_only_after_the_token_expired() {
    let world = World::start().await;
    world.github.lock().unwrap().lifetime = Duration::from_secs(6);
    let setup = world.setup(4711);
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    world.github.lock().unwrap().refuse = Some((StatusCode::BAD_GATEWAY, "trouble"));
    // In the last twelfth of its life a token is replaced, but still used if that fails.
    let mut served = false;
    let error = loop {
        match repository.refresh().await {
            Ok(_) => served |= world.asked() >= 2,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(served);
    assert!(matches!(error, RemoteError::Unavailable { .. }), "{error}");
}

#[test]
fn invalid_key_is_refused_at_once() {
    for text in ["no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
        let key = Secret::inline(text.to_owned()).unwrap();
        let url = "https://github.com/uyou/config.git".parse().unwrap();
        let error = GitHubApp::new("1".to_owned(), 1, key, None, &url).unwrap_err().to_string();
        assert!(error.contains("is not an RSA key in PEM form"), "{error}");
    }
}
