//! A push becomes a commit, a promotion changes production, a rollback stays.

use serde_json::{Value, json};

use tagrelay_test_support::docker_registry::{DockerRegistry, Options};
use tagrelay_test_support::fleet::{Fleet, deployment, free_port, sha};
use tagrelay_test_support::git_http;

/// The cell of a service in the matrix.
async fn cell(fleet: &Fleet, environment: &str, service: &str) -> Value {
    let (status, matrix) = fleet.api("GET", "/environments", None).await;
    assert_eq!(status, 200, "{matrix}");
    let rows = matrix["environments"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == environment).unwrap();
    let cells = row["repositories"].as_array().unwrap();
    cells.iter().find(|cell| cell["repository"] == fleet.repository(service)).unwrap().clone()
}

#[tokio::test]
async fn push_promotion_and_rollback_with_docker_registry_over_smart_http() {
    let port = free_port();
    let notify = (format!("http://127.0.0.1:{port}/webhooks/registry"), "registry-secret".to_owned());
    let Some(registry) = DockerRegistry::start(Options { notify: Some(notify), ..Options::default() }) else { return };
    let builder = crate::fleet()
        .registry(&registry.host)
        .service("user-service")
        .service("order-service")
        .receiver("name = \"registry\"\nkind = \"distribution\"\nsecret = { value = \"registry-secret\" }");
    let upstream = builder.upstream(&registry.host);
    let git = git_http::start(upstream.parent(), "tagrelay", "git-password-51");
    let credentials = "username = \"tagrelay\"\npassword = { value = \"git-password-51\" }\n";
    let fleet = builder.remote(&format!("{git}/config.git"), credentials).start_at(port, upstream).await;

    // Only the registry itself notifies Tagrelay.
    let old = fleet.push_image("user-service", &sha('0')).await;
    let digest = fleet.push_image("user-service", &sha('1')).await;
    fleet
        .eventually("staging runs the new commit", async || fleet.running("staging", "user-service") == sha('1'))
        .await;
    assert_eq!(fleet.running("production", "user-service"), sha('0'));
    assert_eq!(fleet.running("staging", "order-service"), sha('0'));

    let message = fleet.upstream.git(&["log", "-1", "--format=%an <%ae>%n%B", "main"]);
    let repository = fleet.repository("user-service");
    for line in [
        "Tagrelay <tagrelay@localhost>",
        "staging: user-service 0000000 -> 1111111",
        &repository,
        &format!("  from {} to {}", sha('0'), sha('1')),
        &format!("  ({digest})"),
        "  environments/staging/user-service.yaml",
        "Tagrelay-Environment: staging",
        &format!("Tagrelay-Image: {repository}:{}@{digest}", sha('1')),
    ] {
        assert!(message.lines().any(|found| found == line), "{line:?} is not a line of\n{message}");
    }
    assert!(message.contains("Tagrelay-Cause: push 01") && message.contains(" via registry"), "{message}");
    let trailers = fleet.upstream.git(&["log", "-1", "--format=%(trailers:only)", "main"]);
    assert_eq!(trailers.lines().filter(|line| line.starts_with("Tagrelay-")).count(), 4, "{trailers}");
    let diff = fleet.upstream.git(&["diff", "--numstat", "main~1", "main"]);
    assert_eq!(diff, "1\t1\tenvironments/staging/user-service.yaml\n");

    let promoted = fleet
        .request("/promotions", json!({"to": "production", "repositories": ["user-service"], "reason": "release 42"}))
        .await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    assert_eq!(promoted["commit"], fleet.upstream.tip());
    assert_eq!(promoted["changes"][0]["path"], "environments/production/user-service.yaml");
    assert_eq!(fleet.running("production", "user-service"), sha('1'));
    assert_eq!(cell(&fleet, "production", "user-service").await["cause"], "promotion");

    let back = fleet.request("/rollbacks", json!({"environment": "production", "repository": "user-service"})).await;
    assert_eq!(back["state"], "committed", "{back:#}");
    assert_eq!(fleet.running("production", "user-service"), sha('0'));
    assert_eq!(back["updates"][0]["digest"], old.to_string());
    let cell = cell(&fleet, "production", "user-service").await;
    assert_eq!(cell["version"]["tag"], sha('0'));
    assert_eq!(cell["commit"], fleet.upstream.tip());
    assert_eq!(cell["holds"][0]["rollback"], back["id"]);

    let (_, history) = fleet.api("GET", "/history?environment=production", None).await;
    let causes: Vec<_> = history["changes"].as_array().unwrap().iter().map(|change| &change["cause"]).collect();
    assert_eq!(causes, ["rollback", "promotion"]);
    assert_eq!(
        fleet.upstream.subjects(),
        [
            "production: user-service 1111111 -> 0000000",
            "production: user-service 0000000 -> 1111111",
            "staging: user-service 0000000 -> 1111111",
            "begin"
        ]
    );
    fleet.upstream.git(&["fsck", "--strict", "--no-dangling"]);
}

