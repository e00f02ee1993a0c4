//! The client commands against a scripted server that records the requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderMap;
use serde_json::{Value, json};

use tagrelay_test_support::command::Answer;

use crate::tagrelay;

/// A recorded request.
#[derive(Debug)]
struct Asked {
    /// `POST /api/v1/promotions?wait=3`
    line: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn key(&self) -> &str {
        self.headers["idempotency-key"].to_str().unwrap()
    }
}

/// A scripted answer.
enum Reply {
    Json(u16, String),
    /// A truncated response.
    BreaksOff,
    Redirect(&'static str),
}

#[derive(Clone, Default)]
struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

struct Server {
    address: SocketAddr,
    script: Script,
}

async fn handle(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let line = format!("{} {}", parts.method, parts.uri);
    script.asked.lock().unwrap().push(Asked { line, headers: parts.headers, body });
    let reply = script.replies.lock().unwrap().pop_front().expect("one request more than the test knows of");
    let response = Response::builder();
    match reply {
        Reply::Json(status, body) => response.status(status).body(Body::from(body)),
        Reply::BreaksOff => {
            let broken = [Ok(Bytes::from_static(b"{\"id\":")), Err(std::io::Error::other("gone"))];
            response.body(Body::from_stream(futures_util::stream::iter(broken)))
        }
        Reply::Redirect(to) => response.status(302).header("location", to).body(Body::empty()),
    }
    .unwrap()
}

impl Server {
    async fn answering(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Script { replies: Arc::new(Mutex::new(replies.into_iter().collect())), ..Script::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = axum::Router::new().fallback(handle).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, script }
    }

    fn command(&self, arguments: &str) -> std::process::Command {
        let mut command = tagrelay(arguments);
        command.env("TAGRELAY_SERVER", format!("http://{}", self.address)).env("TAGRELAY_TOKEN", "hunter2");
        command
    }

    /// Runs a command and fails unless it has this exit code and used the whole script.
    async fn run(&self, arguments: &str, code: i32) -> Answer {
        self.run_command(self.command(arguments), code).await
    }

    async fn run_command(&self, mut command: std::process::Command, code: i32) -> Answer {
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let answer = Answer::of(output).expect_code(code);
        assert!(!format!("{answer:?}").contains("hunter2"), "the token is shown: {answer:?}");
        assert_eq!(self.script.replies.lock().unwrap().len(), 0, "unused answers; {answer:?}");
        answer
    }

    /// The requests since the last call.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.script.asked.lock().unwrap())
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

const OLD: &str = "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b";
const NEW: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn promotion(state: &str) -> Value {
    json!({ "id": "01P", "kind": "promotion", "state": state, "to": "production", "from": "staging", "actor": "me",
            "created_at": "2026-11-20T12:00:00Z", "commit": null, "changes": [], "reason": null, "updates": [],
            "trace_id": TRACE_ID })
}

fn update(state: &str, reason: Option<&str>) -> Value {
    let change = json!({ "environment": "production", "repository": "docker.io/uyou/user-service",
        "path": "environments/production/user-service/deployment.yaml", "line": 41,
        "old": { "tag": OLD, "digest": null }, "new": { "tag": NEW, "digest": null } });
    let changes = if state == "committed" { vec![change] } else { Vec::new() };
    json!({ "id": "01U", "environment": "production", "repository": "docker.io/uyou/user-service", "tag": NEW,
            "digest": null, "state": state, "reason": reason, "commit": null, "changes": changes, "finished_at": null })
}

fn committed() -> Value {
    let mut promotion = promotion("committed");
    promotion["commit"] = json!("c0ffee0123456789c0ffee0123456789c0ffee01");
    promotion["updates"] = json!([update("committed", None)]);
    promotion
}

fn ok(body: &Value) -> Reply {
    Reply::Json(200, body.to_string())
}

fn accepted(body: &Value) -> Reply {
    Reply::Json(202, body.to_string())
}

fn problem(status: u16, detail: &str) -> Reply {
    let body = json!({ "type": "about:blank", "title": "No", "status": status, "detail": detail });
    Reply::Json(status, body.to_string())
}

#[tokio::test]
async fn promotion_is_requested_once_and_followed() {
    let replies = [
        problem(503, "try again"),
        Reply::BreaksOff,
        accepted(&promotion("pending")),
        Reply::BreaksOff,
        ok(&committed()),
    ];
    let server = Server::answering(replies).await;
    let answer = server.run("promote --to production --from staging user-service --reason later", 0).await;
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "committed c0ffee0  production from staging  promotion 01P",
            "  docker.io/uyou/user-service  1a2b3c4 -> 9f8e7d6",
            "    environments/production/user-service/deployment.yaml:41",
        ]
    );
    let asked = server.asked();
    let lines: Vec<&str> = asked.iter().map(|asked| asked.line.as_str()).collect();
    let (post, wait) = ("POST /api/v1/promotions", "GET /api/v1/promotions/01P?wait=30");
    assert_eq!(lines, [post, post, post, wait, wait]);
    assert!(asked.iter().all(|asked| asked.headers["authorization"] == "Bearer hunter2"));
    assert_eq!((asked[0].key(), asked[1].key()), (asked[2].key(), asked[2].key()), "one key for one promotion");
    let expected = json!({ "to": "production", "from": "staging", "repositories": ["user-service"], "dry_run": false,
                           "reason": "later" });
    assert_eq!(asked[2].json(), expected);

