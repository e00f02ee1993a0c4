//! Freezes by API and settings: waiting and exempt updates.

use serde_json::{Value, json};

use tagrelay_test_support::fleet::{Builder, Fleet, READ_TOKEN, sha};

const TOKEN: &str = "freezer-token-51aa";

fn builder() -> Builder {
    crate::fleet().service("user-service").service("order-service").settings(&format!(
        "\n[[api_token]]\nname = \"freezer\"\ntoken = {{ value = \"{TOKEN}\" }}\n\
         permissions = [\"read\", \"freeze:*\", \"promote:*\", \"rollback:*\", \"hold:*\", \"override:production\"]\n"
    ))
}

async fn api(fleet: &Fleet, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    fleet.api_as(TOKEN, method, path, body, &[]).await
}

async fn freeze(fleet: &Fleet, body: Value) -> String {
    let (status, made) = api(fleet, "POST", "/freezes", Some(body)).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn thaw(fleet: &Fleet, id: &str) {
    let (status, answer) = api(fleet, "DELETE", &format!("/freezes/{id}"), None).await;
    assert_eq!(status, 204, "{answer}");
}

/// Requests a promotion or rollback, and returns it when it is no longer pending.
async fn asked(fleet: &Fleet, path: &str, body: Value) -> Value {
    let (status, taken) = api(fleet, "POST", path, Some(body)).await;
    assert_eq!(status, 202, "{taken}");
    let id = taken["id"].as_str().unwrap();
    let (_, ended) = api(fleet, "GET", &format!("/promotions/{id}?wait=60"), None).await;
    assert_ne!(ended["state"], "pending", "{ended:#}\n{}", fleet.log());
    ended
}

async fn environment(fleet: &Fleet, name: &str) -> Value {
    let (_, matrix) = fleet.api("GET", "/environments", None).await;
    matrix["environments"].as_array().unwrap().iter().find(|found| found["name"] == name).unwrap().clone()
}

fn trailer(fleet: &Fleet, key: &str) -> String {
    fleet.upstream.git(&["log", "-1", &format!("--format=%(trailers:key={key},valueonly)"), "main"]).trim().to_owned()
}

#[tokio::test]
async fn updates_wait_during_freeze_and_the_newest_become_one_commit() {
    let mut fleet = builder().start().await;
    let id = freeze(&fleet, json!({"environment": "staging", "reason": "incident 42"})).await;
    let first = fleet.announce("user-service", &sha('1')).await;
    let event = fleet.settled(&first).await;
    let reason = format!("`staging` is frozen until it is thawed by {id} (freezer: incident 42)");
    assert_eq!((&event["state"], &event["reason"]), (&json!("waiting"), &json!(reason)), "{event:#}");

    // A restart changes nothing.
    fleet.kill();
    fleet.start().await;
    let second = fleet.announce("user-service", &sha('2')).await;
    let other = fleet.announce("order-service", &sha('3')).await;
    for id in [&first, &second, &other] {
        assert_eq!(fleet.settled(id).await["state"], "waiting");
    }
    let staging = environment(&fleet, "staging").await;
    assert_eq!(staging["freeze"]["reason"], reason);
    assert_eq!((&staging["freeze"]["until"], &staging["freeze"]["by"][0]["id"]), (&Value::Null, &json!(id)));
    let waiting = |cell: usize| staging["repositories"][cell]["waiting"].as_array().unwrap().clone();
    assert_eq!((waiting(0).len(), waiting(1).len()), (1, 2), "{staging:#}");
    assert_eq!((&waiting(0)[0]["tag"], &waiting(0)[0]["reason"]), (&json!(sha('3')), &json!(reason)));
    assert_eq!(environment(&fleet, "production").await["freeze"], Value::Null);
    assert_eq!(fleet.upstream.subjects(), ["begin"]);

    thaw(&fleet, &id).await;
    for (id, state) in [(&first, "superseded"), (&second, "committed"), (&other, "committed")] {
        assert_eq!(fleet.settled(id).await["state"], state, "{}", fleet.log());
    }
    assert_eq!(fleet.upstream.subjects(), ["staging: 2 images", "begin"]);
    assert_eq!(fleet.running("staging", "user-service"), sha('2'));
    assert_eq!(environment(&fleet, "staging").await["freeze"], Value::Null);
    let (_, list) = fleet.api("GET", "/freezes", None).await;
    assert_eq!(list, json!({"freezes": [], "windows": []}));
    assert_eq!(api(&fleet, "DELETE", &format!("/freezes/{id}"), None).await.0, 404);
}

#[tokio::test]
async fn freeze_holds_back_promotions_but_not_overrides_and_rollbacks() {
    let fleet = builder().start().await;
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('0')).await;
        assert_eq!(fleet.settled(&fleet.announce(service, &sha('1')).await).await["state"], "committed");
    }
    let id = freeze(&fleet, json!({"environment": "production", "reason": "sales week"})).await;
    let promotion = |service: &str| json!({"to": "production", "repositories": [service]});
    let mut dry = promotion("user-service");
    dry["dry_run"] = json!(true);
    let (status, preview) = api(&fleet, "POST", "/promotions", Some(dry)).await;
    assert_eq!((status, &preview["updates"][0]["state"]), (200, &json!("waiting")), "{preview:#}");
    assert!(preview["diff"].as_str().unwrap().contains(&sha('1')), "the diff is shown in spite of the freeze");

    let waiting = asked(&fleet, "/promotions", promotion("user-service")).await;
    assert_eq!(waiting["state"], "waiting", "{waiting:#}");
    let reason = format!("`production` is frozen until it is thawed by {id} (freezer: sales week)");
    assert_eq!(waiting["updates"][0]["reason"], reason);
    assert_eq!(fleet.running("production", "user-service"), sha('0'));

    // It needs a permission and a reason.
    let mut urgent = promotion("order-service");
    urgent["override"] = json!(true);
    assert_eq!(api(&fleet, "POST", "/promotions", Some(urgent.clone())).await.0, 422);
    urgent["reason"] = json!("hotfix");
    assert_eq!(fleet.api("POST", "/promotions", Some(urgent.clone())).await.0, 403);
    let done = asked(&fleet, "/promotions", urgent).await;
    assert_eq!((&done["state"], &done["overridden"]), (&json!("committed"), &json!(reason)), "{done:#}");
    assert_eq!(trailer(&fleet, "Tagrelay-Override"), "hotfix");
    assert_eq!(fleet.running("production", "order-service"), sha('1'));

    let back = json!({"environment": "production", "repository": "order-service", "reason": "worse"});
    let back = asked(&fleet, "/rollbacks", back).await;
    assert_eq!(back["state"], "committed", "{back:#}");
    assert_eq!(back["overridden"], format!("{reason}; rollbacks ignore freezes"));
    assert_eq!(trailer(&fleet, "Tagrelay-Override"), "worse");
    assert_eq!(fleet.running("production", "order-service"), sha('0'));

    thaw(&fleet, &id).await;
    let waited = format!("/promotions/{}?wait=60", waiting["id"].as_str().unwrap());
    let (_, ended) = api(&fleet, "GET", &waited, None).await;
    assert_eq!(ended["state"], "committed", "{ended:#}");
    assert_eq!(fleet.running("production", "user-service"), sha('1'));
}

