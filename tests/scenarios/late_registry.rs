//! Registries that are behind their own webhook, and what comes of it. Nothing else happens meanwhile, so that nothing
//! but the clock can make the event go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use serde_json::Value;
use tagrelay::cli::demo::registry::EmbeddedRegistry;

use super::fleet::{Fleet, sha};

/// Answers the first `left` questions for a manifest with `status`.
#[derive(Clone)]
struct Late {
    left: Arc<AtomicUsize>,
    status: StatusCode,
}

async fn hold_back(State(late): State<Late>, request: Request, next: Next) -> Response {
    let asks = request.method() == Method::HEAD && request.uri().path().contains("/manifests/");
    let take = |left: usize| left.checked_sub(1);
    if asks && late.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
        return late.status.into_response();
    }
    next.run(request).await
}

/// Returns what becomes of an event whose registry needs `questions` questions until it knows the image.
async fn event_of(questions: usize, status: StatusCode) -> Value {
    let late = Late { left: Arc::new(AtomicUsize::new(questions)), status };
    let front = |routes: axum::Router| routes.layer(from_fn_with_state(late, hold_back));
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let fleet = Fleet::builder().registry(&registry.host()).service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&id).await;
    registry.stop().await;
    event
}

#[tokio::test]
async fn what_is_not_there_yet_is_asked_for_again() {
    let event = event_of(2, StatusCode::NOT_FOUND).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(event["attempts"], 2);
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again() {
    let event = event_of(1, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(event["attempts"], 1);
}

#[tokio::test]
async fn what_stays_away_is_refused() {
    let event = event_of(usize::MAX, StatusCode::NOT_FOUND).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.ends_with(&format!("has no uyou/user-service:{}", sha('1'))), "{reason}");
}