    let again = Server::answering([accepted(&committed())]).await;
    again.run("promote --to production", 0).await;
    assert_ne!(again.asked()[0].key(), asked[0].key(), "another key for another promotion");
}

#[tokio::test]
async fn unanswered_promotion_is_repeated_with_the_same_key() {
    let server = Server::answering((0..4).map(|_| problem(503, "the store cannot be used now"))).await;
    let answer = server.run("promote --to production", 1).await;
    let key = server.asked()[3].key().to_owned();
    assert!(answer.stderr.contains(&format!("run the command again with --idempotency-key {key}")), "{answer:?}");
    assert!(answer.stderr.contains("the store cannot be used now"), "{answer:?}");
}

#[tokio::test]
async fn every_promotion_option_is_sent() {
    let server = Server::answering([accepted(&committed())]).await;
    server
        .run("promote --to production a b --tag t1 --expect a=1 --expect b=x=2 --no-wait --idempotency-key mine", 0)
        .await;
    let asked = server.asked();
    assert_eq!(asked[0].key(), "mine");
    let expected = json!({ "to": "production", "repositories": ["a", "b"], "tag": "t1",
                           "expect": { "a": "1", "b": "x=2" }, "dry_run": false });
    assert_eq!(asked[0].json(), expected);
}

#[tokio::test]
async fn refusal_exits_1_with_reasons() {
    let mut refused = promotion("refused");
    refused["updates"] = json!([update("refused", Some("docker.io has no uyou/user-service:9f8e7d6"))]);
    let server = Server::answering([accepted(&refused)]).await;
    let answer = server.run("promote --to production", 1).await;
    assert!(answer.stdout.starts_with("refused  production from staging"), "{answer:?}");
    assert!(answer.stdout.contains("docker.io has no uyou/user-service:9f8e7d6"), "{answer:?}");

    let mut half = committed();
    half["updates"] = json!([update("committed", None), update("refused", Some("held by 01H"))]);
    let server = Server::answering([accepted(&half)]).await;
    let answer = server.run("promote --to production", 1).await;
    assert!(answer.stdout.contains("committed c0ffee0") && answer.stdout.contains("held by 01H"), "{answer:?}");

    let mut nothing = promotion("committed");
    nothing["reason"] = json!("nothing to do: production runs it already");
    let server = Server::answering([accepted(&nothing)]).await;
    let answer = server.run("promote --to production", 0).await;
    assert!(answer.stdout.contains("nothing to do"), "{answer:?}");
}

#[tokio::test]
async fn timed_out_wait_says_how_to_continue() {
    let server = Server::answering([accepted(&promotion("pending")), ok(&promotion("pending"))]).await;
    let answer = server.run("promote --to production --wait 0", 1).await;
    let key = server.asked()[0].key().to_owned();
    assert!(answer.stderr.contains(&format!("--idempotency-key {key}")), "{answer:?}");

    let pending = || ok(&promotion("pending"));
    let server = Server::answering([accepted(&promotion("pending")), pending(), pending()]).await;
    server.run("promote --to production --wait 1", 1).await;
    let waits = ["GET /api/v1/promotions/01P?wait=1", "GET /api/v1/promotions/01P?wait=0"];
    assert_eq!(server.lines()[1..], waits, "the last second is not filled with questions");

    let server = Server::answering([accepted(&promotion("pending"))]).await;
    let answer = server.run("promote --to production --no-wait", 0).await;
    assert!(answer.stdout.starts_with("pending  production"), "{answer:?}");
}

