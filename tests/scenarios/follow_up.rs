//! After the push: refresh and rollout in Argo CD, and promotion gates.

use serde_json::{Value, json};

use tagrelay_test_support::argocd::{FakeArgoCd, TOKEN};
use tagrelay_test_support::fleet::{Builder, Fleet, sha};

const INCIDENT_TOKEN: &str = "incident-token-44aa";

/// The config repository's URL in Argo CD.
const REPOSITORY: &str = "https://git.example.com/uyou/platform-config.git";

/// A fleet with two services in their own folders, each with an application in staging and in production.
pub(super) fn with_folders() -> Builder {
    let mut builder = crate::fleet();
    for service in ["user-service", "order-service"] {
        for environment in ["staging", "production"] {
            let text = tagrelay_test_support::fleet::deployment(&format!("REGISTRY/uyou/{service}:{}", sha('0')));
            builder = builder.file(&format!("environments/{environment}/{service}/deployment.yaml"), &text);
        }
    }
    builder.repository_settings(&format!("argocd_url = \"{REPOSITORY}\"")).settings(&format!(
        "\n[[api_token]]\nname = \"incident\"\ntoken = {{ value = \"{INCIDENT_TOKEN}\" }}\n\
         permissions = [\"read\", \"promote:*\", \"override:production\"]\n"
    ))
}

pub(super) async fn four_applications() -> FakeArgoCd {
    let argocd = FakeArgoCd::start().await;
    for service in ["user-service", "order-service"] {
        for environment in ["staging", "production"] {
            argocd.add(
                &format!("{service}-{environment}"),
                REPOSITORY,
                &format!("environments/{environment}/{service}"),
            );
        }
    }
    argocd
}

pub(super) async fn start(builder: Builder, argocd: &FakeArgoCd) -> Fleet {
    let fleet = builder.settings(&argocd.settings()).start().await;
    argocd.reads(fleet.upstream.path());
    fleet
}

