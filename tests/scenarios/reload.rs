//! Settings that change while the program runs.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use tagrelay_test_support::fleet::{Builder, Fleet, GENERIC_SECRET, sha};
use tagrelay_test_support::settings::QA;

const ADMIN: &str = "admin-token-0c77";

fn builder() -> Builder {
    crate::fleet().service("user-service").settings(&format!(
        "\n[[api_token]]\nname = \"admin\"\ntoken = {{ value = \"{ADMIN}\" }}\npermissions = [\"admin\"]\n"
    ))
}

async fn ready(fleet: &Fleet) {
    fleet
        .eventually("it is ready", async || {
            fleet.client.get(fleet.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
}

fn settings(fleet: &Fleet) -> String {
    std::fs::read_to_string(fleet.settings_file()).unwrap()
}

/// Writes settings as an editor does: a new file with the same name.
fn write(fleet: &Fleet, text: &str) {
    let new = fleet.folder().join("new.toml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, fleet.settings_file()).unwrap();
}

async fn reload(fleet: &Fleet) -> (u16, Value) {
    fleet.api_as(ADMIN, "POST", "/reload", None, &[]).await
}

fn hang_up(fleet: &Fleet) {
    assert!(Command::new("kill").args(["-HUP", &fleet.pid().to_string()]).status().unwrap().success());
}

async fn metric(fleet: &Fleet, line: &str) -> String {
    let text = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("there is no {line} in\n{text}")).to_owned()
}

async fn reloads(fleet: &Fleet, outcome: &str) -> u32 {
    metric(fleet, &format!("tagrelay_config_reload_total{{outcome=\"{outcome}\"}}")).await.parse().unwrap()
}

fn second_receiver() -> String {
    format!("\n[[receiver]]\nname = \"second\"\nkind = \"generic\"\nsecret = {{ value = \"{GENERIC_SECRET}\" }}\n")
}

#[tokio::test]
async fn reload_by_api_takes_effect_at_once() {
    let qa = tagrelay_test_support::fleet::deployment(&format!("REGISTRY/uyou/user-service:{}", sha('0')));
    let fleet = builder().file("environments/qa/user-service.yaml", &qa).start().await;
    ready(&fleet).await;
    let (status, answer) = fleet.api("POST", "/reload", None).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(reload(&fleet).await, (200, json!({ "changes": [] })));

    write(&fleet, &format!("{}{QA}{}", settings(&fleet), second_receiver()));
    let (status, answer) = reload(&fleet).await;
    assert_eq!(status, 200, "{answer}");
    let added = |section, name| json!({ "section": section, "name": name, "change": "added" });
    assert_eq!(answer["changes"], json!([added("[[environment]]", "qa"), added("[[receiver]]", "second")]));
    assert!(!answer.to_string().contains(GENERIC_SECRET));

    // The new receiver and readiness are available without interruption.
    let ready = fleet.client.get(fleet.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200, "{}", ready.text().await.unwrap());
    fleet.push_image("user-service", &sha('1')).await;
    let body = json!({ "image": format!("{}:{}", fleet.repository("user-service"), sha('1')) }).to_string();
    let request = fleet.client.post(fleet.url("/webhooks/second"));
    let request = request.header("X-Tagrelay-Signature", tagrelay_test_support::fleet::signature(&body)).body(body);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event}");
    assert_eq!((fleet.running("qa", "user-service"), fleet.running("staging", "user-service")), (sha('1'), sha('1')));

    // And back: the removed receiver is gone.
    let before = settings(&fleet).replace(QA, "").replace(&second_receiver(), "");
    write(&fleet, &before);
    assert_eq!(reload(&fleet).await.0, 200);
    assert_eq!(fleet.client.post(fleet.url("/webhooks/second")).send().await.unwrap().status(), 404);
    let event = fleet.settled(&fleet.announce("user-service", &sha('2')).await).await;
    assert_eq!(event["state"], "committed");
    assert_eq!((fleet.running("qa", "user-service"), fleet.running("staging", "user-service")), (sha('1'), sha('2')));
}

#[tokio::test]
async fn stream_of_a_revoked_token_ends_at_the_reload() {
    const WATCHER: &str = "watcher-token-55d1";
    let watcher =
        format!("\n[[api_token]]\nname = \"watcher\"\ntoken = {{ value = \"{WATCHER}\" }}\npermissions = [\"read\"]\n");
    let fleet = builder().settings(&watcher).start().await;
    ready(&fleet).await;
    let open = async |token: &str| {
        let stream = fleet.client.get(fleet.url("/api/v1/stream")).bearer_auth(token).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        stream
    };
    let mut kept = open(ADMIN).await;
    let before = settings(&fleet);
    for changed in [before.replace(&watcher, &watcher.replace("read", "replay")), before.replace(&watcher, "")] {
        let revoked = open(WATCHER).await;
        write(&fleet, &changed);
        assert_eq!(reload(&fleet).await.0, 200);
        revoked.text().await.unwrap();
        write(&fleet, &before);
        assert_eq!(reload(&fleet).await.0, 200);
    }
    // Another token's stream goes on over all reloads.
    fleet.announce("user-service", &sha('1')).await;
    let chunk = kept.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&chunk).contains("event"), "{chunk:?}");
}

