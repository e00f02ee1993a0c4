//! Only an environment with its own tag rule accepts branch builds.

use serde_json::json;
use tagrelay_test_support::fleet::{Builder, Fleet, deployment, sha};

/// An automatic environment whose versions have the prefix `dev-`.
const DEVELOPMENT: &str = r#"
[[environment]]
name = "development"
paths = ["environments/development"]
update = "automatic"
tag = { kind = "commit-sha", prefix = "dev-" }
"#;

fn dev(digit: char) -> String {
    format!("dev-{}", sha(digit))
}

fn builder() -> Builder {
    let running = deployment(&format!("REGISTRY/uyou/user-service:{}", dev('0')));
    let file = "environments/development/user-service.yaml";
    crate::fleet().service("user-service").file(file, &running).settings(DEVELOPMENT)
}

async fn announce(fleet: &Fleet, tag: &str) -> serde_json::Value {
    fleet.settled(&fleet.announce("user-service", tag).await).await
}

#[tokio::test]
async fn branch_build_reaches_only_the_environment_with_that_tag_rule() {
    let fleet = builder().start().await;
    let event = announce(&fleet, &dev('1')).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("development", "user-service"), dev('1'));
    assert_eq!(fleet.running("staging", "user-service"), sha('0'));

    let event = announce(&fleet, &sha('2')).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "user-service"), sha('2'));
    assert_eq!(fleet.running("development", "user-service"), dev('1'));
}

#[tokio::test]
async fn tag_that_no_rule_matches_is_refused() {
    let fleet = builder().start().await;
    let event = announce(&fleet, &format!("test-{}", sha('1'))).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    assert!(event["reason"].as_str().unwrap().contains("does not match the rule"), "{event:#}");
}

#[tokio::test]
async fn release_that_only_the_environment_of_branch_builds_names_is_refused_with_the_reason() {
    let running = deployment(&format!("REGISTRY/uyou/cart:{}", dev('0')));
    let fleet = builder().file("environments/development/cart.yaml", &running).start().await;
    let event = fleet.settled(&fleet.announce("cart", &sha('1')).await).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.contains("/uyou/cart runs only in development, "), "{reason}");
    assert!(reason.ends_with(&format!("the `tag` rule there does not match {}", sha('1'))), "{reason}");
}

#[tokio::test]
async fn branch_build_cannot_be_promoted() {
    let fleet = builder().start().await;
    fleet.push_image("user-service", &dev('1')).await;
    let body = json!({"to": "production", "repositories": ["user-service"], "tag": dev('1')});
    let (status, problem) = fleet.api("POST", "/promotions", Some(body)).await;
    assert!((400..500).contains(&status), "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains("does not match the rule"), "{problem:#}");
    assert_eq!(fleet.running("production", "user-service"), sha('0'));
}

#[tokio::test]
async fn branch_build_that_no_webhook_announced_is_found() {
    let mut fleet = builder().start().await;
    fleet.push_image("user-service", &sha('0')).await;
    fleet.eventually("the first list is kept", async || listed(&fleet).await).await;
    assert_eq!(fleet.terminate(), Some(0));
    fleet.push_image("user-service", &dev('3')).await;
    fleet.push_image("user-service", &sha('4')).await;
    fleet.start().await;
    fleet
        .eventually("both environments have their build", async || {
            fleet.running("development", "user-service") == dev('3')
                && fleet.running("staging", "user-service") == sha('4')
        })
        .await;
}

async fn listed(fleet: &Fleet) -> bool {
    let (_, answer) = fleet.api("GET", "/registries", None).await;
    answer["registries"][0]["catch_up"]["state"] == "listed"
}
