//! Registries that show an image only after its webhook. Nothing else happens meanwhile, so only the timer continues the event.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tagrelay_embedded_registry::EmbeddedRegistry;

use tagrelay_test_support::fleet::{Builder, Fleet, deployment, sha};

/// Answers the first `left` requests for a manifest with `status`.
#[derive(Clone)]
struct Late {
    left: Arc<AtomicUsize>,
    status: StatusCode,
}

async fn hold_back(State(late): State<Late>, request: Request, next: Next) -> Response {
    let asks = request.method() != Method::PUT && request.uri().path().contains("/manifests/");
    let take = |left: usize| left.checked_sub(1);
    if asks && late.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
        return late.status.into_response();
    }
    next.run(request).await
}

/// Returns the final event if its registry shows the image after `questions` requests.
async fn event_of(questions: usize, status: StatusCode) -> Value {
    let late = Late { left: Arc::new(AtomicUsize::new(questions)), status };
    let front = |routes: axum::Router| routes.layer(from_fn_with_state(late, hold_back));
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let fleet = crate::fleet().registry(&registry.host()).service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    registry.stop().await;
    event
}

#[tokio::test]
async fn missing_image_is_retried() {
    let event = event_of(2, StatusCode::NOT_FOUND).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(event["attempts"], 2);
}

#[tokio::test]
async fn registry_error_is_retried() {
    let event = event_of(1, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(event["attempts"], 1);
}

#[tokio::test]
async fn image_that_stays_missing_is_refused() {
    let event = event_of(usize::MAX, StatusCode::NOT_FOUND).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.ends_with(&format!("has no uyou/user-service:{}", sha('1'))), "{reason}");
}

