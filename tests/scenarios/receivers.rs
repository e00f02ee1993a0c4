//! Setting up a receiver and checking that it works.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tagrelay_webhook::Kind;

use tagrelay_test_support::fleet::{Fleet, READ_TOKEN, sha};
use tagrelay_test_support::git_tls::Door;
use tagrelay_test_support::issuer::Issuer;

const SECRET: &str = "a-secret-of-every-kind-41bd";

/// A fleet with a receiver of every kind, named after its kind.
async fn fleet_of_all_kinds() -> Fleet {
    Kind::ALL
        .iter()
        .filter(|kind| kind.announces_images())
        .fold(crate::fleet().service("user-service"), |builder, kind| {
            let registry = if kind.needs_registry() { "registry = \"registry.example.com\"\n" } else { "" };
            let secret = format!("secret = {{ value = \"{SECRET}\" }}");
            builder.receiver(&format!("name = \"{kind}\"\nkind = \"{kind}\"\n{registry}{secret}"))
        })
        .start()
        .await
}

/// Runs `tagrelay webhook send` with the secret in the environment.
fn send(fleet: &Fleet, kind: &str, receiver: &str, image: &str, more: &[&str]) -> Output {
    Command::new(crate::PROGRAM)
        .args(["webhook", "send", "--kind", kind, "--image", image, "--url"])
        .arg(fleet.url(&format!("/webhooks/{receiver}")))
        .args(["--secret-env", "RECEIVER_SECRET"])
        .args(more)
        .env("RECEIVER_SECRET", SECRET)
        .output()
        .unwrap()
}

fn image(kind: Kind) -> String {
    let host = match kind.name() {
        "docker-hub" => "docker.io",
        "ghcr" => "ghcr.io",
        "ecr" => "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        "aliyun-acr" => "registry.cn-shanghai.aliyuncs.com",
        _ => "registry.example.com",
    };
    format!("{host}/uyou/user-service:{}", sha('a'))
}

