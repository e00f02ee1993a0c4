//! Config repositories over smart HTTP, behind `git http-backend` and basic authentication.

use std::time::Duration;

use crate::setup::{Opened, Setup, apply, deployment, plan, prepare, versions};
use base64::Engine as _;
use tagrelay::config_repo::{Authentication, ConfigRepository, OpenError, PushError, RemoteError};
use tagrelay_secret::Secret;
use tagrelay_test_support::git::{self, Remote};
use tagrelay_test_support::git_http::{Fault, Server};

const USER: &str = "uyou/user-service";
const GET_PUSH: &str = "GET /config.git/info/refs";
const POST_PUSH: &str = "POST /config.git/git-receive-pack";
const POST_READ: &str = "POST /config.git/git-upload-pack";

fn platform() -> (Remote, Server) {
    let remote = Remote::with(&[
        ("environments/staging/user.yaml", &deployment("uyou/user-service:1.0")),
        ("environments/production/user.yaml", &deployment("uyou/user-service:1.0")),
    ]);
    let server = Server::start(remote.root(), "tagrelay", "hunter2");
    (remote, server)
}

fn setup(server: &Server, password: &str) -> Setup {
    let password = Secret::inline(password.to_owned()).unwrap();
    Setup::new(&format!("{}/config.git", server.url))
        .with_authentication(Authentication::Basic { username: "tagrelay".to_owned(), password })
}

async fn open(server: &Server) -> Opened {
    setup(server, "hunter2").open_kept().await
}

#[tokio::test]
async fn push_to_a_known_server_is_one_request() {
    let (remote, server) = platform();
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    assert_eq!(server.take_requests(), ["GET /config.git/info/refs", POST_READ, POST_READ]);
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(server.take_requests(), [GET_PUSH, POST_PUSH]);
    for tag in ["3.0", "4.0"] {
        apply(&repository, plan("staging", &[(USER, tag)])).await;
        assert_eq!(server.take_requests(), [POST_PUSH]);
    }
    repository.refresh().await.unwrap();
    assert_eq!(server.take_requests(), [POST_READ], "asked where the branch is, fetched nothing");
    assert_eq!(remote.log().len(), 4);
    assert_eq!(remote.read("environments/staging/user.yaml"), deployment("uyou/user-service:4.0"));
    remote.assert_sound();
}

#[tokio::test]
async fn foreign_commit_costs_one_more_round_trip() {
    let (remote, server) = platform();
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    remote.commit("foreign", &[("environments/staging/order.yaml", &deployment("uyou/order-service:7.0"))]);
    server.take_requests();
    apply(&repository, plan("staging", &[(USER, "3.0")])).await;
    assert_eq!(server.take_requests(), [POST_PUSH, POST_READ, POST_READ, POST_PUSH]);
    assert_eq!(remote.log()[..2], ["staging: uyou/user-service:3.0", "foreign"]);
    assert_eq!(versions(&repository, "staging", "uyou/order-service"), ["7.0"]);
    remote.assert_sound();
}