#[tokio::test]
async fn event_explains_every_step() {
    let fleet = crate::fleet().service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    let steps: Vec<_> =
        event["explanation"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["received", "matched", "verified", "decided", "committed"]);
    assert_eq!(event["updates"][0]["commit"], fleet.upstream.tip());
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "tagrelay_webhook_requests_total{receiver=\"ci\",outcome=\"accepted\"} 1",
        "tagrelay_updates_total{environment=\"staging\",outcome=\"committed\"} 1",
        "tagrelay_receive_to_commit_seconds_count 1",
        "tagrelay_commit_updates_sum 1.0",
        "tagrelay_pending_updates 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let ready = fleet.client.get(fleet.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
}

#[tokio::test]
async fn every_manifest_format_is_updated_and_nothing_else_changes() {
    let kustomization = "resources: [../../base]\nimages:\n  - name: REGISTRY/uyou/user-service\n    newTag: \"1111111\"   # quoted\n\
         \x20 - {name: etcd, newTag: 3.6.4}\n";
    let pinned = "image: &old REGISTRY/uyou/user-service:0000000000000000000000000000000000000000@sha256:\
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n";
    let values = "user:\n  image:\n    registry: REGISTRY\n    repository: uyou/user-service\n    tag: 0000000000000000000000000000000000000000\n";
    let fleet = crate::fleet()
        .file("environments/staging/kustomization.yaml", kustomization)
        .file("environments/staging/pinned.yaml", pinned)
        .file("environments/staging/deep/er/values.yaml", values)
        .file("environments/staging/etcd.yaml", "kind: StatefulSet\nimage: quay.io/coreos/etcd:v3.6.4\n")
        .file("elsewhere/user.yaml", &deployment(&format!("REGISTRY/uyou/user-service:{}", sha('0'))))
        .start()
        .await;
    let before = fleet.upstream.file("environments/staging/etcd.yaml");
    let digest = fleet.push_image("user-service", &sha('7')).await;
    let (_, answer) = fleet.deliver("user-service", &sha('7')).await;
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    let host = fleet.registry_host();
    let file = |path: &str| fleet.upstream.file(path);
    assert_eq!(
        file("environments/staging/kustomization.yaml"),
        kustomization.replace("REGISTRY", host).replace("1111111", &sha('7'))
    );
    assert_eq!(
        file("environments/staging/pinned.yaml"),
        format!("image: &old {host}/uyou/user-service:{}@{digest}\r\n", sha('7'))
    );
    // A parser could read forty digits as a number.
    let expected = values.replace("REGISTRY", host).replace(&sha('0'), &format!("\"{}\"", sha('7')));
    assert_eq!(file("environments/staging/deep/er/values.yaml"), expected);
    assert_eq!(file("environments/staging/etcd.yaml"), before);
    assert!(file("elsewhere/user.yaml").contains(&sha('0')));
    assert_eq!(fleet.upstream.subjects().len(), 2);
}

#[tokio::test]
async fn burst_becomes_few_commits() {
    let mut builder = crate::fleet();
    for number in 0..40 {
        builder = builder.service(&format!("service-{number}"));
    }
    let fleet = builder.start().await;
    fleet.upstream.hook("pre-receive", "sleep 0.5");
    for number in 0..40 {
        fleet.push_image(&format!("service-{number}"), &sha('a')).await;
    }
    let deliveries = (0..40).map(|number| {
        let fleet = &fleet;
        async move { fleet.deliver(&format!("service-{number}"), &sha('a')).await }
    });
    for (status, answer) in futures_util::future::join_all(deliveries).await {
        assert_eq!(status, 202, "{answer}");
    }
    fleet
        .eventually("every service runs the new commit", async || {
            (0..40).all(|number| fleet.running("staging", &format!("service-{number}")) == sha('a'))
        })
        .await;
    let commits = fleet.upstream.subjects().len() - 1;
    assert!(commits <= 4, "{commits} commits: {:?}", fleet.upstream.subjects());
    let subjects = fleet.upstream.subjects();
    assert!(
        subjects.iter().any(|subject| subject.starts_with("staging: ") && subject.ends_with(" images")),
        "{subjects:?}"
    );
}

#[tokio::test]
async fn redelivery_changes_nothing() {
    let fleet = crate::fleet().service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    let (status, again) = fleet.deliver("user-service", &sha('1')).await;
    assert_eq!(
        (status, &again["events"][0]["state"], &again["events"][0]["id"]),
        (202, &json!("duplicate"), &json!(id))
    );
    fleet.settled(&id).await;
    // Another webhook for the same image is another event, and finds nothing to do.
    let body = json!({"repository": fleet.repository("user-service"), "tag": sha('1'),
        "digest": format!("sha256:{}", "0".repeat(64))});
    let (_, other) = fleet.deliver_body(&body.to_string()).await;
    assert_eq!(other["events"][0]["state"], "queued");
    let other = fleet.settled(other["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(other["state"], "unchanged", "{other:#}");
    assert!(other["note"].as_str().unwrap().contains("the payload announced sha256:0000"), "{other:#}");
    assert_eq!(fleet.upstream.subjects().len(), 2);
}