/// Waits until the rollout of an event's update has this state, and returns it.
pub(super) async fn rollout(fleet: &Fleet, event: &str, state: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..1500 {
        let (_, detail) = fleet.api("GET", &format!("/events/{event}"), None).await;
        last = detail["updates"][0]["rollout"].clone();
        if last["state"] == state {
            return last;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the rollout is not {state}: {last:#}\n{}", fleet.log());
}

pub(super) async fn environment(fleet: &Fleet, name: &str) -> Value {
    let (_, matrix) = fleet.api("GET", "/environments", None).await;
    matrix["environments"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn only_touched_applications_are_refreshed_and_followed() {
    let argocd = four_applications().await;
    let fleet = start(with_folders(), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "healthy").await;
    assert_eq!(argocd.refreshed(), ["user-service-staging"]);
    let app = &rollout["applications"][0];
    assert_eq!(rollout["applications"].as_array().unwrap().len(), 1, "{rollout:#}");
    assert_eq!((&app["name"], &app["namespace"]), (&json!("user-service-staging"), &json!("argocd")));
    assert_eq!((&app["revision"], &app["health"]), (&json!(fleet.upstream.tip()), &json!("Healthy")));
    let times = ["refreshed_at", "reached_at", "synced_at", "ended_at"].map(|key| app[key].as_str().unwrap());
    assert!(times.is_sorted() && times[0] < times[3], "{app:#}");
    assert_eq!(rollout["ended_at"], app["ended_at"]);

    let (_, history) = fleet.api("GET", "/history", None).await;
    assert_eq!(history["changes"][0]["rollout"], rollout);
    let row = environment(&fleet, "staging").await;
    let cell = row["repositories"].as_array().unwrap().iter().find(|cell| cell["rollout"].is_object()).unwrap();
    assert_eq!((&cell["repository"], &cell["rollout"]), (&json!(fleet.repository("user-service")), &rollout));
    assert_eq!(row["health"]["state"], "healthy", "{row:#}");

    let promoted = fleet.request("/promotions", json!({"to": "production", "repositories": ["user-service"]})).await;
    let path = format!("/promotions/{}", promoted["id"].as_str().unwrap());
    fleet
        .eventually("the promotion is rolled out", async || {
            fleet.api("GET", &path, None).await.1["rollout"]["state"] == "healthy"
        })
        .await;
    assert_eq!(argocd.refreshed(), ["user-service-staging", "user-service-production"]);
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "tagrelay_argocd_requests_total{operation=\"refresh\",outcome=\"ok\"} 2",
        "tagrelay_rollouts_total{environment=\"staging\",outcome=\"healthy\"} 1",
        "tagrelay_commit_to_healthy_seconds_count 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!fleet.log().contains(TOKEN));
}

#[tokio::test]
async fn degraded_rollout_is_shown_and_stops_nothing() {
    let argocd = four_applications().await;
    argocd.change("user-service-staging", |app| {
        app.script = vec![("OutOfSync", "Healthy"), ("Synced", "Progressing"), ("Synced", "Degraded")];
        app.message = format!("Deployment \"user-service\" exceeded its progress deadline (Bearer {TOKEN})");
    });
    let fleet = start(with_folders(), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "degraded").await;
    // A message that quotes our token is redacted.
    let expected = "exceeded its progress deadline (Bearer [redacted])";
    assert!(rollout["reason"].as_str().unwrap().contains(expected), "{rollout:#}");
    assert!(!fleet.log().contains(TOKEN));
    let row = environment(&fleet, "staging").await;
    assert_eq!(row["health"]["state"], "unhealthy", "{row:#}");
    assert_eq!(row["health"]["applications"][0]["health"], "Degraded");
    // Without `promote_when`, Argo CD is not asked.
    let promoted = fleet.request("/promotions", json!({"to": "production", "repositories": ["user-service"]})).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
}

#[tokio::test]
async fn rollout_is_followed_across_restart() {
    let argocd = four_applications().await;
    argocd.change("user-service-staging", |app| app.script = vec![("Synced", "Progressing")]);
    let mut fleet = start(with_folders(), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the application is underway", async || {
            let (_, detail) = fleet.api("GET", &format!("/events/{event}"), None).await;
            detail["updates"][0]["rollout"]["applications"][0]["health"] == "Progressing"
        })
        .await;
    fleet.kill();
    // A foreign commit follows, and Argo CD syncs that one.
    fleet.upstream.commit("docs", &[("README.md", "hello")]);
    let tip = fleet.upstream.tip();
    argocd.change("user-service-staging", |app| {
        (app.revision, app.health) = (tip.clone(), "Healthy".to_owned());
    });
    fleet.start().await;
    let rollout = rollout(&fleet, &event, "healthy").await;
    assert_eq!(rollout["applications"][0]["revision"], tip, "a descendant counts");
    assert_eq!(argocd.refreshed(), ["user-service-staging"], "it had been refreshed before");
}

#[tokio::test]
async fn commits_continue_while_argo_cd_is_unreachable() {
    let argocd = four_applications().await;
    argocd.goes_away(true);
    let fleet = start(with_folders(), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&event).await["state"], "committed");
    let waiting = rollout(&fleet, &event, "waiting").await;
    assert_eq!(waiting["applications"], json!([]));
    fleet.eventually("it is logged", async || fleet.log().contains("rollouts cannot be followed now")).await;
    // The log has it a moment before the store.
    fleet
        .eventually("the reason is shown", async || {
            let waiting = rollout(&fleet, &event, "waiting").await;
            waiting["reason"].as_str().is_some_and(|reason| reason.contains("503"))
        })
        .await;
    argocd.goes_away(false);
    rollout(&fleet, &event, "healthy").await;
}

#[tokio::test]
async fn promotion_from_unhealthy_environment_needs_override_with_reason() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    fleet.push_image("order-service", &sha('0')).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    argocd.change("order-service-staging", |app| app.health = "Degraded".to_owned());
    let body = |more: Value| {
        let mut body = json!({"to": "production", "repositories": ["user-service"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for more in [json!({}), json!({"dry_run": true}), json!({"tag": sha('1')})] {
        let (status, problem) = fleet.api("POST", "/promotions", Some(body(more))).await;
        assert_eq!(status, 409, "{problem}");
    }
    let (_, problem) = fleet.api("POST", "/promotions", Some(body(json!({})))).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("application argocd/order-service-staging is Synced and Degraded"), "{detail}");
    assert!(detail.contains("override:production"), "{detail}");

    // It needs a permission and a reason.
    let reasoned = body(json!({"override": true, "reason": "hotfix for\nTagrelay-Cause: the outage"}));
    assert_eq!(fleet.api("POST", "/promotions", Some(reasoned.clone())).await.0, 403);
    let incident = |body: Value| async { fleet.api_as(INCIDENT_TOKEN, "POST", "/promotions", Some(body), &[]).await };
    for more in [json!({"override": true}), json!({"override": true, "reason": " "})] {
        assert_eq!(incident(body(more)).await.0, 422);
    }
    let (status, taken) = incident(reasoned).await;
    assert_eq!(status, 202, "{taken}");
    assert!(taken["overridden"].as_str().unwrap().contains("is Synced and Degraded"), "{taken:#}");
    let (_, done) = fleet.api("GET", &format!("/promotions/{}?wait=60", taken["id"].as_str().unwrap()), None).await;
    assert_eq!(done["state"], "committed", "{done:#}");
    let trailer = |key: &str| {
        let format = format!("--format=%(trailers:key={key},valueonly)");
        fleet.upstream.git(&["log", "-1", &format, "main"]).trim().to_owned()
    };
    assert_eq!(trailer("Tagrelay-Override"), "hotfix for Tagrelay-Cause: the outage");
    assert!(trailer("Tagrelay-Cause").starts_with("promotion ") && trailer("Tagrelay-Cause").lines().count() == 1);

    // Without a gate or freeze there is nothing to override.
    argocd.change("order-service-staging", |app| app.health = "Healthy".to_owned());
    let open = body(json!({"repositories": ["order-service"], "override": true, "reason": "to be sure"}));
    let (_, taken) = incident(open).await;
    assert_eq!((&taken["overridden"], &taken["kind"]), (&Value::Null, &json!("promotion")), "{taken:#}");
    // A tag that no environment runs.
    fleet.push_image("user-service", &sha('9')).await;
    for more in [json!({"tag": sha('9')}), json!({"tag": sha('9'), "from": "staging"})] {
        let (status, problem) = fleet.api("POST", "/promotions", Some(body(more))).await;
        assert_eq!(status, 409, "{problem}");
    }
}

/// Shifts the stored health of applications by an hour while the program is stopped.
pub(super) async fn an_hour_later(fleet: &Fleet) {
    use sqlx::Connection as _;
    let url = format!("sqlite:{}", fleet.folder().join("tagrelay.db").display());
    let mut store = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let change = "UPDATE application_health SET healthy_since = healthy_since - 3600000";
    assert_eq!(sqlx::query(change).execute(&mut store).await.unwrap().rows_affected(), 2);
}

// The fake server must answer while the test waits for the program's end.
#[tokio::test(flavor = "multi_thread")]
async fn soak_time_starts_when_the_version_becomes_healthy() {
    let argocd = four_applications().await;
    let builder = with_folders().environment_settings("production", "soak = \"1h\"\ngate = \"environment\"");
    let mut fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let body = json!({"to": "production", "repositories": ["user-service"]});
    let (status, problem) = fleet.api("POST", "/promotions", Some(body.clone())).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("its soak time is 3600 s"), "{problem}");
    let row = environment(&fleet, "production").await;
    assert_eq!((&row["promote_when"], &row["soak_seconds"]), (&json!("healthy"), &json!(3600)));
    assert_eq!(fleet.terminate(), Some(0));
    an_hour_later(&fleet).await;
    fleet.start().await;
    assert_eq!(fleet.request("/promotions", body.clone()).await["state"], "committed");
    // A short failure restarts the soak time.
    argocd.change("user-service-staging", |app| app.health = "Degraded".to_owned());
    assert_eq!(fleet.api("POST", "/promotions", Some(body.clone())).await.0, 409);
    argocd.change("user-service-staging", |app| app.health = "Healthy".to_owned());
    let (status, problem) = fleet.api("POST", "/promotions", Some(body)).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("its soak time"), "{problem}");
}

#[tokio::test]
async fn version_in_rollout_is_not_healthy() {
    let argocd = four_applications().await;
    argocd.change("user-service-staging", |app| app.script = vec![("Synced", "Progressing")]);
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&event).await["state"], "committed");
    let body = json!({"to": "production", "repositories": ["user-service"]});
    let (status, problem) = fleet.api("POST", "/promotions", Some(body)).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("user-service 1111111 is being rolled out"), "{problem}");
}

