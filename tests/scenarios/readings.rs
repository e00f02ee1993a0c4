//! Final decisions are based on the current branch, with few requests.

use serde_json::json;

use tagrelay_test_support::fleet::{Fleet, deployment, sha};

async fn readings(fleet: &Fleet) -> f64 {
    let text = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let is_count = |line: &&str| {
        line.starts_with("tagrelay_git_operation_seconds_count{") && line.contains("operation=\"refresh\"")
    };
    text.lines().filter(is_count).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn manifest_added_by_others_is_seen() {
    let fleet = crate::fleet().service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    // The branch was just read and written, and there is no webhook for the next commit.
    let text = deployment(&format!("{}:{}", fleet.repository("order-service"), sha('0')));
    fleet.upstream.commit("a new service", &[("environments/staging/order-service.yaml", &text)]);
    let id = fleet.announce("order-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "order-service"), sha('1'));
}

#[tokio::test]
async fn refusals_of_older_builds_share_reads_of_the_branch() {
    const BUILDS: usize = 60;
    let tag = "tag = { kind = \"regex\", pattern = '(?<sha>[0-9a-f]{40})-(?<number>[0-9]+)' }";
    let fleet = crate::fleet().service("user-service").image(tag).start().await;
    let tags: Vec<String> = (0..=BUILDS).map(|number| format!("{}-{number}", sha('1'))).collect();
    for tag in &tags {
        fleet.push_image("user-service", tag).await;
    }
    let (_, answer) = fleet.deliver("user-service", &tags[BUILDS]).await;
    let id = answer["events"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(fleet.settled(&id).await["state"], "committed");

    let before = readings(&fleet).await;
    let deliveries = tags[..BUILDS].iter().map(|tag| fleet.deliver("user-service", tag));
    for (status, answer) in futures_util::future::join_all(deliveries).await {
        assert_eq!(status, 202);
        let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
        assert_eq!(event["state"], "refused", "{event:#}");
    }
    let shared = readings(&fleet).await - before;
    assert!((1.0..=BUILDS as f64 / 2.0).contains(&shared), "{shared} readings for {BUILDS} builds");
}

#[tokio::test]
async fn promotion_that_loses_the_race_keeps_the_foreign_version() {
    let fleet = crate::fleet().service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    // A foreign commit lands during the push of the promotion.
    let before = fleet.upstream.tip();
    let text = deployment(&format!("{}:{}", fleet.repository("user-service"), sha('7')));
    fleet.upstream.commit("by hand", &[("environments/production/user-service.yaml", &text)]);
    let by_hand = fleet.upstream.tip();
    fleet.upstream.git(&["update-ref", "refs/heads/main", &before]);
    let script = format!("env -u GIT_QUARANTINE_PATH git update-ref refs/heads/main {by_hand} {before} || true");
    fleet.upstream.hook("pre-receive", &script);
    let body = json!({"to": "production", "repositories": ["user-service"],
        "expect": {fleet.repository("user-service"): sha('0')}});
    let promoted = fleet.request("/promotions", body).await;
    assert_eq!(
        (&promoted["state"], &promoted["updates"][0]["state"]),
        (&json!("superseded"), &json!("superseded")),
        "{promoted:#}"
    );
    let (_, shown) = fleet.api("GET", &format!("/promotions/{}", promoted["id"].as_str().unwrap()), None).await;
    assert_eq!(shown["state"], "superseded", "{shown:#}");
    assert!(shown["reason"].as_str().unwrap().contains("by another commit after the request"), "{shown:#}");
    assert!(
        promoted["updates"][0]["reason"].as_str().unwrap().contains("by another commit after the request"),
        "{promoted:#}"
    );
    assert_eq!(fleet.running("production", "user-service"), sha('7'));
    assert_eq!(fleet.upstream.tip(), by_hand);
}
