//! Crashes and outages: nothing acknowledged is lost, and nothing is committed twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use serde_json::json;
use tagrelay_embedded_registry::EmbeddedRegistry;

use tagrelay_test_support::fleet::{Fleet, sha};
use tagrelay_test_support::git_http::{Fault, Server};

/// Number of commits that set a service to a tag in staging.
pub(crate) fn commits_of(fleet: &Fleet, service: &str, tag: &str) -> usize {
    let image = format!("Tagrelay-Image: {}:{tag}@", fleet.repository(service));
    let log = fleet.upstream.git(&["log", "--format=%B", "main"]);
    log.lines().filter(|line| line.starts_with(&image)).count()
}

#[tokio::test]
async fn event_is_committed_once_after_kill_during_push() {
    let mut fleet = crate::fleet().service("user-service").start().await;
    let gate = fleet.upstream.gate("pre-receive");
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
    fleet.kill();
    gate.open();
    fleet.start().await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
    assert_eq!(commits_of(&fleet, "user-service", &sha('1')), 1);
    assert_eq!(event["updates"][0]["commit"], fleet.upstream.tip());
}

#[tokio::test]
async fn repeated_kills_commit_each_update_once() {
    const SERVICES: usize = 12;
    let mut builder = crate::fleet();
    for number in 0..SERVICES {
        builder = builder.service(&format!("service-{number}"));
    }
    let mut fleet = builder.start().await;
    for number in 0..SERVICES {
        fleet.push_image(&format!("service-{number}"), &sha('b')).await;
    }
    let mut ids = HashMap::new();
    // The program is killed after the acknowledgement, before the push, after the push, or during the push.
    let mut hooks = [None, Some("pre-receive"), Some("post-receive"), None].into_iter();
    for number in 0..SERVICES {
        let gate = match number % 3 {
            2 => hooks.next().unwrap().map(|hook| (hook, fleet.upstream.gate(hook))),
            _ => None,
        };
        let service = format!("service-{number}");
        let (status, answer) = fleet.deliver(&service, &sha('b')).await;
        assert_eq!(status, 202);
        ids.insert(service, answer["events"][0]["id"].as_str().unwrap().to_owned());
        if let Some((_, gate)) = &gate {
            fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
        }
        if number % 3 == 2 {
            fleet.kill();
            if let Some((hook, gate)) = gate {
                gate.open();
                fleet.upstream.remove_hook(hook);
            }
            fleet.start().await;
        }
    }
    for (service, id) in &ids {
        let event = fleet.settled(id).await;
        assert_eq!(event["state"], "committed", "{service}: {event:#}");
        assert_eq!(fleet.running("staging", service), sha('b'));
        assert_eq!(commits_of(&fleet, service, &sha('b')), 1, "{service}");
    }
    fleet.upstream.git(&["fsck", "--strict", "--no-dangling"]);
}

#[tokio::test]
async fn foreign_commits_stay_intact() {
    let mut builder = crate::fleet();
    for number in 0..8 {
        builder = builder.service(&format!("service-{number}"));
    }
    let fleet = builder.start().await;
    for number in 0..8 {
        fleet.push_image(&format!("service-{number}"), &sha('c')).await;
    }
    let mut foreign = 0;
    for number in 0..8 {
        // The branch moves while the push waits in the hook, so the push loses the race.
        let gate = fleet.upstream.gate("pre-receive");
        assert_eq!(fleet.deliver(&format!("service-{number}"), &sha('c')).await.0, 202);
        fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
        for _ in 0..3 {
            let path = format!("foreign/{foreign}.txt");
            fleet.upstream.commit(&format!("foreign {foreign}"), &[(&path, "theirs\n")]);
            foreign += 1;
        }
        gate.open();
    }
    fleet
        .eventually("every service runs the new commit", async || {
            (0..8).all(|number| fleet.running("staging", &format!("service-{number}")) == sha('c'))
        })
        .await;
    for number in 0..foreign {
        assert_eq!(fleet.upstream.file(&format!("foreign/{number}.txt")), "theirs\n");
    }
    let subjects = fleet.upstream.subjects();
    assert_eq!(subjects.iter().filter(|subject| subject.starts_with("foreign ")).count(), foreign);
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let retries = metrics.lines().find(|line| line.starts_with("tagrelay_git_push_retries_total ")).unwrap();
    assert_ne!(retries, "tagrelay_git_push_retries_total 0", "no race was run");
}