#[tokio::test]
async fn promotion_is_refused_if_argo_cd_does_not_answer_in_time() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    argocd.stalls(true);
    let body = json!({"to": "production", "repositories": ["user-service"]});
    let (status, problem) = fleet.api("POST", "/promotions", Some(body)).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("did not answer within 5 s"), "{detail}");
}

#[tokio::test]
async fn gate_stays_closed_until_argo_cd_runs_the_version() {
    let argocd = four_applications().await;
    argocd.change("user-service-staging", |app| app.is_stuck = true);
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = builder.settings(&(argocd.settings() + "timeout = \"10s\"\n")).start().await;
    argocd.reads(fleet.upstream.path());
    let event = fleet.announce("user-service", &sha('1')).await;
    let late = rollout(&fleet, &event, "timed_out").await;
    let app = &late["applications"][0];
    let time = |key: &str| app[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("ended_at") >= time("refreshed_at") + jiff::SignedDuration::from_secs(10), "{app:#}");
    // Synced and Healthy with the previous version.
    assert_eq!(environment(&fleet, "staging").await["health"]["state"], "healthy");
    let body = json!({"to": "production", "repositories": ["user-service"]});
    let (status, problem) = fleet.api("POST", "/promotions", Some(body.clone())).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    let expected = "user-service 1111111 timed out, and application argocd/user-service-staging does not run it: it is \
                    at 0000000";
    assert!(detail.contains(expected), "{detail}");

    // A foreign commit follows, and Argo CD syncs that one.
    fleet.upstream.commit("docs", &[("README.md", "hello")]);
    let tip = fleet.upstream.tip();
    argocd.change("user-service-staging", |app| app.revision = tip);
    assert_eq!(fleet.request("/promotions", body).await["state"], "committed");
}

