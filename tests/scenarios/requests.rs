//! Promotions, rollbacks and holds by the API.

use serde_json::{Value, json};

use tagrelay_test_support::fleet::{API_TOKEN, Fleet, READ_TOKEN, deployment, sha};

/// A fleet with the commit of ones in staging and of zeros in production.
async fn moved() -> Fleet {
    let fleet = crate::fleet().service("user-service").service("order-service").start().await;
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('0')).await;
        let id = fleet.announce(service, &sha('1')).await;
        assert_eq!(fleet.settled(&id).await["state"], "committed");
    }
    fleet
}

#[tokio::test]
async fn dry_run_shows_the_diff_and_changes_nothing() {
    let fleet = moved().await;
    let tip = fleet.upstream.tip();
    let body = json!({"to": "production", "repositories": ["user-service"], "dry_run": true});
    let (status, preview) = fleet.api("POST", "/promotions", Some(body)).await;
    assert_eq!(status, 200, "{preview}");
    assert_eq!(preview["parent"], tip);
    let repository = fleet.repository("user-service");
    let diff = preview["diff"].as_str().unwrap();
    for line in [
        "--- a/environments/production/user-service.yaml".to_owned(),
        "+++ b/environments/production/user-service.yaml".to_owned(),
        format!("-          image: {repository}:{} # moved by Tagrelay", sha('0')),
        format!("+          image: {repository}:{} # moved by Tagrelay", sha('1')),
    ] {
        assert!(diff.lines().any(|found| found == line), "{line:?} is not in\n{diff}");
    }
    assert_eq!(preview["updates"][0]["state"], "changed");
    assert_eq!(fleet.upstream.tip(), tip);
}

#[tokio::test]
async fn dry_run_without_read_permission_hides_the_manifest() {
    let token = "promoter-token-6f21";
    let settings = format!(
        "\n[[api_token]]\nname = \"promoter\"\ntoken = {{ value = \"{token}\" }}\npermissions = [\"promote:production\"]\n"
    );
    let fleet = crate::fleet().service("user-service").settings(&settings).start().await;
    assert_eq!(fleet.settled(&fleet.announce("user-service", &sha('1')).await).await["state"], "committed");
    let body = json!({"to": "production", "repositories": ["user-service"], "dry_run": true});
    let (status, preview) = fleet.api_as(token, "POST", "/promotions", Some(body), &[]).await;
    assert_eq!((status, &preview["updates"][0]["state"]), (200, &json!("changed")), "{preview:#}");
    assert_eq!(preview["diff"], Value::Null);
    assert!(!preview.to_string().contains("image:"), "{preview:#}");
}

#[tokio::test]
async fn promotion_of_all_repositories_is_one_commit() {
    let fleet = moved().await;
    let promoted = fleet.request("/promotions", json!({"to": "production"})).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    assert_eq!(promoted["from"], "staging");
    assert_eq!(fleet.upstream.subjects()[0], "production: 2 images");
    let again = fleet.request("/promotions", json!({"to": "production"})).await;
    assert_eq!(again["state"], "committed");
    assert_eq!(again["reason"], "nothing to do: production runs it already");
    assert_eq!(fleet.upstream.subjects()[0], "production: 2 images");
}

#[tokio::test]
async fn unmet_expectation_is_a_conflict() {
    let fleet = moved().await;
    let body = |expected: &str| {
        json!({"to": "production", "repositories": ["user-service"],
            "expect": {fleet.repository("user-service"): expected}})
    };
    let (status, problem) = fleet.api("POST", "/promotions", Some(body(&sha('9')))).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&sha('0')), "{problem}");
    assert_eq!(fleet.request("/promotions", body(&sha('0'))).await["state"], "committed");
}