#[tokio::test]
async fn wrong_password_is_reported_without_the_password() {
    let (remote, server) = platform();
    let repository = setup(&server, "secret-but-wrong").open_kept().await;
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(&error, RemoteError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("401") && error.to_string().contains("wrong password"), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret-but-wrong"));

    // A token that is revoked between reading and pushing.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2\n").unwrap();
    let password = Secret::from_file(&file).unwrap();
    let repository = Setup::new(&format!("{}/config.git", server.url))
        .with_authentication(Authentication::Basic { username: "tagrelay".to_owned(), password })
        .open_kept()
        .await;
    repository.refresh().await.unwrap();
    std::fs::write(&file, "stale").unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let error = repository.push(prepared.clone()).await.unwrap_err();
    assert!(matches!(&error, PushError::Unauthorized { .. }), "{error}");
    std::fs::write(&file, "hunter2").unwrap();
    repository.push(prepared).await.unwrap();
    assert_eq!(remote.log().len(), 2);
}

#[tokio::test]
async fn push_without_answer_is_unknown_until_refresh() {
    let (remote, server) = platform();
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    server.set_fault(Fault::LoseAnswer);
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let tip = prepared.tip();
    let error = repository.push(prepared).await.unwrap_err();
    assert!(matches!(&error, PushError::Unknown { .. }), "{error}");
    server.set_fault(Fault::None);
    assert_eq!(repository.refresh().await.unwrap(), tip, "it had arrived");
    assert!(prepare(&repository, plan("staging", &[(USER, "2.0")])).await.is_empty());
    assert_eq!(remote.log().len(), 2);
}

#[tokio::test]
async fn server_errors_are_distinguished() {
    let (_remote, server) = platform();
    let repository = open(&server).await;
    server.set_fault(Fault::Unavailable(7));
    let error = repository.refresh().await.unwrap_err();
    let RemoteError::Unavailable { reason, ask_again_after } = &error else { panic!("{error}") };
    assert!(reason.contains("503") && reason.contains("maintenance"), "{reason}");
    assert_eq!(*ask_again_after, Some(Duration::from_secs(7)));

    let repository = open(&server).await;
    server.set_fault(Fault::Moved);
    let error = repository.refresh().await.unwrap_err().to_string();
    assert!(error.contains("it moved to https://elsewhere.example/config.git: write"), "{error}");

    server.set_fault(Fault::None);
    repository.refresh().await.unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    server.set_fault(Fault::BadGateway);
    // The advertisement is requested first, so nothing has been pushed.
    assert!(matches!(repository.push(prepared.clone()).await, Err(PushError::Unavailable { .. })));
    server.set_fault(Fault::None);
    repository.push(prepared).await.unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "3.0")])).await;
    server.set_fault(Fault::BadGateway);
    assert!(matches!(repository.push(prepared.clone()).await, Err(PushError::Unknown { .. })));
    server.set_fault(Fault::None);
    repository.push(prepared).await.unwrap();

    let unreachable = Setup::new("http://127.0.0.1:1/config.git").open_kept().await;
    assert!(unreachable.refresh().await.unwrap_err().is_transient());
    let password = Secret::inline("hunter2".to_owned()).unwrap();
    let missing = Setup::new(&format!("{}/other.git", server.url))
        .with_authentication(Authentication::Basic { username: "tagrelay".to_owned(), password })
        .open_kept()
        .await;
    assert!(matches!(missing.refresh().await, Err(RemoteError::NotFound { .. })));
}

