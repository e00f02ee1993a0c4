//! Signed commits, verified by Git with ssh-keygen and GnuPG.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{Setup, apply, deployment, plan};
use tagrelay::config_repo::{SignatureFormat, Signer};
use tagrelay_secret::Secret;
use tagrelay_test_support::git::{self, Remote};
use tempfile::TempDir;

const IDENTITY: &str = "tagrelay@example.com";

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn secret(text: &str) -> Secret {
    Secret::inline(text.to_owned()).unwrap()
}

fn platform() -> Remote {
    Remote::with(&[("environments/staging/user.yaml", &deployment("uyou/user-service:0"))])
}

/// Pushes an update signed by `signer`, and returns the output of `git verify-commit` with `configuration`.
async fn verify(remote: &Remote, signer: Signer, tag: &str, home: &Path, configuration: &[&str]) -> String {
    let mut setup = Setup::new(&remote.file_url());
    setup.settings.commits.signer = Some(signer);
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    apply(&repository, plan("staging", &[("uyou/user-service", tag)])).await;
    assert_eq!(remote.read("environments/staging/user.yaml"), deployment(&format!("uyou/user-service:{tag}")));
    remote.assert_sound();
    let mut command = git::command(&remote.bare());
    command.env("GNUPGHOME", home);
    configuration.iter().for_each(|setting| {
        command.args(["-c", setting]);
    });
    let output = command.args(["verify-commit", "main"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn ssh_key(folder: &Path, name: &str, kind: &[&str], passphrase: &str) -> PathBuf {
    let path = folder.join(name);
    run(Command::new("ssh-keygen")
        .args(["-q", "-C", IDENTITY, "-N", passphrase, "-f"])
        .arg(&path)
        .arg("-t")
        .args(kind));
    path
}

#[tokio::test]
async fn git_accepts_signatures_of_ssh_keys() {
    let folder = TempDir::new().unwrap();
    let remote = platform();
    let keys: [(&str, &[&str], &str); 3] =
        [("plain", &["ed25519"], ""), ("locked", &["ed25519"], "open sesame"), ("curve", &["ecdsa", "-b", "384"], "")];
    for (name, kind, passphrase) in keys {
        let path = ssh_key(folder.path(), name, kind, passphrase);
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let signers = folder.path().join("allowed_signers");
        std::fs::write(&signers, format!("{IDENTITY} {public}")).unwrap();
        let passphrase = (!passphrase.is_empty()).then(|| secret(passphrase));
        let signer = Signer::new(SignatureFormat::Ssh, Secret::from_file(&path).unwrap(), passphrase).unwrap();
        let listed = run(Command::new("ssh-keygen").arg("-lf").arg(&path));
        assert!(listed.contains(&signer.fingerprint()), "{listed} {}", signer.fingerprint());
        let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
        let said = verify(&remote, signer, name, folder.path(), &["gpg.format=ssh", &allowed]).await;
        assert!(said.contains(&format!("Good \"git\" signature for {IDENTITY}")), "{said}");
    }
}

#[tokio::test]
async fn replaced_key_file_is_used_unless_it_is_broken() {
    let folder = TempDir::new().unwrap();
    let remote = platform();
    let (first, second) =
        (ssh_key(folder.path(), "first", &["ed25519"], ""), ssh_key(folder.path(), "second", &["ed25519"], ""));
    let public = std::fs::read_to_string(second.with_extension("pub")).unwrap();
    let signers = folder.path().join("allowed_signers");
    std::fs::write(&signers, format!("{IDENTITY} {public}")).unwrap();
    let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let signer = Signer::new(SignatureFormat::Ssh, Secret::from_file(&first).unwrap(), None).unwrap();
    std::fs::copy(&second, &first).unwrap();
    verify(&remote, signer.clone(), "1", folder.path(), &["gpg.format=ssh", &allowed]).await;
    std::fs::write(&first, "no key\n").unwrap();
    verify(&remote, signer, "2", folder.path(), &["gpg.format=ssh", &allowed]).await;
}

#[test]
fn keys_that_cannot_sign_are_explained() {
    let folder = TempDir::new().unwrap();
    let locked = Secret::from_file(ssh_key(folder.path(), "locked", &["ed25519"], "open sesame")).unwrap();
    let rsa = Secret::from_file(ssh_key(folder.path(), "rsa", &["rsa", "-b", "2048"], "")).unwrap();
    let public = Secret::from_file(folder.path().join("rsa.pub")).unwrap();
    let gpg = Gpg::new();
    let other_kind = gpg.key("Other <other@example.com>", "nistp256/ecdsa", "", "never");
    let expired = gpg.key("Old <old@example.com>", "ed25519", "", "seconds=1");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let guarded = gpg.key("Guarded <guarded@example.com>", "ed25519", "open sesame", "never");
    let gpg_public = secret(&gpg.run(&["--armor", "--export", "guarded@example.com"]));
    for (format, key, passphrase, complaint) in [
        (SignatureFormat::Ssh, &locked, None, "is encrypted; set `passphrase`"),
        (SignatureFormat::Ssh, &locked, Some("wrong"), "cannot be decrypted with this passphrase"),
        (SignatureFormat::Ssh, &rsa, None, "RSA keys are not supported"),
        (SignatureFormat::Ssh, &public, None, "must be a private key"),
        (SignatureFormat::OpenPgp, &rsa, None, "is not an armoured private key"),
        (SignatureFormat::OpenPgp, &gpg_public, None, "is not an armoured private key"),
        (SignatureFormat::OpenPgp, &other_kind, None, "the algorithm 19 of the OpenPGP key is not supported"),
        (SignatureFormat::OpenPgp, &expired, None, "has expired or is revoked"),
        (SignatureFormat::OpenPgp, &guarded, None, "is encrypted; set `passphrase`"),
        (SignatureFormat::OpenPgp, &guarded, Some("wrong"), "cannot be decrypted with this passphrase"),
    ] {
        let error = Signer::new(format, key.clone(), passphrase.map(secret)).unwrap_err().to_string();
        assert!(error.contains(complaint), "{complaint}: {error}");
        assert!(!error.contains("sesame") && !error.contains("PRIVATE"), "{error}");
    }
}

/// A GnuPG home. Its path is short, because the agent's socket is in it.
struct Gpg(TempDir);

impl Gpg {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap();
        std::fs::write(folder.path().join("gpg-agent.conf"), "allow-loopback-pinentry\n").unwrap();
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.0.path()).args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        run(command.args(arguments))
    }

    /// Creates a signing key and exports its secret half.
    fn key(&self, person: &str, algorithm: &str, passphrase: &str, expires: &str) -> Secret {
        self.run(&["--passphrase", passphrase, "--quick-gen-key", person, algorithm, "sign", expires]);
        self.export(person, passphrase)
    }

    fn export(&self, person: &str, passphrase: &str) -> Secret {
        secret(&self.run(&["--passphrase", passphrase, "--armor", "--export-secret-keys", person]))
    }

    fn fingerprints(&self, person: &str) -> Vec<String> {
        let listed = self.run(&["--with-colons", "--list-keys", person]);
        let prints = listed.lines().filter(|line| line.starts_with("fpr:"));
        prints.map(|line| line.split(':').nth(9).unwrap().to_owned()).collect()
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]).output();
    }
}

