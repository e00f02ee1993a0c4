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
    let answer = server.run("promote --to production", 4).await;
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
    let answer = server.run("promote --to production", 5).await;
    assert!(answer.stdout.contains("committed c0ffee0") && answer.stdout.contains("held by 01H"), "{answer:?}");

    let mut nothing = promotion("committed");
    nothing["reason"] = json!("nothing to do: production runs it already");
    let server = Server::answering([accepted(&nothing)]).await;
    let answer = server.run("promote --to production", 0).await;
    assert!(
        answer.stdout.starts_with("unchanged  production") && answer.stdout.contains("nothing to do"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn timed_out_wait_says_how_to_continue() {
    let server = Server::answering([accepted(&promotion("pending")), ok(&promotion("pending"))]).await;
    let answer = server.run("promote --to production --wait 0", 3).await;
    let key = server.asked()[0].key().to_owned();
    assert!(answer.stderr.contains(&format!("--idempotency-key {key}")), "{answer:?}");

    let pending = || ok(&promotion("pending"));
    let server = Server::answering([accepted(&promotion("pending")), pending(), pending()]).await;
    server.run("promote --to production --wait 1", 3).await;
    let waits = ["GET /api/v1/promotions/01P?wait=1", "GET /api/v1/promotions/01P?wait=0"];
    assert_eq!(server.lines()[1..], waits, "the last second is not filled with questions");

    let server = Server::answering([accepted(&promotion("pending"))]).await;
    let answer = server.run("promote --to production --no-wait", 0).await;
    assert!(answer.stdout.starts_with("pending  production"), "{answer:?}");
}

#[tokio::test]
async fn dry_run_shows_the_diff() {
    let diff = "--- a/x.yaml\n+++ b/x.yaml\n@@ -1 +1 @@\n-image: a:1\n+image: a:2\n";
    let row = |state: &str, reason: Option<&str>| json!({ "repository": "docker.io/uyou/user-service", "old": [{ "tag": OLD }], "direction": "newer", "tag": NEW, "digest": null, "state": state, "reason": reason });
    let preview = |rows: &[Value]| json!({ "dry_run": true, "parent": OLD, "diff": diff, "updates": rows });
    let server = Server::answering([ok(&preview(&[row("changed", None)]))]).await;
    let answer = server.run("promote --to production --dry-run", 0).await;
    let lines: Vec<&str> = answer.stdout.lines().take(3).collect();
    let table = [
        "in docker.io/uyou  RUNS        WOULD RUN           WOULD BE",
        "user-service       1a2b3c4  →  9f8e7d6    ▲ newer  changed",
        "",
    ];
    assert_eq!(lines, table, "{}", answer.stdout);
    assert!(answer.stdout.contains(diff), "{answer:?}");
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
    assert!(answer.stdout.ends_with("held for 4h: `tagrelay release production/user-service`\n"), "{answer:?}");
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
            let answer = server.run(arguments, if status == 403 { 4 } else { 1 }).await;
            assert_eq!((answer.stdout.as_str(), answer.stderr), ("", format!("error: {detail}\n")));
        }
    }
    let server = Server::answering([problem(401, "this needs a token")]).await;
    let answer = server.run("status", 4).await;
    assert!(answer.stderr.contains("set TAGRELAY_TOKEN (or --token-file)"), "{answer:?}");

    let server = Server::answering([Reply::Json(404, "<html>nothing</html>".to_owned())]).await;
    let answer = server.run("status", 1).await;
    assert!(answer.stderr.contains("404 Not Found; is it Tagrelay?"), "{answer:?}");

    let server = Server::answering([Reply::Json(200, "<html>welcome</html>".to_owned())]).await;
    let answer = server.run("status", 1).await;
    assert!(answer.stderr.contains("not one of this version of the Tagrelay API"), "{answer:?}");

    let server = Server::answering([Reply::Redirect("https://sso.example.com/")]).await;
    let answer = server.run("status", 4).await;
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
    let answer = server.run("holds --server http://127.0.0.1:1", 4).await;
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
    let expected = "GET /api/v1/events?limit=3&repository=uyou%2Fuser-service&state=refused";
    assert_eq!(server.lines(), [expected]);
    let row = answer.stdout.lines().nth(1).unwrap();
    assert!(row.starts_with("01E ") && row.ends_with("user-service:9f8e7d6  refused  not there"), "{row}");

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
        assert_eq!(
            answer.stdout,
            "held  docker.io/uyou/a in staging  when released  01H  `tagrelay release staging/a`\n"
        );
        let expected = json!({ "environment": "staging", "repository": "uyou/a", "hold_for": "2d",
                               "reason": "sales" });
        assert_eq!(server.asked()[0].json(), expected);
    }
    for command in ["release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN", "holds release 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"] {
        let server = Server::answering([Reply::Json(204, String::new())]).await;
        assert_eq!(server.run(command, 0).await.stdout, "released\n");
        assert_eq!(server.lines(), ["DELETE /api/v1/holds/01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"]);
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
    assert_eq!(answer.stdout, "frozen  production  when thawed  01F  `tagrelay thaw production`\n");
    let expected = json!({ "environment": "production", "reason": "audit", "freeze_for": "4h" });
    let asked = server.asked();
    assert_eq!((asked[0].line.as_str(), asked[0].json()), ("POST /api/v1/freezes", expected));

    let server = Server::answering([Reply::Json(204, String::new())]).await;
    assert_eq!(server.run("thaw 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN", 0).await.stdout, "thawed\n");
    assert_eq!(server.lines(), ["DELETE /api/v1/freezes/01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN"]);
    let server = Server::answering([ok(&json!({ "freezes": [freeze], "windows": [] }))]).await;
    let answer = server.run("freezes", 0).await;
    assert!(answer.stdout.lines().nth(1).unwrap().ends_with("me  01F  audit"), "{answer:?}");
}

