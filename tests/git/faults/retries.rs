//! How often what is tried again, and what is never.

use super::{behind_http, commits_of};
use tagrelay_test_support::fleet::sha;
use tagrelay_test_support::git_http::Fault;

#[tokio::test]
async fn ten_lost_races_and_it_goes_back_to_the_queue() {
    let fleet = super::fleet().service("user-service").start().await;
    // Somebody else is faster each time.
    fleet.upstream.hook(
        "pre-receive",
        "echo >> tries; commit=$(git -c user.name=Ada -c user.email=a@b commit-tree -p main -m 'faster' main^{tree}); \
         env -u GIT_QUARANTINE_PATH git -c core.quarantine=0 update-ref refs/heads/main $commit",
    );
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the trouble is told", async || {
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

#[tokio::test]
async fn a_server_in_trouble_is_not_asked_like_a_race() {
    let (fleet, server, _registry) = behind_http(super::fleet().service("user-service")).await;
    fleet.eventually("the branch is read", async || fleet.upstream.subjects().len() == 1).await;
    fleet.push_image("user-service", &sha('1')).await;
    for fault in [Fault::BadGateway, Fault::DieBefore] {
        server.set_fault(fault);
        server.take_requests();
        if fault == Fault::BadGateway {
            fleet.deliver("user-service", &sha('1')).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let pushes = server.take_requests().iter().filter(|request| request.ends_with("/git-receive-pack")).count();
        // A round is at most two pushes, and pauses of 0.5, 1, 2 and more seconds follow, less a quarter.
        assert!(pushes <= 8, "{fault:?}: {pushes} pushes in three seconds");
    }
    server.set_fault(Fault::None);
    fleet.eventually("it runs", async || fleet.running("staging", "user-service") == sha('1')).await;
    assert_eq!(commits_of(&fleet.upstream, &fleet.repository("user-service"), "staging", &sha('1')), 1);
}
