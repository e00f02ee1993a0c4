//! Settings of a config repository, and webhooks of its host.

use std::process::Command;

use hmac::{KeyInit as _, Mac as _};
use http::HeaderMap;
use serde_json::{Value, json};

use tagrelay_test_support::fleet::{Fleet, sha};
use tagrelay_test_support::git_http::{Fault, Server};

const HOOK_SECRET: &str = "a-secret-of-the-git-host-8a1e";

/// How often the remote was asked for the branch's tip.
async fn refreshes(fleet: &Fleet) -> f64 {
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let counts = metrics.lines().filter(|line| {
        line.starts_with("tagrelay_git_operation_seconds_count{") && line.contains("operation=\"refresh\"")
    });
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Sends GitHub's webhook for a push.
async fn tell(fleet: &Fleet, branch: &str, commit: &str) -> (u16, Value) {
    let body = json!({"ref": format!("refs/heads/{branch}"), "after": commit}).to_string();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(HOOK_SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert("x-github-event", "push".parse().unwrap());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    headers.insert("x-hub-signature-256", signature.parse().unwrap());
    let answer = fleet.client.post(fleet.url("/webhooks/config")).headers(headers).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn webhook_of_git_host_makes_the_branch_be_read() {
    let receiver = format!("name = \"config\"\nkind = \"git-github\"\nsecret = {{ value = \"{HOOK_SECRET}\" }}");
    let fleet = crate::fleet().service("user-service").receiver(&receiver).start().await;
    fleet.eventually("the branch has been read", async || refreshes(&fleet).await > 0.0).await;
    let known = refreshes(&fleet).await;
    // The webhook of our own push is recognised.
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.settled(&id).await;
    let (status, answer) = tell(&fleet, "main", &fleet.upstream.tip()).await;
    assert_eq!((status, &answer["branches"]), (200, &json!([{"branch": "main", "state": "known"}])), "{answer}");
    let (status, answer) = tell(&fleet, "other", &sha('a')).await;
    assert_eq!((status, &answer["branches"]), (200, &json!([{"branch": "other", "state": "foreign"}])), "{answer}");
    // Only the branch that moved is read, once.

    fleet.upstream.commit("by hand", &[("environments/staging/new.yaml", "image: docker.io/uyou/new:1\n")]);
    let (status, answer) = tell(&fleet, "main", &fleet.upstream.tip()).await;
    assert_eq!((status, &answer["branches"]), (202, &json!([{"branch": "main", "state": "reading"}])), "{answer}");
    fleet.eventually("the branch is read", async || refreshes(&fleet).await > known).await;
    assert_eq!(refreshes(&fleet).await - known, 1.0, "webhooks of known and foreign commits cause no reading");
    fleet
        .eventually("it is known", async || {
            tell(&fleet, "main", &fleet.upstream.tip()).await.1["branches"][0]["state"] == "known"
        })
        .await;
    // With a webhook for each foreign push, no push loses a race.
    let id = fleet.announce("user-service", &sha('2')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tagrelay_git_push_retries_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn commits_follow_the_settings() {
    let key = tempfile::tempdir().unwrap();
    let path = key.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status().unwrap();
    assert!(made.success());
    let settings = format!(
        "author = \"Robot <robot@example.com>\"\ncommitter = \"Committer <committer@example.com>\"\n\
         signed_off_by = true\ncommit = \"single\"\nquiet_period = \"1s\"\n\
         signing = {{ format = \"ssh\", key = {{ file = \"{}\" }} }}\n\
         [config_repository.message]\nsubject = \"deploy({{{{ environment }}}}): {{{{ summary }}}}\"\n\
         body = '''{{% for change in changes %}}* {{{{ change.name }}}} is {{{{ change.new_short }}}}\n{{% endfor %}}'''\n",
        path.display()
    );
    let builder = crate::fleet().service("user-service").service("order-service");
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let url = upstream.url();
    let fleet = builder
        .registry(&registry.host())
        .remote(&url, &settings)
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    let show = |format: &str| fleet.upstream.git(&["log", "-1", &format!("--format={format}"), "main"]);
    assert_eq!(show("%an <%ae>|%cn <%ce>").trim(), "Robot <robot@example.com>|Committer <committer@example.com>");
    let message = show("%B");
    let head = "deploy(staging): user-service 0000000 -> 1111111\n\n* user-service is 1111111\n\nTagrelay-Environment: staging\n";
    assert!(message.starts_with(head), "{message}");
    assert!(message.trim_end().ends_with("\nSigned-off-by: Committer <committer@example.com>"), "{message}");
    let trailers = show("%(trailers:only=true,unfold=true)");
    for trailer in ["Tagrelay-Environment", "Tagrelay-Image", "Tagrelay-Cause", "Signed-off-by"] {
        let count = trailers.lines().filter(|line| line.starts_with(&format!("{trailer}: "))).count();
        assert_eq!(count, 1, "{trailer} in {trailers}");
    }
    let signers = key.path().join("allowed_signers");
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    std::fs::write(&signers, format!("committer@example.com {public}")).unwrap();
    let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    fleet.upstream.git(&["-c", "gpg.format=ssh", "-c", &allowed, "verify-commit", "main"]);

    // Two environments in one push are one commit. The update in its quiet period is pushed with the promotion.
    fleet.push_image("user-service", &sha('3')).await;
    let (_, event) = fleet.deliver("user-service", &sha('3')).await;
    let id = event["events"][0]["id"].as_str().unwrap();
    fleet
        .eventually("it is decided", async || {
            fleet.api("GET", &format!("/events/{id}"), None).await.1["state"] == "pending"
        })
        .await;
    let promotion = json!({"to": "production", "repositories": ["user-service"], "tag": sha('3')});
    let promoted = fleet.request("/promotions", promotion).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    let event = fleet.settled(id).await;
    assert_eq!(event["updates"][0]["commit"], promoted["commit"], "{event:#} {promoted:#}");
    assert_eq!(show("%s").trim(), "deploy(staging, production): 2 images");
    let message = show("%B");
    for environment in ["staging", "production"] {
        assert!(message.contains(&format!("\nTagrelay-Environment: {environment}\n")), "{message}");
    }
    registry.stop().await;
}

#[tokio::test]
async fn quiet_period_gathers_updates_into_one_commit() {
    let builder = (0..4).fold(crate::fleet(), |builder, number| builder.service(&format!("service-{number}")));
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let url = upstream.url();
    let fleet = builder
        .registry(&registry.host())
        .remote(&url, "quiet_period = \"2s\"\n")
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    for number in 0..3 {
        fleet.push_image(&format!("service-{number}"), &sha('1')).await;
    }
    let mut ids = Vec::new();
    for number in 0..3 {
        let (status, answer) = fleet.deliver(&format!("service-{number}"), &sha('1')).await;
        assert_eq!(status, 202, "{answer}");
        ids.push(answer["events"][0]["id"].as_str().unwrap().to_owned());
    }
    for id in &ids {
        assert_eq!(fleet.settled(id).await["state"], "committed");
    }
    assert_eq!(fleet.upstream.subjects(), ["staging: 3 images", "begin"]);
    registry.stop().await;
}

#[tokio::test]
async fn promotion_does_not_wait_for_the_quiet_period() {
    let builder = crate::fleet().service("user-service").service("order-service");
    let fleet = builder.repository_settings("quiet_period = \"1m\"").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the update waits for the end of the quiet period", async || {
            fleet.api("GET", &format!("/events/{id}"), None).await.1["state"] == "pending"
        })
        .await;
    assert_eq!(fleet.upstream.subjects(), ["begin"]);
    fleet.push_image("order-service", &sha('2')).await;
    let promotion = json!({"to": "production", "repositories": ["order-service"], "tag": sha('2')});
    let promoted = fleet.request("/promotions", promotion).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
    // The waiting update is also pushed.
    assert_eq!(fleet.settled(&id).await["state"], "committed");
}

#[tokio::test]
async fn retry_after_of_git_host_is_respected() {
    let builder = crate::fleet().service("user-service");
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "secret");
    let credentials = "username = \"tagrelay\"\npassword = { value = \"secret\" }\n";
    let fleet = builder
        .registry(&registry.host())
        .remote(&format!("{}/config.git", server.url), credentials)
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    fleet.eventually("the branch has been read", async || refreshes(&fleet).await > 0.0).await;
    // The push is answered with 503, so it may have landed.
    server.set_fault(Fault::Unavailable(3));
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the reason is shown", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
            event["updates"][0]["reason"].as_str().is_some_and(|reason| reason.contains("503"))
        })
        .await;
    server.take_requests();
    // A promotion needs to read the branch, and gets the host's error as reason.
    let promotion = json!({"to": "production", "repositories": ["user-service"]});
    let (status, problem) = fleet.api("POST", "/promotions", Some(promotion)).await;
    assert_eq!(status, 503, "{problem}");
    assert_eq!(server.take_requests(), Vec::<String>::new(), "the host was asked before its time");
    server.set_fault(Fault::None);
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(fleet.upstream.subjects().len(), 2);
    registry.stop().await;
}