#[tokio::test]
async fn waiting_promotion_does_not_replace_newer_versions() {
    let fleet = builder().start().await;
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('0')).await;
        assert_eq!(fleet.settled(&fleet.announce(service, &sha('1')).await).await["state"], "committed");
    }
    let freeze = freeze(&fleet, json!({"environment": "production", "reason": "sales week"})).await;
    let promotion = |service: &str| json!({"to": "production", "repositories": [service]});
    let waiting = asked(&fleet, "/promotions", json!({"to": "production"})).await;
    assert_eq!((&waiting["state"], waiting["updates"].as_array().unwrap().len()), (&json!("waiting"), 2));

    // A newer version passes, and the older update ends: nothing shows it as waiting.
    assert_eq!(fleet.settled(&fleet.announce("order-service", &sha('2')).await).await["state"], "committed");
    let mut urgent = promotion("order-service");
    urgent.as_object_mut().unwrap().extend([("override".into(), true.into()), ("reason".into(), "hotfix".into())]);
    assert_eq!(asked(&fleet, "/promotions", urgent).await["state"], "committed");
    let row = environment(&fleet, "production").await;
    let shown = |cell: usize| row["repositories"][cell]["waiting"].as_array().map_or(0, Vec::len);
    assert_eq!((shown(0), shown(1)), (0, 1), "{row:#}");

    // A foreign commit is newer than the earlier request.
    fleet.push_image("user-service", &sha('7')).await;
    let text = tagrelay_test_support::fleet::deployment(&format!("{}:{}", fleet.repository("user-service"), sha('7')));
    fleet.upstream.commit("by hand", &[("environments/production/user-service.yaml", &text)]);
    thaw(&fleet, &freeze).await;
    let id = waiting["id"].as_str().unwrap();
    fleet
        .eventually("the promotion has ended", async || {
            api(&fleet, "GET", &format!("/promotions/{id}"), None).await.1["state"] == "superseded"
        })
        .await;
    let (_, ended) = api(&fleet, "GET", &format!("/promotions/{id}"), None).await;
    let reasons: Vec<&str> =
        ended["updates"].as_array().unwrap().iter().map(|update| update["reason"].as_str().unwrap()).collect();
    let overtaken = format!("older: {} was written to production later", sha('2'));
    let by_hand = "production was changed to 7777777 by another commit after the request: promote again if it is still \
                   wanted";
    assert!(reasons.contains(&by_hand) && reasons.contains(&&*overtaken), "{ended:#}");
    assert_eq!(fleet.running("production", "user-service"), sha('7'));
    assert_eq!(fleet.running("production", "order-service"), sha('2'));
    assert_eq!(asked(&fleet, "/promotions", promotion("user-service")).await["state"], "committed");
    assert_eq!(fleet.running("production", "user-service"), sha('1'));
}

