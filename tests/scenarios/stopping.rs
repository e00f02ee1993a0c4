//! The end of the program: what runs may end, within a time, and nothing is lost.

use std::process::Command;
use std::time::{Duration, Instant};

use tagrelay_test_support::fleet::{Fleet, sha};

/// The server takes half a minute for each push.
const SLOW: &str = "sleep 30";

/// Starts a fleet whose push hangs, and returns it with the event that is being pushed.
async fn pushing(stop_timeout: &str) -> (Fleet, String) {
    let server = format!("stop_timeout = \"{stop_timeout}\"");
    let fleet = crate::fleet().server(&server).service("user-service").start().await;
    fleet.upstream.hook("pre-receive", &format!("touch \"{}\"\n{SLOW}", begun(&fleet).display()));
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.eventually("the push has begun", async || begun(&fleet).exists()).await;
    (fleet, id)
}

fn begun(fleet: &Fleet) -> std::path::PathBuf {
    fleet.folder().join("push-has-begun")
}

#[tokio::test]
async fn a_push_that_takes_too_long_is_left_and_done_by_the_next_start() {
    let (mut fleet, id) = pushing("1s").await;
    let asked = Instant::now();
    assert_eq!(fleet.terminate(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    assert!(fleet.log().contains("the pipeline did not stop within stop_timeout"), "{}", fleet.log());
    fleet.upstream.remove_hook("pre-receive");
    fleet.start().await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event}");
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
}

#[tokio::test]
async fn a_push_under_way_may_end_and_a_second_signal_ends_at_once() {
    let (mut fleet, id) = pushing("50m").await;
    let pid = fleet.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let stopping = async || fleet.log().contains("a second signal stops at once");
    fleet.eventually("it is stopping", stopping).await;
    // It waits for the push: nothing new is accepted meanwhile, and it is still there.
    let refused = async || fleet.client.get(fleet.url("/healthz")).send().await.is_err();
    fleet.eventually("it accepts nothing more", refused).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!fleet.log().contains("\"stopped\""), "{}", fleet.log());
    let asked = Instant::now();
    assert_eq!(fleet.terminate(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(fleet.log().contains("stopped by a second signal"), "{}", fleet.log());
    fleet.upstream.remove_hook("pre-receive");
    fleet.start().await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
}

#[tokio::test]
async fn a_collector_that_hangs_does_not_make_the_end_longer_than_it_may_be() {
    // It accepts connections, and never answers.
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
    let asked = Instant::now();
    assert_eq!(fleet.terminate(), Some(0));
    // Five seconds more, without the limit.
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    drop(collector);
}