#[tokio::test]
async fn without_token_argo_cd_gets_a_git_webhook() {
    let argocd = FakeArgoCd::start().await;
    argocd.wants_secret("webhook-secret-81");
    let settings = format!(
        "\n[argocd]\nurl = \"{}\"\nwebhook = {{ secret = {{ value = \"webhook-secret-81\" }} }}\n",
        argocd.url()
    );
    let fleet = with_folders().settings(&settings).start().await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "told").await;
    let [(headers, body)] = argocd.webhooks().try_into().unwrap();
    assert_eq!(headers["x-github-event"], "push");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(body["ref"], "refs/heads/main");
    assert_eq!(body["after"], fleet.upstream.tip());
    assert_eq!(body["repository"]["html_url"], REPOSITORY.trim_end_matches(".git"));
    assert_eq!(body["repository"]["default_branch"], "main");
    assert_eq!(body["commits"][0]["modified"], json!(["environments/staging/user-service/deployment.yaml"]));
    assert!(argocd.requests().is_empty());
}

#[tokio::test]
async fn environments_can_name_their_applications() {
    let argocd = FakeArgoCd::start().await;
    argocd.add("by-name", "https://elsewhere.example.com/a.git", "a");
    argocd.add("by-label", "https://elsewhere.example.com/a.git", "a");
    argocd.add("other", "https://elsewhere.example.com/a.git", "a");
    // A plugin renders files of the environments.
    argocd.change("by-name", |app| app.renders = Some("environments/staging/user-service".to_owned()));
    argocd.change("by-label", |app| app.renders = Some("environments/production/user-service".to_owned()));
    argocd.change("by-label", |app| drop(app.labels.insert("env".to_owned(), "production".to_owned())));
    let builder = with_folders()
        .environment_settings("staging", "argocd = { app = \"argocd/by-name\" }")
        .environment_settings("production", "argocd = { labels = \"env=production\" }");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let promoted = fleet.request("/promotions", json!({"to": "production", "repositories": ["user-service"]})).await;
    let path = format!("/promotions/{}", promoted["id"].as_str().unwrap());
    fleet
        .eventually("the promotion is rolled out", async || {
            fleet.api("GET", &path, None).await.1["rollout"]["state"] == "healthy"
        })
        .await;
    assert_eq!(argocd.refreshed(), ["by-name", "by-label"]);
}

#[tokio::test]
async fn update_without_application_is_reported_as_untracked() {
    let argocd = FakeArgoCd::start().await;
    argocd.add("other", REPOSITORY, "elsewhere");
    let fleet = start(with_folders(), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "untracked").await;
    assert!(rollout["reason"].as_str().unwrap().contains("environments/staging/user-service/deployment.yaml"));
    assert!(argocd.refreshed().is_empty());
}

