//! Push, confirmation and notifications with Debian's `docker-registry`.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::header;
use serde_json::Value;
use tagrelay::registry::{Confirmation, Credentials, Registries, RegistrySettings, UnverifiedImage};
use tagrelay_embedded_registry::push::{TinyImage, push};
use tagrelay_image::Digest;
use tagrelay_secret::Secret;
use tagrelay_test_support::collector::Collector;
use tagrelay_test_support::docker_registry::{DockerRegistry, Options, READER};
use tagrelay_test_support::peer;

use crate::image;

async fn push_tiny(image: &UnverifiedImage, credentials: Option<(&str, &str)>) -> anyhow::Result<Digest> {
    let created = "2026-11-23T08:00:00Z".parse().unwrap();
    let tiny = TinyImage { revision: Some(image.tag.to_string()), created, text: image.tag.to_string() };
    push(&image.repository, &image.tag, &tiny, credentials).await
}

fn reader(password: &str) -> Credentials {
    Credentials { username: READER.0.to_owned(), password: Secret::inline(password.to_owned()).unwrap() }
}

fn asking(host: &str, credentials: Option<Credentials>) -> Registries {
    let settings = RegistrySettings { plain_http: true, credentials, ..RegistrySettings::for_host(host) };
    Registries::new(vec![settings]).unwrap()
}

#[tokio::test]
async fn only_pushed_images_are_confirmed() {
    let Some(registry) = DockerRegistry::start(Options::default()) else { return };
    let pushed = image(&registry.host, "uyou/user-service", "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432");
    let digest = push_tiny(&pushed, None).await.unwrap();
    let registries = asking(&registry.host, None);
    let Confirmation::There(verified) = registries.confirm(&pushed).await else { panic!() };
    assert_eq!(verified.digest(), Some(&digest));
    let forged = image(&registry.host, "uyou/user-service", "0000000000000000000000000000000000000000");
    assert_eq!(registries.confirm(&forged).await, Confirmation::NotThere);
    assert_eq!(registries.confirm(&image(&registry.host, "uyou/other", "1")).await, Confirmation::NotThere);
}

#[tokio::test]
async fn docker_registry_notifies_of_the_push() {
    let collector = Collector::start(0).await;
    let notify = Some((collector.url(), "webhook-secret".to_owned()));
    let Some(registry) = DockerRegistry::start(Options { notify, ..Options::default() }) else { return };
    let pushed = image(&registry.host, "uyou/user-service", "1.0");
    let digest = push_tiny(&pushed, None).await.unwrap();
    let is_tagged = |event: &Value| event["target"]["tag"] == "1.0";
    let received = collector.wait(|events| events.iter().any(is_tagged)).await;
    let (request, event) = received
        .iter()
        .flat_map(|request| request.events().into_iter().map(move |event| (request, event)))
        .find(|(_, event)| is_tagged(event))
        .unwrap();
    assert_eq!(request.headers[header::AUTHORIZATION], "Bearer webhook-secret");
    assert_eq!(event["action"], "push");
    assert_eq!(event["target"]["digest"], digest.as_str());
    assert_eq!(event["request"]["host"], registry.host);
}

#[tokio::test]
async fn user_signs_in_with_a_password() {
    let Some(registry) = DockerRegistry::start(Options { sign_in: true, ..Options::default() }) else { return };
    let pushed = image(&registry.host, "a", "1");
    assert!(push_tiny(&pushed, None).await.is_err());
    let digest = push_tiny(&pushed, Some(READER)).await.unwrap();
    let registries = asking(&registry.host, Some(reader(READER.1)));
    for _ in 0..2 {
        let Confirmation::There(verified) = registries.confirm(&pushed).await else { panic!() };
        assert_eq!(verified.digest(), Some(&digest));
    }
    assert_eq!(registries.confirm(&image(&registry.host, "a", "2")).await, Confirmation::NotThere);
    for credentials in [None, Some(reader("wrong"))] {
        let refused = asking(&registry.host, credentials).confirm(&pushed).await;
        assert!(matches!(refused, Confirmation::NotAllowed { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn private_authority_is_trusted_only_if_configured() {
    if peer::is_left_out("docker-registry") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Certificates { authority, certificate, key } = Certificates::make(folder.path());
    let tls = Some((certificate, key));
    let Some(registry) = DockerRegistry::start(Options { tls, ..Options::default() }) else { return };
    let anything = image(&registry.host, "a", "1");
    let confirm = async |plain_http, ca_bundle| {
        let settings = RegistrySettings { plain_http, ca_bundle, ..RegistrySettings::for_host(&registry.host) };
        Registries::new(vec![settings]).unwrap().confirm(&anything).await
    };
    assert_eq!(confirm(false, Some(authority)).await, Confirmation::NotThere, "it was asked and answered");
    let Confirmation::NotNow { reason, .. } = confirm(false, None).await else { panic!() };
    assert!(reason.contains("set ca_bundle"), "{reason}");
    let Confirmation::NotAllowed { reason } = confirm(true, None).await else { panic!() };
    assert!(reason.contains("remove plain_http = true"), "{reason}");
}

/// A certificate authority and its certificate for 127.0.0.1, as PEM files.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(folder: &Path) -> Self {
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let new = |name: &str, more: &[&str]| {
            let (key, certificate) = (format!("{name}-key.pem"), format!("{name}.pem"));
            let mut openssl = Command::new("openssl");
            openssl.current_dir(folder).args(["req", "-x509"]).args(curve);
            openssl.args(["-subj", &format!("/CN=tests {name}"), "-keyout", &key, "-out", &certificate]).args(more);
            let made = openssl.output().expect("openssl is needed for certificates: install it with `make setup`");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            folder.join(certificate)
        };
        let authority = new("authority", &["-addext", "keyUsage=critical,keyCertSign"]);
        let signed =
            ["-CA", "authority.pem", "-CAkey", "authority-key.pem", "-addext", "basicConstraints=critical,CA:FALSE"];
        let certificate = new("registry", &[&signed[..], &["-addext", "subjectAltName=IP:127.0.0.1"]].concat());
        Self { authority, certificate, key: folder.join("registry-key.pem") }
    }
}
