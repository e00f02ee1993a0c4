//! The answer to a push was lost and others pushed since: the commits show whether the push landed.

use crate::setup::{Setup, deployment, plan, prepare};
use tagrelay::config_repo::{Authentication, Below, CommitId, ConfigRepository};
use tagrelay_secret::Secret;
use tagrelay_test_support::git::{self, Remote, git};
use tagrelay_test_support::git_http::{Fault, Server};
use tagrelay_test_support::git_ssh::{Sshd, VERSION_2};

const USER: &str = "uyou/user-service";

fn platform() -> Remote {
    let services: Vec<(String, String)> = (0..40)
        .map(|number| {
            let path = format!("environments/staging/team-{}/{number}.yaml", number % 4);
            (path, deployment(&format!("uyou/service-{number}:1.0")))
        })
        .collect();
    let mut files: Vec<(&str, &str)> = services.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let user = deployment("uyou/user-service:1.0");
    files.push(("environments/staging/user.yaml", &user));
    Remote::with(&files)
}

/// Adds `count` foreign commits to the branch, each with a change, without a working copy.
fn foreign_commits(remote: &Remote, count: usize) {
    let from = remote.tip();
    let mut stream = String::new();
    for number in 0..count {
        let parent = if number == 0 { format!("from {from}\n") } else { String::new() };
        let text = deployment(&format!("uyou/user-service:9.{number}"));
        stream.push_str(&format!(
            "commit refs/heads/main\ncommitter Ada <ada@example.com> {} +0000\ndata 7\nforeign\n{parent}M 100644 inline \
             environments/staging/user.yaml\ndata {}\n{text}\n",
            1_700_000_000 + number,
            text.len()
        ));
    }
    git::git_with_input(&remote.bare(), &["fast-import", "--quiet"], stream.as_bytes());
}

/// Pushes a commit, adds `depth` foreign commits, and looks for three commits below the tip: the pushed one, one that was
/// never pushed, and an unknown one.
async fn ask(remote: &Remote, repository: &ConfigRepository, depth: usize) -> [Below; 3] {
    repository.refresh().await.unwrap();
    let ours = prepare(repository, plan("staging", &[(USER, &format!("2.{depth}"))])).await;
    let elsewhere = prepare(repository, plan("staging", &[(USER, &format!("3.{depth}"))])).await.tip();
    let commit = ours.tip();
    repository.push(ours).await.unwrap();
    foreign_commits(remote, depth);
    let unknown_commit: CommitId = "1".repeat(40).parse().unwrap();
    repository.refresh().await.unwrap();
    let found = repository.below_tip(&[commit, elsewhere, unknown_commit]).await.unwrap();
    // Repeating the question needs no request.
    assert_eq!(repository.below_tip(&[commit, elsewhere, unknown_commit]).await.unwrap(), found);
    [found[&commit], found[&elsewhere], found[&unknown_commit]]
}

fn assert_mirror_is_untouched(setup: &Setup) {
    git::assert_sound(setup.mirror());
    assert!(!setup.mirror().join("history").exists(), "temporary packs are left over");
}

#[tokio::test]
async fn landed_commit_is_found_at_any_depth_over_file() {
    for can_filter in ["true", "false"] {
        let remote = platform();
        git(&remote.bare(), &["config", "uploadpack.allowFilter", can_filter]);
        let setup = Setup::new(&remote.file_url());
        let repository = setup.open().await;
        for depth in [0, 1, 2, 98, 99, 100, 250, 1_200] {
            let found = ask(&remote, &repository, depth).await;
            assert_eq!(found, [Below::Yes, Below::No, Below::No], "filter {can_filter}, {depth} commits above");
        }
        assert_mirror_is_untouched(&setup);
    }
}

#[tokio::test]
async fn landed_commit_is_found_over_http_with_every_server_feature() {
    let basic = Authentication::Basic {
        username: "tagrelay".to_owned(),
        password: Secret::inline("secret".to_owned()).unwrap(),
    };
    for (can_filter, fault) in
        [("true", Fault::None), ("false", Fault::None), ("true", Fault::OldProtocol), ("false", Fault::OldProtocol)]
    {
        let remote = platform();
        git(&remote.bare(), &["config", "http.receivepack", "true"]);
        git(&remote.bare(), &["config", "uploadpack.allowFilter", can_filter]);
        let server = Server::start(remote.root(), "tagrelay", "secret");
        server.set_fault(fault);
        let setup = Setup::new(&format!("{}/config.git", server.url)).with_authentication(basic.clone());
        let repository = setup.open().await;
        for depth in [1, 150] {
            let found = ask(&remote, &repository, depth).await;
            assert_eq!(found, [Below::Yes, Below::No, Below::No], "filter {can_filter}, {fault:?}, {depth}");
        }
        assert_mirror_is_untouched(&setup);
    }
}

#[tokio::test]
async fn history_beyond_the_bound_leaves_the_push_unknown() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let first: CommitId = remote.tip().parse().unwrap();
    foreign_commits(&remote, 10_200);
    repository.refresh().await.unwrap();
    assert_eq!(repository.below_tip(&[first]).await.unwrap()[&first], Below::Unknown);
}

#[tokio::test]
async fn landed_commit_is_found_over_ssh() {
    let remote = platform();
    let sshd = Sshd::start(VERSION_2);
    sshd.known_hosts("known", "host");
    let setup = Setup::new(&sshd.url(&remote.bare())).with_authentication(Authentication::SshKey {
        key: Secret::from_file(sshd.path("client")).unwrap(),
        passphrase: None,
        known_hosts: sshd.path("known"),
    });
    let repository = setup.open().await;
    assert_eq!(ask(&remote, &repository, 120).await, [Below::Yes, Below::No, Below::No]);
    assert_mirror_is_untouched(&setup);
}

#[tokio::test]
async fn merged_and_force_removed_commits_are_distinguished() {
    let remote = platform();
    let repository = Setup::new(&remote.file_url()).open_kept().await;
    repository.refresh().await.unwrap();
    let start = remote.tip();
    let ours = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let commit = ours.tip();
    repository.push(ours).await.unwrap();
    // A foreign commit beside ours, merged with ours as the second parent.
    let beside = git(&remote.bare(), &["commit-tree", "-p", &start, "-m", "beside", &format!("{start}^{{tree}}")]);
    let tree = format!("{}^{{tree}}", beside.trim());
    let arguments = ["commit-tree", "-p", beside.trim(), "-p", &commit.to_string(), "-m", "merge", &tree];
    let merge = git(&remote.bare(), &arguments);
    git(&remote.bare(), &["update-ref", "refs/heads/main", merge.trim()]);
    repository.refresh().await.unwrap();
    assert_eq!(repository.below_tip(&[commit]).await.unwrap()[&commit], Below::Yes);
    // Then a force push without it.
    git(&remote.bare(), &["update-ref", "refs/heads/main", beside.trim()]);
    repository.refresh().await.unwrap();
    assert_eq!(repository.below_tip(&[commit]).await.unwrap()[&commit], Below::No);
}
