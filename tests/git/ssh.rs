//! Config repositories over SSH, with Debian's `sshd`.

use std::process::Command;

use crate::setup::{Setup, apply, deployment, plan, prepare, versions};
use tagrelay::config_repo::{Authentication, PushError, RemoteError};
use tagrelay_secret::Secret;
use tagrelay_test_support::git::Remote;
use tagrelay_test_support::git_ssh::{Sshd, VERSION_2, keygen};

const USER: &str = "uyou/user-service";

fn platform() -> Remote {
    Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:1.0"))])
}

fn setup(remote: &Remote, sshd: &Sshd, key: &str, passphrase: Option<&str>, known_hosts: &str) -> Setup {
    Setup::new(&sshd.url(&remote.bare())).with_authentication(Authentication::SshKey {
        key: Secret::from_file(sshd.path(key)).unwrap(),
        passphrase: passphrase.map(|text| Secret::inline(text.to_owned()).unwrap()),
        known_hosts: sshd.path(known_hosts),
    })
}

/// The error of the first refresh.
async fn refusal(setup: Setup) -> String {
    let error = setup.open_kept().await.refresh().await.unwrap_err();
    assert!(matches!(error, RemoteError::Unauthorized { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn reading_and_pushing_share_a_connection() {
    let remote = platform();
    let mut sshd = Sshd::start(VERSION_2);
    sshd.known_hosts("known", "host");
    let repository = setup(&remote, &sshd, "client", None, "known").open_kept().await;
    repository.refresh().await.unwrap();
    // A new connection would need a key that is no longer accepted.
    std::fs::write(sshd.path("authorized_keys"), "").unwrap();
    for tag in ["2.0", "3.0"] {
        apply(&repository, plan("staging", &[(USER, tag)])).await;
    }
    remote.commit("foreign", &[("environments/staging/order.yaml", &deployment("uyou/order-service:7.0"))]);
    apply(&repository, plan("staging", &[(USER, "4.0")])).await;
    assert_eq!(versions(&repository, "staging", "uyou/order-service"), ["7.0"]);
    assert_eq!(remote.log().len(), 5);

    sshd.restart(VERSION_2);
    let prepared = prepare(&repository, plan("staging", &[(USER, "5.0")])).await;
    let error = repository.push(prepared.clone()).await.unwrap_err();
    assert!(matches!(&error, PushError::Unauthorized { .. }), "{error}");
    std::fs::copy(sshd.path("client.pub"), sshd.path("authorized_keys")).unwrap();
    repository.push(prepared).await.unwrap();
    sshd.stop();
    assert!(repository.refresh().await.unwrap_err().is_transient());
    remote.assert_sound();
}

#[tokio::test]
async fn rotated_ssh_key_is_read_again() {
    let remote = platform();
    let mut sshd = Sshd::start(VERSION_2);
    sshd.known_hosts("known", "host");
    let repository = setup(&remote, &sshd, "client", None, "known").open_kept().await;
    repository.refresh().await.unwrap();
    keygen(&sshd.path("next"), "ed25519", "");
    std::fs::copy(sshd.path("next"), sshd.path("client")).unwrap();
    std::fs::copy(sshd.path("next.pub"), sshd.path("authorized_keys")).unwrap();
    // The connection of the old key is closed.
    sshd.restart(VERSION_2);
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    assert_eq!(remote.log().len(), 2);
}

#[tokio::test]
async fn ssh_server_with_protocol_version_0_works() {
    let remote = platform();
    let sshd = Sshd::start("");
    sshd.known_hosts("known", "host");
    let repository = setup(&remote, &sshd, "client", None, "known").open_kept().await;
    repository.refresh().await.unwrap();
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[(USER, "2.0")])).await;
    remote.commit("foreign", &[("environments/staging/order.yaml", &deployment("uyou/order-service:7.0"))]);
    apply(&repository, plan("staging", &[(USER, "3.0")])).await;
    assert_eq!(versions(&repository, "staging", "uyou/order-service"), ["7.0"]);
    remote.assert_sound();
}

#[tokio::test]
async fn unknown_hosts_are_refused_with_fingerprint() {
    let remote = platform();
    let sshd = Sshd::start(VERSION_2);
    std::fs::write(sshd.path("empty"), "other.example ssh-ed25519 AAAA\n").unwrap();
    let error = refusal(setup(&remote, &sshd, "client", None, "empty")).await;
    assert!(error.contains(&sshd.fingerprint("host")) && error.contains("ssh-keyscan"), "{error}");

    sshd.known_hosts("changed", "client");
    let error = refusal(setup(&remote, &sshd, "client", None, "changed")).await;
    assert!(error.contains(&sshd.fingerprint("host")) && error.contains("line 2"), "{error}");

    let error = refusal(setup(&remote, &sshd, "client", None, "missing")).await;
    assert!(error.contains("cannot be read"), "{error}");

    sshd.known_hosts("hashed", "host");
    let hashing = Command::new("ssh-keygen").arg("-Hf").arg(sshd.path("hashed")).output().unwrap();
    assert!(hashing.status.success());
    assert!(std::fs::read_to_string(sshd.path("hashed")).unwrap().contains("|1|"));
    setup(&remote, &sshd, "client", None, "hashed").open_kept().await.refresh().await.unwrap();
}

#[tokio::test]
async fn unreadable_ssh_keys_are_named() {
    let remote = platform();
    let sshd = Sshd::start(VERSION_2);
    sshd.known_hosts("known", "host");

    keygen(&sshd.path("stranger"), "ed25519", "");
    let error = refusal(setup(&remote, &sshd, "stranger", None, "known")).await;
    assert!(error.contains(&sshd.fingerprint("stranger")), "{error}");

    keygen(&sshd.path("locked"), "ecdsa", "open sesame");
    std::fs::copy(sshd.path("locked.pub"), sshd.path("authorized_keys")).unwrap();
    setup(&remote, &sshd, "locked", Some("open sesame"), "known").open_kept().await.refresh().await.unwrap();
    let error = refusal(setup(&remote, &sshd, "locked", None, "known")).await;
    assert!(error.contains("`ssh_key_passphrase`"), "{error}");
    let error = refusal(setup(&remote, &sshd, "locked", Some("close"), "known")).await;
    assert!(error.contains("cannot be decrypted") && !error.contains("close"), "{error}");

    for (name, passphrase) in [("rsa", None), ("locked-rsa", Some("open sesame"))] {
        keygen(&sshd.path(name), "rsa", passphrase.unwrap_or_default());
        let error = refusal(setup(&remote, &sshd, name, passphrase, "known")).await;
        assert!(error.contains("RSA keys are not supported"), "{error}");
    }
    std::fs::write(sshd.path("nonsense"), "nonsense").unwrap();
    let error = refusal(setup(&remote, &sshd, "nonsense", None, "known")).await;
    assert!(error.contains("cannot be read") && !error.contains("nonsense"), "{error}");
}

#[tokio::test]
async fn missing_repository_is_reported_with_the_server_message() {
    let remote = platform();
    let sshd = Sshd::start(VERSION_2);
    sshd.known_hosts("known", "host");
    let mut setup = setup(&remote, &sshd, "client", None, "known");
    setup.settings.url = sshd.url(&remote.root().join("it's not here.git")).parse().unwrap();
    let error = setup.open_kept().await.refresh().await.unwrap_err();
    assert!(matches!(&error, RemoteError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("it's not here.git"), "{error}");
}

#[tokio::test]
async fn rejection_by_hook_over_ssh_is_final() {
    let remote = platform();
    remote.hook("pre-receive", "echo 'not on a Friday' >&2; exit 1");
    let sshd = Sshd::start(VERSION_2);
    sshd.known_hosts("known", "host");
    let repository = setup(&remote, &sshd, "client", None, "known").open_kept().await;
    repository.refresh().await.unwrap();
    let prepared = prepare(&repository, plan("staging", &[(USER, "2.0")])).await;
    let PushError::Refused { reason } = repository.push(prepared).await.unwrap_err() else { panic!("not refused") };
    assert!(reason.contains("pre-receive hook declined: not on a Friday"), "{reason}");
}