#[tokio::test]
async fn unread_branch_is_reported() {
    let environment = json!({ "name": "staging", "config_repository": "platform", "branch": "main",
        "update": "automatic", "promote_from": [], "tip": null, "unread_because": "there is no folder /srv/p.git", "freeze": null, "repositories": [],
        "problems": [{ "path": "x.yaml", "reason": "line 3: no" }] });
    let matrix = json!({ "environments": [environment], "registries": [] });
    let server = Server::answering([ok(&matrix)]).await;
    let answer = server.run("status --environment staging", 1).await;
    assert_eq!(server.lines(), ["GET /api/v1/environments?environment=staging&sites=false"]);
    for expected in
        ["not read yet", "no managed image", "staging  there is no folder /srv/p.git", "staging  x.yaml  line 3: no"]
    {
        assert!(answer.stdout.contains(expected), "{expected} is not in:\n{}", answer.stdout);
    }
}

/// A matrix of production with one held repository, for which an update waits.
fn held_matrix() -> Value {
    let hold = json!({ "id": "01H", "environment": "production", "repository": "docker.io/uyou/user-service", "reason": null,
        "actor": "me", "rollback": null, "created_at": "2026-11-20T12:00:00Z", "expires_at": null });
    let cell = |name: &str, holds: Value, waiting: Value| {
        json!({ "repository": format!("docker.io/uyou/{name}"), "version": { "tag": OLD, "digest": null }, "versions": [],
            "commit": null, "when": null, "cause": null, "actor": null, "rollout": null, "holds": holds,
            "waiting": waiting, "sites": [] })
    };
    let cells = [
        cell("user-service", json!([hold]), json!([update("waiting", Some("held"))])),
        cell("user-api", json!([]), json!([])),
    ];
    json!({ "environments": [{ "name": "production", "config_repository": "platform", "branch": "main", "update": "manual",
        "promote_from": ["staging"], "tip": "a", "freeze": null, "repositories": cells, "problems": [] }], "registries": [] })
}