#[tokio::test]
async fn freeze_window_ends_when_the_settings_remove_it() {
    let window = "freeze = [{ from = \"2026-01-01T00:00:00Z\", until = 2099-01-01T00:00:00Z, reason = \"moving\" }]";
    let mut fleet = builder().environment_settings("staging", window).start().await;
    let event = fleet.announce("user-service", &sha('1')).await;
    let found = fleet.settled(&event).await;
    let reason = "`staging` is frozen until 2099-01-01T00:00:00Z by the settings (moving: 2026-01-01T00:00:00Z to \
                  2099-01-01T00:00:00Z)";
    assert_eq!((&found["state"], &found["reason"]), (&json!("waiting"), &json!(reason)), "{found:#}");
    let (_, list) = fleet.api("GET", "/freezes", None).await;
    assert_eq!(list["windows"][0]["active"], true, "{list:#}");
    fleet.kill();
    fleet.start().await;
    // The pipeline runs again: it decides another event.
    let other = fleet.announce("order-service", &sha('1')).await;
    for event in [&other, &event] {
        assert_eq!(fleet.settled(event).await["state"], "waiting");
    }
    assert_eq!(fleet.upstream.subjects(), ["begin"]);

    let text = std::fs::read_to_string(fleet.settings_file()).unwrap();
    std::fs::write(fleet.settings_file(), text.replace(window, "")).unwrap();
    let pid = fleet.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    fleet.eventually("the update is written", async || fleet.running("staging", "user-service") == sha('1')).await;
    assert_eq!(fleet.settled(&event).await["state"], "committed");
}

#[tokio::test]
async fn freeze_stops_pending_updates_and_expires() {
    let fleet = builder().repository_settings("quiet_period = \"2s\"").start().await;
    let event = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("it is pending", async || {
            fleet.api("GET", &format!("/events/{event}"), None).await.1["state"] == "pending"
        })
        .await;
    let id = freeze(&fleet, json!({"environment": "staging", "reason": "audit", "freeze_for": "4s"})).await;
    let found = fleet.settled(&event).await;
    assert_eq!(found["state"], "waiting", "{found:#}");
    assert!(found["reason"].as_str().unwrap().contains(&id), "{found:#}");
    fleet.eventually("the update is written", async || fleet.running("staging", "user-service") == sha('1')).await;
    assert_eq!(fleet.settled(&event).await["state"], "committed");
    fleet.eventually("the end is logged", async || fleet.log().contains("environment thawed")).await;
}

