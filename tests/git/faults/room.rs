//! A full disk: every write fails, and later succeeds again.

use std::process::Command;

use super::{assert_sound, behind_http, commits_of};
use tagrelay_test_support::fleet::{Fleet, sha};
use tagrelay_test_support::git_http::Fault;

/// Sets the file size limit of the running program: unlimited, or zero bytes.
fn set_room(fleet: &Fleet, has_room: bool) {
    let limit = if has_room { "--fsize=unlimited:unlimited" } else { "--fsize=0:unlimited" };
    let status = Command::new("prlimit").args(["--pid", &fleet.pid().to_string(), limit]).status().unwrap();
    assert!(status.success());
}

/// A program that ignores SIGXFSZ, so that writes fail as on a full disk.
fn builder() -> super::Builder {
    super::fleet()
        .launcher(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .service("user-service")
        .service("order-service")
}

#[tokio::test]
async fn full_disk_answers_503_and_recovers() {
    let (mut fleet, _server, _registry) = behind_http(builder()).await;
    let id = fleet.announce("user-service", &sha('1')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    fleet.push_image("order-service", &sha('2')).await;

    set_room(&fleet, false);
    for _ in 0..3 {
        let (status, answer) = fleet.deliver("order-service", &sha('2')).await;
        assert_eq!(status, 503, "{answer}");
    }
    // Answers that need no disk still work.
    assert_eq!(fleet.client.get(fleet.url("/healthz")).send().await.unwrap().status(), 200);
    assert_eq!(fleet.api("GET", &format!("/events/{id}"), None).await.1["state"], "committed");
    // The mirror cannot be updated, and reports it.
    let file = "environments/staging/user-service.yaml";
    fleet.upstream.commit("of others", &[(file, &fleet.upstream.file(file).replace(&sha('1'), &sha('9')))]);
    let (status, _) = fleet.api("GET", "/environments", None).await;
    assert_eq!(status, 200);

    set_room(&fleet, true);
    let (status, answer) = fleet.deliver("order-service", &sha('2')).await;
    assert_eq!(status, 202, "{answer}");
    let event = fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}\n{}", fleet.log());
    assert_eq!(fleet.running("staging", "user-service"), sha('9'));
    assert_eq!(fleet.running("staging", "order-service"), sha('2'));
    assert_eq!(fleet.upstream.subjects().len(), 4, "deliveries that got 503 caused a commit");
    assert_eq!(fleet.terminate(), Some(0));
    assert_sound(&fleet.upstream);
    assert_folder_is_sound(&fleet);
    fleet.start().await;
    let id = fleet.announce("order-service", &sha('3')).await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
}

#[tokio::test]
async fn full_disk_pushes_nothing_unrecorded() {
    let (fleet, server, _registry) = behind_http(builder()).await;
    // Accepted before the disk was full, but not yet written to the branch.
    server.set_fault(Fault::Unavailable(1));
    let first = fleet.announce("user-service", &sha('1')).await;
    fleet
        .eventually("the reason is shown", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{first}"), None).await;
            event["updates"][0]["reason"].is_string()
        })
        .await;
    set_room(&fleet, false);
    let errors = count_errors(&fleet);
    server.set_fault(Fault::None);
    // The writer runs again, but fails because it cannot record the result.
    fleet.eventually("the store has failed", async || count_errors(&fleet) > errors + 1).await;
    assert_eq!(fleet.upstream.subjects().len(), 1, "pushed without a record of it");
    set_room(&fleet, true);
    let event = fleet.settled(&first).await;
    assert_eq!(event["state"], "committed", "{event:#}\n{}", fleet.log());

    // The disk fills during the push: the push lands, but its end cannot be recorded.
    let gate = fleet.upstream.gate("pre-receive");
    let second = fleet.announce("order-service", &sha('2')).await;
    fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
    set_room(&fleet, false);
    let errors = count_errors(&fleet);
    gate.open();
    fleet.eventually("it landed", async || fleet.upstream.subjects().len() == 3).await;
    fleet.eventually("the store has failed", async || count_errors(&fleet) > errors).await;
    set_room(&fleet, true);
    let event = fleet.settled(&second).await;
    assert_eq!(event["state"], "committed", "{event:#}\n{}", fleet.log());
    assert_eq!(event["updates"][0]["commit"], fleet.upstream.tip());
    assert_eq!(commits_of(&fleet.upstream, &fleet.repository("order-service"), "staging", &sha('2')), 1);
    assert_eq!(fleet.upstream.subjects().len(), 3);
}

/// Number of warnings and errors in the log.
fn count_errors(fleet: &Fleet) -> usize {
    let log = fleet.log();
    log.lines().filter(|line| line.contains(r#""level":"ERROR""#) || line.contains(r#""level":"WARN""#)).count()
}

/// Fails unless the store and the mirrors in the program's folder are sound.
fn assert_folder_is_sound(fleet: &Fleet) {
    // One folder per branch of each repository.
    let folders = std::fs::read_dir(fleet.folder().join("mirrors/platform")).unwrap();
    let mirrors = folders.map(|entry| entry.unwrap().path());
    let mirrors: Vec<_> = mirrors.filter(|path| path.join("objects").is_dir()).collect();
    let integrity =
        Command::new("sqlite3").arg(fleet.folder().join("tagrelay.db")).arg("PRAGMA integrity_check").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&integrity.stdout), "ok\n");
    assert_eq!(mirrors.len(), 1, "{mirrors:?}");
    let output = Command::new("git")
        .args(["fsck", "--strict", "--no-dangling"])
        .current_dir(&mirrors[0])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