#[tokio::test]
async fn token_repeated_by_git_host_is_redacted() {
    const TOKEN: &str = "glpat-5e1d/77+aa=90c";
    let builder = crate::fleet().service("user-service");
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", TOKEN);
    // A token file, so the token is not in the settings beside the store.
    let secret = upstream.parent().join("token");
    std::fs::write(&secret, TOKEN).unwrap();
    let credentials = format!("username = \"tagrelay\"\npassword = {{ file = \"{}\" }}\n", secret.display());
    let mut fleet = builder
        .registry(&registry.host())
        .remote(&format!("{}/config.git", server.url), &credentials)
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    fleet.eventually("the branch has been read", async || refreshes(&fleet).await > 0.0).await;
    server.set_fault(Fault::Echoes(false));
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = async || fleet.api("GET", &format!("/events/{id}"), None).await.1;
    fleet.eventually("the reason is shown", async || event().await["updates"][0]["reason"].is_string()).await;
    let told = event().await.to_string();
    assert!(told.contains("[redacted]"), "{told}");
    let log = fleet.log();
    let folder = fleet.folder().to_owned();
    assert_eq!(fleet.terminate(), Some(0));
    let mut kept = vec![("the API".to_owned(), told.into_bytes()), ("the log".to_owned(), log.into_bytes())];
    for name in ["tagrelay.db", "tagrelay.db-wal"] {
        kept.extend(std::fs::read(folder.join(name)).ok().map(|bytes| (name.to_owned(), bytes)));
    }
    assert!(kept.len() > 2);
    let pair = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("tagrelay:{TOKEN}"))
    };
    for (name, bytes) in kept {
        for form in [TOKEN, pair.as_str(), "glpat-5e1d%2F77%2Baa%3D90c"] {
            assert!(!bytes.windows(form.len()).any(|window| window == form.as_bytes()), "{form} is in {name}");
        }
    }
    registry.stop().await;
}
