//! The answer to a push is lost, and others push before the branch is read again.

use serde_json::json;

use super::{assert_sound, behind_http, commits_of};
use tagrelay_test_support::fleet::sha;
use tagrelay_test_support::git_http::Fault;

const FILE: &str = "environments/staging/user-service.yaml";

/// A hook that commits on top of each push: `change` applied to the pushed file, or the previous file.
fn follow_up_hook(change: &str) -> String {
    let commit = "commit=$(git -c user.name=Ada -c user.email=a@b commit-tree -p main -m 'of others' $tree) && \
                  git update-ref refs/heads/main $commit; rm -f hooks/post-receive";
    format!("export GIT_INDEX_FILE=hooks/index; {change}; {commit}")
}

fn write(environment: &str, tag: &str) -> String {
    let file = FILE.replace("staging", environment);
    format!(
        "blob=$(git show main:{file} | sed 's/:[0-9a-f]\\{{40\\}}/:{tag}/' | git hash-object -w --stdin) && git read-tree main && \
         git update-index --cacheinfo 100644,$blob,{file} && tree=$(git write-tree)"
    )
}

#[tokio::test]
async fn foreign_commit_on_top_does_not_hide_ours() {
    for (fault, change) in [
        (Fault::LoseAnswer, write("staging", &sha('9'))),
        (Fault::GatewayTimeout, write("staging", &sha('9'))),
        // The old version was restored: writing ours again would be a second commit for it.
        (Fault::LoseAnswer, "tree=$(git rev-parse main~^{tree})".to_owned()),
        // The foreign commit changes nothing.
        (Fault::LoseAnswer, "tree=$(git rev-parse main^{tree})".to_owned()),
    ] {
        let (fleet, server, _registry) = behind_http(super::fleet().service("user-service")).await;
        fleet.upstream.hook("post-receive", &follow_up_hook(&change));
        server.set_fault(fault);
        let id = fleet.announce("user-service", &sha('1')).await;
        let event = fleet.settled(&id).await;
        assert_eq!(event["state"], "committed", "{change}: {event:#}\n{}", fleet.log());
        let log = fleet.upstream.git(&["log", "--format=%H %s", "main"]);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{change}: {log}");
        assert!(lines[0].ends_with(" of others"), "{change}: {log}");
        assert_eq!(event["updates"][0]["commit"], lines[1][..40], "{change}: {log}");
        assert_sound(&fleet.upstream);
    }
}

#[tokio::test]
async fn lost_push_is_sent_again_on_top_of_foreign_commit() {
    let (fleet, server, _registry) = behind_http(super::fleet().service("user-service")).await;
    fleet.push_image("user-service", &sha('1')).await;
    fleet
        .eventually("the branch is read", async || {
            fleet.client.get(fleet.url("/readyz")).send().await.unwrap().status() == 200
        })
        .await;
    server.set_fault(Fault::DieBefore);
    let promotion = json!({"to": "production", "repositories": ["user-service"], "tag": sha('1')});
    let (status, taken) = fleet.api("POST", "/promotions", Some(promotion)).await;
    assert_eq!(status, 202, "{taken}");
    let id = taken["id"].as_str().unwrap();
    fleet
        .eventually("a push was tried", async || {
            server.take_requests().iter().any(|request| request.ends_with("/git-receive-pack"))
        })
        .await;
    // In the same file. Another version there would end the promotion.
    let file = FILE.replace("staging", "production");
    let theirs = fleet.upstream.file(&file) + "# a note\n";
    fleet.upstream.commit("of others", &[(&file, &theirs)]);
    server.set_fault(Fault::None);
    let (_, ended) = fleet.api("GET", &format!("/promotions/{id}?wait=60"), None).await;
    assert_eq!(ended["state"], "committed", "{ended:#}\n{}", fleet.log());
    assert_eq!(fleet.running("production", "user-service"), sha('1'));
    assert_eq!(commits_of(&fleet.upstream, &fleet.repository("user-service"), "production", &sha('1')), 1);
    assert_eq!(fleet.upstream.subjects()[1], "of others");
}

#[tokio::test]
async fn hold_made_after_unconfirmed_push_stays() {
    for (fault, hook) in [(Fault::LoseAnswer, "pre-receive"), (Fault::GatewayTimeout, "post-receive")] {
        let (fleet, server, _registry) = behind_http(super::fleet().service("user-service")).await;
        fleet.upstream.hook(hook, "touch hooks/begun; sleep 1.5");
        server.set_fault(fault);
        let id = fleet.announce("user-service", &sha('1')).await;
        let begun = fleet.upstream.path().join("hooks/begun");
        fleet.eventually("the push is under way", async || begun.exists()).await;
        let hold = json!({"environment": "staging", "repository": "user-service", "reason": "look at it"});
        let (status, hold) = fleet.api("POST", "/holds", Some(hold)).await;
        assert_eq!(status, 201, "{hold}");

        // The push that was running when the hold was created has landed. It does not wait and is not written again.
        let event = fleet.settled(&id).await;
        assert_eq!(event["state"], "committed", "{fault:?}: {event:#}\n{}", fleet.log());
        assert_eq!(event["updates"][0]["commit"], fleet.upstream.tip());
        server.set_fault(Fault::None);
        fleet.upstream.hook(hook, "true");
        let is_held = async || {
            let (_, holds) = fleet.api("GET", "/holds", None).await;
            holds["holds"].as_array().unwrap().iter().any(|held| held["id"] == hold["id"])
        };
        assert!(is_held().await);

        // New updates wait for the hold.
        let next = fleet.announce("user-service", &sha('2')).await;
        fleet
            .eventually("the next one waits", async || {
                let (_, event) = fleet.api("GET", &format!("/events/{next}"), None).await;
                event["state"] == "waiting"
            })
            .await;
        assert!(is_held().await);
        assert_eq!(fleet.running("staging", "user-service"), sha('1'));
        assert_eq!(commits_of(&fleet.upstream, &fleet.repository("user-service"), "staging", &sha('1')), 1);
        assert_eq!(fleet.upstream.subjects().len(), 2, "{:?}", fleet.upstream.subjects());
        assert_sound(&fleet.upstream);
    }
}
