//! One decision serves the dry run and the promotion, rollbacks leave other requests alone, reasons reach the commit, and the order
//! of builds belongs to the digest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use jiff::Timestamp;
use serde_json::{Value, json};
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::{Fleet, deployment, sha};

async fn committed(fleet: &Fleet, service: &str, digit: char) {
    let event = fleet.settled(&fleet.announce(service, &sha(digit)).await).await;
    assert_eq!(event["state"], "committed", "{event:#}");
}

#[tokio::test]
async fn dry_run_and_promotion_agree_on_a_held_place_that_runs_the_version() {
    let fleet = crate::fleet().service("user-service").start().await;
    committed(&fleet, "user-service", '1').await;
    let promotion = json!({"to": "production", "repositories": ["user-service"]});
    assert_eq!(fleet.request("/promotions", promotion.clone()).await["state"], "committed");
    let hold = json!({"environment": "production", "repository": "user-service"});
    assert_eq!(fleet.api("POST", "/holds", Some(hold)).await.0, 201);

    let dry_run = json!({"to": "production", "repositories": ["user-service"], "dry_run": true});
    let (_, preview) = fleet.api("POST", "/promotions", Some(dry_run.clone())).await;
    let promoted = fleet.request("/promotions", promotion.clone()).await;
    assert_eq!(preview["updates"][0]["state"], "unchanged", "{preview:#}");
    assert_eq!(promoted["updates"][0]["state"], "unchanged", "{promoted:#}");

    // Another version is refused by both, with one reason.
    committed(&fleet, "user-service", '2').await;
    let (_, preview) = fleet.api("POST", "/promotions", Some(dry_run)).await;
    let promoted = fleet.request("/promotions", promotion).await;
    assert_eq!(preview["updates"][0]["state"], "refused", "{preview:#}");
    assert_eq!(promoted["updates"][0]["state"], "refused", "{promoted:#}");
    assert_eq!(preview["updates"][0]["reason"], promoted["updates"][0]["reason"]);
    // The order of the two is known, hold or not.
    assert_eq!(preview["updates"][0]["direction"], "newer", "{preview:#}");
}

#[tokio::test]
async fn promotion_between_environments_without_a_common_repository_is_an_error_with_both_lists() {
    let only = deployment(&format!("REGISTRY/uyou/other-service:{}", sha('0')));
    let builder = crate::fleet().file("environments/staging/other.yaml", &only);
    let only = deployment(&format!("REGISTRY/uyou/user-service:{}", sha('0')));
    let fleet = builder.file("environments/production/user.yaml", &only).start().await;
    for dry_run in [false, true] {
        let body = json!({"to": "production", "dry_run": dry_run});
        let (status, problem) = fleet.api("POST", "/promotions", Some(body)).await;
        assert_eq!(status, 409, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("no repository in common"), "{detail}");
        assert!(detail.contains("other-service") && detail.contains("user-service"), "{detail}");
    }
}

#[tokio::test]
async fn repositories_that_the_target_does_not_name_are_listed_as_skipped() {
    let other = deployment(&format!("REGISTRY/uyou/other-service:{}", sha('0')));
    let fleet = crate::fleet().service("user-service").file("environments/staging/other.yaml", &other).start().await;
    committed(&fleet, "user-service", '1').await;
    let skipped = json!([fleet.repository("other-service")]);
    let (_, preview) = fleet.api("POST", "/promotions", Some(json!({"to": "production", "dry_run": true}))).await;
    assert_eq!(preview["skipped"], skipped, "{preview:#}");
    let (status, taken) = fleet.api("POST", "/promotions", Some(json!({"to": "production"}))).await;
    assert_eq!((status, &taken["skipped"]), (202, &skipped), "{taken:#}");
}

