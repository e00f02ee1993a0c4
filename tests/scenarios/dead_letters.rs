//! Failed events and requests: lists, attempts, replays. Also how ended updates are counted and logged.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tagrelay_embedded_registry::EmbeddedRegistry;

use tagrelay_test_support::fleet::{API_TOKEN, Fleet, deployment, sha};
use tagrelay_test_support::settings::QA;

fn tagrelay(fleet: &Fleet, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(crate::PROGRAM)
        .args(arguments)
        .args(["--server", &fleet.url("/")])
        .env("TAGRELAY_TOKEN", API_TOKEN)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

async fn failed(fleet: &Fleet) -> Vec<String> {
    let (status, list) = fleet.api("GET", "/events?state=failed", None).await;
    assert_eq!(status, 200, "{list}");
    list["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn count(fleet: &Fleet, metric: &str, label: &str, outcome: &str) -> Option<u32> {
    let text = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let name = format!("{metric}{{{label},outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
}

fn attempts(event: &Value) -> Vec<(Option<&str>, &str, &str)> {
    let log = event["attempt_log"].as_array().unwrap();
    let text = |attempt: &'_ Value, name: &str| attempt[name].as_str().unwrap().to_owned();
    log.iter().for_each(|attempt| assert!(text(attempt, "at").ends_with('Z'), "{attempt}"));
    log.iter()
        .map(|attempt| {
            let word = |name: &str| attempt[name].as_str().unwrap();
            (attempt["environment"].as_str(), word("asked"), word("answered"))
        })
        .collect()
}

#[tokio::test]
async fn refused_event_lists_its_attempts_and_can_be_replayed() {
    let fleet = crate::fleet().service("user-service").start().await;
    let (_, answer) = fleet.deliver("user-service", &sha('1')).await;
    let id = answer["events"][0]["id"].as_str().unwrap();
    let event = fleet.settled(id).await;
    assert_eq!(event["state"], "refused", "{event}");
    assert_eq!(failed(&fleet).await, [id]);
    let tried = attempts(&event);
    assert!(tried.len() > 2, "it was asked for several times: {tried:?}");
    let (last, before) = tried.split_last().unwrap();
    assert!(before.iter().all(|attempt| attempt.1 == "registry" && attempt.2.contains(" has no ")), "{tried:?}");
    assert_eq!((last.0, last.1), (None, "registry"));
    assert!(last.2.starts_with("refused: ") && last.2.contains(" has no "), "{tried:?}");

    let (done, told) = tagrelay(&fleet, &["events", "--state", "failed"]);
    assert!(done && told.contains(id), "{told}");
    let (done, told) = tagrelay(&fleet, &["events", "show", id]);
    assert!(done && told.contains("failed attempts") && told.contains("registry"), "{told}");

    fleet.push_image("user-service", &sha('1')).await;
    let (done, told) = tagrelay(&fleet, &["events", "replay", id]);
    assert!(done, "{told}");
    let event = fleet.settled(id).await;
    assert_eq!(event["state"], "committed", "{event}");
    assert_eq!(attempts(&event).last().unwrap().1, "replay");
    let trace_id = event["trace_id"].as_str().unwrap();
    let log = fleet.log();
    let told = log.lines().find(|line| line.contains("\"event replayed\"")).unwrap();
    assert!(told.contains(trace_id), "{told}");
    assert_eq!(failed(&fleet).await, Vec::<String>::new());
    let (done, told) = tagrelay(&fleet, &["events", "replay", id]);
    assert!(!done && told.contains("only refused events"), "{told}");
}

#[tokio::test]
async fn events_refused_by_one_environment_are_listed_and_replayed_together() {
    let services = ["user-service", "order-service"];
    let qa = |service: &str, tag: char| deployment(&format!("REGISTRY/uyou/{service}:{}", sha(tag)));
    let fleet = services.iter().fold(crate::fleet().settings(QA), |builder, service| {
        builder.service(service).file(&format!("environments/qa/{service}.yaml"), &qa(service, '5'))
    });
    let fleet = fleet.start().await;
    let mut ids = Vec::new();
    for service in services {
        // qa runs a build that is newer than the announced one.
        fleet.push_image(service, &sha('5')).await;
        let id = {
            fleet.push_image_built(service, &sha('1'), Timestamp::now() - Duration::from_secs(3600)).await;
            let (_, answer) = fleet.deliver(service, &sha('1')).await;
            answer["events"][0]["id"].as_str().unwrap().to_owned()
        };
        let event = fleet.settled(&id).await;
        assert_eq!(event["state"], "committed", "staging has it: {event}");
        let refused = attempts(&event)
            .iter()
            .any(|attempt| attempt.0 == Some("qa") && attempt.1 == "rules" && attempt.2.contains("older: 5555555"));
        assert!(refused, "{event}");
        ids.insert(0, id);
    }
    assert_eq!(failed(&fleet).await, ids);
    let (_, list) = fleet.api("GET", "/events?state=failed", None).await;
    assert_eq!(list["events"][0]["refused_in"][0]["environment"], "qa", "{list:#}");
    let (_, told) = tagrelay(&fleet, &["events", "--state", "failed"]);
    let because = "committed  refused in qa: older: 5555555";
    assert_eq!(told.matches(because).count(), 2, "{told}");
    let (_, before) = fleet.api("GET", &format!("/events/{}", ids[1]), None).await;
    let (_, refused) = fleet.api("GET", "/events?state=refused", None).await;
    assert_eq!(refused["events"], json!([]));
    let (status, problem) = fleet.api("POST", "/events/replay", Some(json!({ "state": "queued" }))).await;
    assert_eq!(status, 422, "{problem}");

    for service in services {
        let text = qa(service, '0').replace("REGISTRY", fleet.repository(service).split('/').next().unwrap());
        fleet.upstream.commit("back by hand", &[(&format!("environments/qa/{service}.yaml"), &text)]);
    }
    let one = fleet.repository("user-service");
    let (done, told) = tagrelay(&fleet, &["events", "replay", "--all", "--repository", &one]);
    assert!(done && told.contains(&ids[1]) && !told.contains(&ids[0]), "{told}");
    let after = fleet.settled(&ids[1]).await;
    assert_eq!(after["state"], "committed");
    let decided = |event: &Value| -> Vec<(String, String)> {
        let steps = event["explanation"].as_array().unwrap().iter().filter(|step| step["step"] == "decided");
        steps.map(|step| (step["at"].to_string(), step["text"].to_string())).collect()
    };
    let (before, after) = (decided(&before), decided(&after));
    assert_eq!((before.len(), after.len()), (2, 3), "{after:?}");
    assert_eq!(after[..2], before, "earlier steps keep their time");
    assert!(after[2].0 > after[1].0, "{after:?}");
    fleet.eventually("qa has it", async || fleet.running("qa", "user-service") == sha('1')).await;
    assert_eq!(fleet.running("qa", "order-service"), sha('0'));

    let (done, told) = tagrelay(&fleet, &["events", "replay", "--all", "--json"]);
    assert!(done, "{told}");
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), json!({ "replayed": [ids[0]] }));
    fleet.eventually("nothing is left", async || failed(&fleet).await.is_empty()).await;
    fleet.eventually("qa has both", async || fleet.running("qa", "order-service") == sha('1')).await;
    let (_, told) = tagrelay(&fleet, &["events", "replay", "--all"]);
    assert!(told.contains("no events to replay"), "{told}");
}

#[tokio::test]
async fn event_of_several_environments_is_counted_once() {
    let qa = deployment(&format!("REGISTRY/uyou/user-service:{}", sha('0')));
    let fleet = crate::fleet().settings(QA).service("user-service").file("environments/qa/user-service.yaml", &qa);
    let fleet = fleet.start().await;
    let repository = format!("repository=\"{}\"", fleet.repository("user-service"));
    let first = fleet.settled(&fleet.announce("user-service", &sha('1')).await).await;
    assert_eq!((first["state"].as_str(), first["updates"].as_array().unwrap().len()), (Some("committed"), 2));
    let events = async |outcome| count(&fleet, "tagrelay_events_total", &repository, outcome).await;
    fleet.eventually("it is counted", async || events("committed").await == Some(1)).await;
    for environment in ["environment=\"staging\"", "environment=\"qa\""] {
        assert_eq!(count(&fleet, "tagrelay_updates_total", environment, "committed").await, Some(1));
    }

    // When a hold ends, the older of two waiting updates ends in the same transaction.
    let mut holds = Vec::new();
    for environment in ["staging", "qa"] {
        let hold = json!({ "environment": environment, "repository": "user-service" });
        let (status, made) = fleet.api("POST", "/holds", Some(hold)).await;
        assert_eq!(status, 201, "{made}");
        holds.push(made["id"].as_str().unwrap().to_owned());
    }
    let older = fleet.announce("user-service", &sha('2')).await;
    assert_eq!(fleet.settled(&older).await["state"], "waiting");
    let newer = fleet.announce("user-service", &sha('3')).await;
    assert_eq!(fleet.settled(&newer).await["state"], "waiting");
    for hold in holds {
        fleet.api("DELETE", &format!("/holds/{hold}"), None).await;
    }
    fleet.eventually("the newer one is written", async || events("committed").await == Some(2)).await;
    assert_eq!(events("superseded").await, Some(1));
    let ended = |state: &str| {
        let log = fleet.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_end = |line: &Value| line["message"] == "update finished" && line["cause_id"] == older.as_str();
        lines.filter(|line| is_end(line) && line["state"] == state).count()
    };
    assert_eq!(ended("superseded"), 2, "{}", fleet.log());
}

#[tokio::test]
async fn failed_attempts_name_the_peer_and_failed_requests_are_listed() {
    let fleet =
        crate::fleet().service("user-service").image("source = \"file:///nowhere/user-service.git\"").start().await;
    // The source repository is unreachable.
    let id = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the source was asked", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
            attempts(&event).iter().any(|attempt| attempt.1 == "source")
        })
        .await;
    // The registry does not have this image, and no rule matches the other one.
    let (_, answer) = fleet.deliver("user-service", "latest").await;
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(attempts(&event).last().unwrap().1, "rules", "{event:#}");

    let body = json!({"to": "production", "repositories": ["user-service"], "tag": sha('9')});
    let promoted = fleet.request("/promotions", body).await;
    assert_eq!(promoted["state"], "refused", "{promoted:#}");
    let promotion = promoted["id"].as_str().unwrap();
    let body = json!({"environment": "production", "repository": "user-service", "to": sha('8')});
    let rollback = fleet.request("/rollbacks", body).await;
    assert_eq!(rollback["state"], "refused", "{rollback:#}");
    let (_, list) = fleet.api("GET", "/events?state=failed", None).await;
    let ids: Vec<&Value> = list["requests"].as_array().unwrap().iter().map(|request| &request["id"]).collect();
    assert_eq!(ids, [&rollback["id"], &promoted["id"]], "{list:#}");
    for (request, tag) in list["requests"].as_array().unwrap().iter().zip(['8', '9']) {
        let reason = request["reason"].as_str().unwrap();
        assert!(
            request["updates"].as_array().unwrap().len() == 1 && reason.contains(&format!(":{tag}")),
            "{request:#}"
        );
    }
    let (done, told) = tagrelay(&fleet, &["events", "--state", "failed"]);
    let line = told.lines().find(|line| line.contains(promotion)).unwrap();
    assert!(done && line.contains("promotion in production") && line.contains(" has no uyou/user-service:9"), "{told}");
    let (_, other) = fleet.api("GET", "/events?state=failed&repository=uyou/other", None).await;
    assert_eq!((&other["events"], &other["requests"]), (&json!([]), &json!([])));
    let (_, all) = fleet.api("GET", "/events", None).await;
    assert_eq!(all["requests"], Value::Null);
    // A refused rollback leaves no hold, even if it is repeated or after a crash.
    let mut fleet = fleet;
    for _ in 0..2 {
        let body = json!({"environment": "production", "repository": "user-service", "to": sha('8'), "hold_for": "4h"});
        assert_eq!(fleet.request("/rollbacks", body).await["state"], "refused");
        fleet.kill();
        fleet.start().await;
        let (_, holds) = fleet.api("GET", "/holds", None).await;
        assert_eq!(holds["holds"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_retries_a_rate_limited_event_at_once() {
    let (is_limited, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (limited, questions) = (is_limited.clone(), asked.clone());
    let front = |routes: axum::Router| {
        routes.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let (limited, questions) = (limited.clone(), questions.clone());
            async move {
                if request.method() != http::Method::PUT && request.uri().path().ends_with(&sha('1')) {
                    questions.fetch_add(1, Ordering::SeqCst);
                    if limited.load(Ordering::SeqCst) {
                        return (http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", "86400")]).into_response();
                    }
                }
                next.run(request).await
            }
        }))
    };
    let registry = EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, front).await.unwrap();
    let fleet = crate::fleet().registry(&registry.host()).service("user-service").start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    let event = async || fleet.api("GET", &format!("/events/{id}"), None).await.1;
    fleet.eventually("the event is postponed", async || event().await["next_attempt_at"].is_string()).await;
    // Docker Hub's window of six hours, and not the requested day.
    let wait = |event: &Value| {
        let time = |key: &str| event[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        time("next_attempt_at").duration_since(time("received_at")).as_secs()
    };
    let before = event().await;
    assert!((6 * 3600..8 * 3600).contains(&wait(&before)), "{before:#}");

    // The registry still answers 429: the replay asks once and postpones again.
    let (done, told) = tagrelay(&fleet, &["events", "replay", &id]);
    assert!(done && told.contains("it starts now") && told.contains("429"), "{told}");
    fleet.eventually("the event is postponed again", async || event().await["attempts"] == 2).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(wait(&event().await) >= 6 * 3600);

    is_limited.store(false, Ordering::SeqCst);
    let (status, answer) = fleet.api("POST", &format!("/events/{id}/replay"), None).await;
    assert_eq!(status, 202, "{answer}");
    let hastened = answer["hastened"].as_str().unwrap();
    assert!(hastened.starts_with("the next attempt was due at 20") && hastened.contains("429"), "{hastened}");
    let event = fleet.settled(&id).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(attempts(&event).iter().filter(|attempt| attempt.1 == "replay").count(), 2);
}
