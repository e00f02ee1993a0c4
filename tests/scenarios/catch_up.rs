//! Catch-up: images without webhook are found.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use serde_json::Value;
use tagrelay_embedded_registry::EmbeddedRegistry;

use tagrelay_test_support::docker_registry::{DockerRegistry, Options};
use tagrelay_test_support::fleet::{Builder, Fleet, deployment, sha};

/// A registry that records requests and can be scripted.
struct Front {
    registry: EmbeddedRegistry,
    state: Arc<Mutex<FrontState>>,
}

#[derive(Default)]
struct FrontState {
    /// `GET /v2/uyou/user-service/tags/list?n=1000`.
    requests: Vec<String>,
    /// Answers to list requests, instead of the real ones.
    lists: Option<(StatusCode, &'static str, &'static str)>,
}

async fn front(State(state): State<Arc<Mutex<FrontState>>>, request: Request, next: Next) -> Response {
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {}", request.method(), request.uri()));
        let is_list = request.method() == Method::GET && request.uri().path().ends_with("/tags/list");
        state.lists.filter(|_| is_list)
    };
    match answer {
        Some((status, header, value)) => (status, [(header, value)]).into_response(),
        None => next.run(request).await,
    }
}

impl Front {
    async fn start() -> Self {
        let state: Arc<Mutex<FrontState>> = Arc::default();
        let layer = from_fn_with_state(Arc::clone(&state), front);
        let address = "127.0.0.1:0".parse().unwrap();
        let registry = EmbeddedRegistry::start_behind(address, None, |routes: axum::Router| routes.layer(layer));
        Self { registry: registry.await.unwrap(), state }
    }

    fn host(&self) -> String {
        self.registry.host()
    }

    /// Sets the answer to list requests.
    fn answer_lists(&self, status: u16, header: &'static str, value: &'static str) {
        self.state.lock().unwrap().lists = Some((StatusCode::from_u16(status).unwrap(), header, value));
    }

    fn answer_lists_rightly(&self) {
        self.state.lock().unwrap().lists = None;
    }

    fn lists(&self) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|request| request.contains("/tags/list")).count()
    }
}

async fn registry_news(fleet: &Fleet) -> Value {
    let (status, answer) = fleet.api("GET", "/registries", None).await;
    assert_eq!(status, 200, "{answer}");
    answer["registries"][0]["catch_up"].clone()
}

async fn state_is(fleet: &Fleet, state: &str) {
    let what = format!("catch-up is {state}");
    fleet.eventually(&what, async || registry_news(fleet).await["state"] == state).await;
}

async fn commits(fleet: &Fleet, environment: &str, service: &str, version: &str) {
    let what = format!("{environment} runs {version} of {service}");
    fleet.eventually(&what, async || fleet.running(environment, service) == version).await;
}

async fn events(fleet: &Fleet) -> Vec<Value> {
    let (_, answer) = fleet.api("GET", "/events", None).await;
    answer["events"].as_array().unwrap().clone()
}

fn hang_up(fleet: &Fleet) {
    assert!(std::process::Command::new("kill").args(["-HUP", &fleet.pid().to_string()]).status().unwrap().success());
}

async fn metric(fleet: &Fleet, line: &str) -> f64 {
    let text = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("there is no {line} in\n{text}")).parse().unwrap()
}

/// End to end, with the real registry and without any webhook.
#[tokio::test]
async fn image_pushed_during_downtime_is_committed_after_start() {
    let Some(registry) = DockerRegistry::start(Options::default()) else { return };
    let mut fleet = crate::fleet().registry(&registry.host).service("user-service").start().await;
    fleet.push_image("user-service", &sha('0')).await;
    // The first list is recorded, whether or not it has tags.
    state_is(&fleet, "listed").await;
    assert_eq!(fleet.terminate(), Some(0));
    let digest = fleet.push_image("user-service", &sha('1')).await;
    fleet.start().await;
    commits(&fleet, "staging", "user-service", &sha('1')).await;
    let message = fleet.upstream.git(&["log", "-1", "--format=%B", "main"]);
    assert_eq!(fleet.running("production", "user-service"), sha('0'), "promotions only");

    let found: Vec<Value> = events(&fleet).await.into_iter().filter(|event| event["tag"] == sha('1')).collect();
    let [event] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((&event["cause"], &event["receiver"]), (&"catch-up".into(), &"catch-up".into()), "{event:#}");
    assert_eq!(event["digest"], digest.to_string());
    let id = event["id"].as_str().unwrap();
    let trailer = format!("Tagrelay-Cause: catch-up {id} via {}", registry.host);
    assert!(message.lines().any(|line| line == trailer), "{message}");
    let event = fleet.settled(id).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    let received = event["explanation"][0]["text"].as_str().unwrap().to_owned();
    assert!(received.starts_with("found in the registry, not announced by a webhook: "), "{received}");
    let (_, history) = fleet.api("GET", "/history", None).await;
    assert_eq!(history["changes"][0]["cause"], "catch-up", "{history:#}");
    let label = format!("{{registry=\"{}\"}}", registry.host);
    assert!(metric(&fleet, &format!("tagrelay_catch_up_found_total{label}")).await >= 1.0);

    // A late webhook makes no second commit.
    let before = fleet.upstream.tip();
    let (status, answer) = fleet.deliver("user-service", &sha('1')).await;
    assert_eq!(status, 202, "{answer}");
    let late = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(late["state"], "unchanged", "{late:#}");
    assert_eq!(fleet.upstream.tip(), before);
}