#[tokio::test]
async fn faulty_settings_are_reported_and_not_applied() {
    let fleet = builder().start().await;
    ready(&fleet).await;
    let good = settings(&fleet);
    let lines = good.lines().count();
    write(
        &fleet,
        &format!(
            "{good}{QA}shade = 1\n[[receiver]]\nname = \"third\"\nkind = \"hrbr\"\nsecret = {{ value = \"x\" }}\n"
        ),
    );
    let (status, problem) = reload(&fleet).await;
    assert_eq!(status, 422, "{problem}");
    let faults = problem["faults"].as_array().unwrap();
    let told: Vec<_> =
        faults.iter().map(|fault| (fault["line"].as_u64().unwrap(), fault["message"].as_str().unwrap())).collect();
    let line = |offset| (lines + offset) as u64;
    assert_eq!(
        told,
        [(line(6), "unknown key `shade` in [[environment]]"), (line(9), "there is no sender called `hrbr`")]
    );
    assert!(problem["detail"].as_str().unwrap().contains(&format!("tagrelay.toml:{}:", line(9))), "{problem}");
    assert_eq!((reloads(&fleet, "failed").await, metric(&fleet, "tagrelay_config_is_current").await), (1, "0".into()));
    assert!(fleet.log().contains("settings not reloaded; the old ones stay in force"));
    let (_, matrix) = fleet.api("GET", "/environments", None).await;
    assert_eq!(matrix["environments"].as_array().unwrap().len(), 2, "none of it is in force");
    let event = fleet.settled(&fleet.announce("user-service", &sha('1')).await).await;
    assert_eq!(event["state"], "committed", "the old settings work on");

    // A change that needs a restart is also a fault with a position.
    let port = fleet.address().port();
    write(&fleet, &good.replace(&format!("127.0.0.1:{port}"), "127.0.0.1:1").replace("tagrelay.db", "other.db"));
    let (status, problem) = reload(&fleet).await;
    assert_eq!(status, 422, "{problem}");
    let faults = problem["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{problem}");
    assert_eq!((&faults[0]["line"], &faults[1]["line"]), (&json!(2), &json!(6)));
    assert_eq!(faults[0]["message"], "`listen` in [server] cannot change while the service runs");
    let tls = "[server]\ntls = { certificate = \"a.pem\", key = { value = \"k\" } }";
    write(&fleet, &good.replacen("[server]", tls, 1));
    let (status, problem) = reload(&fleet).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["faults"][0]["message"], "`tls` in [server] cannot change while the service runs");

    write(&fleet, &good);
    assert_eq!(reload(&fleet).await.0, 200);
    assert_eq!((reloads(&fleet, "ok").await, metric(&fleet, "tagrelay_config_is_current").await), (1, "1".into()));
}

