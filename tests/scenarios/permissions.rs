//! What a token may not see, it does not learn from an answer either.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use tagrelay_test_support::fleet::{Fleet, READ_TOKEN};

const REPLAY_TOKEN: &str = "replayer-token-77b2";

/// Starts a fleet with a token that may only replay.
async fn with_replayer() -> Fleet {
    let token = format!(
        "\n[[api_token]]\nname = \"replayer\"\ntoken = {{ value = \"{REPLAY_TOKEN}\" }}\npermissions = [\"replay\"]\n"
    );
    crate::fleet().service("user-service").settings(&token).start().await
}

#[tokio::test]
async fn missing_permission_is_answered_before_an_id_is_looked_up() {
    let fleet = with_replayer().await;
    for (token, method, path) in [
        (READ_TOKEN, "DELETE", "/holds/01J"),
        (READ_TOKEN, "DELETE", "/freezes/01J"),
        (READ_TOKEN, "DELETE", "/promotions/01J"),
        (REPLAY_TOKEN, "GET", "/promotions/01J"),
        (REPLAY_TOKEN, "GET", "/events/01J"),
    ] {
        let (status, answer) = fleet.api_as(token, method, path, None, &[]).await;
        assert_eq!(status, 403, "{method} {path}: {answer}");
    }
    assert_eq!(fleet.api_as(READ_TOKEN, "GET", "/promotions/01J", None, &[]).await.0, 404);
    assert_eq!(fleet.api_as(REPLAY_TOKEN, "POST", "/events/01J/replay", None, &[]).await.0, 404);
}

#[tokio::test]
async fn replay_without_permission_to_read_tells_nothing_of_the_event() {
    let fleet = with_replayer().await;
    // A tag that no rule accepts.
    let (status, answer) = fleet.deliver("user-service", "latest").await;
    assert_eq!(status, 202, "{answer}");
    let id = answer["events"][0]["id"].as_str().unwrap();
    assert_eq!(fleet.settled(id).await["state"], "refused");
    let path = format!("/events/{id}/replay");
    let (status, answer) = fleet.api_as(REPLAY_TOKEN, "POST", &path, None, &[]).await;
    assert_eq!((status, answer), (202, serde_json::json!({ "replayed": id })));
}

#[tokio::test]
async fn ambiguous_requests_are_rejected_as_problems() {
    let fleet = crate::fleet().service("user-service").start().await;
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 OK"),
        ("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", "400 Bad Request"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "400 Bad Request"),
        ("GET /api/v1/events/%FF HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "400 Bad Request"),
    ] {
        let mut stream = TcpStream::connect(fleet.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
        let is_problem = answer.contains("application/problem+json");
        assert_eq!(is_problem, !status.starts_with("200"), "{request:?}: {answer}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let fleet = crate::fleet().service("user-service").start().await;
    let files = ["tagrelay.db", "tagrelay.db-wal", "tagrelay.db.lock"].map(|name| fleet.folder().join(name));
    for file in files {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}