/// Blocks requests for a tag until the test releases them.
#[derive(Clone, Default)]
struct Slow {
    tag: Arc<Mutex<Option<String>>>,
    /// Number of blocked requests.
    kept: Arc<AtomicUsize>,
    released: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Slow {
    fn keep_back(&self, tag: &str) {
        *self.tag.lock().unwrap() = Some(tag.to_owned());
    }

    fn is_asked(&self) -> bool {
        self.kept.load(Ordering::SeqCst) > 0
    }

    fn release(&self) {
        self.released.send_replace(true);
    }
}

async fn answer_late(State(slow): State<Slow>, request: Request, next: Next) -> Response {
    let is_slow = slow.tag.lock().unwrap().as_ref().is_some_and(|tag| request.uri().path().ends_with(tag.as_str()));
    if is_slow {
        slow.kept.fetch_add(1, Ordering::SeqCst);
        slow.released.subscribe().wait_for(|released| *released).await.unwrap();
    }
    next.run(request).await
}

/// A fleet that deploys the first three builds of a service in the order of their build numbers.
async fn third_of(builder: Builder, slow: &Slow) -> (EmbeddedRegistry, Fleet) {
    let layer = from_fn_with_state(slow.clone(), answer_late);
    let front = |routes: axum::Router| routes.layer(layer);
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let rule = "tag = { kind = \"regex\", pattern = \"v(?<number>[0-9]+)\" }";
    let fleet = builder.registry(&registry.host()).image(rule).start().await;
    for tag in ["v1", "v2", "v3"] {
        let id = fleet.announce("user-service", tag).await;
        assert_eq!(fleet.settled(&id).await["state"], "committed");
    }
    slow.keep_back("v2");
    (registry, fleet)
}

fn deployed(tag: &str) -> String {
    deployment(&format!("REGISTRY/uyou/user-service:{tag}"))
}

#[tokio::test]
async fn push_waiting_for_hold_does_not_end_the_rollback() {
    let slow = Slow::default();
    let builder = crate::fleet().file("environments/staging/user-service.yaml", &deployed("v0"));
    let (registry, fleet) = third_of(builder, &slow).await;
    let body = json!({"environment": "staging", "repository": "user-service", "to": "v2"});
    let (status, taken) = fleet.api("POST", "/rollbacks", Some(body)).await;
    assert_eq!(status, 202, "{taken}");
    fleet.eventually("the registry is asked about v2", async || slow.is_asked()).await;
    let waiting = fleet.announce("user-service", "v4").await;
    assert_eq!(fleet.settled(&waiting).await["state"], "waiting");
    slow.release();
    let path = format!("/promotions/{}?wait=60", taken["id"].as_str().unwrap());
    let (_, done) = fleet.api("GET", &path, None).await;
    assert_eq!(done["state"], "committed", "{done:#}");
    assert_eq!(fleet.running("staging", "user-service"), "v2");
    // The hold is released, and the waiting update continues.
    let (_, holds) = fleet.api("GET", "/holds", None).await;
    let hold = holds["holds"][0]["id"].as_str().unwrap();
    assert_eq!(fleet.api("DELETE", &format!("/holds/{hold}"), None).await.0, 204);
    assert_eq!(fleet.settled(&waiting).await["state"], "committed");
    assert_eq!(fleet.running("staging", "user-service"), "v4");
    registry.stop().await;
}

#[tokio::test]
async fn rollback_without_the_registry_goes_only_to_a_version_that_ran() {
    let builder = crate::fleet().file("environments/staging/user-service.yaml", &deployed("v0"));
    let (registry, fleet) = third_of(builder, &Slow::default()).await;
    registry.stop().await;
    let roll_back = async |to: &str| {
        let body = json!({"environment": "staging", "repository": "user-service", "to": to});
        let (status, taken) = fleet.api("POST", "/rollbacks", Some(body)).await;
        assert_eq!(status, 202, "{taken}");
        format!("/promotions/{}", taken["id"].as_str().unwrap())
    };
    // Misspelt: no environment has run it.
    let misspelt = roll_back("v33").await;
    let tried = async || fleet.api("GET", &misspelt, None).await.1["updates"][0]["reason"].is_string();
    fleet.eventually("the registry was asked", tried).await;
    let (_, shown) = fleet.api("GET", &misspelt, None).await;
    assert_eq!(shown["updates"][0]["state"], "unverified", "{shown:#}");
    assert_eq!(fleet.running("staging", "user-service"), "v3");
    // v0 was there before the first push, and v2 was pushed.
    for tag in ["v2", "v0"] {
        let path = format!("{}?wait=60", roll_back(tag).await);
        let (_, done) = fleet.api("GET", &path, None).await;
        assert_eq!(done["state"], "committed", "{done:#}");
        assert_eq!(fleet.running("staging", "user-service"), tag);
        let reason = done["updates"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("not confirmed by the registry: "), "{reason}");
        let message = fleet.upstream.git(&["log", "-1", "--format=%B", "main"]);
        assert!(message.contains("\n  not confirmed by the registry: "), "{message}");
    }
}

#[tokio::test]
async fn push_is_compared_with_earlier_promotion() {
    const QA: &str = "\n[[environment]]\nname = \"qa\"\npaths = [\"environments/qa\"]\nupdate = \"automatic\"\n\
                      promote_from = [\"staging\"]\n\n[[api_token]]\nname = \"qa\"\ntoken = { value = \"qa-token-41bb\" }\n\
                      permissions = [\"read\", \"promote:qa\"]\n";
    for (pushed, expected) in [("v4", "v4"), ("v1", "v2")] {
        let slow = Slow::default();
        let builder = crate::fleet()
            .file("environments/staging/user-service.yaml", &deployed("v0"))
            .file("environments/qa/user-service.yaml", &deployed("v0"))
            .settings(QA);
        let (registry, fleet) = third_of(builder, &slow).await;
        let body = json!({"to": "qa", "repositories": ["user-service"], "tag": "v2"});
        let (status, taken) = fleet.api_as("qa-token-41bb", "POST", "/promotions", Some(body), &[]).await;
        assert_eq!(status, 202, "{taken}");
        fleet.eventually("the registry is asked about v2", async || slow.is_asked()).await;
        fleet.push_image("user-service", pushed).await;
        // Another delivery than before.
        let image = format!("{}:{pushed}", fleet.repository("user-service"));
        let (_, answer) = fleet.deliver_body(&json!({"image": image, "id": "again"}).to_string()).await;
        slow.release();
        let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
        let path = format!("/promotions/{}?wait=60", taken["id"].as_str().unwrap());
        let (_, done) = fleet.api("GET", &path, None).await;
        let state = done["updates"][0]["state"].as_str().unwrap();
        // If the push came before the promotion was written, both are one change.
        let is_expected = state == "committed" || (state == "superseded" && pushed == "v4");
        assert!(is_expected, "{pushed}: {done:#} {event:#}");
        assert_eq!(fleet.running("qa", "user-service"), expected, "{pushed}: {event:#}");
        registry.stop().await;
    }
}

/// Replaces the answers to requests for config blobs.
#[derive(Clone, Default)]
struct Blobs(Arc<Mutex<Option<StatusCode>>>);

async fn refuse_blobs(State(Blobs(status)): State<Blobs>, request: Request, next: Next) -> Response {
    let status = *status.lock().unwrap();
    let is_read = request.method() == Method::GET
        && request.uri().path().starts_with("/v2/")
        && request.uri().path().contains("/blobs/");
    match status.filter(|_| is_read) {
        Some(StatusCode::TEMPORARY_REDIRECT) => {
            // Blob storage whose links have expired.
            let host = request.headers()["host"].to_str().unwrap().replace("127.0.0.1", "localhost");
            let location = format!("http://{host}/expired{}", request.uri().path());
            (StatusCode::TEMPORARY_REDIRECT, [("location", location)]).into_response()
        }
        Some(status) => status.into_response(),
        None => next.run(request).await,
    }
}

#[tokio::test]
async fn build_of_unreadable_age_waits() {
    let blobs = Blobs::default();
    let layer = from_fn_with_state(blobs.clone(), refuse_blobs);
    let front = |routes: axum::Router| routes.fallback(async || StatusCode::FORBIDDEN).layer(layer);
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let fleet = crate::fleet().registry(&registry.host()).service("user-service").start().await;
    let built = |day: i64| Timestamp::from_second(1_760_000_000 + day * 86_400).unwrap();
    for (digit, day) in [('1', 100), ('2', 101)] {
        fleet.push_image_built("user-service", &sha(digit), built(day)).await;
        let (_, answer) = fleet.deliver("user-service", &sha(digit)).await;
        let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
        assert_eq!(event["state"], "committed", "{event:#}");
    }
    let mut held = Vec::new();
    for (digit, status) in [('3', 400), ('4', 401), ('5', 403), ('6', 307)] {
        *blobs.0.lock().unwrap() = Some(StatusCode::from_u16(status).unwrap());
        fleet.push_image_built("user-service", &sha(digit), built(i64::from(digit as u32))).await;
        let (_, answer) = fleet.deliver("user-service", &sha(digit)).await;
        let id = answer["events"][0]["id"].as_str().unwrap().to_owned();
        fleet
            .eventually("it waits with a reason", async || {
                let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
                assert_ne!(event["state"], "committed", "{status}: {event:#}");
                event["state"] == "queued" && event["reason"].is_string()
            })
            .await;
        let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
        let reason = event["reason"].as_str().unwrap();
        let expected = if status == 307 { "the blob storage" } else { "the build time cannot be read" };
        assert!(reason.contains(expected), "{status}: {reason}");
        held.push(id);
    }
    assert_eq!(fleet.running("staging", "user-service"), sha('2'));
    *blobs.0.lock().unwrap() = None;
    for id in held {
        let event = fleet.settled(&id).await;
        assert_eq!((&event["state"], &event["updates"][0]["decided_by"]), (&json!("refused"), &json!("build_time")));
    }
    registry.stop().await;
}