#[tokio::test]
async fn push_that_a_hook_rejects_waits_and_goes_once_the_branch_moves() {
    let fleet = crate::fleet().service("user-service").start().await;
    fleet.upstream.hook("pre-receive", "echo 'no deployments on Fridays' >&2; exit 1");
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "waiting", "{event:#}");
    assert!(event["reason"].as_str().unwrap().contains("no deployments on Fridays"), "{event:#}");
    let ready: serde_json::Value = fleet.client.get(fleet.url("/readyz")).send().await.unwrap().json().await.unwrap();
    assert!(ready["ready"] == true && ready["problems"].to_string().contains("no deployments on Fridays"), "{ready}");
    let (status, problem) = fleet.api("POST", &format!("/events/{id}/replay"), None).await;
    assert_eq!(status, 409, "{problem}");
    // The next attempt would be after half a minute. A reload retries at once.
    fleet.upstream.remove_hook("pre-receive");
    let pid = fleet.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    fleet.eventually("it is on the branch", async || fleet.running("staging", "user-service") == sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    let ready: serde_json::Value = fleet.client.get(fleet.url("/readyz")).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["problems"], json!([]));
}

#[tokio::test]
async fn rejected_environment_does_not_stop_another() {
    let fleet = crate::fleet().service("user-service").service("order-service").start().await;
    let gate = fleet.upstream.new_gate();
    let script = format!(
        "while read old new ref; do git diff --name-only $old $new | grep -q ^environments/production/ && \
         {{ {}; echo production is protected >&2; exit 1; }}; done; exit 0",
        gate.script()
    );
    fleet.upstream.hook("pre-receive", &script);
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('1')).await;
    }
    // Updates that arrive during a push are pushed together.
    let promotion = json!({"to": "production", "repositories": ["user-service"], "tag": sha('1')});
    let (_, first) = fleet.api("POST", "/promotions", Some(promotion.clone())).await;
    fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
    let (_, event) = fleet.deliver("order-service", &sha('1')).await;
    let promotion = json!({"to": "production", "repositories": ["order-service"], "tag": sha('1')});
    // The request may wait for the end of the push.
    let ((status, second), ()) = tokio::join!(fleet.api("POST", "/promotions", Some(promotion)), async { gate.open() });
    assert_eq!(status, 202, "{second}");
    let (_, refused) = fleet.api("GET", &format!("/promotions/{}?wait=60", second["id"].as_str().unwrap()), None).await;
    assert_eq!(refused["state"], "waiting", "{refused:#}");
    assert!(refused["reason"].as_str().unwrap().contains("production is protected"), "{refused:#}");
    let event = fleet.settled(event["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    let (_, first) = fleet.api("GET", &format!("/promotions/{}", first["id"].as_str().unwrap()), None).await;
    assert_eq!(first["state"], "waiting", "{first:#}");
}

#[tokio::test]
async fn rejected_service_does_not_stop_others() {
    let services: Vec<String> = (0..12).map(|number| format!("service-{number}")).collect();
    let mut builder = crate::fleet().repository_settings("quiet_period = \"2s\"");
    for service in &services {
        builder = builder.service(service);
    }
    let fleet = builder.start().await;
    // Rejects every push that changes the fifth service.
    let only_the_others = "read old new name; git diff --name-only $old $new | grep -q service-5 || exit 0\n\
                           echo 'service-5 is frozen' >&2; exit 1";
    fleet.upstream.hook("pre-receive", only_the_others);
    for service in &services {
        fleet.push_image(service, &sha('a')).await;
    }
    let mut events = Vec::new();
    for service in &services {
        events.push(fleet.announce(service, &sha('a')).await);
    }
    for (service, event) in services.iter().zip(&events) {
        let event = fleet.settled(event).await;
        let expected = if service == "service-5" { "waiting" } else { "committed" };
        assert_eq!(event["state"], expected, "{service}: {event:#}");
        let runs = if service == "service-5" { sha('0') } else { sha('a') };
        assert_eq!(fleet.running("staging", service), runs, "{service}");
    }
}

#[tokio::test]
async fn hook_that_rejects_all_gets_few_pushes() {
    let services: Vec<String> = (0..40).map(|number| format!("service-{number}")).collect();
    let mut builder = crate::fleet().repository_settings("quiet_period = \"2s\"");
    for service in &services {
        builder = builder.service(service);
    }
    let fleet = builder.start().await;
    let asked = fleet.folder().join("asked");
    fleet.upstream.hook("pre-receive", &format!("echo asked >> {}; exit 1", asked.display()));
    let mut events = Vec::new();
    for service in &services {
        fleet.push_image(service, &sha('a')).await;
    }
    for service in &services {
        events.push(fleet.announce(service, &sha('a')).await);
    }
    for event in &events {
        assert_eq!(fleet.settled(event).await["state"], "waiting");
    }
    let asked = std::fs::read_to_string(asked).unwrap().lines().count();
    assert!((2..60).contains(&asked), "{asked} pushes of {} updates were declined", services.len());
}

#[tokio::test]
async fn unreachable_registry_does_not_delay_other_images() {
    let away = format!("127.0.0.1:{}", tagrelay_test_support::fleet::free_port());
    let settings =
        format!("\n[[image]]\nrepository = \"{away}/uyou/*\"\n\n[[registry]]\nhost = \"{away}\"\nplain_http = true\n");
    let fleet = crate::fleet()
        .service("user-service")
        .file("environments/staging/away.yaml", &format!("image: {away}/uyou/away:{}\n", sha('0')))
        .settings(&settings)
        .start()
        .await;
    let mut away_id = String::new();
    for digit in ['1', '2', '3'] {
        let body = json!({"image": format!("{away}/uyou/away:{}", sha(digit))}).to_string();
        let (_, answer) = fleet.deliver_body(&body).await;
        away_id = answer["events"][0]["id"].as_str().unwrap().to_owned();
    }
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    fleet
        .eventually("the attempts are shown", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{away_id}"), None).await;
            event["state"] == "queued" && event["attempts"].as_u64().unwrap() >= 2 && event["reason"].is_string()
        })
        .await;
    // The registry comes back: all events continue, and the newest wins.
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start(away.parse().unwrap(), None).await.unwrap();
    for digit in ['1', '2', '3'] {
        let image = tagrelay_embedded_registry::push::TinyImage {
            revision: None,
            created: jiff::Timestamp::now(),
            text: digit.to_string(),
        };
        let repository = format!("{away}/uyou/away").parse().unwrap();
        tagrelay_embedded_registry::push::push(&repository, &sha(digit).parse().unwrap(), &image, None).await.unwrap();
    }
    fleet.settled(&away_id).await;
    fleet
        .eventually("the newest runs", async || {
            fleet.upstream.file("environments/staging/away.yaml").contains(&sha('3'))
        })
        .await;
    registry.stop().await;
}