#[tokio::test]
async fn no_request_is_sent_before_retry_after() {
    let (remote, server) = platform();
    let other = open(&server).await;
    other.refresh().await.unwrap();
    apply(&other, plan("staging", &[(USER, "1.5")])).await;
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    server.set_fault(Fault::Unavailable(60));
    let below = ["1".repeat(40).parse().unwrap()];
    assert_eq!(repository.refresh().await.unwrap_err().ask_again_after(), Some(Duration::from_secs(60)));
    server.set_fault(Fault::None);
    server.take_requests();
    // No read of the branch, no read of its history, no push.
    for _ in 0..3 {
        let error = repository.refresh().await.unwrap_err();
        assert!(
            error.to_string().contains("503") && error.ask_again_after() < Some(Duration::from_secs(60)),
            "{error}"
        );
        let error = repository.below_tip(&below).await.unwrap_err();
        assert!(error.ask_again_after().is_some(), "{error}");
        let error = repository.push(prepared.clone()).await.unwrap_err();
        assert!(matches!(&error, PushError::Unavailable { ask_again_after: Some(_), .. }), "{error:?}");
    }
    assert_eq!(server.take_requests(), Vec::<String>::new());
    // After the pause, the same calls succeed.
    server.set_fault(Fault::Unavailable(1));
    assert_eq!(other.refresh().await.unwrap_err().ask_again_after(), Some(Duration::from_secs(1)));
    server.set_fault(Fault::None);
    while other.refresh().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    apply(&other, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(remote.log().len(), 3);
}

#[tokio::test]
async fn messages_of_hosts_that_reject_a_push_are_kept() {
    let (remote, server) = platform();
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    let push =
        async || repository.push(prepare(&repository, plan("staging", &[(USER, "2.0")])).await).await.unwrap_err();
    for (status, words) in [
        // GitHub: a read-only token, an archived repository.
        (403, "Permission to uyou/config.git denied to tagrelay."),
        (403, "This repository was archived so it is read-only."),
        // GitLab: a role without push permission.
        (403, "You are not allowed to push code to this project."),
        // Gitea: a token without the scope.
        (403, "Forbidden"),
        (401, "HTTP Basic: Access denied"),
    ] {
        server.set_fault(Fault::Says(status, words));
        let error = push().await;
        let PushError::Unauthorized { reason } = &error else { panic!("{status} {words}: {error:?}") };
        assert!(reason.contains(words) && reason.contains(&status.to_string()), "{reason}");
    }
    // Hosts also answer this after a permission was revoked.
    server.set_fault(Fault::Says(404, "Repository not found."));
    let error = push().await;
    assert!(
        matches!(&error, PushError::Unavailable { reason, .. } if reason.contains("Repository not found.")),
        "{error:?}"
    );
    for status in [500, 502, 504] {
        server.set_fault(Fault::Says(status, "Internal error"));
        assert!(matches!(push().await, PushError::Unknown { .. }), "{status}");
    }
    assert_eq!(remote.log().len(), 1);
    server.set_fault(Fault::None);
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
}

#[tokio::test]
async fn protocol_version_0_works() {
    let (remote, server) = platform();
    server.set_fault(Fault::OldProtocol);
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    remote.commit("foreign", &[("environments/staging/order.yaml", &deployment("uyou/order-service:7.0"))]);
    apply(&repository, plan("staging", &[(USER, "3.0")])).await;
    assert_eq!(versions(&repository, "staging", "uyou/order-service"), ["7.0"]);
    assert_eq!(remote.log().len(), 4);
    remote.assert_sound();
}

#[tokio::test]
async fn protected_branch_is_rejected_with_its_message() {
    let (remote, server) = platform();
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    for (output, message) in [
        (
            "remote: GitLab: You are not allowed to push code to protected branches.",
            "GitLab: You are not allowed to push code to protected branches.",
        ),
        (
            "error: \\nerror: Not allowed to push to protected branch main\\nerror: ",
            "Not allowed to push to protected branch main",
        ),
    ] {
        remote.hook("update", &format!("printf '{output}\\n' >&2; exit 1"));
        let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
        let PushError::Refused { reason } = repository.push(prepared).await.unwrap_err() else { panic!("not refused") };
        assert_eq!(reason, format!("hook declined: {message}"));
    }
    assert_eq!(remote.log(), ["first"]);
}

#[tokio::test]
async fn push_does_not_wait_for_post_receive_hooks() {
    let (remote, server) = platform();
    remote.hook("post-receive", "while [ ! -e open ] && [ -e HEAD ]; do sleep 0.01; done; touch after");
    let repository = open(&server).await;
    repository.refresh().await.unwrap();
    // The hook waits for the test, but the push ends before it.
    tokio::time::timeout(Duration::from_secs(60), apply(&repository, plan("staging", &[(USER, "2.0")]))).await.unwrap();
    let after = remote.bare().join("after");
    assert!(!after.exists());
    std::fs::write(remote.bare().join("open"), "").unwrap();
    tokio::time::timeout(Duration::from_secs(60), async {
        while !after.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn private_authority_is_trusted_if_configured() {
    let (remote, server) = platform();
    let door = tagrelay_test_support::git_tls::Door::open(&server.url).await;
    let mut setup = setup(&server, "hunter2");
    setup.settings.url = format!("{}/config.git", door.url).parse().unwrap();
    let stranger = setup.open_rival("stranger").await;
    let error = stranger.refresh().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("UnknownIssuer"), "{error}");

    setup.settings.ca_bundle = Some(door.authority());
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(remote.log().len(), 2);

    let file = setup.folder.path().join("no-certificate.pem");
    std::fs::write(&file, "nothing\n").unwrap();
    for path in [file, setup.folder.path().join("missing.pem")] {
        let mut settings = setup.settings.clone();
        settings.ca_bundle = Some(path);
        let opened = ConfigRepository::open(settings, Vec::new()).await;
        assert!(matches!(opened, Err(OpenError::Address { .. })));
    }
}

/// A password with characters that URLs escape.
const TOKEN: &str = "glpat-0f3a/9b+c77=e21";

fn is_clean(said: &str) {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("tagrelay:{TOKEN}"));
    for form in [TOKEN, &pair, "glpat-0f3a%2F9b%2Bc77%3De21", &TOKEN[..14], &pair[..20]] {
        assert!(!said.contains(form), "{form} is in: {said}");
    }
    assert!(said.contains("[redacted]"), "{said}");
}

#[tokio::test]
async fn credentials_repeated_by_a_server_are_redacted() {
    let remote = Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))]);
    let server = Server::start(remote.root(), "tagrelay", TOKEN);
    let repository = setup(&server, TOKEN).open_kept().await;
    repository.refresh().await.unwrap();
    let push =
        async || repository.push(prepare(&repository, plan("staging", &[(USER, "2.0")])).await).await.unwrap_err();
    // In a response body.
    server.set_fault(Fault::Echoes(true));
    is_clean(&push().await.to_string());
    is_clean(&repository.refresh().await.unwrap_err().to_string());
    server.set_fault(Fault::None);
    // In a hook's message by the sideband, complete and truncated.
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("tagrelay:{TOKEN}"));
    remote.hook("pre-receive", &format!("echo 'not with {TOKEN}, not with {pair}' >&2; exit 1"));
    is_clean(&push().await.to_string());
    let filler = "x".repeat(983);
    remote.hook("pre-receive", &format!("echo '{filler} {TOKEN}' >&2; exit 1"));
    is_clean(&push().await.to_string());
    remote.remove_hook("pre-receive");
    // In the list of other branches.
    let gone = Setup::new(&format!("{}/config.git", server.url));
    let password = Secret::inline(TOKEN).unwrap();
    let gone = gone.with_authentication(Authentication::Basic { username: "tagrelay".to_owned(), password });
    git::git(&remote.bare(), &["branch", "-m", "main", "glpat-0f3a/9b+c77=e21"]);
    is_clean(&gone.open_kept().await.refresh().await.unwrap_err().to_string());
}