/// Like kubelet: the files are links through `..data`, which is swapped to another folder.
#[tokio::test]
async fn config_map_swap_and_sighup_reload_settings() {
    let fleet = builder().start().await;
    ready(&fleet).await;
    let good = settings(&fleet);
    let folder = fleet.folder();
    let swap = |version: &str, text: &str| {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("tagrelay.toml"), text).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    swap("..v1", &good);
    std::os::unix::fs::symlink("..data/tagrelay.toml", folder.join("link")).unwrap();
    std::fs::rename(folder.join("link"), fleet.settings_file()).unwrap();
    fleet.eventually("the link is followed", async || reloads(&fleet, "ok").await == 1).await;
    swap("..v2", &format!("{good}{}", second_receiver()));
    let known = async || fleet.client.post(fleet.url("/webhooks/second")).send().await.unwrap().status() == 401;
    fleet.eventually("the swapped folder is read", known).await;
    fleet.eventually("it is logged", async || fleet.log().contains("[[receiver]] second: added")).await;

    swap("..v3", "nonsense");
    fleet.eventually("the fault is counted", async || reloads(&fleet, "failed").await == 1).await;
    assert!(known().await);
    // A fault is logged once, however often the file is checked, and again at each SIGHUP.
    hang_up(&fleet);
    fleet.eventually("SIGHUP is handled", async || reloads(&fleet, "failed").await == 2).await;
    swap("..v4", &good);
    let unknown = async || fleet.client.post(fleet.url("/webhooks/second")).send().await.unwrap().status() == 404;
    fleet.eventually("the good settings are back", unknown).await;
    // The counter changes shortly after the settings.
    fleet.eventually("it is counted", async || reloads(&fleet, "ok").await == 3).await;
    assert_eq!(reloads(&fleet, "failed").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn burst_during_reloads_loses_no_event() {
    const SERVICES: usize = 12;
    const TAGS: [char; 3] = ['1', '2', '3'];
    let services: Vec<String> = (0..SERVICES).map(|number| format!("service-{number}")).collect();
    let fleet = services.iter().fold(builder(), |builder, service| builder.service(service)).start().await;
    ready(&fleet).await;
    for service in &services {
        for tag in TAGS {
            fleet.push_image(service, &sha(tag)).await;
        }
    }
    let fleet = Arc::new(fleet);
    let done = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (fleet, done) = (fleet.clone(), done.clone());
        async move {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                for path in ["/holds", "/events?limit=1", "/receivers"] {
                    let (status, answer) = fleet.api("GET", path, None).await;
                    assert_eq!(status, 200, "{answer}");
                }
                let ready = fleet.client.get(fleet.url("/readyz")).send().await.unwrap().status();
                assert_eq!(ready, 200);
                asked += 1;
            }
            asked
        }
    });
    let delivering = tokio::spawn({
        let (fleet, services) = (fleet.clone(), services.clone());
        async move {
            for tag in TAGS {
                for service in &services {
                    let (status, answer) = fleet.deliver(service, &sha(tag)).await;
                    assert_eq!(status, 202, "{answer}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    });
    let good = settings(&fleet);
    for round in 0..20 {
        // Each round changes environments, receivers and registries in turn.
        let text = match round % 4 {
            0 => format!("{good}{QA}"),
            1 => format!("{good}{}", second_receiver()),
            2 => {
                good.replace("plain_http = true", "plain_http = true\nusername = \"me\"\npassword = { value = \"pw\" }")
            }
            _ => good.clone(),
        };
        write(&fleet, &text);
        let (status, answer) = reload(&fleet).await;
        assert_eq!(status, 200, "{answer}\n{}", fleet.log());
        assert_ne!(answer["changes"], json!([]));
    }
    delivering.await.unwrap();
    fleet
        .eventually("everything is written", async || {
            services.iter().all(|service| fleet.running("staging", service) == sha('3'))
        })
        .await;
    done.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
    let open = async |state| fleet.api("GET", &format!("/events?state={state}"), None).await.1["events"].clone();
    fleet
        .eventually("every event has ended", async || {
            open("queued").await == json!([]) && open("pending").await == json!([])
        })
        .await;
    let (_, all) = fleet.api("GET", "/events?limit=1000", None).await;
    let events = all["events"].as_array().unwrap();
    assert_eq!(events.len(), SERVICES * TAGS.len());
    // On a busy machine, a newer build may be decided first.
    let is_fine = |event: &Value| match event["state"].as_str().unwrap() {
        "refused" => event["reason"].as_str().unwrap().starts_with("older: "),
        state => matches!(state, "committed" | "superseded"),
    };
    assert!(events.iter().all(is_fine), "{all:#}");
    assert_eq!(reloads(&fleet, "failed").await, 0);
    assert!(!fleet.log().contains("panicked"), "{}", fleet.log());
}

#[tokio::test]
async fn update_waiting_for_removed_environment_is_refused() {
    let qa = tagrelay_test_support::fleet::deployment(&format!("REGISTRY/uyou/user-service:{}", sha('0')));
    let fleet = builder().file("environments/qa/user-service.yaml", &qa).start().await;
    ready(&fleet).await;
    let before = settings(&fleet);
    write(&fleet, &format!("{before}{QA}"));
    assert_eq!(reload(&fleet).await.0, 200);
    let hold = json!({"environment": "qa", "repository": "user-service"});
    let (status, answer) = fleet.api_as(ADMIN, "POST", "/holds", Some(hold), &[]).await;
    assert_eq!(status, 201, "{answer}");
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "waiting");

    write(&fleet, &before);
    assert_eq!(reload(&fleet).await.0, 200);
    fleet
        .eventually("nothing waits for qa any more", async || metric(&fleet, "tagrelay_pending_updates").await == "0")
        .await;
    let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
    let updates = event["updates"].as_array().unwrap();
    let of = |name: &str| updates.iter().find(|update| update["environment"] == name).unwrap();
    assert_eq!(of("staging")["state"], "committed", "{event:#}");
    let reason = "the settings no longer have the environment `qa`";
    assert_eq!((&of("qa")["state"], &of("qa")["reason"]), (&json!("refused"), &json!(reason)), "{event:#}");
}
