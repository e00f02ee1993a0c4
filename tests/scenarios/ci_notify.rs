//! `deploy/ci/notify.py`, which CI runs if the registry has no webhooks.

use std::process::{Command, Output};

use tagrelay_test_support::fleet::{Fleet, sha};
use tagrelay_test_support::peer;
use tagrelay_test_support::settings::GENERIC_SECRET;

async fn notify(url: &str, secret: &str, image: &str) -> Output {
    let mut command = Command::new("python3");
    command.arg(format!("{}/deploy/ci/notify.py", env!("CARGO_MANIFEST_DIR"))).arg(image);
    command.env("TAGRELAY_URL", url).env("TAGRELAY_SECRET", secret).env_remove("http_proxy");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn is_python_missing() -> bool {
    // `make setup` reports Python under the name of the package that other tests need.
    peer::is_left_out("pyyaml")
}

#[tokio::test]
async fn announced_image_is_committed() {
    if is_python_missing() {
        return;
    }
    let fleet: Fleet = crate::fleet().service("user-service").start().await;
    let digest = fleet.push_image("user-service", &sha('1')).await;
    let image = format!("{}:{}@{digest}", fleet.repository("user-service"), sha('1'));
    let output = notify(&fleet.url("/webhooks/ci"), GENERIC_SECRET, &image).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("\"state\":\"queued\""), "{said}");
    fleet.eventually("staging runs it", async || fleet.running("staging", "user-service") == sha('1')).await;
}

#[tokio::test]
async fn wrong_secret_fails_at_once_and_is_not_printed() {
    if is_python_missing() {
        return;
    }
    let fleet = crate::fleet().service("user-service").start().await;
    let image = format!("{}:{}", fleet.repository("user-service"), sha('1'));
    let output = notify(&fleet.url("/webhooks/ci"), "a-wrong-secret", &image).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("401") && !said.contains("trying again") && !said.contains("a-wrong-secret"), "{said}");
}