/// Runs a command against the fleet's server. Returns exit code and output.
fn command(fleet: &Fleet, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(crate::PROGRAM);
    command.args(arguments).env("TAGRELAY_SERVER", fleet.url("")).env("TAGRELAY_TOKEN", token);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

// The fake server must answer while the test waits for the command.
#[tokio::test(flavor = "multi_thread")]
async fn commands_show_rollouts_and_can_override() {
    let argocd = four_applications().await;
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('0')).await;
    }
    argocd.change("user-service-staging", |app| {
        app.script = vec![("Synced", "Degraded")];
        app.message = "Back-off restarting failed container".to_owned();
    });
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "degraded").await;
    let (code, refused) = command(&fleet, INCIDENT_TOKEN, &["promote", "--to", "production", "user-service"]);
    assert_eq!(code, Some(1), "{refused}");
    assert!(refused.contains("argocd/user-service-staging is Synced and Degraded"), "{refused}");
    let (code, status) = command(&fleet, INCIDENT_TOKEN, &["status"]);
    assert_eq!(code, Some(0), "{status}");
    for part in [
        "HEALTH",
        "unhealthy",
        "Rollouts\n  staging",
        "degraded  user-service-staging: Back-off restarting failed container",
        "Applications that are not healthy\n  staging  argocd/user-service-staging  Synced, Degraded",
    ] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    let (code, text) =
        command(&fleet, INCIDENT_TOKEN, &["promote", "--to", "production", "user-service", "--override"]);
    assert_eq!(code, Some(2), "{text}");
    let arguments = ["promote", "--to", "production", "user-service", "--override", "--reason", "hotfix"];
    let (code, text) = command(&fleet, INCIDENT_TOKEN, &arguments);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("overridden: `staging` is not healthy"), "{text}");
    assert_eq!(
        fleet.upstream.git(&["log", "-1", "--format=%(trailers:key=Tagrelay-Override,valueonly)", "main"]).trim(),
        "hotfix"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_command_asks_argo_cd() {
    let argocd = four_applications().await;
    let builder = with_folders()
        .environment_settings("production", "argocd = { app = [\"nobody\", \"user-service-production\"] }");
    let fleet = start(builder, &argocd).await;
    for service in ["user-service", "order-service"] {
        fleet.push_image(service, &sha('0')).await;
    }
    argocd.change("order-service-staging", |app| {
        app.children = vec!["unseen".to_owned()];
        app.images = Some(vec![format!("{}:{}", fleet.repository("order-service"), sha('0'))]);
    });
    argocd.add("tagged", REPOSITORY, "environments/staging/user-service");
    argocd.change("tagged", |app| app.spec["source"]["targetRevision"] = json!("v1.0.0"));
    let settings = fleet.settings_file();
    let check =
        |more: &[&str]| command(&fleet, "", &[&["check", "--config", settings.to_str().unwrap()], more].concat());
    let (code, text) = check(&[]);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "answers; its version is v2.13.1",
        "argocd/order-service-staging, argocd/user-service-staging",
        "Argo CD has no application `nobody`",
        "argocd/order-service-staging runs order-service; argocd/user-service-staging runs user-service",
        "the token may not see argocd/unseen, which argocd/order-service-staging names",
        "argocd/tagged does not belong to it: it reads `v1.0.0` instead of the branch",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let (code, text) = check(&["--offline"]);
    assert_eq!((code, text.contains("Argo CD")), (Some(0), false), "{text}");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("\"nobody\", ", "")).unwrap();
    assert_eq!(check(&[]).0, Some(0));
    std::fs::write(&settings, std::fs::read_to_string(&settings).unwrap().replace(TOKEN, "wrong")).unwrap();
    let (code, text) = check(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the token was rejected (401)") && !text.contains("wrong"), "{text}");
    argocd.goes_away(true);
    assert!(check(&[]).1.contains("503"));
}

#[tokio::test]
async fn stream_contains_rollouts() {
    use futures_util::StreamExt as _;
    let argocd = four_applications().await;
    let fleet = start(with_folders(), &argocd).await;
    let request = fleet.client.get(fleet.url("/api/v1/stream")).bearer_auth(tagrelay_test_support::fleet::API_TOKEN);
    let mut stream = request.send().await.unwrap().bytes_stream();
    fleet.announce("user-service", &sha('1')).await;
    let mut text = String::new();
    let heard = tokio::time::timeout(tagrelay_test_support::fleet::LIMIT, async {
        while !text.contains("\"healthy\"") {
            text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    });
    heard.await.unwrap();
    assert!(text.contains("event: rollout\n") && text.contains("\"following\""), "{text}");
}

#[tokio::test]
async fn rejected_argo_cd_webhook_is_reported() {
    let argocd = FakeArgoCd::start().await;
    argocd.wants_secret("webhook-secret-81");
    let settings = format!("\n[argocd]\nurl = \"{}\"\n", argocd.url());
    let fleet = with_folders().settings(&settings).start().await;
    let event = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the reason is shown", async || {
            let (_, detail) = fleet.api("GET", &format!("/events/{event}"), None).await;
            let reason = &detail["updates"][0]["rollout"]["reason"];
            reason.as_str().is_some_and(|reason| reason.contains("HMAC verification failed"))
        })
        .await;
    assert!(argocd.webhooks().is_empty());
}

