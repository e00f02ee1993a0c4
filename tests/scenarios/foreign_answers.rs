//! Hostile answers cost little memory.

use http::StatusCode;
use serde_json::json;
use tagrelay_image::Digest;
use tagrelay_test_support::fleet::{Fleet, sha};

/// Uploads bytes as a blob of a service. Returns the digest.
async fn upload(fleet: &Fleet, service: &str, bytes: Vec<u8>) -> String {
    let digest = Digest::of(&bytes).to_string();
    let place = format!("http://{}/v2/uyou/{service}/blobs/uploads/?digest={digest}", fleet.registry_host());
    let answer = fleet.client.post(place).body(bytes).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    digest
}

/// Pushes an image whose config is `config`.
async fn push(fleet: &Fleet, service: &str, tag: &str, config: Vec<u8>) {
    let size = config.len();
    let config = upload(fleet, service, config).await;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size });
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [] });
    let place = format!("http://{}/v2/uyou/{service}/manifests/{tag}", fleet.registry_host());
    let answer = fleet.client.put(place).header("Content-Type", kind).body(manifest.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

/// As `serde_json::Value`, the config takes 70 bytes for each of its three bytes.
#[tokio::test]
async fn config_of_a_million_tiny_objects_costs_little_memory() {
    let fleet = crate::fleet().service("user-service").start().await;
    fleet.push_image("user-service", &sha('a')).await;
    let (_, answer) = fleet.deliver("user-service", &sha('a')).await;
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    let before = fleet.peak_memory_kib();
    let mut config = br#"{"created":"2026-01-02T03:04:05Z","history":["#.to_vec();
    config.extend(b"{},".repeat(1_300_000));
    config.extend(b"{}]}");
    assert!(config.len() < 4 << 20);
    push(&fleet, "user-service", &sha('b'), config).await;
    let (status, answer) = fleet.deliver("user-service", &sha('b')).await;
    assert_eq!(status, 202);
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    // The time that the config states was read.
    assert_eq!(event["state"], "refused", "{event:#}");
    assert!(event["reason"].as_str().unwrap().contains("newer by build time"), "{event:#}");
    let more = (fleet.peak_memory_kib() - before) >> 10;
    assert!(more < 32, "{more} MiB more");
}

#[tokio::test]
async fn reason_has_a_limit() {
    let fleet = crate::fleet().service("user-service").start().await;
    let long = "a".repeat(1001);
    for (path, body) in [
        ("/promotions", json!({ "to": "production", "reason": long })),
        ("/rollbacks", json!({ "environment": "production", "repository": "user-service", "reason": long })),
        ("/holds", json!({ "environment": "production", "repository": "user-service", "reason": long })),
    ] {
        let (status, answer) = fleet.api("POST", path, Some(body)).await;
        assert_eq!(status, 422, "{path}: {answer}");
        assert_eq!(answer["detail"], "`reason` has 1001 characters: give at most 1000", "{path}");
    }
    let body = json!({ "environment": "production", "repository": "user-service", "reason": "ä".repeat(1000) });
    assert_eq!(fleet.api("POST", "/holds", Some(body)).await.0, 201);
}