#[tokio::test]
async fn refused_rollback_leaves_the_waiting_promotion_alone() {
    let token = "freezer-token-51aa";
    let settings = format!(
        "\n[[api_token]]\nname = \"freezer\"\ntoken = {{ value = \"{token}\" }}\npermissions = [\"freeze:*\"]\n"
    );
    let fleet = crate::fleet().service("user-service").settings(&settings).start().await;
    committed(&fleet, "user-service", '1').await;
    let freeze = json!({"environment": "production", "reason": "audit"});
    let (status, frozen) = fleet.api_as(token, "POST", "/freezes", Some(freeze), &[]).await;
    assert_eq!(status, 201, "{frozen}");
    let promoted = fleet.request("/promotions", json!({"to": "production"})).await;
    assert_eq!(promoted["state"], "waiting", "{promoted:#}");
    // The registry has no such image.
    let rollback = json!({"environment": "production", "repository": "user-service", "to": sha('9')});
    let rolled = fleet.request("/rollbacks", rollback).await;
    assert_eq!(rolled["state"], "refused", "{rolled:#}");
    let (_, holds) = fleet.api("GET", "/holds", None).await;
    assert_eq!(holds["holds"], json!([]), "a rollback that did not happen leaves no hold");
    let id = promoted["id"].as_str().unwrap();
    let (_, shown) = fleet.api("GET", &format!("/promotions/{id}"), None).await;
    assert_eq!(shown["state"], "waiting", "{shown:#}");
    let path = format!("/freezes/{}", frozen["id"].as_str().unwrap());
    assert_eq!(fleet.api_as(token, "DELETE", &path, None, &[]).await.0, 204);
    fleet.eventually("the promotion goes", async || fleet.running("production", "user-service") == sha('1')).await;
}

#[tokio::test]
async fn reason_of_a_request_is_in_the_commit_the_history_and_the_template() {
    let template = "message = { body = \"because: {{ changes[0].reason }}\" }";
    let fleet = crate::fleet().repository_settings(template).service("user-service").start().await;
    committed(&fleet, "user-service", '1').await;
    let body =
        json!({"to": "production", "repositories": ["user-service"], "reason": "release 42\nTagrelay-Cause: forged"});
    assert_eq!(fleet.request("/promotions", body).await["state"], "committed");
    let message = fleet.upstream.git(&["log", "-1", "--format=%B", "main"]);
    assert!(message.contains("because: release 42 Tagrelay-Cause: forged\n"), "{message}");
    assert!(message.contains("\nTagrelay-Reason: release 42 Tagrelay-Cause: forged\n"), "{message}");
    let (_, history) = fleet.api("GET", "/history?environment=production", None).await;
    assert_eq!(history["changes"][0]["reason"], "release 42\nTagrelay-Cause: forged", "{history:#}");
}

#[tokio::test]
async fn image_that_was_rebuilt_from_a_cache_is_not_refused_as_older() {
    let fleet = crate::fleet().service("user-service").start().await;
    let built = |hours_ago: u64| Timestamp::now() - Duration::from_secs(hours_ago * 3600);
    let first = built(3);
    fleet.push_image_built("user-service", &sha('1'), first).await;
    committed_as_it_is(&fleet, '1').await;
    fleet.push_image_built("user-service", &sha('2'), built(2)).await;
    committed_as_it_is(&fleet, '2').await;
    // The commit of '3' takes '2' back: the builder finds everything in its cache, and makes the image of '1' again.
    tag_again(&fleet, &sha('1'), &sha('3')).await;
    committed_as_it_is(&fleet, '3').await;
    // A late build of an older commit is still refused.
    fleet.push_image_built("user-service", &sha('4'), built(4)).await;
    let (_, answer) = fleet.deliver("user-service", &sha('4')).await;
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "refused", "{event:#}");
}

/// Gives an image of user-service another tag.
async fn tag_again(fleet: &Fleet, from: &str, to: &str) {
    let manifest = |tag: &str| format!("http://{}/v2/uyou/user-service/manifests/{tag}", fleet.registry_host());
    let found = fleet.client.get(manifest(from)).send().await.unwrap();
    let media_type = found.headers()[http::header::CONTENT_TYPE].clone();
    let body = found.bytes().await.unwrap();
    let put = fleet.client.put(manifest(to)).header(http::header::CONTENT_TYPE, media_type).body(body);
    assert_eq!(put.send().await.unwrap().status(), 201);
}

/// Announces an image that the registry has, and waits until staging runs it.
async fn committed_as_it_is(fleet: &Fleet, digit: char) {
    let (_, answer) = fleet.deliver("user-service", &sha(digit)).await;
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "user-service"), sha(digit));
}