#[tokio::test]
async fn source_environment_can_require_health() {
    let argocd = four_applications().await;
    let fleet = start(
        with_folders().environment_settings("staging", "promote_when = \"healthy\"\ngate = \"environment\""),
        &argocd,
    )
    .await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let body = json!({"to": "production", "repositories": ["user-service"]});
    argocd.change("user-service-staging", |app| app.sync = "OutOfSync".to_owned());
    let (status, problem) = fleet.api("POST", "/promotions", Some(body.clone())).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("is OutOfSync and Healthy"), "{problem}");
    argocd.change("user-service-staging", |app| app.sync = "Synced".to_owned());
    assert_eq!(fleet.request("/promotions", body).await["state"], "committed");
}

#[tokio::test]
async fn argo_cd_can_be_added_and_removed_by_reload() {
    let argocd = four_applications().await;
    let admin = "\n[[api_token]]\nname = \"admin\"\ntoken = { value = \"admin-token\" }\npermissions = [\"admin\"]\n";
    let fleet = with_folders().settings(admin).start().await;
    argocd.reads(fleet.upstream.path());
    let without = std::fs::read_to_string(fleet.settings_file()).unwrap();
    let reload = async |text: &str| {
        std::fs::write(fleet.settings_file(), text).unwrap();
        fleet.api_as("admin-token", "POST", "/reload", None, &[]).await
    };
    let first = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&first).await["updates"][0]["rollout"], Value::Null);
    let (status, answer) = reload(&format!("{without}{}", argocd.settings())).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["changes"][0]["section"], "[argocd]", "{answer}");
    let second = fleet.announce("user-service", &sha('2')).await;
    rollout(&fleet, &second, "healthy").await;
    assert_eq!(reload(&without).await.0, 200);
    let third = fleet.announce("user-service", &sha('3')).await;
    assert_eq!(fleet.settled(&third).await["updates"][0]["rollout"], Value::Null);
    assert_eq!(argocd.refreshed(), ["user-service-staging"]);
}

#[tokio::test]
async fn failed_sync_hook_counts_as_degraded() {
    let argocd = four_applications().await;
    argocd.change("user-service-staging", |app| {
        app.script = vec![("OutOfSync", "Healthy"), ("Synced", "Healthy")];
        app.failed_sync = "one or more synchronization tasks completed unsuccessfully".to_owned();
    });
    let builder =
        with_folders().environment_settings("production", "promote_when = \"healthy\"\ngate = \"environment\"");
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "degraded").await;
    let expected = "the last sync failed: one or more synchronization tasks completed unsuccessfully";
    assert!(rollout["reason"].as_str().unwrap().contains(expected), "{rollout:#}");
    let body = json!({"to": "production", "repositories": ["user-service"]});
    let (status, problem) = fleet.api("POST", "/promotions", Some(body.clone())).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
    // A sync outside of Tagrelay.
    argocd.change("user-service-staging", |app| app.failed_sync.clear());
    let promoted = fleet.request("/promotions", body).await;
    assert_eq!(promoted["state"], "committed", "{promoted:#}");
}
