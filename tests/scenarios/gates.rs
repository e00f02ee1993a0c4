//! Gates and rollouts by what the cluster runs: apps of apps, hydrators, ApplicationSets, soak times.

use serde_json::{Value, json};

use super::follow_up::{environment, four_applications, rollout, start, with_folders};
use tagrelay_test_support::argocd::FakeArgoCd;
use tagrelay_test_support::fleet::{Builder, Fleet, deployment, sha};

const REPOSITORY: &str = "https://git.example.com/uyou/platform-config.git";

fn order(service: &str) -> Value {
    json!({"to": "production", "repositories": [service]})
}

async fn refusal(fleet: &Fleet, service: &str) -> String {
    let (status, problem) = fleet.api("POST", "/promotions", Some(order(service))).await;
    assert_eq!(status, 409, "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

async fn is_open(fleet: &Fleet, service: &str) -> bool {
    let mut dry = order(service);
    dry["dry_run"] = json!(true);
    fleet.api("POST", "/promotions", Some(dry)).await.0 == 200
}

/// Production takes versions from a healthy staging.
fn gated(settings: &str) -> Builder {
    with_folders().environment_settings("production", &format!("promote_when = \"healthy\"\n{settings}"))
}

/// A fleet with one service whose staging is `files` and whose production is a Deployment.
fn special(service: &str, files: &[(&str, &str)]) -> Builder {
    let production = deployment(&format!("REGISTRY/uyou/{service}:{}", sha('0')));
    let mut builder = gated("").file(&format!("environments/production/{service}/deployment.yaml"), &production);
    for (path, text) in files {
        builder = builder.file(path, text);
    }
    builder
}

/// An `Application` whose image is a kustomize image.
fn child_manifest(name: &str) -> String {
    format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata:\n  name: {name}\n  namespace: argocd\nspec:\n  source:\n    \
         repoURL: {REPOSITORY}\n    path: base/{name}\n    targetRevision: main\n    kustomize:\n      images:\n        \
         - REGISTRY/uyou/{name}:{}\n",
        sha('0')
    )
}

/// An app of apps: `apps` deploys `child`, whose image its manifest names.
async fn app_of_apps() -> (Builder, FakeArgoCd) {
    let argocd = four_applications().await;
    argocd.add("apps", REPOSITORY, "environments/staging/apps");
    argocd.change("apps", |app| app.children = vec!["child".to_owned()]);
    argocd.add("child", REPOSITORY, "base/child");
    argocd.change("child", |app| app.renders = Some("environments/staging/apps/child.yaml".to_owned()));
    (special("child", &[("environments/staging/apps/child.yaml", &child_manifest("child"))]), argocd)
}

// A1
#[tokio::test]
async fn failing_child_of_an_app_of_apps_is_followed_and_keeps_the_gate_closed() {
    let (builder, argocd) = app_of_apps().await;
    argocd.change("apps", |app| app.script = vec![("Synced", "Healthy")]);
    argocd.change("child", |app| {
        app.script = vec![("Synced", "Progressing"), ("Synced", "Degraded")];
        app.message = "Deployment \"child\" exceeded its progress deadline".to_owned();
    });
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("child", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "degraded").await;
    let names: Vec<&str> =
        rollout["applications"].as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["apps", "child"], "{rollout:#}");
    assert!(rollout["reason"].as_str().unwrap().contains("exceeded its progress deadline"), "{rollout:#}");
    let said = refusal(&fleet, "child").await;
    let expected =
        "argocd/child also runs 0000000 of child, not only 1111111; it is Synced and Degraded: Deployment \"child\"";
    assert!(said.contains(expected), "{said}");
}

#[tokio::test]
async fn healthy_child_of_an_app_of_apps_ends_the_rollout_and_opens_the_gate() {
    let (builder, argocd) = app_of_apps().await;
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("child", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "healthy").await;
    assert_eq!(rollout["applications"][1]["name"], "child", "{rollout:#}");
    assert_eq!(fleet.request("/promotions", order("child")).await["state"], "committed");
}

async fn hydrated() -> (Builder, FakeArgoCd) {
    let argocd = four_applications().await;
    argocd.add("hyd", REPOSITORY, "unused");
    argocd.change("hyd", |app| {
        app.spec = json!({"sourceHydrator": {
            "drySource": {"repoURL": REPOSITORY, "targetRevision": "main", "path": "environments/staging/hyd"},
            "syncSource": {"targetBranch": "env/staging", "path": "hyd"}}});
    });
    let text = deployment(&format!("REGISTRY/uyou/hyd:{}", sha('0')));
    (special("hyd", &[("environments/staging/hyd/deployment.yaml", &text)]), argocd)
}

