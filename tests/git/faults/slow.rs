//! A slow link to the Git server.

use std::time::Duration;

use super::CREDENTIALS;
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::{free_port, is_settled, sha};
use tagrelay_test_support::git_http::Server;
use tagrelay_test_support::slow_link::SlowLink;

/// Incompressible text.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut digits = String::new();
    while digits.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        digits.push_str(&format!("# {:016x}\n", state));
    }
    digits
}

#[tokio::test]
async fn slow_link_to_git_server_does_not_delay_the_api() {
    let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let mut builder = super::fleet().registry(&registry.host()).service("user-service").service("order-service");
    builder = builder.file("environments/staging/large.yaml", &noise(200_000));
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "secret");
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    let link = SlowLink::start(address, 40 << 10, Duration::from_millis(300)).await;
    let fleet = builder
        .remote(&format!("http://{}/config.git", link.address), CREDENTIALS)
        .start_at(free_port(), upstream)
        .await;
    // The first read of the branch takes long, but blocks nothing else.
    let id = fleet.announce("user-service", &sha('1')).await;
    let mut rounds = 0;
    let event = loop {
        for path in ["/healthz", "/metrics", "/api/v1/events"] {
            let answer = fleet
                .client
                .get(fleet.url(path))
                .bearer_auth(tagrelay_test_support::fleet::API_TOKEN)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{path}");
        }
        let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
        if is_settled(&event) {
            break event;
        }
        rounds += 1;
        assert!(rounds < 2000, "{event:#}\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(event["state"], "committed", "{event:#}\n{}", fleet.log());
    assert!(link.passed() > 80_000, "{}", link.passed());
    assert!(rounds >= 5, "the API answered only {rounds} times while the branch was read over the link");
    // With a known branch and a kept connection, an update is one request.
    server.take_requests();
    let id = fleet.announce("order-service", &sha('2')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(server.take_requests(), ["POST /config.git/git-receive-pack"]);
}
