//! Gated promotions of versions that foreign commits deployed.

use serde_json::{Value, json};

use super::follow_up::{an_hour_later, environment, four_applications, rollout, start, with_folders};
use tagrelay_test_support::argocd::FakeArgoCd;
use tagrelay_test_support::fleet::{Fleet, deployment, sha};

const APPLICATION: &str = "user-service-staging";

/// Sets a version in staging with a foreign commit. The registry has it.
async fn write_by_hand(fleet: &Fleet, tag: &str) {
    fleet.push_image("user-service", tag).await;
    let text = deployment(&format!("{}:{tag}", fleet.repository("user-service")));
    fleet.upstream.commit("by hand", &[("environments/staging/user-service/deployment.yaml", &text)]);
}

fn order() -> Value {
    json!({"to": "production", "repositories": ["user-service"]})
}

/// Requests a promotion that is refused, and returns the reason.
async fn refusal(fleet: &Fleet) -> String {
    let (status, problem) = fleet.api("POST", "/promotions", Some(order())).await;
    assert_eq!(status, 409, "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

async fn is_let_through(fleet: &Fleet) -> bool {
    let mut dry = order();
    dry["dry_run"] = json!(true);
    fleet.api("POST", "/promotions", Some(dry)).await.0 == 200
}

fn goes_to(argocd: &FakeArgoCd, revision: &str) {
    argocd.change(APPLICATION, |app| app.revision = revision.to_owned());
}

#[tokio::test]
async fn version_written_by_hand_is_promoted_once_argo_cd_runs_it() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    assert!(is_let_through(&fleet).await);

    let before = fleet.upstream.tip();
    write_by_hand(&fleet, &sha('2')).await;
    let by_hand = fleet.upstream.tip();
    let said = refusal(&fleet).await;
    let expected = format!(
        "`staging` does not run it yet: application argocd/{APPLICATION} is at commit {} with user-service 1111111; it must \
         run 2222222 (branch at {})",
        &before[..7],
        &by_hand[..7]
    );
    assert!(said.contains(&expected), "{said}");
    // Later foreign commits to other files do not matter, and Argo CD need not sync the newest commit.
    fleet.upstream.commit("docs", &[("README.md", "hello")]);
    let said = refusal(&fleet).await;
    assert!(said.contains("with user-service 1111111"), "{said}");
    goes_to(&argocd, &by_hand);
    assert!(is_let_through(&fleet).await);
    argocd.change(APPLICATION, |app| app.sync = "OutOfSync".to_owned());
    assert!(refusal(&fleet).await.contains("OutOfSync"));
    argocd.change(APPLICATION, |app| app.sync = "Synced".to_owned());
    goes_to(&argocd, &fleet.upstream.tip());
    assert_eq!(fleet.request("/promotions", order()).await["state"], "committed");
    assert!(fleet.upstream.file("environments/production/user-service/deployment.yaml").contains(&sha('2')));
}

#[tokio::test]
async fn unknown_revision_of_argo_cd_refuses_promotion() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    write_by_hand(&fleet, &sha('2')).await;
    for revision in ["4".repeat(40), String::new(), "2.10.0".to_owned()] {
        goes_to(&argocd, &revision);
        let said = refusal(&fleet).await;
        let expected = if revision.is_empty() { "has no commit yet" } else { "which cannot be read" };
        assert!(said.contains(expected), "{said}");
    }
    goes_to(&argocd, &fleet.upstream.tip());
    assert!(is_let_through(&fleet).await);
}

// The fake server must answer while the test waits for the program's end.
#[tokio::test(flavor = "multi_thread")]
async fn commits_made_during_downtime_must_run_before_promotion() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let mut fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let (first, mirrors) = (fleet.upstream.tip(), fleet.folder().join("mirrors"));
    assert_eq!(fleet.terminate(), Some(0));
    write_by_hand(&fleet, &sha('2')).await;
    let by_hand = fleet.upstream.tip();
    write_by_hand(&fleet, &sha('3')).await;
    // Commits that were never a known tip are fetched from the Git server.
    std::fs::remove_dir_all(mirrors).unwrap();
    fleet.start().await;
    for (revision, runs) in [(first, "1111111"), (by_hand, "2222222")] {
        goes_to(&argocd, &revision);
        let said = refusal(&fleet).await;
        assert!(said.contains(&format!("with user-service {runs}; it must run 3333333")), "{said}");
    }
    goes_to(&argocd, &fleet.upstream.tip());
    assert!(is_let_through(&fleet).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_commit_restarts_the_soak_time() {
    let argocd = four_applications().await;
    let builder = with_folders().environment_settings("production", "soak = \"1h\"\ngate = \"environment\"");
    let mut fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    assert!(refusal(&fleet).await.contains("its soak time is 3600 s"));
    assert_eq!(fleet.terminate(), Some(0));
    an_hour_later(&fleet).await;
    fleet.start().await;
    assert!(is_let_through(&fleet).await);

    // Argo CD can finish a sync between two requests.
    write_by_hand(&fleet, &sha('2')).await;
    goes_to(&argocd, &fleet.upstream.tip());
    assert!(refusal(&fleet).await.contains("its soak time is 3600 s"));
    assert_eq!(fleet.terminate(), Some(0));
    an_hour_later(&fleet).await;
    // Restarts and foreign commits to other files do not restart the soak time.
    fleet.upstream.commit("docs", &[("README.md", "hello")]);
    fleet.start().await;
    assert!(is_let_through(&fleet).await);

    // The time of the last sync, according to Argo CD.
    let now = jiff::Timestamp::now();
    argocd.change(APPLICATION, |app| app.times.1 = json!(now.to_string()));
    let said = refusal(&fleet).await;
    assert!(said.contains(&format!("has been healthy only since {now:.0}")), "{said}");
    argocd.change(APPLICATION, |app| app.times.1 = json!("2026-01-01T00:00:00Z"));
    assert!(refusal(&fleet).await.contains("its soak time"), "it is remembered");
}

#[tokio::test]
async fn invalid_time_of_one_application_leaves_others_readable() {
    let argocd = four_applications().await;
    argocd.change("order-service-staging", |app| app.times = (json!("soon"), json!("later")));
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    assert!(is_let_through(&fleet).await);
    let row = environment(&fleet, "staging").await;
    let messages: Vec<&Value> =
        row["health"]["applications"].as_array().unwrap().iter().map(|app| &app["message"]).collect();
    let said = "lastTransitionTime is not a time: \"soon\"; finishedAt is not a time: \"later\"";
    assert_eq!(messages, [&json!(said), &Value::Null], "{row:#}");
}

#[tokio::test]
async fn unreadable_application_refuses_promotion() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    assert!(is_let_through(&fleet).await);
    argocd.change("order-service-staging", |app| app.spec = json!({"source": 5}));
    let said = refusal(&fleet).await;
    assert!(said.contains("order-service-staging") && said.contains("cannot be parsed"), "{said}");
}
