//! Build order: whatever the order of announcements, an environment ends at the newest build.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use tagrelay_test_support::fleet::{Fleet, deployment, sha};
use tagrelay_test_support::git_http::{Fault, Server};
use tagrelay_test_support::source::{CONTENT, Source};

/// An event's update for staging.
fn update(event: &Value) -> &Value {
    &event["updates"][0]
}

async fn settle(fleet: &Fleet, service: &str, tag: &str) -> Value {
    let id = fleet.announce(service, tag).await;
    fleet.settled(&id).await
}

/// Pushes an image with a build time this many minutes after a fixed time.
async fn push_built(fleet: &Fleet, service: &str, tag: &str, minute: i64) {
    let at = Timestamp::from_second(1_700_000_000 + 60 * minute).unwrap();
    fleet.push_image_built(service, tag, at).await;
}

async fn deliver(fleet: &Fleet, service: &str, tag: &str) -> Value {
    let (status, answer) = fleet.deliver(service, tag).await;
    assert_eq!(status, 202, "{answer}");
    fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files.extend(files_below(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

#[tokio::test]
async fn ancestry_decides_over_smart_http() {
    let source = Source::new("user-service", true);
    let first = source.commit("main", None, "first");
    let second = source.commit("main", Some(&first), "second");
    let third = source.commit("main", Some(&second), "third");
    let aside = source.commit("feature", Some(&third), "aside");
    let server = Server::start(source.folder.path(), "reader", "source-password-77");
    let fleet = crate::fleet()
        .service("user-service")
        .image(&format!(
            "source = {{ url = \"{}/{{name}}.git\", username = \"reader\", password = {{ value = \"source-password-77\" }} }}",
            server.url
        ))
        .image("source_branches = [\"main\"]")
        .start()
        .await;

    // The running version is not in the source: the next criterion decides.
    let event = settle(&fleet, "user-service", &third).await;
    assert_eq!((&event["state"], &update(&event)["decided_by"]), (&json!("committed"), &json!("arrival")), "{event:#}");
    assert!(update(&event)["decided_because"].as_str().unwrap().contains("has no commit 0000000"), "{event:#}");

    // Built later from an older commit, so it is older.
    let event = settle(&fleet, "user-service", &second).await;
    assert_eq!((&event["state"], &update(&event)["decided_by"]), (&json!("refused"), &json!("ancestry")), "{event:#}");
    let reason = event["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        format!("older: {}, which staging runs, is newer by ancestry in the source repository", &third[..7])
    );

    // A commit that is newer than the last fetch of the source.
    let fourth = source.commit("main", Some(&third), "fourth");
    let event = settle(&fleet, "user-service", &fourth).await;
    assert_eq!(
        (&event["state"], &update(&event)["decided_by"]),
        (&json!("committed"), &json!("ancestry")),
        "{event:#}"
    );
    let steps = event["explanation"].to_string();
    assert!(steps.contains("(decided by ancestry)"), "{steps}");

    // On a branch that is not in `source_branches`.
    let event = settle(&fleet, "user-service", &aside).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    let reason = event["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(&format!("the commit {} is on none of the branches `main` of http://", &aside[..7])),
        "{reason}"
    );
    assert!(event["attempts"].as_u64().unwrap() >= 2, "the source was read again before the end: {event:#}");

    // Without the source, the event waits and is not lost.
    server.set_fault(Fault::Unavailable(1));
    let fifth = source.commit("main", Some(&fourth), "fifth");
    let id = fleet.announce("user-service", &fifth).await;
    fleet
        .eventually("the event waits for the source", async || {
            let (_, event) = fleet.api("GET", &format!("/events/{id}"), None).await;
            let reason = event["reason"].as_str().unwrap_or_default();
            let names_source = reason.starts_with("source repository http://") && !reason.contains("config repository");
            event["state"] == "queued" && names_source && reason.contains("503")
        })
        .await;
    assert_eq!(fleet.running("staging", "user-service"), fourth);
    server.set_fault(Fault::None);
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    assert_eq!(fleet.running("staging", "user-service"), fifth);

    // Promotions may choose an older version.
    let back = json!({"environment": "staging", "repository": "user-service", "to": second});
    let back = fleet.request("/rollbacks", back).await;
    assert_eq!(back["state"], "committed", "{back:#}");
    assert_eq!(fleet.running("staging", "user-service"), second);

    // Commits are cached, but no file contents and no password.
    let kept = files_below(&fleet.folder().join("sources"));
    assert!(kept.len() >= 2, "{kept:?}");
    for file in kept {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(CONTENT) && !text.contains("source-password-77"), "{}", file.display());
        assert!(text.len() < 2_000, "{} has {} bytes", file.display(), text.len());
    }
    assert!(!fleet.log().contains("source-password-77"));
}

#[tokio::test]
async fn source_without_partial_clone_is_fetched_as_deep_as_needed() {
    let source = Source::new("user-service", false);
    let commits = source.commits(300);
    let (oldest, newest) = (commits[0].clone(), commits[299].clone());
    let text = deployment(&format!("REGISTRY/uyou/user-service:{oldest}"));
    let fleet = crate::fleet()
        .file("environments/staging/user-service.yaml", &text)
        .image(&format!("source = \"file://{}\"", source.path().display()))
        .start()
        .await;
    let event = settle(&fleet, "user-service", &newest).await;
    assert_eq!(
        (&event["state"], &update(&event)["decided_by"]),
        (&json!("committed"), &json!("ancestry")),
        "{event:#}"
    );
    for tag in [&oldest, &commits[150]] {
        let event = settle(&fleet, "user-service", tag).await;
        assert_eq!(
            (&event["state"], &update(&event)["decided_by"]),
            (&json!("refused"), &json!("ancestry")),
            "{event:#}"
        );
    }
    for file in files_below(&fleet.folder().join("sources")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(CONTENT), "{}", file.display());
    }
    // The cached order survives a restart, even if the source is unreachable.
    let mut fleet = fleet;
    fleet.terminate();
    std::fs::rename(source.path(), source.folder.path().join("gone")).unwrap();
    fleet.start().await;
    let event = settle(&fleet, "user-service", &commits[298]).await;
    assert_eq!((&event["state"], &update(&event)["decided_by"]), (&json!("refused"), &json!("ancestry")), "{event:#}");
}

#[tokio::test]
async fn number_in_tag_decides() {
    let tag = |run: u32| format!("main-{run:07x}-{run}");
    let fleet = crate::fleet()
        .file("environments/staging/user-service.yaml", &deployment("REGISTRY/uyou/user-service:main-0000001-1"))
        .image("tag = { kind = \"commit-sha\", prefix = \"main-\", suffix = \"-{number}\", min_length = 7 }")
        .start()
        .await;
    for (run, state) in [(10, "committed"), (9, "refused"), (11, "committed"), (2, "refused")] {
        let event = settle(&fleet, "user-service", &tag(run)).await;
        assert_eq!(
            (&event["state"], &update(&event)["decided_by"]),
            (&json!(state), &json!("number")),
            "{run}: {event:#}"
        );
    }
    // A foreign commit that Tagrelay has not read yet.
    let image = format!("{}:{}", fleet.repository("user-service"), tag(40));
    fleet.upstream.commit("by hand", &[("environments/staging/user-service.yaml", &deployment(&image))]);
    let event = settle(&fleet, "user-service", &tag(30)).await;
    assert_eq!(event["state"], "refused", "{event:#}");
    assert!(event["reason"].as_str().unwrap().starts_with("older: main-0000028-40, which staging runs"), "{event:#}");
    assert_eq!(fleet.running("staging", "user-service"), tag(40));
    let event = settle(&fleet, "user-service", "dev-0000041-65").await;
    assert!(event["reason"].as_str().unwrap().contains("commit-sha (`main-`, then"), "{event:#}");
}

#[tokio::test]
async fn build_time_decides_last() {
    let fleet = crate::fleet().service("user-service").start().await;
    for (digit, minute) in [('1', 10), ('2', 20), ('3', 30)] {
        push_built(&fleet, "user-service", &sha(digit), minute).await;
    }
    let event = deliver(&fleet, "user-service", &sha('2')).await;
    assert_eq!((&event["state"], &update(&event)["decided_by"]), (&json!("committed"), &json!("arrival")), "{event:#}");
    let event = deliver(&fleet, "user-service", &sha('1')).await;
    assert_eq!(
        (&event["state"], &update(&event)["decided_by"]),
        (&json!("refused"), &json!("build_time")),
        "{event:#}"
    );
    let event = deliver(&fleet, "user-service", &sha('3')).await;
    assert_eq!(
        (&event["state"], &update(&event)["decided_by"]),
        (&json!("committed"), &json!("build_time")),
        "{event:#}"
    );

    // With an implausible build time, the order of arrival counts.
    fleet.push_image_built("user-service", &sha('4'), "1970-01-01T00:00:00Z".parse().unwrap()).await;
    let event = deliver(&fleet, "user-service", &sha('4')).await;
    assert_eq!((&event["state"], &update(&event)["decided_by"]), (&json!("committed"), &json!("arrival")), "{event:#}");
}

#[tokio::test]
async fn newest_waiting_build_is_listed_last_whatever_arrives_last() {
    let rule = "tag = { kind = \"regex\", pattern = \"v(?<number>[0-9]+)\" }";
    let manifest = deployment("REGISTRY/uyou/user-service:v1");
    let builder = crate::fleet().image(rule).file("environments/staging/user-service.yaml", &manifest);
    let fleet = builder.start().await;
    let hold = json!({"environment": "staging", "repository": "user-service"});
    let (status, hold) = fleet.api("POST", "/holds", Some(hold)).await;
    assert_eq!(status, 201, "{hold}");
    for tag in ["v5", "v7", "v6"] {
        let event = fleet.settled(&fleet.announce("user-service", tag).await).await;
        assert_eq!(event["state"], "waiting", "{event:#}");
    }
    let (_, shown) = fleet.api("GET", "/environments?waiting=true", None).await;
    let waiting = shown["environments"][0]["repositories"][0]["waiting"].as_array().unwrap();
    let tags: Vec<&str> = waiting.iter().map(|update| update["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, ["v5", "v6", "v7"]);
    assert_eq!(fleet.api("DELETE", &format!("/holds/{}", hold["id"].as_str().unwrap()), None).await.0, 204);
    fleet.eventually("the newest goes", async || fleet.running("staging", "user-service") == "v7").await;
}

#[tokio::test]
async fn allow_older_orders_by_arrival() {
    let fleet = crate::fleet().service("user-service").image("allow_older = true").start().await;
    push_built(&fleet, "user-service", &sha('1'), 10).await;
    push_built(&fleet, "user-service", &sha('2'), 20).await;
    for digit in ['2', '1'] {
        let event = deliver(&fleet, "user-service", &sha(digit)).await;
        assert_eq!(
            (&event["state"], &update(&event)["decided_by"]),
            (&json!("committed"), &json!("arrival")),
            "{event:#}"
        );
    }
    assert_eq!(fleet.running("staging", "user-service"), sha('1'));
}

#[tokio::test]
async fn moving_tag_is_followed_by_digest() {
    let old = "0".repeat(64);
    let fleet = crate::fleet()
        .file("environments/staging/tool.yaml", &deployment(&format!("REGISTRY/uyou/tool:latest@sha256:{old}")))
        .file("environments/staging/loose.yaml", &deployment("REGISTRY/uyou/loose:latest"))
        .image("tag = { kind = \"digest\" }")
        .start()
        .await;
    let digest = fleet.push_image("tool", "latest").await;
    let event = deliver(&fleet, "tool", "latest").await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "tool"), format!("latest@{digest}"));
    // The tag alone does not show the change.
    let subject = fleet.upstream.git(&["log", "-1", "--format=%s", "main"]);
    let zeros = &old[..12];
    assert_eq!(subject.trim(), format!("staging: tool latest@sha256:{zeros} -> latest@{}", digest.short()));
    let because = update(&event)["decided_because"].as_str().unwrap();
    assert!(because.starts_with(&format!("newer than latest@sha256:{zeros}, which staging runs")), "{because}");
    let event = settle(&fleet, "loose", "latest").await;
    assert_eq!(event["state"], "refused", "{event:#}");
    assert!(event["reason"].as_str().unwrap().contains("without a digest"), "{event:#}");
    let event = settle(&fleet, "tool", "main").await;
    assert!(event["reason"].as_str().unwrap().contains("digest (the tag `latest`, by its digest)"), "{event:#}");
}

#[tokio::test]
async fn moving_tag_that_moves_again_is_not_a_duplicate() {
    let old = "0".repeat(64);
    let fleet = crate::fleet()
        .file("environments/staging/tool.yaml", &deployment(&format!("REGISTRY/uyou/tool:main@sha256:{old}")))
        .file("environments/staging/user-service.yaml", &deployment("REGISTRY/uyou/user-service:main"))
        .image("tag = { kind = \"digest\", name = \"main\" }")
        .start()
        .await;
    let mut digests = Vec::new();
    // One sender that only names repository and tag, like Quay, and one that also sends the digest.
    for built in ["first", "second", "first"] {
        let minute = if built == "first" { 0 } else { 1 };
        let at = Timestamp::from_second(1_750_000_000 + minute * 60).unwrap();
        digests.push(fleet.push_image_built("tool", "main", at).await);
        let event = deliver(&fleet, "tool", "main").await;
        assert_eq!(event["digest"], json!(digests.last().unwrap().to_string()), "{event:#}");
    }
    assert_eq!(digests[0], digests[2]);
    assert_eq!(fleet.running("staging", "tool"), format!("main@{}", digests[1]), "the first is older by build time");
    // Repeating it changes nothing.
    let event = deliver(&fleet, "tool", "main").await;
    assert_ne!(event["state"], "committed", "{event:#}");
}

#[tokio::test]
async fn version_reverted_by_hand_returns_when_announced_again() {
    let fleet = crate::fleet()
        .file("environments/staging/user-service.yaml", &deployment("REGISTRY/uyou/user-service:v1"))
        .image("tag = { kind = \"regex\", pattern = \"v(?<number>[0-9]+)\" }")
        .start()
        .await;
    let by_hand = async |tag: &str| {
        let text = deployment(&format!("{}:{tag}", fleet.repository("user-service")));
        fleet.upstream.commit("by hand", &[("environments/staging/user-service.yaml", &text)]);
    };
    let again = async |tag: &str, id: &str| {
        let image = format!("{}:{tag}", fleet.repository("user-service"));
        let (_, answer) = fleet.deliver_body(&json!({"image": image, "id": id}).to_string()).await;
        fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await
    };
    assert_eq!(settle(&fleet, "user-service", "v20").await["state"], "committed");
    // The branch is read for this, shortly before a foreign commit.
    assert_eq!(again("v20", "once more").await["state"], "unchanged");
    by_hand("v2").await;
    let event = again("v20", "again").await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "user-service"), "v20");
    assert_eq!(again("v20", "and again").await["state"], "unchanged");
    by_hand("v10").await;
    let event = settle(&fleet, "user-service", "v15").await;
    assert_eq!(event["state"], "committed", "{event:#}");
    assert_eq!(fleet.running("staging", "user-service"), "v15");
}

