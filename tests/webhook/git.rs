//! Webhooks of Git hosts for pushes.

use hmac::{KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tagrelay_secret::Secret;
use tagrelay_webhook::{Delivery, Kind, MovedBranch, NoSample, Receiver, ReceiverSettings, Request, SamplePush};

const SECRET: &str = "the-secret";

fn receiver(kind: &str) -> Receiver {
    Receiver::new(ReceiverSettings {
        secret: Some(Secret::inline(SECRET.to_owned()).unwrap()),
        ..ReceiverSettings::new("config", kind.parse().unwrap())
    })
    .unwrap()
}

/// Delivers a body with the host's event header.
fn deliver(kind: &str, event: &str, body: &Value) -> Delivery {
    let body = body.to_string();
    let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let digits = hex::encode(mac.chain_update(&body).finalize().into_bytes());
    let shown = match kind {
        "git-github" => vec![("x-github-event", event.to_owned()), ("x-hub-signature-256", format!("sha256={digits}"))],
        "git-gitlab" => vec![("x-gitlab-event", event.to_owned()), ("x-gitlab-token", SECRET.to_owned())],
        _ => vec![("x-gitea-event", event.to_owned()), ("x-gitea-signature", digits)],
    };
    let headers: HeaderMap =
        shown.into_iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
    receiver(kind).receive(&Request { headers: &headers, query: None, body: body.as_bytes() }).unwrap()
}

/// Relevant and irrelevant members of a push, from each host's documentation.
fn push(reference: &str, after: &str) -> [(&'static str, &'static str, Value); 3] {
    let before = "28e1879d029cb852e4844d9c718537df08844e03";
    let common = json!({ "ref": reference, "before": before, "after": after, "commits": [] });
    let with = |more: Value| {
        let mut body = common.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    [
        ("git-github", "push", with(json!({ "created": false, "deleted": false, "forced": false, "pusher": {} }))),
        (
            "git-gitlab",
            "Push Hook",
            with(json!({ "object_kind": "push", "event_name": "push", "checkout_sha": after })),
        ),
        ("git-gitea", "push", with(json!({ "compare_url": "https://gitea.example.com/x", "total_commits": 1 }))),
    ]
}

#[test]
fn push_of_git_host_is_a_moved_branch() {
    let commit = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7";
    for (kind, event, body) in push("refs/heads/release/1.0", commit) {
        let delivery = deliver(kind, event, &body);
        let moved = MovedBranch { branch: "release/1.0".to_owned(), commit: Some(commit.parse().unwrap()) };
        assert_eq!(delivery, Delivery { moved: vec![moved], ..Delivery::default() }, "{kind}");
    }
    for (kind, event, body) in push("refs/heads/main", &"0".repeat(40)) {
        let gone = MovedBranch { branch: "main".to_owned(), commit: None };
        assert_eq!(deliver(kind, event, &body).moved, [gone], "{kind}");
    }
}

#[test]
fn other_events_of_git_hosts_are_ignored_with_reason() {
    let cases = push("refs/tags/v1.0", "da1560886d4f094c3e6c9ef40349f7d38b5d27d7").into_iter();
    let cases = cases.map(|(kind, event, body)| (kind, event, body, "`refs/tags/v1.0` is not a branch"));
    let more = [
        ("git-github", "ping", json!({"zen": "x", "hook_id": 1}), "tests the webhook"),
        ("git-github", "issues", json!({"action": "opened"}), "the event is `issues`"),
        ("git-gitlab", "Tag Push Hook", json!({"object_kind": "tag_push"}), "the event is `tag_push`"),
        ("git-gitlab", "Push Hook", json!({}), "no `object_kind`"),
        ("git-gitea", "create", json!({"ref": "x"}), "the event is `create`"),
        ("git-gitea", "push", json!({}), "no `ref`"),
        ("git-github", "push", json!({"ref": "refs/heads/main", "after": "soon"}), "is not a commit id"),
        ("git-github", "push", json!({"ref": "refs/heads/"}), "is not a branch"),
    ];
    for (kind, event, body, reason) in cases.chain(more) {
        let delivery = deliver(kind, event, &body);
        assert!(delivery.moved.is_empty() && delivery.events.is_empty(), "{kind}: {delivery:?}");
        assert!(delivery.ignored[0].reason.contains(reason), "{kind} {reason}: {delivery:?}");
    }
}

#[test]
fn git_hosts_have_no_sample_images() {
    for kind in Kind::ALL.iter().filter(|kind| !kind.announces_images()) {
        let push = SamplePush {
            repository: "docker.io/uyou/user-service".parse().unwrap(),
            tag: "1234567".parse().unwrap(),
            digest: None,
            pushed_at: jiff::Timestamp::UNIX_EPOCH,
            id: "1".to_owned(),
        };
        assert!(matches!(kind.sample(&push, None), Err(NoSample::Image(_))), "{kind}");
        assert!(kind.name().starts_with("git-"), "{kind}");
    }
}