/// The real registry, and a webhook that is lost between two rounds.
#[tokio::test]
async fn later_round_asks_only_for_new_tags() {
    let Some(registry) = DockerRegistry::start(Options::default()) else { return };
    let builder = crate::fleet().registry(&registry.host).service("user-service");
    let repository = format!("{}/uyou/user-service", registry.host);
    for digit in ['0', '8', '9'] {
        push_to(&repository, &sha(digit), "2026-11-20T08:00:00Z").await;
    }
    // Requests of pushes are filtered by method: the registry logs a request after answering it, so the end of a push can be
    // logged after later requests.
    let questions = || {
        let mut requests = registry.requests();
        requests.retain(|request| {
            request.starts_with("GET ") || request.starts_with("HEAD ") && request.contains("/manifests/")
        });
        requests
    };
    let fleet = builder.start().await;
    state_is(&fleet, "listed").await;
    let lists = |requests: &[String]| requests.iter().filter(|request| request.contains("/tags/list?")).count();
    fleet.eventually("the list is in the log", async || lists(&questions()) > 0).await;
    let first = questions();
    assert_eq!((lists(&first), first.len()), (1, 1), "one list, and no look at old tags: {first:#?}");
    assert_eq!(events(&fleet).await, Vec::<Value>::new());

    for (digit, time) in [('1', "2026-11-21T08:00:00Z"), ('2', "2026-11-22T08:00:00Z")] {
        push_to(&repository, &sha(digit), time).await;
        let before = questions().len();
        hang_up(&fleet);
        commits(&fleet, "staging", "user-service", &sha(digit)).await;
        fleet.eventually("the round is over", async || lists(&questions().split_off(before)) > 0).await;
        let found = events(&fleet).await;
        assert_eq!((&found[0]["tag"], &found[0]["cause"]), (&sha(digit).into(), &"catch-up".into()), "{found:#?}");
        fleet.settled(found[0]["id"].as_str().unwrap()).await;
        let asked = questions().split_off(before);
        assert_eq!(lists(&asked), 1, "{asked:#?}");
        let names = |digit: char| asked.iter().filter(|request| request.contains(&sha(digit))).count();
        assert_eq!((names('8'), names('9')), (0, 0), "seen in the first round: {asked:#?}");
        assert!(names(digit) > 0, "{asked:#?}");
        if digit == '2' {
            assert_eq!(
                (names('0'), names('1')),
                (0, 0),
                "running versions were looked up in the round before: {asked:#?}"
            );
        }
    }
    assert_eq!(events(&fleet).await.len(), 2);
}

#[tokio::test]
async fn first_list_is_the_baseline_and_reload_finds_newer_tags() {
    let front = Front::start().await;
    let builder = crate::fleet().registry(&front.host()).service("user-service");
    for digit in ['2', '3', '4'] {
        push(&front, "user-service", &sha(digit)).await;
    }
    let fleet = builder.start().await;
    state_is(&fleet, "listed").await;
    assert_eq!(events(&fleet).await, Vec::<Value>::new(), "commits say nothing about their order");
    // One image with a webhook, one without.
    let told = fleet.announce("user-service", &sha('5')).await;
    assert_eq!(fleet.settled(&told).await["state"], "committed");
    fleet.push_image("user-service", &sha('6')).await;
    hang_up(&fleet);
    commits(&fleet, "staging", "user-service", &sha('6')).await;
    let events = events(&fleet).await;
    let seen: Vec<_> = events.iter().map(|event| (event["tag"].clone(), event["cause"].clone())).collect();
    let expected = [(sha('6'), "catch-up"), (sha('5'), "push")].map(|(tag, cause)| (tag.into(), cause.into()));
    assert_eq!(seen, expected);
}

