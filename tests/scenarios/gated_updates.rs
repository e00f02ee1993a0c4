//! Updates that wait for a gate: promotions with `wait`, and environments that follow.

use serde_json::{Value, json};

use super::follow_up::{four_applications, rollout, start, with_folders};
use tagrelay_test_support::argocd::FakeArgoCd;
use tagrelay_test_support::fleet::{Builder, Fleet, deployment, sha};

const REPOSITORY: &str = "https://git.example.com/uyou/platform-config.git";

fn soaking(settings: &str) -> Builder {
    with_folders().environment_settings("production", settings)
}

/// Requests a promotion that waits for its gate, and returns it once it waits.
async fn waiting(fleet: &Fleet, service: &str) -> Value {
    let body = json!({"to": "production", "repositories": [service], "wait": true});
    let (status, taken) = fleet.api("POST", "/promotions", Some(body)).await;
    assert_eq!(status, 202, "{taken}");
    reaches(fleet, taken["id"].as_str().unwrap(), "waiting").await
}

/// Waits until a promotion has this state, and returns it.
async fn reaches(fleet: &Fleet, id: &str, state: &str) -> Value {
    let show = async || fleet.api("GET", &format!("/promotions/{id}"), None).await.1;
    fleet.eventually(&format!("the promotion is {state}"), async || show().await["state"] == state).await;
    show().await
}

