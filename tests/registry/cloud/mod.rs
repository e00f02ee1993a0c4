//! Logins with a cloud's identity. Services of the clouds are moto or fakes, reached under their real names over TLS.

mod aws;
mod azure;
mod google;
mod lifecycle;

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tagrelay::registry::{
    Addresses, Cloud, CloudEnvironment, Confirmation, Registries, RegistriesSettings, RegistrySettings, TimeLimits,
};
use tagrelay_test_support::fake::{Answer, Asked, Fake};
use tagrelay_test_support::git_tls::NamedDoors;

/// An environment with only these variables.
fn environment(variables: &[(&str, &str)]) -> CloudEnvironment {
    CloudEnvironment::read(&|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned()).ok_or(std::env::VarError::NotPresent)
    })
}

fn section(host: &str, login: Option<Cloud>) -> RegistrySettings {
    RegistrySettings { login, ..RegistrySettings::for_host(host) }
}

/// Registries that reach named services through these doors and trust them.
fn registries(doors: &NamedDoors, sections: Vec<RegistrySettings>, environment: CloudEnvironment) -> Registries {
    let trust = |section: RegistrySettings| match section.plain_http {
        true => section,
        false => RegistrySettings { ca_bundle: Some(doors.authority()), ..section },
    };
    let sections = sections.into_iter().map(trust).collect();
    let settings = RegistriesSettings { sections, docker_config: None, environment };
    Registries::open_with(settings, TimeLimits::default(), Addresses(doors.addresses.clone())).unwrap()
}

fn manifest() -> Answer {
    let digest = format!("sha256:{}", "a".repeat(64));
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    Answer::With(200, vec![("content-type", media_type), ("docker-content-digest", digest)], String::new())
}

fn unauthorized(challenge: &str) -> Answer {
    Answer::With(401, vec![("www-authenticate", challenge.to_owned())], String::new())
}

/// User name and password of a request.
fn basic(asked: &Asked) -> Option<String> {
    let text = STANDARD.decode(asked.header("authorization").strip_prefix("Basic ")?).ok()?;
    String::from_utf8(text).ok()
}

/// A registry that accepts one user name and password, which the test may change.
async fn basic_registry(account: &str) -> (Fake, Arc<Mutex<String>>) {
    let account = Arc::new(Mutex::new(account.to_owned()));
    let accepted = Arc::clone(&account);
    let fake = Fake::start(move |asked| match basic(asked).as_ref() == Some(&*accepted.lock().unwrap()) {
        true => manifest(),
        false => unauthorized("Basic realm=\"the registry\""),
    });
    (fake.await, account)
}

#[track_caller]
fn assert_there(confirmation: Confirmation) {
    assert!(matches!(confirmation, Confirmation::There(_)), "{confirmation:?}");
}

#[track_caller]
fn not_allowed(confirmation: Confirmation) -> String {
    let Confirmation::NotAllowed { reason } = confirmation else { panic!("{confirmation:?}") };
    reason
}

#[track_caller]
fn not_now(confirmation: Confirmation) -> String {
    let Confirmation::NotNow { reason, .. } = confirmation else { panic!("{confirmation:?}") };
    reason
}
