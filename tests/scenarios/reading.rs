//! The routes that read: environments, diff, history, promotions and events, with filters and cursors.

use serde_json::{Value, json};

use tagrelay_test_support::fleet::{API_TOKEN, Fleet, READ_TOKEN, sha};

/// A fleet with the commit of ones in staging and of zeros in production.
async fn moved() -> Fleet {
    moved_with("").await
}

async fn moved_with(settings: &str) -> Fleet {
    let fleet = crate::fleet().service("user-service").service("order-service").settings(settings).start().await;
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('0')).await;
        let id = fleet.announce(service, &sha('1')).await;
        assert_eq!(fleet.settled(&id).await["state"], "committed");
    }
    fleet
}

/// The cells of a matrix, as `environment/service`.
fn cells(matrix: &Value) -> Vec<String> {
    let mut cells = Vec::new();
    for environment in matrix["environments"].as_array().unwrap() {
        for cell in environment["repositories"].as_array().unwrap() {
            let service = cell["repository"].as_str().unwrap().rsplit('/').next().unwrap();
            cells.push(format!("{}/{service}", environment["name"].as_str().unwrap()));
        }
    }
    cells
}

#[tokio::test]
async fn environments_are_filtered_by_the_server() {
    let fleet = moved().await;
    let hold = json!({"environment": "production", "repository": "order-service"});
    assert_eq!(fleet.api("POST", "/holds", Some(hold)).await.0, 201);
    let list = async |query: &str| fleet.api("GET", &format!("/environments?{query}"), None).await;
    for (query, expected) in [
        ("environment=staging", &["staging/order-service", "staging/user-service"][..]),
        ("environment=*&repository=user-*", &["staging/user-service", "production/user-service"]),
        (
            "environment=production&repository=user-service,order-service",
            &["production/order-service", "production/user-service"],
        ),
        ("held=true", &["production/order-service"]),
        ("differs=true&repository=user-service", &["production/user-service"]),
        ("waiting=true", &[]),
    ] {
        let (status, matrix) = list(query).await;
        assert_eq!((status, cells(&matrix)), (200, expected.iter().map(|&cell| cell.to_owned()).collect()), "{query}");
    }
    let (_, matrix) = list("environment=production&repository=user-service").await;
    assert_eq!(matrix["environments"][0]["repositories"][0]["sites"].as_array().unwrap().len(), 1, "{matrix:#}");
    let (_, short) = list("environment=production&repository=user-service&sites=false").await;
    assert!(short["environments"][0]["repositories"][0].get("sites").is_none(), "{short:#}");
    let drift = &matrix["environments"][0]["repositories"][0]["drifts"][0];
    assert_eq!((&drift["environment"], &drift["version"]["tag"]), (&json!("staging"), &json!(sha('1'))), "{matrix:#}");
    for (expected_status, query, expected) in [
        (422, "environment=prod", "there is no environment `prod`; there are staging, production"),
        (422, "repository=usr-service", "`staging, production` runs no managed repository `usr-service`"),
        (400, "differs=maybe", "`differs` is the text \"maybe\": it takes true or false"),
        (
            400,
            "held=true&team=a",
            "there is no parameter `team`: use `environment`, `repository`, `differs`, `held`, `waiting` or `sites`",
        ),
    ] {
        let (status, problem) = list(query).await;
        assert_eq!(status, expected_status, "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with(expected), "{problem}");
    }
}

#[tokio::test]
async fn unchanged_matrix_is_answered_with_304() {
    let fleet = moved().await;
    let ask = async |etag: Option<&str>| {
        let request = fleet.client.get(fleet.url("/api/v1/environments")).bearer_auth(API_TOKEN);
        let request = match etag {
            Some(etag) => request.header("if-none-match", etag),
            None => request,
        };
        let response = request.send().await.unwrap();
        let etag = response.headers()["etag"].to_str().unwrap().to_owned();
        (response.status().as_u16(), etag, response.bytes().await.unwrap().len())
    };
    let (status, etag, _) = ask(None).await;
    assert_eq!(status, 200);
    assert_eq!(ask(Some(&etag)).await, (304, etag.clone(), 0));
    assert_eq!(ask(Some("\"other\"")).await.0, 200);
    let hold = json!({"environment": "production", "repository": "order-service"});
    assert_eq!(fleet.api("POST", "/holds", Some(hold)).await.0, 201);
    let (status, changed, _) = ask(Some(&etag)).await;
    assert_eq!(status, 200);
    assert_ne!(changed, etag);
}

#[tokio::test]
async fn diff_shows_what_a_promotion_would_move() {
    let fleet = crate::fleet()
        .service("user-service")
        .service("order-service")
        .file("environments/staging/tool.yaml", "image: REGISTRY/uyou/tool:v2\n")
        .image("tag = { kind = \"any\" }")
        .start()
        .await;
    let built = |second: i64| jiff::Timestamp::from_second(1_750_000_000 + second).unwrap();
    for (service, tag, second) in [("user-service", "1", 10), ("user-service", "2", 20)] {
        fleet.push_image_built(service, tag, built(second)).await;
        let (_, answer) = fleet.deliver(service, tag).await;
        assert_eq!(fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await["state"], "committed");
        let body = json!({"to": "production", "repositories": ["user-service"]});
        if tag == "1" {
            assert_eq!(fleet.request("/promotions", body).await["state"], "committed");
        }
    }
    let hold = json!({"environment": "production", "repository": "order-service", "reason": "audit"});
    assert_eq!(fleet.api("POST", "/holds", Some(hold)).await.0, 201);
    let (status, diff) = fleet.api("GET", "/diff?from=staging&to=production", None).await;
    assert_eq!((status, &diff["allowed"]), (200, &json!(true)), "{diff:#}");
    let rows = diff["repositories"].as_array().unwrap();
    let of = |service: &str| {
        rows.iter()
            .find(|row| row["repository"].as_str().unwrap().ends_with(service))
            .unwrap_or_else(|| panic!("{diff:#}"))
    };
    let user = of("user-service");
    assert_eq!(
        (&user["state"], &user["direction"], &user["decided_by"]),
        (&json!("moves"), &json!("newer"), &json!("build_time"))
    );
    assert_eq!((&user["old"][0]["tag"], &user["new"][0]["tag"]), (&json!("1"), &json!("2")));
    assert!(of("order-service")["reason"].as_str().unwrap().contains("audit"), "{diff:#}");
    assert_eq!(of("tool")["reason"], "production does not name it");

    // The other way round it goes back.
    let (_, back) = fleet.api("GET", "/diff?from=production&to=staging", None).await;
    assert_eq!(back["allowed"], false);
    let user = back["repositories"].as_array().unwrap().iter().find(|row| row["state"] == "moves").unwrap();
    assert_eq!(user["direction"], "older", "{back:#}");
    let (status, problem) = fleet.api("GET", "/diff?from=staging", None).await;
    assert_eq!((status, &problem["detail"]), (400, &json!("the parameter `to` is missing")));

    // The dry run says the same.
    let preview = json!({"to": "production", "repositories": ["user-service"], "dry_run": true});
    let (_, preview) = fleet.api("POST", "/promotions", Some(preview)).await;
    let update = &preview["updates"][0];
    assert_eq!((&update["direction"], &update["old"][0]["tag"]), (&json!("newer"), &json!("1")), "{preview:#}");
}

#[tokio::test]
async fn history_is_paged_and_marks_versions_to_go_back_to() {
    let fleet = crate::fleet().service("user-service").start().await;
    for digit in ['1', '2', '3'] {
        let id = fleet.announce("user-service", &sha(digit)).await;
        assert_eq!(fleet.settled(&id).await["state"], "committed");
    }
    let mut tags = Vec::new();
    let mut path = "/history?environment=staging&repository=user-service&limit=1".to_owned();
    loop {
        let (status, page) = fleet.api("GET", &path, None).await;
        assert_eq!((status, page["changes"].as_array().unwrap().len()), (200, 1), "{page:#}");
        let change = &page["changes"][0];
        tags.push((change["to"]["tag"].as_str().unwrap().to_owned(), change["can_roll_back_to"].as_bool().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/history?environment=staging&repository=user-service&limit=1&before={next}");
    }
    assert_eq!(tags, [(sha('3'), false), (sha('2'), true), (sha('1'), true)]);
    let (status, problem) = fleet.api("GET", "/history?before=01NONE", None).await;
    assert_eq!(status, 422);
    assert!(problem["detail"].as_str().unwrap().contains("`next` of an earlier answer"), "{problem}");
}

#[tokio::test]
async fn promotions_are_listed_paged_and_cancelled() {
    let token = "operator-token-2b90";
    let settings = format!(
        "\n[[api_token]]\nname = \"operator\"\ntoken = {{ value = \"{token}\" }}\npermissions = [\"freeze:production\"]\n"
    );
    let fleet = moved_with(&settings).await;
    let freeze = json!({"environment": "production", "reason": "audit"});
    let (_, freeze) = fleet.api_as(token, "POST", "/freezes", Some(freeze), &[]).await;
    let request = async |service: &str| {
        let (status, made) =
            fleet.api("POST", "/promotions", Some(json!({"to": "production", "repositories": [service]}))).await;
        assert_eq!(status, 202, "{made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (request("user-service").await, request("order-service").await);
    let state = async |id: &str| fleet.api("GET", &format!("/promotions/{id}"), None).await.1["state"].clone();
    fleet.eventually("both wait", async || state(&first).await == "waiting" && state(&second).await == "waiting").await;
    let ids = async |query: &str| {
        let (status, list) = fleet.api("GET", &format!("/promotions?{query}"), None).await;
        assert_eq!(status, 200, "{list}");
        let ids: Vec<String> =
            list["promotions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        (ids, list["next"].as_str().map(str::to_owned))
    };
    assert_eq!(ids("state=waiting&environment=production").await, (vec![second.clone(), first.clone()], None));
    let (page, next) = ids("limit=1").await;
    assert_eq!((page, next.as_deref()), (vec![second.clone()], Some(second.as_str())));
    assert_eq!(ids(&format!("limit=1&before={second}")).await, (vec![first.clone()], None));

    let path = format!("/promotions/{first}");
    assert_eq!(fleet.api_as(READ_TOKEN, "DELETE", &path, None, &[]).await.0, 403);
    let (status, cancelled) = fleet.api("DELETE", &path, None).await;
    assert_eq!((status, &cancelled["state"]), (200, &json!("cancelled")), "{cancelled:#}");
    assert_eq!(cancelled["updates"][0]["reason"], "cancelled by release-managers");
    let (status, problem) = fleet.api("DELETE", &path, None).await;
    assert_eq!(
        (status, problem["detail"].as_str().unwrap()),
        (409, format!("promotion {first} is cancelled: nothing is left to cancel").as_str())
    );
    assert_eq!(fleet.api("DELETE", "/promotions/01NONE", None).await.0, 404);

    let thaw = format!("/freezes/{}", freeze["id"].as_str().unwrap());
    // The other one still goes when the freeze ends; the cancelled one does not.
    assert_eq!(fleet.api_as(token, "DELETE", &thaw, None, &[]).await.0, 204);
    fleet.eventually("the other one is committed", async || state(&second).await == "committed").await;
    assert_eq!(fleet.running("production", "user-service"), sha('0'));
    assert_eq!(fleet.running("production", "order-service"), sha('1'));
    let (status, problem) = fleet.api("DELETE", &format!("/promotions/{second}"), None).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(ids("state=cancelled").await.0, [first]);
    let (status, problem) = fleet.api("GET", "/promotions?state=done", None).await;
    assert_eq!(status, 422);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("`state` is `done`: use one of `pending`") && detail.contains("`cancelled`"),
        "{detail}"
    );
}

#[tokio::test]
async fn events_are_filtered_by_environment_cause_and_time() {
    let fleet = moved().await;
    assert_eq!(fleet.request("/promotions", json!({"to": "production"})).await["state"], "committed");
    let count = async |query: &str| {
        let (status, list) = fleet.api("GET", &format!("/events?{query}"), None).await;
        assert_eq!(status, 200, "{query}: {list}");
        (list["events"].as_array().unwrap().len(), list["requests"].as_array().map(Vec::len))
    };
    assert_eq!(count("environment=staging").await, (2, None));
    assert_eq!(count("environment=production").await, (0, None));
    assert_eq!(count("repository=user-service").await, (1, None));
    assert_eq!(count("cause=push").await, (2, None));
    assert_eq!(count("cause=catch-up").await, (0, None));
    assert_eq!(count("cause=promotion").await, (0, Some(1)));
    assert_eq!(count("cause=promotion&environment=staging").await, (0, Some(0)));
    assert_eq!(count("cause=rollback").await, (0, Some(0)));
    assert_eq!(count("since=1h").await, (2, None));
    assert_eq!(count("since=2100-01-01T00:00:00Z").await, (0, None));
    for (query, expected) in [
        (
            "state=x",
            "`state` is `x`: use one of `queued`, `pending`, `waiting`, `committed`, `unchanged`, `superseded`, `refused`, `failed`",
        ),
        ("cause=x", "`cause` is `x`: use one of `push`, `catch-up`, `promotion`, `rollback`, `follow`"),
        ("since=x", "`since`: `x` is no time; write 2h, or 2026-11-20T12:00:00Z"),
    ] {
        let (status, problem) = fleet.api("GET", &format!("/events?{query}"), None).await;
        assert_eq!((status, problem["detail"].as_str().unwrap()), (422, expected));
    }
}

#[tokio::test]
async fn limit_counts_events_and_requests_together() {
    let fleet = moved().await;
    let hold = json!({"environment": "production", "repository": "user-service"});
    assert_eq!(fleet.api("POST", "/holds", Some(hold)).await.0, 201);
    for digit in ['7', '8'] {
        // Not in the registry.
        let (_, answer) = fleet.deliver("user-service", &sha(digit)).await;
        fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
        let body = json!({"to": "production", "repositories": ["user-service"]});
        assert_eq!(fleet.request("/promotions", body).await["state"], "refused");
    }
    let (_, list) = fleet.api("GET", "/events?state=failed&limit=3", None).await;
    let count = |kind: &str| list[kind].as_array().unwrap().len();
    assert_eq!((count("events"), count("requests")), (1, 2), "{list:#}");
}