#[tokio::test]
async fn idempotency_key_makes_one_promotion() {
    let fleet = moved().await;
    let key = [("Idempotency-Key", "release-42")];
    let body = json!({"to": "production", "repositories": ["user-service"],
        "expect": {fleet.repository("user-service"): sha('0')}});
    let (status, first) = fleet.api_as(API_TOKEN, "POST", "/promotions", Some(body.clone()), &key).await;
    assert_eq!(status, 202, "{first}");
    fleet.api("GET", &format!("/promotions/{}?wait=60", first["id"].as_str().unwrap()), None).await;
    // The expectation no longer holds, but this repeats an earlier promotion.
    let (status, again) = fleet.api_as(API_TOKEN, "POST", "/promotions", Some(body), &key).await;
    assert_eq!((status, &again["id"], &again["state"]), (202, &first["id"], &json!("committed")));
    let other = json!({"to": "production", "repositories": ["order-service"]});
    let (status, problem) = fleet.api_as(API_TOKEN, "POST", "/promotions", Some(other), &key).await;
    assert_eq!(status, 422, "{problem}");
}

#[tokio::test]
async fn named_tag_is_confirmed_before_promotion() {
    let fleet = moved().await;
    fleet.push_image("user-service", &sha('5')).await;
    let body = |tag: &str| json!({"to": "production", "repositories": ["user-service"], "tag": tag});
    assert_eq!(fleet.request("/promotions", body(&sha('5'))).await["state"], "committed");
    assert_eq!(fleet.running("production", "user-service"), sha('5'));
    let refused = fleet.request("/promotions", body(&sha('6'))).await;
    assert_eq!(refused["state"], "refused");
    assert!(refused["reason"].as_str().unwrap().contains("has no uyou/user-service"), "{refused:#}");
    let (status, problem) = fleet.api("POST", "/promotions", Some(body("latest"))).await;
    assert_eq!(status, 422, "{problem}");
}

#[tokio::test]
async fn second_rollback_goes_further_back() {
    let fleet = moved().await;
    let id = fleet.announce("user-service", &sha('2')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    let back = json!({"environment": "staging", "repository": fleet.repository("user-service")});
    for expected in ['1', '0'] {
        let rolled = fleet.request("/rollbacks", back.clone()).await;
        assert_eq!(rolled["state"], "committed", "{rolled:#}");
        assert_eq!(fleet.running("staging", "user-service"), sha(expected));
    }
    let (status, problem) = fleet.api("POST", "/rollbacks", Some(back)).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("no earlier version"), "{problem}");
}