#[tokio::test]
async fn unreachable_config_repository_loses_no_update() {
    let builder = crate::fleet().service("user-service").service("order-service");
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "secret");
    server.set_fault(Fault::Unavailable(1));
    let credentials = "username = \"tagrelay\"\npassword = { value = \"secret\" }\n";
    let fleet = builder
        .registry(&registry.host())
        .remote(&format!("{}/config.git", server.url), credentials)
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    let ready = fleet.client.get(fleet.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("has not been read yet"));
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the reason is shown", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
            event["updates"][0]["reason"].as_str().is_some_and(|reason| reason.contains("503"))
        })
        .await;
    let (status, _) = fleet.api("POST", "/promotions", Some(json!({"to": "production"}))).await;
    assert_eq!(status, 503);
    server.set_fault(Fault::None);
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    // The answer to a push is lost: the branch is read before anything is sent again.
    server.set_fault(Fault::LoseAnswer);
    let id = fleet.announce("order-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(commits_of(&fleet, "order-service", &sha('1')), 1);
    assert_eq!(event["updates"][0]["commit"], fleet.upstream.tip());
}

#[tokio::test]
async fn wrong_password_is_reported_and_can_be_replaced_without_restart() {
    let builder = crate::fleet().service("user-service");
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "right");
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "wrong\n").unwrap();
    let credentials = format!("username = \"tagrelay\"\npassword = {{ file = \"{}\" }}\n", secret.path().display());
    let fleet = builder
        .registry(&registry.host())
        .remote(&format!("{}/config.git", server.url), &credentials)
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the reason is shown", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
            event["updates"][0]["reason"].is_string()
        })
        .await;
    std::fs::write(secret.path(), "right\n").unwrap();
    assert_eq!(fleet.settled(&id).await["state"], "committed");
}