#[tokio::test]
async fn dry_run_shows_the_diff() {
    let diff = "--- a/x.yaml\n+++ b/x.yaml\n@@ -1 +1 @@\n-image: a:1\n+image: a:2\n";
    let row = |state: &str, reason: Option<&str>| json!({ "repository": "docker.io/uyou/user-service", "tag": NEW, "digest": null, "state": state, "reason": reason });
    let preview = |rows: &[Value]| json!({ "dry_run": true, "parent": OLD, "diff": diff, "updates": rows });
    let server = Server::answering([ok(&preview(&[row("changed", None)]))]).await;
    let answer = server.run("promote --to production --dry-run", 0).await;
    assert!(answer.stdout.starts_with(diff), "{answer:?}");
    assert!(answer.stdout.contains("on top of commit 1a2b3c4: nothing was changed"), "{answer:?}");
    let asked = server.asked();
    assert_eq!(asked[0].json(), json!({ "to": "production", "dry_run": true }));
    assert!(!asked[0].headers.contains_key("idempotency-key"));

    let server = Server::answering([ok(&preview(&[row("refused", Some("held by 01H"))]))]).await;
    let mut command = server.command("promote --to production --dry-run");
    command.env("CLICOLOR_FORCE", "1");
    let answer = server.run_command(command, 1).await;
    assert!(answer.stdout.contains("held by 01H") && answer.stdout.contains("\u{1b}[32m+image: a:2"), "{answer:?}");
}

#[tokio::test]
async fn rollback_reports_its_hold() {
    let mut rollback = committed();
    (rollback["kind"], rollback["from"]) = (json!("rollback"), Value::Null);
    let server = Server::answering([accepted(&rollback)]).await;
    let answer =
        server.run("rollback --environment production user-service --hold-for 4h --reason oops --to t0", 0).await;
    assert!(answer.stdout.starts_with("committed c0ffee0  production  rollback 01P\n"), "{answer:?}");
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /api/v1/rollbacks");
    assert!(!asked[0].key().is_empty());
    let expected = json!({ "environment": "production", "repository": "user-service", "hold_for": "4h",
                           "reason": "oops", "to": "t0" });
    assert_eq!(asked[0].json(), expected);
}

/// Scripts rely on it: standard output is the API's body, byte for byte, plus a line feed.
#[tokio::test]
async fn json_output_is_the_api_answer() {
    // Members and forms that no version of Tagrelay writes.
    let odd = |body: &str| body.replace('{', "{ ").replace("\"id\"", "\"new\":1.0,\"id\"");
    let event = json!({ "id": "01E", "cause": "push", "receiver": "hub", "repository": "docker.io/uyou/user-service", "tag": NEW,
        "digest": null, "state": "committed", "reason": null, "received_at": "2026-11-20T12:00:00Z",
        "attempts": 0, "trace_id": TRACE_ID, "refused_in": [], "updates": [], "explanation": [], "attempt_log": [] });
    for (arguments, body, line) in [
        ("status", json!({ "environments": [] }), "GET /api/v1/environments"),
        ("events", json!({ "events": [event] }), "GET /api/v1/events?limit=50"),
        ("events show 01E", event.clone(), "GET /api/v1/events/01E"),
        ("events replay 01E", event.clone(), "POST /api/v1/events/01E/replay"),
        ("holds", json!({ "holds": [] }), "GET /api/v1/holds"),
        ("hold --environment production a/b", json!({ "id": "01H" }), "POST /api/v1/holds"),
        ("promote --to production", committed(), "POST /api/v1/promotions"),
        (
            "promote --to production --dry-run",
            json!({ "dry_run": true, "parent": OLD, "diff": "", "updates": [] }),
            "POST /api/v1/promotions",
        ),
        ("rollback --environment production b", committed(), "POST /api/v1/rollbacks"),
    ] {
        let body = odd(&body.to_string());
        let server = Server::answering([Reply::Json(200, body.clone())]).await;
        let answer = server.run(&format!("{arguments} --json"), 0).await;
        assert_eq!(answer.stdout, format!("{body}\n"), "{arguments}");
        assert_eq!(server.lines(), [line], "{arguments}");
    }
}