#[tokio::test]
async fn rollback_stays_until_hold_is_released() {
    let fleet = moved().await;
    let body = json!({"environment": "staging", "repository": "user-service", "reason": "errors"});
    let back = fleet.request("/rollbacks", body).await;
    assert_eq!(back["state"], "committed", "{back:#}");
    let mut waiting = Vec::new();
    for digit in ['2', '3'] {
        let id = fleet.announce("user-service", &sha(digit)).await;
        let event = fleet.settled(&id).await;
        assert_eq!(event["state"], "waiting", "{event:#}");
        assert!(event["reason"].as_str().unwrap().contains("errors"), "{event:#}");
        waiting.push(id);
    }
    assert_eq!(fleet.running("staging", "user-service"), sha('0'));
    // Other services continue.
    let id = fleet.announce("order-service", &sha('2')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");

    let (_, holds) = fleet.api("GET", "/holds", None).await;
    let hold = holds["holds"][0]["id"].as_str().unwrap().to_owned();
    let (status, _) = fleet.api("DELETE", &format!("/holds/{hold}"), None).await;
    assert_eq!(status, 204);
    fleet.eventually("the newest goes", async || fleet.running("staging", "user-service") == sha('3')).await;
    assert_eq!(fleet.settled(&waiting[0]).await["state"], "superseded");
    let (status, _) = fleet.api("DELETE", &format!("/holds/{hold}"), None).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn hold_stops_promotions_until_it_expires() {
    let fleet = moved().await;
    let hold = json!({"environment": "production", "repository": fleet.repository("user-service"),
        "reason": "audit", "hold_for": "2s"});
    let (status, made) = fleet.api("POST", "/holds", Some(hold)).await;
    assert_eq!(status, 201, "{made}");
    let unknown = json!({"environment": "production", "repository": "docker.io/uyou/nobody-runs-this"});
    let (status, problem) = fleet.api("POST", "/holds", Some(unknown)).await;
    assert_eq!(status, 422, "{problem}");
    let refused = fleet.request("/promotions", json!({"to": "production", "repositories": ["user-service"]})).await;
    assert_eq!(refused["state"], "refused");
    assert!(refused["reason"].as_str().unwrap().contains("audit"), "{refused:#}");
    fleet
        .eventually("the hold ends", async || {
            fleet.api("GET", "/holds", None).await.1["holds"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    let promoted = fleet.request("/promotions", json!({"to": "production", "repositories": ["user-service"]})).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
}

#[tokio::test]
async fn requests_need_permissions() {
    let fleet = crate::fleet().service("user-service").start().await;
    let promotion = json!({"to": "production"});
    let staging = json!({"to": "staging", "from": "production"});
    let reader = |method: &'static str, path: &'static str, body| fleet.api_as(READ_TOKEN, method, path, body, &[]);
    assert_eq!(reader("GET", "/environments", None).await.0, 200);
    assert_eq!(reader("POST", "/promotions", Some(promotion.clone())).await.0, 403);
    assert_eq!(reader("POST", "/rollbacks", Some(json!({"environment": "staging", "repository": "a"}))).await.0, 403);
    assert_eq!(reader("POST", "/events/01/replay", None).await.0, 403);
    assert_eq!(fleet.api("POST", "/promotions", Some(staging)).await.0, 403);
    for path in ["/environments", "/events", "/promotions/x", "/holds", "/history", "/stream", "/diff", "/none"] {
        let (status, problem) = fleet.api_as("wrong", "GET", path, None, &[]).await;
        assert_eq!((status, &problem["status"]), (401, &json!(401)), "{path}");
        let bare = fleet.client.get(fleet.url(&format!("/api/v1{path}"))).send().await.unwrap();
        assert_eq!(bare.status(), 401, "{path}");
        assert_eq!(bare.headers()["content-type"], "application/problem+json");
    }
    let problem = fleet.api("POST", "/promotions", Some(json!({"to": "production", "form": "staging"}))).await;
    assert_eq!(problem.0, 422, "a member that is not known is named: {}", problem.1);
    assert!(problem.1["detail"].as_str().unwrap().contains("form"), "{}", problem.1);
}

#[tokio::test]
async fn differing_versions_of_one_repository_are_not_promoted() {
    let fleet = crate::fleet()
        .service("user-service")
        .service("order-service")
        .file("environments/staging/job.yaml", &deployment(&format!("REGISTRY/uyou/user-service:{}", sha('4'))))
        .start()
        .await;
    fleet.push_image("order-service", &sha('0')).await;
    let (status, problem) =
        fleet.api("POST", "/promotions", Some(json!({"to": "production", "repositories": ["user-service"]}))).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("several versions"), "{problem}");
    let all = fleet.request("/promotions", json!({"to": "production"})).await;
    let states: Vec<_> = all["updates"].as_array().unwrap().iter().map(|update| &update["state"]).collect();
    assert_eq!(states, ["unchanged", "refused"], "{all:#}");
}

#[tokio::test]
async fn promotion_uses_the_tested_digest_after_the_tag_moved() {
    let pinned = deployment(&format!("REGISTRY/uyou/tool:v1@sha256:{}", "0".repeat(64)));
    let fleet = crate::fleet()
        .file("environments/staging/tool.yaml", &deployment("REGISTRY/uyou/tool:v1"))
        .file("environments/production/tool.yaml", &pinned)
        .image("tag = { kind = \"any\" }")
        .start()
        .await;
    let built = |second: i64| jiff::Timestamp::from_second(1_750_000_000 + second).unwrap();
    let tried = fleet.push_image_built("tool", "v2", built(1)).await;
    let (_, answer) = fleet.deliver("tool", "v2").await;
    assert_eq!(fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await["state"], "committed");
    let moved = fleet.push_image_built("tool", "v2", built(2)).await;
    assert_ne!(tried, moved);
    let promoted = fleet.request("/promotions", json!({"to": "production"})).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    assert_eq!(fleet.running("production", "tool"), format!("v2@{tried}"));
    // Repeating it changes nothing.
    let again = fleet.request("/promotions", json!({"to": "production"})).await;
    assert_eq!(again["updates"][0]["state"], "unchanged", "{again:#}");
}

#[tokio::test]
async fn tag_with_and_without_digest_is_one_version() {
    let pinned = format!("image: REGISTRY/uyou/user-service:{}@sha256:{}\n", sha('0'), "0".repeat(64));
    let fleet = crate::fleet()
        .service("user-service")
        .file("environments/staging/pinned.yaml", &pinned)
        .file("environments/production/pinned.yaml", &pinned)
        .start()
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    let body = json!({"to": "production", "repositories": ["user-service"], "expect": {"user-service": sha('0')}});
    let promoted = fleet.request("/promotions", body).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    let expected = fleet.upstream.file("environments/staging/pinned.yaml");
    assert!(expected.contains(&sha('1')));
    assert_eq!(fleet.upstream.file("environments/production/pinned.yaml"), expected);
}

#[tokio::test]
async fn openapi_document_describes_the_api() {
    let fleet = crate::fleet().service("user-service").start().await;
    // Without a token: clients are generated from it.
    let answer = fleet.client.get(fleet.url("/api/v1/openapi.json")).send().await.unwrap();
    let (status, document) = (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap());
    assert_eq!((status, document["openapi"].as_str().unwrap().starts_with("3.1")), (200, true));
    for (path, method) in [
        ("/api/v1/environments", "get"),
        ("/api/v1/events", "get"),
        ("/api/v1/events/{id}", "get"),
        ("/api/v1/events/{id}/replay", "post"),
        ("/api/v1/promotions", "post"),
        ("/api/v1/promotions", "get"),
        ("/api/v1/promotions/{id}", "get"),
        ("/api/v1/promotions/{id}", "delete"),
        ("/api/v1/diff", "get"),
        ("/api/v1/rollbacks", "post"),
        ("/api/v1/holds", "post"),
        ("/api/v1/holds/{id}", "delete"),
        ("/api/v1/history", "get"),
        ("/api/v1/stream", "get"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path} is not in {document:#}");
    }
}

#[tokio::test]
async fn stream_contains_events_and_updates() {
    use futures_util::StreamExt as _;
    let fleet = crate::fleet().service("user-service").start().await;
    let request = fleet.client.get(fleet.url("/api/v1/stream")).bearer_auth(API_TOKEN);
    let mut stream = request.send().await.unwrap().bytes_stream();
    fleet.announce("user-service", &sha('1')).await;
    let mut text = String::new();
    let heard = tokio::time::timeout(tagrelay_test_support::fleet::LIMIT, async {
        while !text.contains("\"committed\"") {
            text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    });
    heard.await.unwrap();
    assert!(text.contains("event: event\n") && text.contains("event: update\n"), "{text}");
}

#[tokio::test]
async fn front_page_says_where_to_go_without_a_token() {
    let fleet = crate::fleet().service("user-service").start().await;
    let answer = fleet.client.get(fleet.url("/")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    let page = answer.text().await.unwrap();
    for link in page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let status = fleet.client.get(fleet.url(link)).send().await.unwrap().status();
        assert!(status.is_success(), "{link}: {status}");
    }
    assert!(page.contains("tagrelay status"), "{page}");
}

#[tokio::test]
async fn commit_message_groups_trailers_by_environment() {
    let fleet = moved().await;
    let body = json!({"to": "production", "reason": "release 42"});
    let promoted = fleet.request("/promotions", body).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    let message = fleet.upstream.git(&["log", "-1", "--format=%B", "main"]);
    assert!(!message.contains("\n\n\n"), "{message}");
    let names: Vec<&str> = message
        .lines()
        .filter(|line| line.starts_with("Tagrelay-"))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    let expected = ["Environment", "Image", "Image", "Cause", "Reason", "Trace"].map(|name| format!("Tagrelay-{name}"));
    assert_eq!(names, expected, "{message}");
    // Git reads them: the last paragraph is nothing but trailers.
    let read = fleet.upstream.git(&["log", "-1", "--format=%(trailers:only=true)", "main"]);
    assert_eq!(read.lines().filter(|line| !line.is_empty()).count(), expected.len(), "{read}");
    let (body, _) = message.split_once("Tagrelay-Environment").unwrap();
    assert!(body.lines().all(|line| line.len() <= 110), "{body}");
}