#[tokio::test]
async fn same_digest_under_another_tag_is_unchanged() {
    let fleet = crate::fleet().service("user-service").image("tag = { kind = \"any\" }").start().await;
    let at = Timestamp::now();
    let image = |tag: &'static str| {
        tagrelay_embedded_registry::push::push(
            Box::leak(Box::new(fleet.repository("user-service").parse().unwrap())),
            Box::leak(Box::new(tag.parse().unwrap())),
            Box::leak(Box::new(tagrelay_embedded_registry::push::TinyImage {
                revision: None,
                created: at,
                text: "one".into(),
            })),
            None,
        )
    };
    assert_eq!(image("one").await.unwrap(), image("two").await.unwrap());
    assert_eq!(deliver(&fleet, "user-service", "one").await["state"], "committed");
    let event = deliver(&fleet, "user-service", "two").await;
    assert_eq!(event["state"], "unchanged", "{event:#}");
    assert_eq!(update(&event)["reason"], "staging runs the same digest as one");
    assert_eq!(fleet.running("staging", "user-service"), "one");
}

/// A small pseudorandom generator.
struct Shuffler(u64);

impl Shuffler {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }
}

#[tokio::test]
async fn events_in_any_order_end_at_the_newest_build() {
    const IMAGES: usize = 50;
    const BUILDS: usize = 4;
    let mut builder = crate::fleet();
    for image in 0..IMAGES {
        builder = builder.service(&format!("service-{image}"));
    }
    let fleet = builder.start().await;
    let tag = |image: usize, build: usize| format!("{:040x}", (image + 1) * 1000 + build);
    let all: Vec<(usize, usize)> = (0..IMAGES).flat_map(|image| (0..BUILDS).map(move |build| (image, build))).collect();
    futures_util::stream::iter(all.clone())
        .for_each_concurrent(8, async |(image, build)| {
            push_built(&fleet, &format!("service-{image}"), &tag(image, build), build as i64).await;
        })
        .await;
    let mut deliveries: Vec<(usize, usize)> = all.iter().chain(&all).copied().collect();
    Shuffler(20_261_123).shuffle(&mut deliveries);
    let ids = tokio::sync::Mutex::new(HashMap::new());
    futures_util::stream::iter(deliveries)
        .for_each_concurrent(16, async |(image, build)| {
            let (status, answer) = fleet.deliver(&format!("service-{image}"), &tag(image, build)).await;
            assert_eq!(status, 202, "{answer}");
            ids.lock().await.insert((image, build), answer["events"][0]["id"].as_str().unwrap().to_owned());
        })
        .await;
    for (place, id) in ids.lock().await.iter() {
        let event = fleet.settled(id).await;
        let expected = ["committed", "superseded", "refused", "unchanged"];
        assert!(expected.contains(&event["state"].as_str().unwrap()), "{place:?}: {event:#}");
    }
    for image in 0..IMAGES {
        assert_eq!(fleet.running("staging", &format!("service-{image}")), tag(image, BUILDS - 1));
    }
    // No commit went backwards.
    let log = fleet.upstream.git(&["log", "-p", "--format=", "main"]);
    let moved = |sign: char| {
        log.lines().filter(move |line| line.starts_with(sign) && line.contains("image: ")).map(|line| {
            let tag = line.split_once("service-").unwrap().1.split_once(':').unwrap().1;
            tag[..40].to_owned()
        })
    };
    let moves: Vec<_> = moved('-').zip(moved('+')).collect();
    assert!(moves.len() >= IMAGES, "{} moves", moves.len());
    for (old, new) in moves {
        assert!(old < new, "{old} -> {new}");
    }
}