#[tokio::test]
async fn names_and_globs_are_used_instead_of_ids() {
    let released = || Reply::Json(204, String::new());
    let server = Server::answering([ok(&held_matrix()), released()]).await;
    let answer = server.run("release production/user-*", 0).await;
    assert_eq!(
        server.lines(),
        ["GET /api/v1/environments?environment=production&repository=user-*", "DELETE /api/v1/holds/01H"]
    );
    assert_eq!(
        answer.stdout,
        "released  production/user-service  moves now: 9f8e7d6, which waited; `tagrelay status production/user-service` shows it\n"
    );

    let hold = json!({ "id": "01H", "environment": "production", "repository": "docker.io/uyou/a", "reason": null,
        "actor": "me", "rollback": null, "created_at": "2026-11-20T12:00:00Z", "expires_at": null });
    let server = Server::answering([Reply::Json(201, hold.to_string()), Reply::Json(201, hold.to_string())]).await;
    server.run("hold production a b", 0).await;
    let bodies: Vec<Value> = server.asked().iter().map(Asked::json).collect();
    let body = |name: &str| json!({ "environment": "production", "repository": name });
    assert_eq!(bodies, [body("a"), body("b")]);

    let server = Server::answering([ok(&held_matrix()), accepted(&committed()), accepted(&committed())]).await;
    server.run("rollback production --all", 0).await;
    let asked = server.asked();
    assert_eq!(asked[1].json(), json!({ "environment": "production", "repository": "docker.io/uyou/user-service" }));
    assert_eq!(asked[2].json(), json!({ "environment": "production", "repository": "docker.io/uyou/user-api" }));

    let server = Server::answering([]).await;
    for (arguments, expected) in [
        ("rollback production", "use --all for the whole environment"),
        ("rollback", "name an environment, as in"),
        ("rollback production a b --to t1", "--to is the tag of one repository"),
        ("release", "name what to release"),
        ("hold production a --all", "exclude each other"),
    ] {
        let answer = server.run(arguments, 2).await;
        assert!(answer.stderr.contains(expected), "{arguments}: {answer:?}");
    }
}

#[tokio::test]
async fn promotion_is_rolled_back_as_a_whole() {
    let mut done = committed();
    done["updates"] = json!([update("committed", None), update("refused", Some("held"))]);
    let server = Server::answering([ok(&done), accepted(&committed())]).await;
    server.run("rollback --promotion 01P --reason oops", 0).await;
    let asked = server.asked();
    assert_eq!(asked[0].line, "GET /api/v1/promotions/01P");
    let expected = json!({ "environment": "production", "repository": "docker.io/uyou/user-service", "to": OLD, "reason": "oops" });
    assert_eq!((asked.len(), asked[1].json()), (2, expected));
}

#[tokio::test]
async fn environment_is_thawed_by_its_name() {
    let freeze = |id: &str, environment: &str| {
        json!({ "id": id, "environment": environment, "reason": "audit", "actor": "me",
        "created_at": "2026-11-20T12:00:00Z", "expires_at": null })
    };
    let list = json!({ "freezes": [freeze("01F", "production"), freeze("01G", "staging")], "windows": [] });
    let server = Server::answering([ok(&list), Reply::Json(204, String::new())]).await;
    assert_eq!(server.run("thaw production", 0).await.stdout, "thawed  production  audit\n");
    assert_eq!(server.lines(), ["GET /api/v1/freezes", "DELETE /api/v1/freezes/01F"]);
}

#[tokio::test]
async fn freeze_accepts_local_times_and_errors_give_examples() {
    let freeze = json!({ "id": "01F", "environment": "production", "reason": "x", "actor": "me",
        "created_at": "2026-11-20T12:00:00Z", "expires_at": "2099-01-04T07:00:00Z" });
    let server = Server::answering([Reply::Json(201, freeze.to_string())]).await;
    let mut command = server.command("freeze production --reason x");
    command.args(["--until", "2099-01-04 8:00"]).env("TZ", "Europe/Berlin");
    server.run_command(command, 0).await;
    assert_eq!(server.asked()[0].json()["until"], "2099-01-04T07:00:00Z");
    let server = Server::answering([]).await;
    let answer = server.run("freeze production --reason x --until soon", 2).await;
    assert!(answer.stderr.contains("`soon` is no time; write 2h, 18:00, \"tomorrow 8:00\""), "{answer:?}");
}

#[tokio::test]
async fn waiting_promotion_exits_3_and_says_how_to_cancel() {
    let mut waits = promotion("waiting");
    waits["updates"] = json!([update("waiting", Some("production is frozen until it is thawed"))]);
    let server = Server::answering([accepted(&waits)]).await;
    let answer = server.run("promote production", 3).await;
    assert!(answer.stdout.contains("production is frozen"), "{answer:?}");
    assert!(answer.stderr.contains("`tagrelay promotions cancel 01P`"), "{answer:?}");
}