#[tokio::test]
async fn waiting_promotion_goes_through_when_its_soak_time_has_passed() {
    let argocd = four_applications().await;
    let fleet = start(soaking("soak = \"4s\""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let body = json!({"to": "production", "repositories": ["user-service"], "wait": true, "dry_run": true});
    let (_, dry) = fleet.api("POST", "/promotions", Some(body)).await;
    assert_eq!(dry["updates"][0]["state"], "waiting", "{dry:#}");
    assert!(dry["updates"][0]["reason"].as_str().unwrap().contains("the soak time is 4s"), "{dry:#}");
    let waits = waiting(&fleet, "user-service").await;
    let id = waits["id"].as_str().unwrap();
    fleet
        .eventually("it says until when", async || {
            let shown = fleet.api("GET", &format!("/promotions/{id}"), None).await.1;
            let reason = shown["reason"].as_str().unwrap_or_default().to_owned();
            shown["state"] != "waiting" || reason.contains("the gate opens at")
        })
        .await;
    let done = reaches(&fleet, id, "committed").await;
    assert!(fleet.upstream.file("environments/production/user-service/deployment.yaml").contains(&sha('1')));
    let opened = done["updates"][0]["finished_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let created = done["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(opened.duration_since(created).as_secs() < 9, "it was late: {done:#}");
}

#[tokio::test]
async fn waiting_promotion_ends_if_its_version_fails_or_is_replaced_or_is_cancelled() {
    let argocd = four_applications().await;
    let fleet = start(soaking("soak = \"1h\""), &argocd).await;
    for service in ["user-service", "order-service"] {
        let event = fleet.announce(service, &sha('1')).await;
        rollout(&fleet, &event, "healthy").await;
    }
    let cancelled = waiting(&fleet, "user-service").await;
    let path = format!("/promotions/{}", cancelled["id"].as_str().unwrap());
    let (status, shown) = fleet.api("DELETE", &path, None).await;
    assert_eq!((status, &shown["state"]), (200, &json!("cancelled")), "{shown:#}");

    let replaced = waiting(&fleet, "user-service").await;
    let event = fleet.announce("user-service", &sha('2')).await;
    let replaced = reaches(&fleet, replaced["id"].as_str().unwrap(), "superseded").await;
    assert_eq!(replaced["updates"][0]["reason"], "staging runs 2222222 now", "{replaced:#}");
    rollout(&fleet, &event, "healthy").await;

    let failed = waiting(&fleet, "order-service").await;
    argocd.change("order-service-staging", |app| app.health = "Degraded".to_owned());
    // A rollout that ends causes a look.
    let event = fleet.announce("user-service", &sha('3')).await;
    rollout(&fleet, &event, "healthy").await;
    let failed = reaches(&fleet, failed["id"].as_str().unwrap(), "refused").await;
    assert_eq!(failed["updates"][0]["reason"], "argocd/order-service-staging is Synced and Degraded", "{failed:#}");
}

#[tokio::test]
async fn waiting_promotion_ends_after_its_timeout() {
    let argocd = four_applications().await;
    let fleet = start(soaking("soak = \"1h\"\nwait_timeout = \"1s\""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let body = json!({"to": "production", "repositories": ["user-service"], "wait": true});
    let (_, taken) = fleet.api("POST", "/promotions", Some(body)).await;
    let refused = reaches(&fleet, taken["id"].as_str().unwrap(), "refused").await;
    let reason = refused["updates"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the gate did not open within 1 s: "), "{reason}");
}

#[tokio::test]
async fn open_gate_lets_a_waiting_promotion_through_at_once() {
    let argocd = four_applications().await;
    let fleet = start(soaking("promote_when = \"healthy\""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let body = json!({"to": "production", "repositories": ["user-service"], "wait": true});
    assert_eq!(fleet.request("/promotions", body).await["state"], "committed");
}

/// A third environment, `canary`, that follows staging.
async fn followed(settings: &str) -> (Fleet, FakeArgoCd) {
    let argocd = four_applications().await;
    argocd.add("user-service-canary", REPOSITORY, "environments/canary/user-service");
    let text = deployment(&format!("REGISTRY/uyou/user-service:{}", sha('0')));
    let environment = format!(
        "\n[[environment]]\nname = \"canary\"\npaths = [\"environments/canary\"]\nupdate = \"follow\"\n\
         promote_from = [\"staging\"]\npromote_when = \"healthy\"\n{settings}\n\
         \n[[api_token]]\nname = \"ops\"\ntoken = {{ value = \"ops-token-71\" }}\npermissions = [\"admin\"]\n"
    );
    let builder = with_folders().file("environments/canary/user-service/deployment.yaml", &text).settings(&environment);
    (start(builder, &argocd).await, argocd)
}

fn canary(fleet: &Fleet) -> String {
    let text = fleet.upstream.file("environments/canary/user-service/deployment.yaml");
    let line = text.lines().find(|line| line.contains("image: ")).unwrap();
    line.split(" #").next().unwrap().trim().rsplit(':').next().unwrap().to_owned()
}

async fn ops(fleet: &Fleet, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    fleet.api_as("ops-token-71", method, path, body, &[]).await
}

#[tokio::test]
async fn version_moves_on_by_itself_when_it_runs_healthy() {
    let (fleet, argocd) = followed("soak = \"1s\"").await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    fleet.eventually("canary follows", async || canary(&fleet) == sha('1')).await;
    let trailers = fleet.upstream.git(&["log", "-1", "--format=%(trailers:key=Tagrelay-Cause,valueonly)", "main"]);
    assert_eq!(trailers.trim(), "follow from staging");
    let (_, list) = ops(&fleet, "GET", "/promotions?environment=canary", None).await;
    assert_eq!(
        (&list["promotions"][0]["kind"], &list["promotions"][0]["from"]),
        (&json!("follow"), &json!("staging")),
        "{list:#}"
    );

    // A version that fails stays where it is.
    argocd.change("user-service-staging", |app| app.script = vec![("Synced", "Degraded")]);
    let event = fleet.announce("user-service", &sha('2')).await;
    rollout(&fleet, &event, "degraded").await;
    let waits = async || {
        let (_, list) = ops(&fleet, "GET", "/promotions?environment=canary", None).await;
        list["promotions"][0].clone()
    };
    fleet
        .eventually("the follow rule says why it waits", async || {
            waits().await["reason"].as_str().is_some_and(|reason| reason.contains("is Synced and Degraded"))
        })
        .await;
    assert_eq!((waits().await["state"].clone(), canary(&fleet)), (json!("waiting"), sha('1')));
    // A person can still promote another one, and a newer version replaces the failed one.
    argocd.change("user-service-staging", |app| app.script = vec![("Synced", "Healthy")]);
    let event = fleet.announce("user-service", &sha('3')).await;
    rollout(&fleet, &event, "healthy").await;
    fleet.eventually("canary follows", async || canary(&fleet) == sha('3')).await;
}

#[tokio::test]
async fn follow_rule_respects_holds_of_both_environments_and_a_rollback() {
    let (fleet, argocd) = followed("").await;
    // The rollback goes back to it.
    fleet.push_image("user-service", &sha('0')).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let last = async || ops(&fleet, "GET", "/promotions?environment=canary", None).await.1["promotions"][0].clone();
    fleet.eventually("canary follows", async || last().await["state"] == "committed").await;
    assert_eq!(canary(&fleet), sha('1'));
    let back = json!({"environment": "canary", "repository": "user-service", "reason": "broken"});
    let (status, taken) = ops(&fleet, "POST", "/rollbacks", Some(back)).await;
    assert_eq!(status, 202, "{taken}");
    fleet.eventually("canary is rolled back", async || canary(&fleet) == sha('0')).await;
    // The rollback's hold keeps the next version away, and the version that was rolled back does not return.
    let event = fleet.announce("user-service", &sha('2')).await;
    rollout(&fleet, &event, "healthy").await;
    fleet
        .eventually("the follow rule waits for the hold", async || {
            let last = last().await;
            last["kind"] == "follow" && last["reason"].as_str().is_some_and(|reason| reason.contains("held by"))
        })
        .await;
    assert_eq!(canary(&fleet), sha('0'));
    let (_, holds) = ops(&fleet, "GET", "/holds", None).await;
    let id = holds["holds"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ops(&fleet, "DELETE", &format!("/holds/{id}"), None).await.0 / 100, 2);
    fleet.eventually("canary runs the new version", async || canary(&fleet) == sha('2')).await;

    // A hold in staging keeps its version there.
    let hold = json!({"environment": "staging", "repository": "user-service", "reason": "under test"});
    let (status, held) = ops(&fleet, "POST", "/holds", Some(hold)).await;
    assert_eq!(status / 100, 2, "{held}");
    fleet.push_image("user-service", &sha('3')).await;
    let text = deployment(&format!("{}:{}", fleet.repository("user-service"), sha('3')));
    fleet.upstream.commit("by hand", &[("environments/staging/user-service/deployment.yaml", &text)]);
    let tip = fleet.upstream.tip();
    argocd.change("user-service-staging", |app| app.revision = tip);
    // The branch is read with the next commit.
    let event = fleet.announce("order-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    fleet
        .eventually("the follow rule waits for the hold of staging", async || {
            last().await["updates"][0]["reason"].as_str().is_some_and(|reason| reason.starts_with("staging: held by"))
        })
        .await;
    assert_eq!(canary(&fleet), sha('2'));
}

#[tokio::test]
async fn followed_environment_never_moves_to_an_older_version() {
    let (fleet, _argocd) = followed("").await;
    let built = |minute: &str| format!("2026-11-23T10:{minute}:00Z").parse::<jiff::Timestamp>().unwrap();
    fleet.push_image_built("user-service", &sha('0'), built("00")).await;
    fleet.push_image_built("user-service", &sha('2'), built("20")).await;
    let (_, answer) = fleet.deliver("user-service", &sha('2')).await;
    let event = answer["events"][0]["id"].as_str().unwrap().to_owned();
    rollout(&fleet, &event, "healthy").await;
    fleet.eventually("canary follows", async || canary(&fleet) == sha('2')).await;
    // Staging goes back by hand.
    fleet.push_image_built("user-service", &sha('1'), built("10")).await;
    let text = deployment(&format!("{}:{}", fleet.repository("user-service"), sha('1')));
    fleet.upstream.commit("by hand", &[("environments/staging/user-service/deployment.yaml", &text)]);
    fleet.api("GET", "/diff?from=staging&to=production", None).await;
    let event = fleet.announce("order-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let last = async || ops(&fleet, "GET", "/promotions?environment=canary", None).await.1["promotions"][0].clone();
    fleet.eventually("the follow rule looked", async || last().await["updates"][0]["tag"] == sha('1').as_str()).await;
    let (_, list) = ops(&fleet, "GET", "/promotions?environment=canary", None).await;
    assert_ne!(list["promotions"][0]["state"], "committed", "{list:#}");
    assert_eq!(canary(&fleet), sha('2'));
}