#[tokio::test]
async fn earlier_commit_is_read_from_mirror_or_remote() {
    let (remote, server) = platform();
    let commits: Vec<_> = ["2.0", "3.0", "4.0"]
        .map(|tag| {
            let text = deployment(&format!("uyou/user-service:{tag}"));
            remote.commit(tag, &[("environments/staging/user.yaml", &text)]).parse().unwrap()
        })
        .into();
    let repository = open(&server).await;
    assert!(repository.snapshot_at(commits[0]).await.is_err(), "nothing is known yet");
    repository.refresh().await.unwrap();
    let tag_at = async |commit| {
        let snapshot = repository.snapshot_at(commit).await.unwrap();
        assert_eq!(snapshot.tip, commit);
        snapshot.environments["staging"].sites[&USER.parse().unwrap()][0].version.to_string()
    };
    server.take_requests();
    assert_eq!(tag_at(commits[2]).await, "4.0");
    assert_eq!(server.take_requests(), Vec::<String>::new(), "that is where the branch is");
    assert_eq!(tag_at(commits[0]).await, "2.0");
    assert_eq!(server.take_requests(), [POST_READ, POST_READ]);
    assert_eq!(tag_at(commits[0]).await, "2.0");
    assert_eq!(server.take_requests(), Vec::<String>::new(), "it is remembered");
    // The previous tip is in the mirror, and the branch's state is unchanged.
    apply(&repository, plan("staging", &[(USER, "5.0")])).await;
    server.take_requests();
    assert_eq!(tag_at(commits[2]).await, "4.0");
    assert_eq!(server.take_requests(), Vec::<String>::new());
    assert_eq!(versions(&repository, "staging", USER), ["5.0"]);

    // An unknown commit is an error and has no other effect. With the old protocol, servers send reachable commits over HTTP.
    let unknown = "1".repeat(40).parse().unwrap();
    assert!(repository.snapshot_at(unknown).await.is_err());
    server.set_fault(Fault::OldProtocol);
    let of_old = open(&server).await;
    of_old.refresh().await.unwrap();
    assert!(of_old.snapshot_at(unknown).await.is_err());
    let old = of_old.snapshot_at(commits[1]).await.unwrap();
    assert_eq!(old.environments["staging"].sites[&USER.parse().unwrap()][0].version.to_string(), "3.0");
    apply(&of_old, plan("staging", &[(USER, "6.0")])).await;
    remote.assert_sound();
}