async fn receiver(fleet: &Fleet, name: &str) -> Value {
    let (status, list) = fleet.api_as(READ_TOKEN, "GET", "/receivers", None, &[]).await;
    assert_eq!(status, 200, "{list}");
    list["receivers"].as_array().unwrap().iter().find(|receiver| receiver["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn sample_of_every_kind_is_accepted_and_shown_by_the_receiver() {
    let fleet = fleet_of_all_kinds().await;
    for kind in Kind::ALL.iter().filter(|kind| kind.announces_images()) {
        let name = kind.name();
        let before = receiver(&fleet, name).await;
        assert_eq!((&before["last_heard"], &before["last_accepted_at"]), (&Value::Null, &Value::Null));
        assert_eq!(before["kind"], name);
        assert!(before["url_path"].as_str().unwrap().starts_with(&format!("/webhooks/{name}")), "{before}");
        for told in ["events", "credential", "sender"] {
            assert!(!before[told].as_str().unwrap().is_empty(), "{before}");
        }
        assert!(!before.to_string().contains(SECRET), "{before}");

        let output = send(&fleet, name, name, &image(*kind), &["--json"]);
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{name}: {stdout}{stderr}");
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        let event = &answer["events"][0];
        assert_eq!(event["state"], "queued", "{name}: {answer}");
        let taken = format!("{}:{}", event["repository"].as_str().unwrap(), event["tag"].as_str().unwrap());
        assert_eq!(taken, image(*kind), "{name}");

        let after = receiver(&fleet, name).await;
        assert_eq!(after["last_heard"]["outcome"], "accepted", "{after}");
        assert_eq!(after["last_heard"]["at"], after["last_accepted_at"]);
    }
    let query_tokens = receiver(&fleet, "docker-hub").await;
    assert_eq!(query_tokens["url_path"], "/webhooks/docker-hub?token=SECRET");
}

#[tokio::test]
async fn rejected_sample_is_explained_with_advice() {
    let fleet = fleet_of_all_kinds().await;
    let told = |output: Output| (output.status.code(), String::from_utf8(output.stderr).unwrap());
    let (code, message) = told(send(&fleet, "quay", "harbor", &image(Kind::Harbor), &[]));
    assert_eq!(code, Some(1));
    assert!(message.contains("401") && message.contains("--kind and the secret"), "{message}");
    let (code, message) = told(send(&fleet, "harbor", "nobody", &image(Kind::Harbor), &[]));
    assert!(code == Some(1) && message.contains("404"), "{message}");
    let (code, message) = told(send(&fleet, "ecr", "ecr", &image(Kind::Harbor), &[]));
    assert!(code == Some(1) && message.contains("is not a registry of ECR"), "{message}");
    let (code, message) = told(send(&fleet, "harbour", "harbor", &image(Kind::Harbor), &[]));
    assert!(code == Some(2) && message.contains("there is no sender called"), "{message}");
    let refused = receiver(&fleet, "harbor").await;
    assert_eq!(refused["last_heard"]["outcome"], "unauthorized", "{refused}");
    assert_eq!(refused["last_accepted_at"], Value::Null);
}

#[tokio::test]
async fn same_id_is_the_same_event() {
    let fleet = fleet_of_all_kinds().await;
    fleet.push_image("user-service", &sha('1')).await;
    let image = format!("{}:{}", fleet.repository("user-service"), sha('1'));
    let sent = || {
        let output = send(&fleet, "distribution", "distribution", &image, &["--id", "one"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = sent();
    let words: Vec<&str> = first.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("queued", image.as_str()));
    assert_eq!(fleet.settled(words[1]).await["state"], "committed");
    let second = sent();
    let repeated: Vec<&str> = second.split_whitespace().collect();
    assert_eq!(repeated, [&["duplicate"], &words[1..]].concat());
}

/// Whether the store has this time as the receiver's last request.
async fn is_stored(fleet: &Fleet, at: i64) -> bool {
    use sqlx::Connection as _;
    let url = format!("sqlite:{}?mode=ro", fleet.folder().join("tagrelay.db").display());
    let mut store = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM receivers WHERE heard_at >= ?").bind(at);
    count.fetch_one(&mut store).await.is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn last_delivery_of_receiver_survives_restart() {
    let mut fleet = crate::fleet().service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet.settled(&id).await;
    let (status, _) = fleet.deliver_body("nonsense").await;
    assert_eq!(status, 200);
    let before = receiver(&fleet, "ci").await;
    assert_eq!(before["last_heard"]["outcome"], "ignored");
    assert!(before["last_accepted_at"].as_str().unwrap() < before["last_heard"]["at"].as_str().unwrap());
    let at = before["last_heard"]["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    fleet.eventually("the delivery is in the store", async || is_stored(&fleet, at).await).await;
    fleet.kill();
    fleet.start().await;
    let after = receiver(&fleet, "ci").await;
    let milliseconds = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert_eq!(milliseconds(&after["last_heard"]["at"]), milliseconds(&before["last_heard"]["at"]));
    assert_eq!(after["last_heard"]["outcome"], "ignored");
    assert_eq!(milliseconds(&after["last_accepted_at"]), milliseconds(&before["last_accepted_at"]));
    // After a restart, a request without an event keeps the last event.
    fleet.client.post(fleet.url("/webhooks/ci")).json(&json!({})).send().await.unwrap();
    let again = receiver(&fleet, "ci").await;
    assert_eq!(again["last_heard"]["outcome"], "unauthorized");
    assert_eq!(milliseconds(&again["last_accepted_at"]), milliseconds(&before["last_accepted_at"]));
}

#[tokio::test]
async fn receiver_without_signing_keys_answers_503() {
    let fleet = crate::fleet()
        .service("user-service")
        .receiver(
            "name = \"google\"\nkind = \"gar\"\nidentity_token = { issuer = \"https://accounts.google.com\", \
             audience = \"a\", account = \"b\", keys = { url = \"https://127.0.0.1:1/certs\" } }",
        )
        .start()
        .await;
    let url = fleet.url("/webhooks/google");
    // {"alg":"RS256","kid":"k"}
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.AAAA";
    for _ in 0..2 {
        let answer = fleet.client.post(&url).bearer_auth(token).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
    }
    assert_eq!(fleet.log().matches("keys cannot be fetched").count(), 1, "asked once a minute at most");
}

#[tokio::test]
async fn identity_tokens_are_checked_with_fetched_keys() {
    let issuer = Issuer::start().await;
    let door = Door::open(&issuer.url).await;
    let keys = format!("keys = {{ url = \"{}/certs\" }}", door.url);
    let token = format!("issuer = \"https://issuer.test\", audience = \"tagrelay\", account = \"pusher\", {keys}");
    let fleet = crate::fleet()
        .service("user-service")
        .authority(door.authority())
        .receiver(&format!("name = \"google\"\nkind = \"gar\"\nidentity_token = {{ {token} }}"))
        .start()
        .await;
    let sample = |tag: &str| {
        let push = tagrelay_webhook::SamplePush {
            repository: fleet.repository("user-service").parse().unwrap(),
            tag: tag.parse().unwrap(),
            digest: None,
            pushed_at: jiff::Timestamp::now(),
            id: tag.to_owned(),
        };
        Kind::Gar.sample(&push, None).unwrap()
    };
    let deliver = async |token: &str, tag: &str| {
        let request = sample(tag);
        let url = fleet.url("/webhooks/google");
        let answer = fleet.client.post(url).headers(request.headers).bearer_auth(token).body(request.body).send().await;
        answer.unwrap().status().as_u16()
    };
    assert_eq!(deliver(&issuer.token("pusher", 600), &sha('1')).await, 202, "{}", fleet.log());
    assert_eq!(deliver(&issuer.token("pusher", 600), &sha('2')).await, 202);
    assert_eq!(issuer.asked(), 1, "known keys are not fetched again");
    assert_eq!(deliver(&issuer.token("somebody", 600), &sha('3')).await, 401);
    assert_eq!(deliver(&issuer.token("pusher", -600), &sha('3')).await, 401);
    let forged = issuer.token("pusher", 600).replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(deliver(&forged, &sha('3')).await, 401);
    // Tokens with unknown key ids do not cause repeated key requests.
    issuer.rotate();
    for _ in 0..5 {
        assert_eq!(deliver(&issuer.token("pusher", 600), &sha('3')).await, 401);
    }
    assert_eq!(issuer.asked(), 1, "asked a moment ago");
}
