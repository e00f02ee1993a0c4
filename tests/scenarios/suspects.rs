//! Work that ends the process is found and refused, and everything else gets through.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde_json::Value;
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::{API_TOKEN, Fleet, sha};

/// Ends the program when it asks for a tag, as a manifest would that exhausts its memory.
#[derive(Clone)]
struct Deadly {
    tag: String,
    signal: &'static str,
    /// 0: the program has just been started.
    process: Arc<AtomicU32>,
    deaths: Arc<AtomicU32>,
}

async fn end_the_process(State(deadly): State<Deadly>, request: Request, next: Next) -> Response {
    if !request.uri().path().ends_with(&deadly.tag) {
        return next.run(request).await;
    }
    while deadly.process.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let process = deadly.process.load(Ordering::SeqCst).to_string();
    let _ = Command::new("kill").args([&format!("-{}", deadly.signal), &process]).status();
    deadly.deaths.fetch_add(1, Ordering::SeqCst);
    std::future::pending().await
}

/// The event; `None`: the program is not there.
async fn event(fleet: &Fleet, id: &str) -> Option<Value> {
    let request = fleet.client.get(fleet.url(&format!("/api/v1/events/{id}"))).bearer_auth(API_TOKEN);
    request.send().await.ok()?.json().await.ok()
}

#[tokio::test]
async fn event_that_ends_the_process_is_refused_and_others_get_through() {
    for signal in ["KILL", "ABRT"] {
        let deadly = Deadly { tag: sha('6'), signal, process: Arc::default(), deaths: Arc::default() };
        let layer = from_fn_with_state(deadly.clone(), end_the_process);
        let front = |routes: axum::Router| routes.layer(layer);
        let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
        let builder = crate::fleet().registry(&registry.host()).server("catch_up = \"off\"");
        let mut fleet = builder.service("user-service").service("order-service").start().await;
        fleet.push_image("order-service", &sha('1')).await;
        // The image itself is never read: its tag is enough.
        let id = deliver(&fleet, "user-service", &sha('6')).await;
        let good = deliver(&fleet, "order-service", &sha('1')).await;
        deadly.process.store(fleet.pid(), Ordering::SeqCst);
        let mut starts = 1;
        loop {
            let before = deadly.deaths.load(Ordering::SeqCst);
            let mut refused = None;
            // From the third start on, the suspect runs after everything else.
            while deadly.deaths.load(Ordering::SeqCst) == before && refused.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                refused = event(&fleet, &id).await.filter(|event| event["state"] == "refused");
            }
            if let Some(refused) = refused {
                let reason = refused["reason"].as_str().unwrap();
                assert!(reason.starts_with("it ended the process three times, alone"), "{reason}");
                break;
            }
            deadly.process.store(0, Ordering::SeqCst);
            fleet.kill();
            fleet.start().await;
            deadly.process.store(fleet.pid(), Ordering::SeqCst);
            starts += 1;
            assert!(starts < 10, "{signal}: {}", fleet.log());
        }
        // Twice among others, three times alone.
        assert_eq!((starts, deadly.deaths.load(Ordering::SeqCst)), (6, 5), "{signal}");
        assert_eq!(fleet.settled(&good).await["state"], "committed");
        // Another delivery does not bring it back.
        deliver(&fleet, "user-service", &sha('6')).await;
        assert_eq!(event(&fleet, &id).await.unwrap()["state"], "refused");
        registry.stop().await;
    }
}

async fn deliver(fleet: &Fleet, service: &str, tag: &str) -> String {
    let (status, answer) = fleet.deliver(service, tag).await;
    assert!(status == 202 || status == 200, "{answer}");
    answer["events"][0]["id"].as_str().unwrap().to_owned()
}