#[tokio::test]
async fn update_costs_two_requests_to_the_registry() {
    let counted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&counted);
    let front = |routes: axum::Router| {
        routes.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let count = Arc::clone(&count);
            async move {
                if matches!(*request.method(), http::Method::GET | http::Method::HEAD) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                next.run(request).await
            }
        }))
    };
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let builder = crate::fleet().registry(&registry.host()).service("user-service");
    let fleet = builder.server("catch_up = \"off\"").start().await;
    for digit in ['1', '2', '3'] {
        fleet.push_image("user-service", &sha(digit)).await;
    }
    let mut costs = Vec::new();
    for digit in ['1', '2', '3'] {
        let before = counted.load(Ordering::SeqCst);
        committed_as_it_is(&fleet, digit).await;
        costs.push(counted.load(Ordering::SeqCst) - before);
    }
    // The first one also asks for the tag that runs, which the registry does not have.
    assert_eq!(costs, [3, 2, 2]);
}

#[tokio::test]
async fn stream_goes_on_behind_the_last_event_id() {
    let fleet = crate::fleet().service("user-service").service("order-service").start().await;
    let open = async |last: Option<&str>| {
        let mut request = fleet.client.get(fleet.url("/api/v1/stream"));
        request = request.bearer_auth(tagrelay_test_support::fleet::API_TOKEN);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        request.send().await.unwrap()
    };
    let mut first = open(None).await;
    committed(&fleet, "user-service", '1').await;
    let seen = read_until_committed(&mut first, "user-service").await;
    let last = seen.lines().rfind(|line| line.starts_with("id: ")).unwrap().trim_start_matches("id: ").to_owned();
    drop(first);
    // What happens while nothing listens is sent behind that id.
    committed(&fleet, "order-service", '1').await;
    let missed = read_until_committed(&mut open(Some(&last)).await, "order-service").await;
    assert!(missed.contains("order-service") && missed.contains("\"state\":\"queued\""), "{missed}");
    let ids: Vec<u64> =
        missed.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect();
    assert!(ids.is_sorted() && ids[0] == last.parse::<u64>().unwrap() + 1, "{ids:?} after {last}");
}

/// Reads the stream until an event of a service is committed, which is its last change.
async fn read_until_committed(response: &mut reqwest::Response, service: &str) -> String {
    let mut seen = String::new();
    let is_last = |line: &str| {
        line.contains("\"kind\":\"event\"") && line.contains(service) && line.contains("\"state\":\"committed\"")
    };
    while !seen.split("\n\n").any(is_last) {
        let chunk = tokio::time::timeout(Duration::from_secs(60), response.chunk()).await;
        seen.push_str(&String::from_utf8_lossy(&chunk.unwrap().unwrap().unwrap()));
    }
    seen
}

#[tokio::test]
async fn rejected_push_goes_once_another_commit_moves_the_branch() {
    let fleet = crate::fleet().service("user-service").start().await;
    fleet.upstream.hook("pre-receive", "echo 'main is protected' >&2; exit 1");
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "waiting", "{event:#}");
    let newer = fleet.settled(&fleet.announce("user-service", &sha('2')).await).await;
    assert_eq!(newer["state"], "waiting", "{newer:#}");
    fleet.upstream.remove_hook("pre-receive");
    fleet.upstream.commit("by hand", &[("README.md", "unprotected")]);
    // Any read of the branch notices that it moved.
    let _: (u16, Value) = fleet.api("GET", "/environments", None).await;
    let third = fleet.announce("user-service", &sha('3')).await;
    assert_eq!(fleet.settled(&third).await["state"], "committed");
    // The newest wins; the others end.
    for older in [&id, &newer["id"].as_str().unwrap().to_owned()] {
        fleet
            .eventually("it ends", async || {
                let (_, event) = fleet.api("GET", &format!("/events/{older}"), None).await;
                matches!(event["state"].as_str(), Some("refused" | "superseded"))
            })
            .await;
    }
    assert_eq!(fleet.running("staging", "user-service"), sha('3'));
}