#[tokio::test]
async fn config_repository_is_reached_through_proxy_of_environment() {
    let builder = crate::fleet().service("user-service");
    let registry = tagrelay_embedded_registry::EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None);
    let registry = registry.await.unwrap();
    let upstream = builder.upstream(&registry.host());
    // The server also accepts absolute URLs, like a proxy, and only it can resolve that host.
    let proxy = Server::start(upstream.parent(), "tagrelay", "right");
    let fleet = builder
        .registry(&registry.host())
        .remote("http://config.invalid/config.git", "username = \"tagrelay\"\npassword = { value = \"right\" }\n")
        .variable("HTTP_PROXY", &proxy.url)
        .variable("http_proxy", &proxy.url)
        .variable("NO_PROXY", "127.0.0.1")
        .variable("no_proxy", "127.0.0.1")
        .start_at(tagrelay_test_support::fleet::free_port(), upstream)
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
}

#[tokio::test]
async fn foreign_newer_version_survives_a_crash() {
    let mut fleet = crate::fleet().service("user-service").start().await;
    // The push lands, and the program dies before the answer.
    fleet.upstream.hook("reference-transaction", "[ \"$1\" != committed ] || sleep 2");
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.eventually("the branch has moved", async || fleet.upstream.subjects().len() == 2).await;
    fleet.kill();
    fleet.upstream.remove_hook("reference-transaction");
    let theirs = fleet.upstream.file("environments/staging/user-service.yaml").replace(&sha('1'), &sha('9'));
    fleet.upstream.commit("move on by hand", &[("environments/staging/user-service.yaml", &theirs)]);
    fleet.start().await;
    let event = fleet.settled(&id).await;
    // Our commit is below theirs, as the branch's commits show.
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(event["updates"][0]["commit"], fleet.upstream.git(&["rev-parse", "main~"]).trim());
    assert_eq!(fleet.running("staging", "user-service"), sha('9'));
    assert_eq!(fleet.upstream.subjects().len(), 3);
}

#[tokio::test]
async fn sigterm_stops_the_program() {
    let mut fleet = crate::fleet().service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.terminate(), Some(0));
    fleet.start().await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
}

#[tokio::test]
async fn retry_after_of_registry_is_followed_by_a_retry() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let front = |routes: axum::Router| {
        routes.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let count = Arc::clone(&count);
            async move {
                // The deployed tag is requested too, once.
                let is_question = request.method() != http::Method::PUT && request.uri().path().ends_with(&sha('1'));
                if is_question && count.fetch_add(1, Ordering::Relaxed) < 2 {
                    return (http::StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response();
                }
                next.run(request).await
            }
        }))
    };
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let fleet = crate::fleet().registry(&registry.host()).service("user-service").start().await;
    // One event, and no later one that would wake the pipeline.
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
}