#[tokio::test]
async fn server_errors_go_to_standard_error() {
    for (status, detail) in [(409, "it runs something else"), (422, "there is no environment `prod`"), (403, "lacks")] {
        for arguments in ["promote --to prod --json", "rollback --environment prod x"] {
            let server = Server::answering([problem(status, detail)]).await;
            let answer = server.run(arguments, 1).await;
            assert_eq!((answer.stdout.as_str(), answer.stderr), ("", format!("error: {detail}\n")));
        }
    }
    let server = Server::answering([problem(401, "this needs a token")]).await;
    let answer = server.run("status", 1).await;
    assert!(answer.stderr.contains("set TAGRELAY_TOKEN (or --token-file)"), "{answer:?}");

    let server = Server::answering([Reply::Json(404, "<html>nothing</html>".to_owned())]).await;
    let answer = server.run("status", 1).await;
    assert!(answer.stderr.contains("404 Not Found; is it Tagrelay?"), "{answer:?}");

    let server = Server::answering([Reply::Json(200, "<html>welcome</html>".to_owned())]).await;
    let answer = server.run("status", 1).await;
    assert!(answer.stderr.contains("not one of this version of the Tagrelay API"), "{answer:?}");

    let server = Server::answering([Reply::Redirect("https://sso.example.com/")]).await;
    let answer = server.run("status", 1).await;
    assert!(answer.stderr.contains("redirects to https://sso.example.com/"), "{answer:?}");

    let server = Server::answering([problem(400, "a\u{1b}[2Jb")]).await;
    let answer = server.run("status", 1).await;
    assert_eq!(answer.stderr, "error: a\u{fffd}[2Jb\n", "the terminal is not steered");
}

#[tokio::test]
async fn token_comes_from_file_or_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "from a file\n").unwrap();
    let holds = || ok(&json!({ "holds": [] }));
    let server = Server::answering([holds()]).await;
    server.run(&format!("holds --token-file {}", file.display()), 0).await;
    assert_eq!(server.asked()[0].headers["authorization"], "Bearer from a file");

    let server = Server::answering([]).await;
    let mut command = server.command("holds");
    command.env_remove("TAGRELAY_TOKEN");
    let answer = server.run_command(command, 1).await;
    assert!(answer.stderr.contains("no API token: set TAGRELAY_TOKEN"), "{answer:?}");

    // The option takes precedence over the variable.
    let mut command = server.command(&format!("holds --server http://{}", server.address));
    command.env("TAGRELAY_SERVER", "http://127.0.0.1:1");
    server.script.replies.lock().unwrap().push_back(holds());
    server.run_command(command, 0).await;
    let answer = server.run("holds --server http://127.0.0.1:1", 1).await;
    assert!(answer.stderr.contains("no connection to http://127.0.0.1:1/"), "{answer:?}");
}

#[tokio::test]
async fn events_are_filtered_and_explained() {
    let event = json!({ "id": "01E", "cause": "push", "receiver": "hub", "repository": "docker.io/uyou/user-service", "tag": NEW,
        "digest": null, "state": "refused", "reason": "not there", "received_at": "2026-11-20T12:00:00Z",
        "attempts": 0, "trace_id": TRACE_ID, "refused_in": [], "attempt_log": [], "updates": [], "explanation": [
            { "step": "received", "at": "2026-11-20T12:00:00Z", "text": "receiver `hub`" },
            { "step": "refused", "at": null, "text": "not there" } ] });
    let server = Server::answering([ok(&json!({ "events": [event] }))]).await;
    let answer = server.run("events --repository uyou/user-service --state refused --limit 3", 0).await;
    let expected = "GET /api/v1/events?limit=3&repository=docker.io%2Fuyou%2Fuser-service&state=refused";
    assert_eq!(server.lines(), [expected]);
    let row = answer.stdout.lines().nth(1).unwrap();
    assert!(
        row.starts_with("01E ") && row.ends_with("docker.io/uyou/user-service:9f8e7d6  refused  not there"),
        "{row}"
    );

    let server = Server::answering([ok(&event)]).await;
    let answer = server.run("events show 01E", 0).await;
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines[0], format!("refused  docker.io/uyou/user-service:{NEW}"));
    assert_eq!(
        lines[2..],
        ["  2026-11-20 12:00:00.000Z  received  receiver `hub`", "                            refused   not there"]
    );

    let server = Server::answering([problem(409, "only refused events can run again")]).await;
    let answer = server.run("events replay a/b", 1).await;
    assert_eq!(server.lines(), ["POST /api/v1/events/a%2Fb/replay"]);
    assert!(answer.stderr.contains("only refused events"), "{answer:?}");
}