/// If all builds claim 1970 and there is no source, the order of the pushes is unknown.
#[tokio::test]
async fn found_tag_of_unknown_age_does_not_replace_announced_push() {
    let front = Front::start().await;
    let fleet = crate::fleet().registry(&front.host()).service("user-service").start().await;
    state_is(&fleet, "listed").await;
    let reproducible = "1970-01-01T00:00:00Z".parse().unwrap();
    // The first webhook is lost.
    fleet.push_image_built("user-service", &sha('2'), reproducible).await;
    fleet.push_image_built("user-service", &sha('3'), reproducible).await;
    let (_, told) = fleet.deliver("user-service", &sha('3')).await;
    let told = told["events"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(fleet.settled(&told).await["state"], "committed");
    hang_up(&fleet);
    fleet.eventually("it is found", async || events(&fleet).await.len() == 2).await;
    let found = fleet.settled(events(&fleet).await[0]["id"].as_str().unwrap()).await;
    assert_eq!((&found["tag"], &found["state"]), (&sha('2').into(), &"refused".into()), "{found:#}");
    assert!(found["reason"].as_str().unwrap().contains("promote it if it is"), "{found:#}");
    assert_eq!(fleet.running("staging", "user-service"), sha('3'));
}

async fn push(front: &Front, service: &str, tag: &str) {
    push_to(&format!("{}/uyou/{service}", front.host()), tag, "2026-11-20T08:00:00Z").await;
}

async fn push_to(repository: &str, tag: &str, created: &str) {
    use tagrelay_embedded_registry::push::{TinyImage, push};
    let image = TinyImage { revision: None, created: created.parse().unwrap(), text: format!("{repository} {tag}") };
    push(&repository.parse().unwrap(), &tag.parse().unwrap(), &image, None).await.unwrap();
}

#[tokio::test]
async fn newest_version_of_first_list_is_taken_if_tags_are_ordered() {
    let front = Front::start().await;
    for tag in ["1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1"] {
        push(&front, "user-service", tag).await;
    }
    let fleet = crate::fleet()
        .registry(&front.host())
        .file("environments/staging/user-service.yaml", &deployment("REGISTRY/uyou/user-service:1.9.0"))
        .image("tag = { kind = \"semver\" }")
        .start()
        .await;
    commits(&fleet, "staging", "user-service", "1.10.0").await;
    let tags: Vec<Value> = events(&fleet).await.into_iter().map(|event| event["tag"].clone()).collect();
    assert_eq!(tags, ["1.10.0"]);
}

fn following_latest(front: &Front, digest: &str) -> Builder {
    crate::fleet()
        .registry(&front.host())
        .file(
            "environments/staging/user-service.yaml",
            &deployment(&format!("REGISTRY/uyou/user-service:latest@{digest}")),
        )
        .image("tag = { kind = \"digest\", name = \"latest\" }")
}

#[tokio::test]
async fn moving_tag_is_found_by_digest_without_list() {
    let front = Front::start().await;
    front.answer_lists(404, "x-test", "no lists here");
    let mut fleet = following_latest(&front, &format!("sha256:{}", "0".repeat(64))).start().await;
    // The image is pushed while the program is stopped.
    state_is(&fleet, "listed").await;
    assert_eq!(fleet.terminate(), Some(0));
    let digest = fleet.push_image("user-service", "latest").await;
    fleet.start().await;
    commits(&fleet, "staging", "user-service", &format!("latest@{digest}")).await;
    assert_eq!(fleet.terminate(), Some(0));
    fleet.start().await;
    state_is(&fleet, "listed").await;
    let digest = fleet.push_image("user-service", "latest").await;
    hang_up(&fleet);
    commits(&fleet, "staging", "user-service", &format!("latest@{digest}")).await;
    let found = events(&fleet).await;
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(front.lists(), 0);
}

#[tokio::test]
async fn registry_without_tag_lists_is_skipped_and_reported() {
    let front = Front::start().await;
    front.answer_lists(405, "x-test", "no lists here");
    let fleet = crate::fleet().registry(&front.host()).service("user-service").service("order-service").start().await;
    state_is(&fleet, "unsupported").await;
    let news = registry_news(&fleet).await;
    assert!(news["reason"].as_str().unwrap().contains("405"), "{news:#}");
    assert_eq!(news["repositories"], 2);
    let asked = front.lists();
    assert!(asked <= 2, "one request, and one that was already sent: {asked}");
    let skipped = "catch-up skips the registry: it does not list tags";
    fleet.eventually("the warning is logged", async || fleet.log().contains(skipped)).await;
    assert_eq!(fleet.log().matches(skipped).count(), 1);
    let label = format!("{{registry=\"{}\",outcome=\"unsupported\"}}", front.host());
    assert!(metric(&fleet, &format!("tagrelay_catch_up_looks_total{label}")).await >= 1.0);
    // Webhooks work as before.
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    // After a reload, the registry is asked again, but the warning is not repeated.
    hang_up(&fleet);
    fleet.eventually("it is asked again", async || front.lists() > asked).await;
    state_is(&fleet, "unsupported").await;
    assert_eq!(fleet.log().matches(skipped).count(), 1);
}

#[tokio::test]
async fn retry_after_stops_all_requests_to_the_registry_across_reloads() {
    let front = Front::start().await;
    front.answer_lists(429, "retry-after", "3600");
    let mut builder = crate::fleet().registry(&front.host());
    for number in 0..8 {
        builder = builder.service(&format!("service-{number}"));
    }
    let fleet = builder.start().await;
    state_is(&fleet, "not_now").await;
    let asked = front.lists();
    assert!(asked <= 4, "requests that were already sent: {asked}");
    front.answer_lists_rightly();
    hang_up(&fleet);
    fleet
        .eventually("the settings are read again", async || {
            metric(&fleet, "tagrelay_config_reload_total{outcome=\"ok\"}").await >= 1.0
        })
        .await;
    // Processing an event gives catch-up enough time for a request.
    let id = fleet.announce("service-1", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(front.lists(), asked);
    let news = registry_news(&fleet).await;
    assert_eq!(news["state"], "not_now");
    let again: jiff::Timestamp = news["ask_again_at"].as_str().unwrap().parse().unwrap();
    assert!(again > jiff::Timestamp::now() + Duration::from_secs(3000), "{again}");
}

#[tokio::test]
async fn disabled_catch_up_asks_no_registry() {
    let front = Front::start().await;
    let fleet = crate::fleet()
        .registry(&front.host())
        .service("user-service")
        .server("max_body_bytes = 65536\ncatch_up = \"off\"")
        .start()
        .await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert!(!front.state.lock().unwrap().requests.is_empty(), "the event was confirmed at another registry");
    assert_eq!(front.lists(), 0);
    assert_eq!(registry_news(&fleet).await, Value::Null);
}

#[tokio::test]
async fn update_found_by_catch_up_waits_for_hold() {
    let front = Front::start().await;
    push(&front, "user-service", &sha('0')).await;
    let fleet = crate::fleet().registry(&front.host()).service("user-service").start().await;
    state_is(&fleet, "listed").await;
    let hold = serde_json::json!({
        "environment": "staging", "repository": fleet.repository("user-service"), "reason": "the bad hour"
    });
    let (status, hold) = fleet.api("POST", "/holds", Some(hold)).await;
    assert_eq!(status, 201, "{hold}");
    fleet.push_image("user-service", &sha('1')).await;
    hang_up(&fleet);
    fleet.eventually("it waits", async || events(&fleet).await.iter().any(|event| event["state"] == "waiting")).await;
    let (status, answer) = fleet.api("DELETE", &format!("/holds/{}", hold["id"].as_str().unwrap()), None).await;
    assert!(matches!(status, 200 | 204), "{status} {answer}");
    commits(&fleet, "staging", "user-service", &sha('1')).await;
}

#[tokio::test]
async fn webhook_and_catch_up_at_once_make_one_commit() {
    let front = Front::start().await;
    push(&front, "user-service", &sha('0')).await;
    let fleet = crate::fleet().registry(&front.host()).service("user-service").start().await;
    state_is(&fleet, "listed").await;
    for digit in ['1', '2', '3', '4', '5'] {
        fleet.push_image("user-service", &sha(digit)).await;
        hang_up(&fleet);
        let (status, answer) = fleet.deliver("user-service", &sha(digit)).await;
        assert_eq!(status, 202, "{answer}");
        fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
        commits(&fleet, "staging", "user-service", &sha(digit)).await;
    }
    let is_over =
        async || events(&fleet).await.iter().all(|event| event["state"] != "queued" && event["state"] != "pending");
    fleet.eventually("all events have ended", is_over).await;
    assert_eq!(fleet.upstream.subjects().len(), 6, "{:#?}", events(&fleet).await);
}

#[tokio::test]
async fn changed_catch_up_settings_start_a_round() {
    let front = Front::start().await;
    push(&front, "user-service", &sha('0')).await;
    let fleet = crate::fleet().registry(&front.host()).service("user-service").start().await;
    state_is(&fleet, "listed").await;
    fleet.push_image("user-service", &sha('1')).await;
    let text = std::fs::read_to_string(fleet.settings_file()).unwrap();
    let text = text.replacen("max_body_bytes = 65536", "max_body_bytes = 65536\ncatch_up = \"1h\"", 1);
    std::fs::write(fleet.settings_file(), text).unwrap();
    commits(&fleet, "staging", "user-service", &sha('1')).await;
    assert!(fleet.log().contains("[server]: changed"));
}
