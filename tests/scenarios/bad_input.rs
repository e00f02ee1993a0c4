//! Invalid input and its answers.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use tagrelay_test_support::fleet::{API_TOKEN, Fleet, GENERIC_SECRET, READ_TOKEN, deployment, sha};

async fn events(fleet: &Fleet) -> Vec<Value> {
    fleet.api("GET", "/events?limit=1000", None).await.1["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn webhook_with_wrong_secret_stores_nothing() {
    let fleet = crate::fleet().service("user-service").start().await;
    let body = json!({"image": format!("{}:{}", fleet.repository("user-service"), sha('1'))}).to_string();
    let url = fleet.url("/webhooks/ci");
    let wrong = [
        ("X-Tagrelay-Signature", format!("sha256={}", "0".repeat(64))),
        ("X-Tagrelay-Signature", "sha256=".to_owned()),
        ("Authorization", "Bearer wrong".to_owned()),
        ("Authorization", format!("Basic {GENERIC_SECRET}")),
        ("X-Nothing", String::new()),
    ];
    for (name, value) in wrong {
        let answer = fleet.client.post(&url).header(name, &value).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{name}: {value}");
    }
    let bearer = fleet.client.post(&url).bearer_auth(GENERIC_SECRET).body("{}").send().await.unwrap();
    assert_eq!(bearer.status(), 200);
    assert!(events(&fleet).await.is_empty());
    // The same body with the right signature is an event.
    assert_eq!(fleet.deliver_body(&body).await.0, 202);
    assert_eq!(events(&fleet).await.len(), 1);
}

#[tokio::test]
async fn unknown_paths_and_methods_get_their_status() {
    let fleet = crate::fleet().service("user-service").start().await;
    assert_eq!(fleet.client.post(fleet.url("/webhooks/nobody")).body("{}").send().await.unwrap().status(), 404);
    assert_eq!(fleet.client.get(fleet.url("/webhooks/ci")).send().await.unwrap().status(), 405);
    assert_eq!(fleet.client.put(fleet.url("/webhooks/ci")).body("{}").send().await.unwrap().status(), 405);
    let lost = fleet.client.get(fleet.url("/nowhere")).send().await.unwrap();
    assert_eq!(
        (lost.status().as_u16(), &lost.headers()["content-type"]),
        (404, &"application/problem+json".parse().unwrap())
    );
    for (path, expected) in
        [("/events/nope", 404), ("/events?state=nope", 422), ("/events?limit=many", 400), ("/promotions/nope", 404)]
    {
        let (status, problem) = fleet.api("GET", path, None).await;
        assert_eq!(status, expected, "{path}: {problem}");
    }
    for (method, path, detail) in [
        ("GET", "/nope", "there is nothing at /api/v1/nope"),
        ("DELETE", "/history", "/api/v1/history does not support DELETE"),
        ("GET", "/history?environment=nope", "there is no environment `nope`; there are staging, production"),
        ("GET", "/history?limit=0", "`limit` is 0: use 1 to 1000, or leave it out for 100"),
        ("GET", "/events?limit=0", "`limit` is 0: use 1 to 1000, or leave it out for 100"),
    ] {
        assert_eq!(fleet.api(method, path, None).await.1["detail"], detail, "{method} {path}");
    }
    let nothing = json!({"to": "production", "from": "staging", "repositories": []});
    let (status, problem) = fleet.api("POST", "/promotions", Some(nothing)).await;
    assert_eq!((status, &problem["detail"]), (422, &json!("`repositories` is empty: leave it out to promote all")));
}

#[tokio::test]
async fn malformed_authenticated_body_is_ignored_with_reason() {
    let fleet = crate::fleet().service("user-service").start().await;
    for body in
        ["", "{", "[]", "null", "{}", r#"{"image": 5}"#, r#"{"image": "UPPER/case"}"#, "\u{0}", r#"{"image": "a/b"}"#]
    {
        let (status, answer) = fleet.deliver_body(body).await;
        assert_eq!(status, 200, "{body:?}: {answer}");
        assert_eq!(answer["events"], json!([]), "{body:?}");
        assert!(!answer["ignored"][0]["reason"].as_str().unwrap().is_empty(), "{body:?}: {answer}");
    }
    assert!(events(&fleet).await.is_empty());
    fleet.announce("user-service", &sha('1')).await;
    assert_eq!(events(&fleet).await.len(), 1);
}

#[tokio::test]
async fn too_large_body_is_refused_before_it_is_read() {
    let fleet = crate::fleet().service("user-service").start().await;
    let large = "x".repeat(70_000);
    assert_eq!(fleet.deliver_body(&large).await.0, 413);
    // Only a declared length: the answer arrives, although the body never does.
    let address = fleet.url("").replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nContent-Length: 10737418240\r\n\r\n{").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(tagrelay_test_support::fleet::LIMIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // A chunked body of an authenticated sender.
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {GENERIC_SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..17 {
        let _ = stream.write_all(chunk.as_bytes()).await;
    }
    tokio::time::timeout(tagrelay_test_support::fleet::LIMIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn event_without_image_is_refused_with_reason() {
    let fleet = crate::fleet().service("user-service").start().await;
    let (_, answer) = fleet.deliver("user-service", &sha('e')).await;
    let id = answer["events"][0]["id"].as_str().unwrap();
    let event = fleet.settled(id).await;
    assert_eq!(event["state"], "refused");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("has no uyou/user-service:{}", sha('e'))), "{reason}");
    assert_eq!(fleet.upstream.subjects(), ["begin"]);
    // After the push, the same delivery is accepted.
    fleet.push_image("user-service", &sha('e')).await;
    let (_, again) = fleet.deliver("user-service", &sha('e')).await;
    assert_eq!(again["events"][0]["state"], "queued");
    assert_eq!(fleet.settled(again["events"][0]["id"].as_str().unwrap()).await["state"], "committed");
    // It is the same event at its original place in the order of arrival, and there is nothing left to replay.
    assert_eq!(again["events"][0]["id"], id);
    let (status, problem) = fleet.api("POST", &format!("/events/{id}/replay"), None).await;
    assert_eq!(status, 409, "{problem}");
}

#[tokio::test]
async fn image_without_rule_changes_nothing() {
    let fleet = crate::fleet().service("user-service").start().await;
    fleet.push_image("user-service", "latest").await;
    for (image, words) in [
        (format!("{}/other/thing:{}", fleet.registry_host(), sha('1')), "no [[image]] rule manages"),
        (format!("{}:latest", fleet.repository("user-service")), "commit-sha"),
        (format!("{}:sha256-{}.sig", fleet.repository("user-service"), "0".repeat(64)), "commit-sha"),
        (format!("{}:{}", fleet.repository("unknown-service"), sha('1')), "has no uyou/unknown-service"),
    ] {
        let (_, answer) = fleet.deliver_body(&json!({ "image": image }).to_string()).await;
        let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
        assert_eq!(event["state"], "refused", "{image}: {event:#}");
        assert!(event["reason"].as_str().unwrap().contains(words), "{image}: {event:#}");
    }
    fleet.push_image("unnamed-service", &sha('1')).await;
    let (_, answer) = fleet.deliver("unnamed-service", &sha('1')).await;
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert!(event["reason"].as_str().unwrap().contains("no manifest of any environment names"), "{event:#}");
    assert_eq!(fleet.upstream.subjects(), ["begin"]);
}

#[tokio::test]
async fn unparseable_file_leaves_other_files_unaffected() {
    let broken = "image: REGISTRY/uyou/user-service:0000000\n  - : [\n";
    let fleet = crate::fleet()
        .service("user-service")
        .file("environments/staging/broken.yaml", broken)
        .file(
            "environments/staging/broken-service.yaml",
            "image: REGISTRY/uyou/broken-service:0000000\n\t- x: {{ y }\n",
        )
        .start()
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
    assert_eq!(
        fleet.upstream.file("environments/staging/broken.yaml"),
        broken.replace("REGISTRY", fleet.registry_host())
    );
    let (_, matrix) = fleet.api("GET", "/environments", None).await;
    let problems = matrix["environments"][0]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    // An event whose only manifest is that file gets the reason.
    let id = fleet.announce("broken-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert!(event["reason"].as_str().unwrap().contains("environments/staging/broken"), "{event:#}");
}

#[tokio::test]
async fn symlinks_and_submodules_are_not_followed() {
    let fleet = crate::fleet().service("user-service").start().await;
    let upstream = &fleet.upstream;
    let outside = deployment(&format!("{}:{}", fleet.repository("user-service"), sha('0')));
    upstream.commit("a file that is linked to", &[("outside/linked.yaml", &outside)]);
    let link = upstream.path().join("link-target");
    std::fs::write(&link, "../../outside/linked.yaml").unwrap();
    let blob = upstream.git(&["hash-object", "-w", link.to_str().unwrap()]);
    let tip = upstream.tip();
    upstream.git(&["read-tree", &tip]);
    for (mode, id, path) in [
        ("120000", blob.trim(), "environments/staging/link.yaml"),
        ("160000", tip.as_str(), "environments/staging/module.yaml"),
    ] {
        upstream.git(&["update-index", "--add", "--cacheinfo", &format!("{mode},{id},{path}")]);
    }
    let tree = upstream.git(&["write-tree"]);
    let commit = upstream.git(&["commit-tree", tree.trim(), "-p", &tip, "-m", "links"]);
    upstream.git(&["update-ref", "refs/heads/main", commit.trim()]);

    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(fleet.upstream.file("outside/linked.yaml"), outside);
    let changed = fleet.upstream.git(&["diff", "--name-only", "main~1", "main"]);
    assert_eq!(changed, "environments/staging/user-service.yaml\n");
    let modes = fleet.upstream.git(&["ls-tree", "main", "environments/staging/"]);
    assert!(modes.contains("120000 blob") && modes.contains("160000 commit"), "{modes}");
}

#[tokio::test]
async fn removed_site_is_refused_with_reason() {
    let fleet = crate::fleet().service("user-service").service("order-service").start().await;
    // The site is removed after the branch was read.
    let id = fleet.announce("order-service", &sha('1')).await;
    fleet.settled(&id).await;
    fleet.upstream.commit("retire the user service", &[("environments/staging/user-service.yaml", "kind: Nothing\n")]);
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    assert!(event["reason"].as_str().unwrap().contains("no manifest of staging names"), "{event:#}");
}

#[tokio::test]
async fn secrets_appear_in_no_output() {
    let mut fleet = crate::fleet()
        .service("user-service")
        .receiver("name = \"hub\"\nkind = \"docker-hub\"\nsecret = { value = \"hub-url-token-8c2d\" }")
        .start()
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.settled(&id).await;
    let pushed = json!({"push_data": {"tag": sha('2')}, "repository": {"repo_name": "uyou/user-service"}});
    for token in ["hub-url-token-8c2d", "hub-url-token-wrong"] {
        let url = fleet.url(&format!("/webhooks/hub?token={token}"));
        fleet.client.post(url).json(&pushed).send().await.unwrap();
    }
    fleet.request("/promotions", json!({"to": "production"})).await;
    let (_, events) = fleet.api("GET", "/events", None).await;
    fleet.terminate();
    let mut seen = fleet.log() + &events.to_string() + &fleet.upstream.git(&["log", "-p", "main"]);
    for entry in
        std::fs::read_dir(fleet.folder()).unwrap().flatten().filter(|entry| entry.file_name() != "tagrelay.toml")
    {
        if entry.file_type().unwrap().is_file() {
            seen.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()));
        }
    }
    assert!(seen.contains(&sha('1')), "nothing was looked at");
    assert!(seen.contains(r#""path":"/webhooks/hub""#), "no request was logged");
    assert!(!seen.contains("token="), "a query was logged");
    for secret in [GENERIC_SECRET, API_TOKEN, READ_TOKEN, "hub-url-token-8c2d", "hub-url-token-wrong"] {
        assert!(!seen.contains(secret), "{secret} was found");
    }
}