// A2
#[tokio::test]
async fn hydrated_application_is_refreshed_and_followed_to_the_synced_result() {
    let (builder, argocd) = hydrated().await;
    argocd.change("hyd", |app| app.hydration.0 = vec!["Hydrating", "Hydrating", "Hydrated"]);
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("hyd", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "healthy").await;
    assert_eq!(rollout["applications"][0]["revision"], fleet.upstream.tip(), "{rollout:#}");
    assert_eq!(argocd.refreshed(), ["hyd"]);
    assert_eq!(fleet.request("/promotions", order("hyd")).await["state"], "committed");
}

// A2, A3
#[tokio::test]
async fn failed_hydration_degrades_the_rollout_and_keeps_the_gate_closed() {
    let (builder, argocd) = hydrated().await;
    argocd.change("hyd", |app| app.hydration = (vec!["Failed"], "rpc error: no such path".to_owned()));
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("hyd", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "degraded").await;
    assert!(
        rollout["reason"].as_str().unwrap().contains("the hydration failed: rpc error: no such path"),
        "{rollout:#}"
    );
    let said = refusal(&fleet, "hyd").await;
    assert!(said.contains("argocd/hyd runs 0000000 of hyd, not 1111111"), "{said}");
}

// A3
#[tokio::test]
async fn version_that_no_application_runs_is_refused_unless_the_settings_allow_it() {
    for (settings, is_allowed) in [("", false), ("untracked = \"allow\"", true)] {
        let argocd = four_applications().await;
        let fleet = start(gated(settings), &argocd).await;
        let event = fleet.announce("user-service", &sha('1')).await;
        rollout(&fleet, &event, "healthy").await;
        argocd.remove("user-service-staging");
        if is_allowed {
            assert_eq!(fleet.request("/promotions", order("user-service")).await["state"], "committed");
            continue;
        }
        let said = refusal(&fleet, "user-service").await;
        let expected = "no application of staging runs user-service: none of the 3 applications that the token may see reads \
                        environments/staging/user-service/deployment.yaml";
        assert!(said.contains(expected) && said.contains("untracked = \"allow\""), "{said}");
    }
}

// A4
#[tokio::test]
async fn application_out_of_step_blocks_only_its_own_versions() {
    let argocd = four_applications().await;
    let fleet = start(gated(""), &argocd).await;
    for service in ["user-service", "order-service"] {
        let event = fleet.announce(service, &sha('1')).await;
        rollout(&fleet, &event, "healthy").await;
    }
    argocd.change("order-service-staging", |app| app.sync = "OutOfSync".to_owned());
    let said = refusal(&fleet, "order-service").await;
    assert!(said.contains("argocd/order-service-staging is OutOfSync and Healthy"), "{said}");
    assert!(!said.contains("user-service-staging"), "{said}");
    assert_eq!(fleet.request("/promotions", order("user-service")).await["state"], "committed");
}

/// Makes the versions that were seen until now an hour older, while the program is stopped.
async fn an_hour_later(fleet: &Fleet) {
    use sqlx::Connection as _;
    let url = format!("sqlite:{}", fleet.folder().join("tagrelay.db").display());
    let mut store = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let change =
        "UPDATE version_runs SET healthy_since = healthy_since - 3600000, first_seen_at = first_seen_at - 3600000";
    assert!(sqlx::query(change).execute(&mut store).await.unwrap().rows_affected() > 0);
}