#[tokio::test]
async fn holds_are_created_listed_and_released() {
    let hold = json!({ "id": "01H", "environment": "staging", "repository": "docker.io/uyou/a", "reason": "sales",
        "actor": "me", "rollback": null, "created_at": "2026-11-20T12:00:00Z", "expires_at": null });
    for command in ["hold", "holds add"] {
        let server = Server::answering([Reply::Json(201, hold.to_string())]).await;
        let answer =
            server.run(&format!("{command} --environment staging uyou/a --hold-for 2d --reason sales"), 0).await;
        assert_eq!(answer.stdout, "held  docker.io/uyou/a in staging  when released  01H\n");
        let expected = json!({ "environment": "staging", "repository": "docker.io/uyou/a", "hold_for": "2d",
                               "reason": "sales" });
        assert_eq!(server.asked()[0].json(), expected);
    }
    for command in ["release 01H", "holds release 01H"] {
        let server = Server::answering([Reply::Json(204, String::new())]).await;
        assert_eq!(server.run(command, 0).await.stdout, "released\n");
        assert_eq!(server.lines(), ["DELETE /api/v1/holds/01H"]);
    }
    let server = Server::answering([ok(&json!({ "holds": [hold] }))]).await;
    let answer = server.run("holds", 0).await;
    assert!(answer.stdout.lines().nth(1).unwrap().ends_with("me  01H  sales"), "{answer:?}");
}

#[tokio::test]
async fn freezes_are_created_listed_and_ended() {
    let freeze = json!({ "id": "01F", "environment": "production", "reason": "audit", "actor": "me",
        "created_at": "2026-11-20T12:00:00Z", "expires_at": null });
    let server = Server::answering([Reply::Json(201, freeze.to_string())]).await;
    let answer = server.run("freeze --environment production --reason audit --for 4h", 0).await;
    assert_eq!(answer.stdout, "frozen  production  when thawed  01F\n");
    let expected = json!({ "environment": "production", "reason": "audit", "freeze_for": "4h" });
    let asked = server.asked();
    assert_eq!((asked[0].line.as_str(), asked[0].json()), ("POST /api/v1/freezes", expected));

    let server = Server::answering([Reply::Json(204, String::new())]).await;
    assert_eq!(server.run("thaw 01F", 0).await.stdout, "thawed\n");
    assert_eq!(server.lines(), ["DELETE /api/v1/freezes/01F"]);
    let server = Server::answering([ok(&json!({ "freezes": [freeze], "windows": [] }))]).await;
    let answer = server.run("freezes", 0).await;
    assert!(answer.stdout.lines().nth(1).unwrap().ends_with("me  01F  audit"), "{answer:?}");
}

#[tokio::test]
async fn unknown_environment_is_reported() {
    let environment = json!({ "name": "staging", "config_repository": "platform", "branch": "main",
        "update": "automatic", "promote_from": [], "tip": null, "unread_because": "there is no folder /srv/p.git", "freeze": null, "repositories": [],
        "problems": [{ "path": "x.yaml", "reason": "line 3: no" }] });
    let matrix = json!({ "environments": [environment], "registries": [] });
    let server = Server::answering([ok(&matrix)]).await;
    let answer = server.run("status --environment prod", 1).await;
    assert_eq!(answer.stderr, "error: there is no environment `prod`; known: staging\n");
    let server = Server::answering([ok(&matrix)]).await;
    let answer = server.run("status --environment staging", 1).await;
    for expected in
        ["not read yet", "no managed image", "staging  there is no folder /srv/p.git", "staging  x.yaml  line 3: no"]
    {
        assert!(answer.stdout.contains(expected), "{expected} is not in:\n{}", answer.stdout);
    }
}
