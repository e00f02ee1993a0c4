//! Smart HTTP: `git http-backend` behind a small server with basic authentication.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// Serves the repositories below `folder` and returns the address without a trailing slash: a bare repository `config.git` in
/// it is at `<address>/config.git`. The server lives as long as the process.
pub fn start(folder: &Path, user: &str, password: &str) -> String {
    Server::start(folder, user, password).url
}

/// Faults of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Pushes are executed, but the connection breaks before the answer.
    LoseAnswer,
    /// The server dies before it reads a push.
    DieBefore,
    /// The server dies in the middle of a pack, and the receiving program is killed.
    DieDuring,
    /// The connection breaks, and the receiving program finishes the push a moment later.
    LandLate,
    /// Pushes are answered with this status and body.
    Says(u16, &'static str),
    /// Pushes are executed, but answered with a gateway's 504.
    GatewayTimeout,
    /// Every request is answered with 503 and a `Retry-After` of this many seconds.
    Unavailable(u32),
    /// Every request is answered with a gateway's 502.
    BadGateway,
    /// Every request is redirected.
    Moved,
    /// The server does not support protocol version 2.
    OldProtocol,
    /// Requests are refused with a message that quotes the credentials: pushes, and with `true` all requests.
    Echoes(bool),
}

pub struct Server {
    pub url: String,
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    authorization: String,
    fault: Mutex<Fault>,
    requests: Mutex<Vec<String>>,
}

impl Server {
    pub fn start(folder: &Path, user: &str, password: &str) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let inner = Arc::new(Inner {
            folder: folder.to_owned(),
            authorization: format!("Basic {pair}"),
            fault: Mutex::new(Fault::None),
            requests: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let router = Router::new().fallback(answer).with_state(inner.clone());
        // A thread with its own runtime, so that tests without a runtime can use the server.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { url, inner }
    }

    pub fn set_fault(&self, fault: Fault) {
        *self.inner.fault.lock().unwrap() = fault;
    }

    /// Method and path of the requests since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.requests.lock().unwrap())
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    inner.requests.lock().unwrap().push(format!("{} {path}", parts.method));
    let fault = *inner.fault.lock().unwrap();
    match fault {
        Fault::Unavailable(seconds) => {
            let retry_after = [(header::RETRY_AFTER, seconds.to_string())];
            return (StatusCode::SERVICE_UNAVAILABLE, retry_after, "maintenance").into_response();
        }
        Fault::BadGateway => return (StatusCode::BAD_GATEWAY, "no answer from upstream").into_response(),
        Fault::Moved => {
            let to = format!("https://elsewhere.example{path}?{query}");
            return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)]).into_response();
        }
        _ => {}
    }
    if parts.headers.get(header::AUTHORIZATION).is_none_or(|value| value.as_bytes() != inner.authorization.as_bytes()) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")], "wrong password")
            .into_response();
    }
    let is_push = path.ends_with("/git-receive-pack");
    if let Fault::Echoes(all) = fault
        && (all || is_push)
    {
        let pair = inner.authorization.trim_start_matches("Basic ");
        let known = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(pair).unwrap()).unwrap();
        let secret = known.split_once(':').unwrap().1;
        let url = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        let words = format!("no: Authorization: Basic {pair} ({known}), http://x/?token={url}");
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    match fault {
        Fault::DieBefore if is_push => cut(),
        Fault::Says(status, words) if is_push => {
            return (StatusCode::from_u16(status).unwrap(), words).into_response();
        }
        _ => {}
    }
    let mut headers = parts.headers;
    if fault == Fault::OldProtocol {
        headers.remove("git-protocol");
    }
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { cut() };
    if fault == Fault::DieDuring && is_push {
        let mut child = backend(&inner.folder, parts.method.as_str(), &path, &query, &headers, body.len());
        // Also if the client disconnects first: a backend with half a body never ends.
        let mut child = child.kill_on_drop(true).spawn().expect("git http-backend starts");
        // The command and the beginning of the pack, without the rest.
        let _ = child.stdin.as_mut().unwrap().write_all(&body[..body.len() - 30]).await;
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let _ = child.kill().await;
        cut();
    }
    if fault == Fault::LandLate && is_push {
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            let response = run_backend(&inner.folder, "POST", &path, &query, &headers, &body).await;
            let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        });
        cut();
    }
    let response = run_backend(&inner.folder, parts.method.as_str(), &path, &query, &headers, &body).await;
    if is_push && matches!(fault, Fault::LoseAnswer | Fault::GatewayTimeout) {
        // Waits for the end, so that the push has certainly happened.
        let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        if fault == Fault::GatewayTimeout {
            return (StatusCode::GATEWAY_TIMEOUT, "no answer from upstream").into_response();
        }
        let broken = futures_util::stream::once(async { Err::<bytes::Bytes, _>(io::Error::other("lost")) });
        let content_type = "application/x-git-receive-pack-result";
        return ([(header::CONTENT_TYPE, content_type)], Body::from_stream(broken)).into_response();
    }
    response
}

/// Closes the connection: the task that serves it ends without output.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

fn backend(folder: &Path, method: &str, path: &str, query: &str, headers: &HeaderMap, length: usize) -> Command {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    // Started directly: `git` would leave it behind when killed, and with half a body it would loop forever.
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::process::Command::new("git").arg("--exec-path").output().expect("git is installed").stdout;
        Path::new(String::from_utf8(folder).unwrap().trim_end()).join("git-http-backend")
    });
    let mut command = Command::new(PROGRAM.as_path());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", length.to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_USER", "tagrelay")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

async fn run_backend(
    folder: &Path,
    method: &str,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let mut child = backend(folder, method, path, query, headers, body.len());
    let mut child = child.spawn().expect("git http-backend starts");
    let mut input = child.stdin.take().unwrap();
    let body = body.to_owned();
    tokio::spawn(async move {
        // A backend that refuses early does not read the whole body.
        let _ = input.write_all(&body).await;
    });
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut response = Response::builder();
    loop {
        let mut line = String::new();
        output.read_line(&mut line).await.unwrap();
        match line.trim_end().split_once(": ") {
            Some(("Status", status)) => response = response.status(status[..3].parse::<u16>().unwrap()),
            Some((name, value)) => response = response.header(name, value),
            None => break,
        }
    }
    let rest = futures_util::stream::unfold((output, child), |(mut output, mut child)| async move {
        let mut buffer = vec![0; 64 << 10];
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = child.wait().await;
                None
            }
            Ok(count) => {
                buffer.truncate(count);
                Some((Ok::<_, io::Error>(bytes::Bytes::from(buffer)), (output, child)))
            }
        }
    });
    response.body(Body::from_stream(rest.boxed())).unwrap()
}