#[tokio::test]
async fn command_waits_for_the_rollout_on_request() {
    let with_rollout = |state: &str| {
        let mut done = committed();
        done["rollout"] = json!({ "state": state, "reason": null, "ended_at": null });
        done
    };
    let replies = [accepted(&promotion("pending")), ok(&with_rollout("following")), ok(&with_rollout("healthy"))];
    let server = Server::answering(replies).await;
    let answer = server.run("promote production --wait-for healthy -w 10m", 0).await;
    assert!(answer.stdout.contains("rollout healthy"), "{answer:?}");
    for (state, code) in [("degraded", 1), ("timed_out", 1)] {
        let server = Server::answering([accepted(&with_rollout(state))]).await;
        server.run("promote production --wait-for healthy", code).await;
        let server = Server::answering([accepted(&with_rollout(state))]).await;
        server.run("promote production", 0).await;
    }
    let server = Server::answering([accepted(&with_rollout("following")), ok(&with_rollout("following"))]).await;
    server.run("promote production --wait-for healthy --timeout 0", 3).await;
}

#[tokio::test]
async fn nothing_in_common_exits_1() {
    let detail = "`production` and `staging` have no repository in common: `production` names none; `staging` runs a";
    let server = Server::answering([problem(409, detail)]).await;
    let answer = server.run("promote production", 1).await;
    assert!(answer.stderr.contains("no repository in common"), "{answer:?}");
}

#[tokio::test]
async fn refused_credential_exits_4() {
    for status in [401, 403, 500] {
        let server = Server::answering([problem(status, "no")]).await;
        server.run("hold production a", 4).await;
    }
}

#[tokio::test]
async fn promotions_are_listed_shown_and_cancelled() {
    let list = json!({ "promotions": [committed(), promotion("waiting")], "next": "01P" });
    let server = Server::answering([ok(&list)]).await;
    let answer = server.run("promotions production --state waiting --limit 2", 0).await;
    assert_eq!(server.lines(), ["GET /api/v1/promotions?limit=2&environment=production&state=waiting"]);
    assert!(
        answer.stdout.lines().nth(1).unwrap().contains("committed  c0ffee0  promotion of production from staging"),
        "{answer:?}"
    );
    assert!(answer.stderr.contains("older: --before 01P"), "{answer:?}");
    let server = Server::answering([ok(&committed())]).await;
    let answer = server.run("promotions show 01P", 0).await;
    assert!(answer.stdout.ends_with("by me at 2026-11-20 12:00:00.000Z\n"), "{answer:?}");
    let server = Server::answering([ok(&promotion("cancelled"))]).await;
    server.run("promotions cancel 01P", 0).await;
    assert_eq!(server.lines(), ["DELETE /api/v1/promotions/01P"]);
}

#[tokio::test]
async fn history_and_diff_are_tables() {
    let change = json!({ "id": "01U", "environment": "production", "repository": "docker.io/uyou/user-service",
        "from": { "tag": OLD, "digest": null }, "to": { "tag": NEW, "digest": null },
        "commit": "c0ffee0123456789c0ffee0123456789c0ffee01", "cause": "rollback", "cause_id": "01P", "actor": "ops",
        "reason": "it leaks", "pushed_at": null, "received_at": "2026-11-20T12:00:00Z",
        "committed_at": "2026-11-20T12:00:00Z", "rollout": null, "files": [], "can_roll_back_to": true });
    let server = Server::answering([ok(&json!({ "changes": [change], "next": "01U" }))]).await;
    let answer = server.run("--time utc history production user-service --limit 1", 0).await;
    assert_eq!(server.lines(), ["GET /api/v1/history?limit=1&environment=production&repository=user-service"]);
    let row = answer.stdout.lines().nth(1).unwrap();
    assert_eq!(
        row,
        "2026-11-20 12:00Z  production   user-service       9f8e7d6  ↩  1a2b3c4  c0ffee0  ops, rollback  it leaks"
    );
    assert!(answer.stderr.contains("older: --before 01U"), "{answer:?}");

    let row = |name: &str, state: &str, more: Value| {
        let mut row = json!({ "repository": format!("docker.io/uyou/{name}"), "state": state,
            "old": [{ "tag": OLD, "digest": null }], "new": [{ "tag": NEW, "digest": null }] });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let diff = json!({ "from": "staging", "to": "production", "allowed": true, "repositories": [
        row("a", "moves", json!({ "direction": "newer", "commits": 7 })), row("b", "moves", json!({ "direction": "older" })),
        row("c", "skipped", json!({ "reason": "held" })), row("d", "same", json!({})) ] });
    let server = Server::answering([ok(&diff)]).await;
    let answer = server.run("diff staging production", 0).await;
    assert_eq!(server.lines(), ["GET /api/v1/diff?from=staging&to=production"]);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "in docker.io/uyou  PRODUCTION     STAGING           COMMITS  NOTE",
            "a                  1a2b3c4     ←  9f8e7d6  ▲ newer  7",
            "b                  1a2b3c4     ←  9f8e7d6  ▼ OLDER",
            "c                  1a2b3c4        9f8e7d6                    skipped: held",
            "2 would move from staging to production, 1 of them to an OLDER version; 1 skipped, 1 the same",
        ]
    );
}