#[tokio::test]
async fn invalid_freezes_are_refused() {
    let fleet = builder().start().await;
    let body = |more: Value| {
        let mut body = json!({"environment": "staging", "reason": "audit"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, detail) in [
        (json!({"environment": "stagin"}), "there is no environment `stagin`"),
        (json!({"reason": " "}), "`reason` is empty"),
        (json!({"until": "tomorrow"}), "`until`"),
        (json!({"until": "2020-01-01T00:00:00Z"}), "`until` is in the past"),
        (json!({"freeze_for": "1 month"}), "`freeze_for`"),
        (json!({"freeze_for": "1h", "until": "2099-01-01T00:00:00Z"}), "leave one out"),
        (json!({"fro": "1h"}), "fro"),
    ] {
        let (status, problem) = api(&fleet, "POST", "/freezes", Some(body(more))).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{detail}: {problem}");
    }
    assert_eq!(fleet.api_as(READ_TOKEN, "POST", "/freezes", Some(body(json!({}))), &[]).await.0, 403);
    let id = freeze(&fleet, body(json!({"until": "2099-01-01T00:00:00+01:00"}))).await;
    assert_eq!(fleet.api_as(READ_TOKEN, "DELETE", &format!("/freezes/{id}"), None, &[]).await.0, 403);
    let (_, list) = fleet.api_as(READ_TOKEN, "GET", "/freezes", None, &[]).await;
    assert_eq!(list["freezes"][0]["expires_at"], "2098-12-31T23:00:00Z", "{list:#}");
    let (_, document) = fleet.api("GET", "/openapi.json", None).await;
    for (path, method) in [("/api/v1/freezes", "post"), ("/api/v1/freezes", "get"), ("/api/v1/freezes/{id}", "delete")]
    {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
}

#[tokio::test]
async fn freeze_ends_with_its_environment() {
    let fleet = builder().start().await;
    let frozen = freeze(&fleet, json!({"environment": "production", "reason": "audit"})).await;
    let kept = freeze(&fleet, json!({"environment": "staging", "reason": "incident"})).await;
    let hang_up = |text: &str| {
        std::fs::write(fleet.settings_file(), text).unwrap();
        let pid = fleet.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    let ids = async || -> Vec<Value> {
        let (_, list) = fleet.api("GET", "/freezes", None).await;
        list["freezes"].as_array().unwrap().iter().map(|freeze| freeze["id"].clone()).collect()
    };
    let with = std::fs::read_to_string(fleet.settings_file()).unwrap();
    assert_eq!(with.matches("name = \"production\"").count(), 1);
    hang_up(&with.replace("\"production\"", "\"live\"").replace(":production\"", ":live\""));
    fleet.eventually("it ends", async || ids().await == [json!(kept)]).await;
    // The store has it a moment later.
    fleet.eventually("it is logged", async || fleet.log().contains("freeze ended")).await;
    let log = fleet.log();
    let told = log.lines().find(|line| line.contains("freeze ended")).unwrap();
    assert!(told.contains(&frozen) && told.contains("no longer have the environment"), "{told}");
    hang_up(&with);
    fleet.eventually("it is back", async || environment_names(&fleet).await.contains(&"production".to_owned())).await;
    assert_eq!(environment(&fleet, "production").await["freeze"], Value::Null);
    assert_eq!(ids().await, [json!(kept)]);
}

#[tokio::test]
async fn updates_frozen_in_a_removed_environment_are_refused_before_the_freeze_ends() {
    let fleet = builder().start().await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    let frozen = freeze(&fleet, json!({"environment": "production", "reason": "audit"})).await;
    let promoted = asked(&fleet, "/promotions", json!({"to": "production", "repositories": ["user-service"]})).await;
    assert_eq!(promoted["state"], "waiting", "{promoted:#}");
    // The writer is in the middle of a push to production: a rollback passes the freeze.
    let begun = fleet.folder().join("begun");
    fleet.upstream.hook("pre-receive", &format!("touch {}; sleep 2", begun.display()));
    fleet.push_image("order-service", &sha('3')).await;
    let rollback = json!({"environment": "production", "repository": "order-service", "to": sha('3')});
    let (status, taken) = api(&fleet, "POST", "/rollbacks", Some(rollback)).await;
    assert_eq!(status, 202, "{taken}");
    fleet.eventually("the push is under way", async || begun.exists()).await;

    let with = std::fs::read_to_string(fleet.settings_file()).unwrap();
    let without = with.replace("\"production\"", "\"live\"").replace(":production\"", ":live\"");
    std::fs::write(fleet.settings_file(), without).unwrap();
    let pid = fleet.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    fleet.eventually("it is gone", async || environment_names(&fleet).await.contains(&"live".to_owned())).await;
    let is_frozen = async || api(&fleet, "GET", "/freezes", None).await.1["freezes"][0]["id"] == frozen.as_str();
    fleet.eventually("it ends", async || !is_frozen().await).await;
    let path = format!("/promotions/{}", promoted["id"].as_str().unwrap());
    let (_, ended) = api(&fleet, "GET", &path, None).await;
    assert_eq!(ended["state"], "refused", "{ended:#}");
    assert!(ended["reason"].as_str().unwrap().contains("no longer have the environment `production`"), "{ended:#}");
    assert!(fleet.upstream.file("environments/production/user-service.yaml").contains(&sha('0')));
    assert!(fleet.upstream.file("environments/production/order-service.yaml").contains(&sha('3')));
}

async fn environment_names(fleet: &Fleet) -> Vec<String> {
    let (_, matrix) = fleet.api("GET", "/environments", None).await;
    let rows = matrix["environments"].as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}
