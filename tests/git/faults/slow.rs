//! A slow link to the Git server.

use std::time::{Duration, Instant};

use super::CREDENTIALS;
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::{free_port, sha};
use tagrelay_test_support::git_http::Server;
use tagrelay_test_support::slow_link::SlowLink;

/// Text that does not become smaller when it is packed.
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
async fn over_a_slow_link_pushes_go_through_and_the_api_answers_at_once() {
    let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let mut builder = super::fleet().registry(&registry.host()).service("user-service").service("order-service");
    builder = builder.file("environments/staging/large.yaml", &noise(200_000));
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "secret");
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    let link = SlowLink::start(address, 20 << 10, Duration::from_millis(300)).await;
    let begun = Instant::now();
    let fleet = builder
        .remote(&format!("http://{}/config.git", link.address), CREDENTIALS)
        .start_at(free_port(), upstream)
        .await;
    // The first reading of the branch takes a while, and holds up nobody.
    let id = fleet.announce("user-service", &sha('1')).await;
    let mut slowest = Duration::ZERO;
    let event = loop {
        for path in ["/healthz", "/metrics", "/api/v1/events"] {
            let asked = Instant::now();
            let answer = fleet
                .client
                .get(fleet.url(path))
                .bearer_auth(tagrelay_test_support::fleet::API_TOKEN)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            slowest = slowest.max(asked.elapsed());
        }
        let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
        if !matches!(event["state"].as_str(), Some("queued" | "pending")) {
            break event;
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "{event:#}\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(event["state"], "committed", "{event:#}\n{}", fleet.log());
    assert!(begun.elapsed() > Duration::from_secs(4), "the link was not slow: {:?}", begun.elapsed());
    assert!(link.passed() > 80_000, "{}", link.passed());
    assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?}");
    // With the branch known and the connection kept, an update is one request.
    let begun = Instant::now();
    let id = fleet.announce("order-service", &sha('2')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