#[tokio::test]
async fn git_accepts_signatures_of_openpgp_keys() {
    let gpg = Gpg::new();
    let remote = platform();
    for (number, (algorithm, passphrase)) in
        [("ed25519", ""), ("ed25519", "open sesame"), ("rsa2048", ""), ("rsa2048", "open sesame")]
            .into_iter()
            .enumerate()
    {
        let address = format!("key{number}@example.com");
        let key = gpg.key(&format!("Tagrelay <{address}>"), algorithm, passphrase, "1y");
        let passphrase = (!passphrase.is_empty()).then(|| secret(passphrase));
        let signer = Signer::new(SignatureFormat::OpenPgp, key, passphrase).unwrap();
        assert_eq!(vec![signer.fingerprint()], gpg.fingerprints(&address));
        for round in 0..3 {
            let tag = format!("{number}.{round}");
            let said = verify(&remote, signer.clone(), &tag, gpg.0.path(), &[]).await;
            assert!(said.contains(&format!("Good signature from \"Tagrelay <{address}>\"")), "{said}");
        }
    }
}

#[tokio::test]
async fn subkey_signs_if_there_is_one() {
    let gpg = Gpg::new();
    gpg.run(&["--passphrase", "", "--quick-gen-key", "Sub <sub@example.com>", "rsa2048", "cert", "never"]);
    let primary = gpg.fingerprints("sub@example.com")[0].clone();
    for kind in [["ed25519", "sign"], ["cv25519", "encr"]] {
        gpg.run(&["--passphrase", "", "--quick-add-key", &primary, kind[0], kind[1], "never"]);
    }
    let subkey = gpg.fingerprints("sub@example.com")[1].clone();
    let remote = platform();
    // With the primary key, and without it, as on machines that must not have it.
    let without = secret(&gpg.run(&["--armor", "--export-secret-subkeys", "sub@example.com"]));
    for (tag, key) in [("1", gpg.export("sub@example.com", "")), ("2", without)] {
        let signer = Signer::new(SignatureFormat::OpenPgp, key, None).unwrap();
        assert_eq!(signer.fingerprint(), subkey);
        let said = verify(&remote, signer, tag, gpg.0.path(), &[]).await;
        assert!(said.contains("Good signature from \"Sub <sub@example.com>\""), "{said}");
    }
}
