//! The program continues with a store of 0.1.0: nothing is lost, and nothing is written twice.

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};
use tagrelay_test_support::fleet::{Fleet, sha};

/// Filled by 0.1.0 with rows in every state, two of them in the middle of a push.
const STORE: &str = include_str!("../fixtures/store-0.1.0.sql");

/// Services with work that 0.1.0 left.
const SERVICES: [&str; 9] =
    ["queued", "postponed", "pending", "half", "half-waiting", "held", "frozen", "unverified", "promoted"];

/// Replaces the fleet's store with that of 0.1.0. Its images are those of the fleet's registry, and their tags are commits.
async fn take_over(fleet: &mut Fleet) {
    fleet.terminate();
    let path = fleet.folder().join("tagrelay.db");
    assert!(path.exists(), "the store is elsewhere");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    // The requests expected the tag `0`.
    let mut sql = STORE.replace("docker.io", fleet.registry_host()).replace(r#""tag":"0""#, r#""tag":"v0""#);
    for digit in ['0', '1', '2'] {
        // As a value and inside JSON.
        for quote in ['\'', '"'] {
            sql = sql.replace(&format!("{quote}v{digit}{quote}"), &format!("{quote}{}{quote}", sha(digit)));
        }
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    fleet.start().await;
}

async fn eventually_runs(fleet: &Fleet, environment: &str, service: &str) {
    let what = format!("{environment} runs the new version of {service}");
    fleet.eventually(&what, async || fleet.running(environment, service) == sha('1')).await;
    // The rows of 0.1.0 have no digest, so that the trailer has none.
    let image = format!("Tagrelay-Image: {}:{}", fleet.repository(service), sha('1'));
    let log = fleet.upstream.git(&["log", "--format=%B", "main"]);
    assert_eq!(log.lines().filter(|line| line.starts_with(&image)).count(), 1, "{service}");
}

#[tokio::test]
async fn work_of_0_1_0_is_finished() {
    let mut builder = crate::fleet().settings(
        "\n[[api_token]]\nname = \"freezer\"\ntoken = { value = \"freezer-token-51aa\" }\npermissions = [\"freeze:*\"]\n",
    );
    for service in SERVICES {
        builder = builder.service(service);
    }
    let mut fleet = builder.start().await;
    for service in SERVICES {
        fleet.push_image(service, &sha('1')).await;
    }
    take_over(&mut fleet).await;
    for service in ["queued", "postponed", "pending", "half", "unverified"] {
        eventually_runs(&fleet, "staging", service).await;
    }
    // Holds and freezes of 0.1.0 still apply.
    for (environment, service) in
        [("staging", "held"), ("staging", "half-waiting"), ("production", "frozen"), ("production", "promoted")]
    {
        assert_eq!(fleet.running(environment, service), sha('0'), "{service}");
    }
    let (_, holds) = fleet.api("GET", "/holds", None).await;
    let held: Vec<&Value> = holds["holds"].as_array().unwrap().iter().collect();
    for service in ["held", "half-waiting"] {
        let hold = held.iter().find(|hold| hold["repository"] == json!(fleet.repository(service))).unwrap();
        let (status, _) = fleet.api("DELETE", &format!("/holds/{}", hold["id"].as_str().unwrap()), None).await;
        assert_eq!(status, 204);
        eventually_runs(&fleet, "staging", service).await;
    }
    let (_, freezes) = fleet.api("GET", "/freezes", None).await;
    let freeze = freezes["freezes"].as_array().unwrap().iter().find(|freeze| freeze["environment"] == "production");
    let id = freeze.unwrap()["id"].as_str().unwrap().to_owned();
    let (status, answer) = fleet.api_as("freezer-token-51aa", "DELETE", &format!("/freezes/{id}"), None, &[]).await;
    assert_eq!(status, 204, "{answer}");
    for service in ["frozen", "promoted"] {
        eventually_runs(&fleet, "production", service).await;
    }
    fleet.upstream.git(&["fsck", "--strict", "--no-dangling"]);
}