#[tokio::test]
async fn any_id_is_explained() {
    let unknown = || problem(404, "there is no event");
    let hold = json!({ "id": "01H", "environment": "staging", "repository": "docker.io/uyou/a", "reason": "sales",
        "actor": "me", "rollback": null, "created_at": "2026-11-20T12:00:00Z", "expires_at": null });
    let server = Server::answering([unknown(), ok(&committed())]).await;
    assert!(server.run("events show 01P", 0).await.stdout.contains("promotion 01P"));
    let server = Server::answering([unknown(), unknown(), ok(&json!({ "holds": [hold] }))]).await;
    assert!(server.run("events show 01H", 0).await.stdout.contains("sales"));
    let empty = [unknown(), unknown(), ok(&json!({ "holds": [] })), ok(&json!({ "freezes": [], "windows": [] }))];
    let server = Server::answering(empty).await;
    assert!(server.run("events 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN", 1).await.stderr.contains("there is no event"));
}

#[tokio::test]
async fn context_names_server_and_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tagrelay")).unwrap();
    let server = Server::answering([ok(&json!({ "holds": [] })), ok(&json!({ "holds": [] }))]).await;
    let file = format!(
        "context = \"other\"\n[contexts.other]\nserver = \"http://127.0.0.1:1\"\n[contexts.prod]\nserver = \"http://{}\"\n\
         token = {{ command = [\"echo\", \"hunter2\"] }}\n",
        server.address
    );
    std::fs::write(folder.path().join("tagrelay/config.toml"), file).unwrap();
    let command = |arguments: &str| {
        let mut command = tagrelay(arguments);
        command.env("XDG_CONFIG_HOME", folder.path()).env("PATH", std::env::var("PATH").unwrap());
        command
    };
    let output = tokio::task::spawn_blocking({
        let mut command = command("--context prod holds");
        move || command.output().unwrap()
    });
    Answer::of(output.await.unwrap()).expect_code(0);
    // A context that was asked for comes before the variables.
    let mut by_variable = command("holds");
    by_variable.env("TAGRELAY_CONTEXT", "prod").env("TAGRELAY_SERVER", "http://127.0.0.1:1");
    server.run_command(by_variable, 0).await;
    assert!(server.asked().iter().all(|asked| asked.headers["authorization"] == "Bearer hunter2"));
    let answer = Answer::of(command("--context qa holds").output().unwrap()).expect_code(1);
    assert!(answer.stderr.contains("there is no context `qa`; there are: other, prod"), "{answer:?}");
}

#[tokio::test]
async fn followed_events_are_lines_and_resume_after_the_last_id() {
    let message = |id: u32, environment: &str| {
        let data = json!({ "at": "2026-11-20T12:00:00Z", "kind": "hold", "id": "01H", "environment": environment,
            "repository": "docker.io/uyou/a", "state": "made" });
        format!("id: {id}\nevent: hold\ndata: {data}\n\n")
    };
    let first = message(7, "staging") + &message(8, "production");
    let server = Server::answering([Reply::Json(200, first), problem(401, "no")]).await;
    let answer = server.run("events --follow --environment staging", 4).await;
    assert_eq!(answer.stdout, "2026-11-20 12:00:00.000Z  hold     staging docker.io/uyou/a  made  01H\n");
    let asked = server.asked();
    assert_eq!(asked[1].line, "GET /api/v1/stream");
    assert_eq!(asked[1].headers["last-event-id"], "8");
}

#[tokio::test]
async fn https_to_a_plain_port_is_explained() {
    let server = Server::answering([]).await;
    let answer = server.run(&format!("holds --server https://{}", server.address), 4).await;
    assert!(answer.stderr.contains("the server does not speak TLS at this address: use http://"), "{answer:?}");
}