// A5. The fake server must answer while the test waits for the program's end.
#[tokio::test(flavor = "multi_thread")]
async fn another_deployment_does_not_restart_the_soak_time() {
    let argocd = four_applications().await;
    let mut fleet = start(gated("soak = \"1h\""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let said = refusal(&fleet, "user-service").await;
    assert!(said.contains("argocd/user-service-staging has run 1111111 of user-service healthy since"), "{said}");
    assert!(said.contains("the soak time is 1h\nthe gate opens at "), "{said}");
    assert_eq!(fleet.terminate(), Some(0));
    an_hour_later(&fleet).await;
    fleet.start().await;
    assert!(is_open(&fleet, "user-service").await, "a restart does not reset it");

    let event = fleet.announce("order-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    assert!(refusal(&fleet, "order-service").await.contains("the soak time is 1h"));
    assert!(is_open(&fleet, "user-service").await);
    // A later sync of the same version does not reset it.
    let now = jiff::Timestamp::now();
    argocd.change("user-service-staging", |app| app.times.1 = json!(now.to_string()));
    assert!(is_open(&fleet, "user-service").await);
    // A dip of its application does, even between two looks.
    argocd.change("user-service-staging", |app| app.times.0 = json!(now.to_string()));
    let said = refusal(&fleet, "user-service").await;
    assert!(said.contains(&format!("healthy since {now:.0}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_version_soaks_anew_although_its_application_never_left_healthy() {
    let argocd = four_applications().await;
    argocd.change("user-service-staging", |app| {
        app.script = vec![("Synced", "Healthy")];
        app.times = (json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:00:00Z"));
    });
    let mut fleet = start(gated("soak = \"1h\""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    assert_eq!(fleet.terminate(), Some(0));
    an_hour_later(&fleet).await;
    fleet.start().await;
    assert!(is_open(&fleet, "user-service").await);
    let event = fleet.announce("user-service", &sha('2')).await;
    rollout(&fleet, &event, "healthy").await;
    assert!(refusal(&fleet, "user-service").await.contains("has run 2222222 of user-service healthy since"));
}

// A6
#[tokio::test]
async fn application_that_points_to_a_tag_leaves_its_environment() {
    let argocd = four_applications().await;
    let fleet = start(gated(""), &argocd).await;
    for service in ["user-service", "order-service"] {
        let event = fleet.announce(service, &sha('1')).await;
        rollout(&fleet, &event, "healthy").await;
    }
    argocd.change("order-service-staging", |app| app.spec["source"]["targetRevision"] = json!("v1.0.0"));
    let said = refusal(&fleet, "order-service").await;
    let expected = "no application of staging runs order-service: argocd/order-service-staging reads `v1.0.0` instead of the branch";
    assert!(said.contains(expected), "{said}");
    assert_eq!(fleet.request("/promotions", order("user-service")).await["state"], "committed");
}

// A8
#[tokio::test]
async fn refusal_has_one_line_for_each_application() {
    let argocd = four_applications().await;
    for number in 0..3 {
        argocd.add(&format!("more-{number}"), REPOSITORY, "environments/staging/user-service");
        argocd.change(&format!("more-{number}"), |app| app.script = vec![("OutOfSync", "Healthy")]);
    }
    argocd.change("user-service-staging", |app| app.script = vec![("Synced", "Degraded")]);
    let fleet = start(gated(""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    fleet.settled(&event).await;
    fleet.eventually("every application was refreshed", async || argocd.refreshed().len() == 4).await;
    let said = refusal(&fleet, "user-service").await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(lines[1].starts_with("argocd/user-service-staging also runs 0000000"), "{said}");
    for (number, line) in lines[2..5].iter().enumerate() {
        assert!(
            line.starts_with(&format!(
                "argocd/more-{number} runs 0000000 of user-service, not 1111111; it is OutOfSync"
            )),
            "{said}"
        );
    }
}

async fn generated() -> (Builder, FakeArgoCd) {
    let argocd = four_applications().await;
    argocd.add_set("set", REPOSITORY, "environments/staging/set/*.yaml");
    argocd.add("set1", REPOSITORY, "charts/app");
    argocd.change("set1", |app| {
        app.set = Some("set".to_owned());
        app.renders = Some("environments/staging/set/set1.yaml".to_owned());
    });
    let text = format!("name: set1\nimage: REGISTRY/uyou/set1:{}\n", sha('0'));
    (special("set1", &[("environments/staging/set/set1.yaml", &text)]), argocd)
}

fn with_set_webhook(argocd: &FakeArgoCd) -> String {
    format!(
        "{}applicationset_webhook = {{ url = \"{}/applicationset/api/webhook\", secret = {{ value = \"set-secret-19\" }} }}\n",
        argocd.settings(),
        argocd.url()
    )
}

// A9
#[tokio::test]
async fn application_set_is_notified_and_its_product_is_followed() {
    let (builder, argocd) = generated().await;
    argocd.wants_secret("set-secret-19");
    let fleet = builder.settings(&with_set_webhook(&argocd)).start().await;
    argocd.reads(fleet.upstream.path());
    let event = fleet.announce("set1", &sha('1')).await;
    let rollout = rollout(&fleet, &event, "healthy").await;
    assert_eq!(rollout["applications"][0]["name"], "set1", "{rollout:#}");
    let [(headers, body)] = argocd.set_webhooks().try_into().unwrap();
    assert_eq!(headers["x-github-event"], "push");
    assert_eq!((&body["ref"], &body["after"]), (&json!("refs/heads/main"), &json!(fleet.upstream.tip())));
    assert_eq!(fleet.request("/promotions", order("set1")).await["state"], "committed");
    assert!(!fleet.log().contains("set-secret-19"));
}

#[tokio::test]
async fn product_of_an_unreadable_application_set_is_not_taken_for_staging() {
    let (builder, argocd) = generated().await;
    argocd.hides_sets();
    let fleet = start(builder, &argocd).await;
    let event = fleet.announce("set1", &sha('1')).await;
    rollout(&fleet, &event, "untracked").await;
    let said = refusal(&fleet, "set1").await;
    assert!(said.contains("let the token `get` applicationsets"), "{said}");
}

#[tokio::test]
async fn pods_of_a_cron_job_do_not_keep_the_gate_closed() {
    let argocd = four_applications().await;
    let fleet = start(gated(""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let image = |tag: char| format!("{}:{}", fleet.repository("user-service"), sha(tag));
    let pod = |name: &str, tag: char, parent: &str| {
        json!({"kind": "Pod", "namespace": "uyou", "name": name, "images": [image(tag)],
            "parentRefs": [{"kind": parent, "namespace": "uyou", "name": "x"}]})
    };
    let images = vec![image('0'), image('1')];
    argocd.change("user-service-staging", |app| {
        app.images = Some(images.clone());
        app.resources = vec![("batch".to_owned(), "CronJob".to_owned())];
        app.tree = Some(json!([pod("a", '1', "ReplicaSet"), pod("b", '0', "Job")]));
    });
    assert!(is_open(&fleet, "user-service").await);
    // Only the job runs it.
    argocd.change("user-service-staging", |app| app.tree = Some(json!([pod("b", '1', "Job")])));
    let said = refusal(&fleet, "user-service").await;
    assert!(said.contains("only jobs and ended pods of argocd/user-service-staging run user-service"), "{said}");
    argocd.change("user-service-staging", |app| {
        app.tree = Some(json!([pod("a", '1', "ReplicaSet"), pod("b", '0', "ReplicaSet")]))
    });
    assert!(refusal(&fleet, "user-service").await.contains("also runs 0000000 of user-service, not only 1111111"));
}

#[tokio::test]
async fn source_that_cannot_be_read_closes_the_gate_although_the_application_is_healthy() {
    let argocd = four_applications().await;
    let fleet = start(gated(""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    argocd.change("user-service-staging", |app| app.sync = "Unknown".to_owned());
    assert!(refusal(&fleet, "user-service").await.contains("argocd/user-service-staging is Unknown and Healthy"));
    // A suspended rollout.
    argocd.change("user-service-staging", |app| (app.sync, app.health) = ("Synced".to_owned(), "Suspended".to_owned()));
    assert!(refusal(&fleet, "user-service").await.contains("is Synced and Suspended"));
}

#[tokio::test]
async fn image_that_was_renamed_is_recognised_by_its_digest() {
    let argocd = four_applications().await;
    let fleet = start(gated(""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    let digest = fleet.api("GET", &format!("/events/{event}"), None).await.1["updates"][0]["digest"].clone();
    let renamed = format!("mirror.example.com/cache/other@{}", digest.as_str().unwrap());
    argocd.change("user-service-staging", |app| app.images = Some(vec![renamed.clone()]));
    assert!(is_open(&fleet, "user-service").await);
    let another = format!("mirror.example.com/cache/other@sha256:{}", "9".repeat(64));
    argocd.change("user-service-staging", |app| app.images = Some(vec![another.clone()]));
    let said = refusal(&fleet, "user-service").await;
    assert!(said.contains("argocd/user-service-staging reads its files and has no pod of it"), "{said}");
}

#[tokio::test]
async fn argo_cd_2_8_gates_by_images_too() {
    let argocd = four_applications().await;
    argocd.is_old();
    let fleet = start(gated("soak = \"1s\""), &argocd).await;
    let event = fleet.announce("user-service", &sha('1')).await;
    rollout(&fleet, &event, "healthy").await;
    fleet.eventually("the soak time is over", async || is_open(&fleet, "user-service").await).await;
    assert_eq!(environment(&fleet, "staging").await["health"]["state"], "healthy");
}
