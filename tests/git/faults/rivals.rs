//! Ten processes of the program, each with its own store and mirror, push to one branch at the same time.

use super::{CREDENTIALS, assert_sound, commits_of};
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::{free_port, sha};
use tagrelay_test_support::git_http::Server;

const PROCESSES: usize = 10;

#[tokio::test]
async fn ten_processes_lose_no_update() {
    let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let services = (0..PROCESSES).map(|number| format!("service-{number}")).chain(["shared".to_owned()]);
    let builder =
        || services.clone().fold(super::fleet().registry(&registry.host()), |it, service| it.service(&service));
    let upstream = builder().upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "secret");
    let url = format!("{}/config.git", server.url);
    let mut fleets = Vec::new();
    for _ in 0..PROCESSES {
        // Each builder creates a repository, which is unused here.
        let unused = builder().upstream(&registry.host());
        fleets.push(builder().remote(&url, CREDENTIALS).start_at(free_port(), unused).await);
    }
    let tags = ['a', 'b', 'c'].map(sha);
    for service in services.clone() {
        for tag in &tags {
            fleets[0].push_image(&service, tag).await;
        }
    }
    let mut ids = Vec::new();
    for tag in &tags {
        for (number, fleet) in fleets.iter().enumerate() {
            for service in [format!("service-{number}"), "shared".to_owned()] {
                let (status, answer) = fleet.deliver(&service, tag).await;
                assert_eq!(status, 202, "{answer}");
                ids.push((number, service, answer["events"][0]["id"].as_str().unwrap().to_owned()));
            }
        }
    }
    for (number, service, id) in &ids {
        let event = fleets[*number].settled(id).await;
        let state = event["state"].as_str().unwrap();
        // One process writes the common update. The others find it, or a newer version.
        let expected: &[&str] = if service == "shared" {
            &["committed", "unchanged", "superseded", "refused"]
        } else {
            &["committed", "superseded"]
        };
        assert!(expected.contains(&state), "{service}: {event:#}");
        if state == "committed" {
            let commit = event["updates"][0]["commit"].as_str().unwrap();
            upstream.git(&["merge-base", "--is-ancestor", commit, "main"]);
        }
        if state == "refused" {
            assert!(event["updates"][0]["decided_by"].is_string(), "{event:#}");
        }
    }
    for service in services {
        let repository = format!("{}/uyou/{service}", registry.host());
        let text = upstream.file(&format!("environments/staging/{service}.yaml"));
        assert!(text.contains(&tags[2]), "{service} does not run the newest: {text}");
        let most = if service == "shared" { PROCESSES } else { 1 };
        for tag in &tags {
            let commits = commits_of(&upstream, &repository, "staging", tag);
            assert!(commits <= most, "{service}:{tag} was written {commits} times");
        }
        assert!(commits_of(&upstream, &repository, "staging", &tags[2]) == 1, "{service}");
    }
    let pushes = server.take_requests().iter().filter(|request| request.ends_with("/git-receive-pack")).count();
    let subjects = upstream.subjects().len();
    assert!(pushes > subjects - 1, "{pushes} pushes for {subjects} commits: no race was run");
    assert_sound(&upstream);
}
