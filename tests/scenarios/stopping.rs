//! Shutdown: running work may finish within a time limit, and nothing is lost.

use std::process::Command;

use tagrelay_test_support::fleet::{API_TOKEN, Fleet, Gate, sha};

/// Starts a fleet whose push waits at a gate, and returns both with the event that is being pushed.
async fn pushing(stop_timeout: &str) -> (Fleet, Gate, String) {
    let server = format!("stop_timeout = \"{stop_timeout}\"");
    let fleet = crate::fleet().server(&server).service("user-service").start().await;
    let gate = fleet.upstream.gate("pre-receive");
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
    (fleet, gate, id)
}

#[tokio::test]
async fn push_cut_off_by_stop_timeout_is_finished_by_next_start() {
    // The gate stays closed, so the program can only end before the push.
    let (mut fleet, _gate, id) = pushing("1s").await;
    assert_eq!(fleet.terminate(), Some(0));
    assert!(fleet.log().contains("the pipeline did not stop within stop_timeout"), "{}", fleet.log());
    fleet.upstream.remove_hook("pre-receive");
    fleet.start().await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event}");
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
}

#[tokio::test]
async fn stop_waits_for_push_until_second_signal() {
    let (mut fleet, _gate, id) = pushing("50m").await;
    let pid = fleet.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let stopping = async || fleet.log().contains("a second signal stops at once");
    fleet.eventually("it is stopping", stopping).await;
    // It accepts no more requests and waits for the push. A second signal changes nothing.
    let refused = async || fleet.client.get(fleet.url("/healthz")).send().await.is_err();
    fleet.eventually("it accepts nothing more", refused).await;
    assert!(!fleet.log().contains("\"stopped\""), "{}", fleet.log());
    assert_eq!(fleet.terminate(), Some(0));
    assert!(fleet.log().contains("stopped by a second signal"), "{}", fleet.log());
    fleet.upstream.remove_hook("pre-receive");
    fleet.start().await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
}

#[tokio::test]
async fn open_stream_ends_at_the_stop() {
    let fleet = crate::fleet().service("user-service").start().await;
    let stream = fleet.client.get(fleet.url("/api/v1/stream")).bearer_auth(API_TOKEN).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let pid = fleet.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    stream.text().await.unwrap();
    fleet.eventually("it has stopped", async || fleet.log().contains("\"stopped\"")).await;
    assert!(!fleet.log().contains("open connections are closed"), "{}", fleet.log());
}

#[tokio::test]
async fn hanging_collector_does_not_delay_stop() {
    // It accepts connections but never answers.
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut fleet = crate::fleet()
        .server("stop_timeout = \"1s\"")
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .service("user-service")
        .start()
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(fleet.terminate(), Some(0));
    // The last spans were being sent: their connection stayed open until the end.
    let (connection, _) = collector.accept().unwrap();
    assert!(connection.peer_addr().is_ok());
}
