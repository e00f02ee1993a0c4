//! Kills at random moments: nothing acknowledged is lost, and nothing is committed twice.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use serde_json::{Value, json};
use tagrelay_test_support::fleet::signature;

use crate::failures::commits_of;

/// `TAGRELAY_KILLS` sets another number: 200 before a release.
const KILLS: usize = 12;

const SERVICES: usize = 4;

/// Sends a webhook. Returns the id of its event; `None` if the program was killed before it answered.
async fn send(client: &reqwest::Client, url: &str, image: String) -> Option<String> {
    let body = json!({ "image": image }).to_string();
    let request = client.post(url).header("X-Tagrelay-Signature", signature(&body)).body(body);
    let answer = request.send().await.ok()?;
    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.ok()?;
    Some(answer["events"][0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn kills_at_random_moments_lose_nothing_and_repeat_nothing() {
    let kills = std::env::var("TAGRELAY_KILLS").ok().map_or(KILLS, |text| text.parse().unwrap());
    let mut builder = crate::fleet();
    for number in 0..SERVICES {
        builder = builder.service(&format!("service-{number}"));
    }
    let mut fleet = builder.start().await;
    // The number of a tag is the order in which the images were built and announced.
    let tag = |number: usize| format!("{number:040x}");
    let mut answered: HashMap<String, (String, usize)> = HashMap::new();
    for round in 1..=kills {
        for service in 0..SERVICES {
            fleet.push_image(&format!("service-{service}"), &tag(round)).await;
        }
        let senders: Vec<_> = (0..SERVICES)
            .map(|number| {
                let service = format!("service-{number}");
                let image = format!("{}:{}", fleet.repository(&service), tag(round));
                let (client, url) = (fleet.client.clone(), fleet.url("/webhooks/ci"));
                tokio::spawn(async move { (service, send(&client, &url, image).await) })
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(RandomState::new().hash_one(round) % 120_000)).await;
        fleet.kill();
        for sender in senders {
            if let (service, Some(id)) = sender.await.unwrap() {
                answered.insert(id, (service, round));
            }
        }
        fleet.start().await;
    }
    let mut newest: HashMap<String, usize> = HashMap::new();
    for (id, (service, round)) in &answered {
        let event = fleet.settled(id).await;
        let state = event["state"].as_str().unwrap();
        assert!(["committed", "superseded", "unchanged", "refused"].contains(&state), "{event:#}");
        let commits = commits_of(&fleet, service, &tag(*round));
        assert_eq!(commits, usize::from(state == "committed"), "{service} {round}: {event:#}");
        let known = newest.entry(service.clone()).or_default();
        *known = (*known).max(*round);
    }
    assert!(!answered.is_empty());
    for (service, round) in newest {
        // An event without an answer may have been stored, and is newer then.
        let running = usize::from_str_radix(&fleet.running("staging", &service), 16).unwrap();
        assert!(running >= round, "{service} runs {running}, and {round} was acknowledged");
    }
    fleet.upstream.git(&["fsck", "--strict", "--no-dangling"]);
}
