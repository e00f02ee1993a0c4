//! The number of retries, and errors that are not retried.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{behind_http, commits_of};
use serde_json::Value;
use tagrelay_test_support::fleet::{Fleet, sha};
use tagrelay_test_support::git_http::Fault;

#[tokio::test]
async fn after_ten_lost_races_the_update_is_retried_later() {
    let fleet = super::fleet().service("user-service").start().await;
    // A foreign commit wins every race.
    fleet.upstream.hook(
        "pre-receive",
        "echo >> tries; commit=$(git -c user.name=Ada -c user.email=a@b commit-tree -p main -m 'faster' main^{tree}); \
         env -u GIT_QUARANTINE_PATH git -c core.quarantine=0 update-ref refs/heads/main $commit",
    );
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the reason is shown", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
            event["updates"][0]["reason"].is_string()
        })
        .await;
    let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
    assert_eq!(event["state"], "pending", "{event:#}");
    let reason = event["updates"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("10 pushes in a row lost the race against others"), "{reason}");
    assert!(reason.contains("the last: "), "{reason}");
    let tries = std::fs::read_to_string(fleet.upstream.path().join("tries")).unwrap().lines().count();
    assert!(tries.is_multiple_of(10) && tries > 0, "{tries}");
    fleet.upstream.remove_hook("pre-receive");
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(commits_of(&fleet.upstream, &fleet.repository("user-service"), "staging", &sha('1')), 1);
}

async fn reason(fleet: &Fleet, event: &str) -> Value {
    fleet.api("GET", &format!("/events/{event}"), None).await.1["updates"][0]["reason"].clone()
}

#[tokio::test]
async fn server_error_is_retried_with_backoff() {
    let (fleet, server, _registry) = behind_http(super::fleet().service("user-service")).await;
    fleet.eventually("the branch is read", async || fleet.upstream.subjects().len() == 1).await;
    let mut before = Value::Null;
    let mut id = String::new();
    for fault in [Fault::BadGateway, Fault::DieBefore] {
        server.set_fault(fault);
        server.take_requests();
        if id.is_empty() {
            id = fleet.announce("user-service", &sha('1')).await;
        }
        // The first round ends with a reason. It has at most two pushes, each after one request; a lost race has ten.
        let requests = AtomicUsize::new(0);
        fleet
            .eventually("the reason is shown after a request", async || {
                requests.fetch_add(server.take_requests().len(), Ordering::Relaxed);
                requests.load(Ordering::Relaxed) > 0 && reason(&fleet, &id).await != before
            })
            .await;
        let requests = requests.into_inner();
        assert!((1..=8).contains(&requests), "{fault:?}: {requests} requests");
        before = reason(&fleet, &id).await;
    }
    server.set_fault(Fault::None);
    fleet.eventually("it runs", async || fleet.running("staging", "user-service") == sha('1')).await;
    assert_eq!(commits_of(&fleet.upstream, &fleet.repository("user-service"), "staging", &sha('1')), 1);
}
