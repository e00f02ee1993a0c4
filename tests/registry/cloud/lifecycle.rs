//! One token for all requests to a host: shared, dropped, and sent only where it belongs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tagrelay::registry::{Cloud, RegistrySettings};
use tagrelay_test_support::fake::{Answer, Fake};
use tagrelay_test_support::git_tls::NamedDoors;
use tagrelay_test_support::guarded_registry::{GuardedRegistry, SignIn};

use super::{assert_there, basic_registry, environment, not_allowed, not_now, registries, section, unauthorized};
use crate::image;

const HOST: &str = "europe-docker.pkg.dev";

/// A metadata server of Google that issues `token-1`, `token-2`, …
async fn metadata() -> Fake {
    let issued = AtomicUsize::new(0);
    let token = move |_: &_| {
        let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
        Answer::Json(200, format!(r#"{{"access_token":"token-{number}","expires_in":3599,"token_type":"Bearer"}}"#))
    };
    Fake::start(token).await
}

fn account(number: usize) -> String {
    format!("oauth2accesstoken:token-{number}")
}

fn at(server: &Fake) -> [(&'static str, &str); 1] {
    [("GCE_METADATA_HOST", server.url.strip_prefix("http://").unwrap())]
}

#[tokio::test]
async fn concurrent_requests_share_one_login() {
    let metadata = metadata().await;
    let (registry, _) = basic_registry(&account(1)).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let login = Some(Cloud::Google);
    let registries = Arc::new(registries(&doors, vec![section(HOST, login)], environment(&at(&metadata))));
    let confirmations: Vec<_> = (0..40)
        .map(|number| {
            let (registries, image) = (Arc::clone(&registries), image(HOST, &format!("uyou/{number}"), "1"));
            tokio::spawn(async move { registries.confirm(&image).await })
        })
        .collect();
    for confirmation in confirmations {
        assert_there(confirmation.await.unwrap());
    }
    assert_eq!(metadata.take().len(), 1);
}

#[tokio::test]
async fn refused_token_is_dropped_and_replaced_once() {
    let metadata = metadata().await;
    let (registry, accepted) = basic_registry(&account(1)).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Google))], environment(&at(&metadata)));
    let image = image(HOST, "uyou/a", "1");
    assert_there(registries.confirm(&image).await);
    *accepted.lock().unwrap() = account(2);
    registry.take();
    assert_there(registries.confirm(&image).await);
    assert_eq!((registry.take().len(), metadata.take().len()), (2, 2));
    // A registry that refuses every token does not cause a login for each image.
    *accepted.lock().unwrap() = "nothing".to_owned();
    for _ in 0..3 {
        let reason = not_allowed(registries.confirm(&image).await);
        let expected = "denied access with login = \"google\" (GCE_METADATA_HOST): check that the identity may pull";
        assert!(reason.contains(expected) && !reason.contains("token-"), "{reason}");
    }
    assert_eq!(metadata.take().len(), 0);
}

#[tokio::test]
async fn hanging_metadata_server_delays_only_its_registry() {
    let metadata = Fake::start(|_| Answer::Hang).await;
    let (registry, _) = basic_registry(&account(1)).await;
    let other = GuardedRegistry::start(SignIn::None).await;
    other.push("a", "1").await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let plain = RegistrySettings { plain_http: true, ..section(&other.host(), None) };
    let sections = vec![section(HOST, Some(Cloud::Google)), plain];
    let registries = registries(&doors, sections, environment(&at(&metadata)));
    let begun = Instant::now();
    let (hanging, other_image) = (image(HOST, "uyou/a", "1"), image(&other.host(), "a", "1"));
    let other = async {
        assert_there(registries.confirm(&other_image).await);
        begun.elapsed()
    };
    let (hanging, other_took) = tokio::join!(registries.confirm(&hanging), other);
    assert!(other_took < begun.elapsed(), "the other registry waited");
    let reason = not_now(hanging);
    assert!(reason.contains("did not answer within 2s") && reason.contains("NetworkPolicy"), "{reason}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn token_is_not_sent_to_a_token_service_outside_the_cloud() {
    let metadata = metadata().await;
    let evil = Fake::start(|_| Answer::Json(200, r#"{"token":"t"}"#.to_owned())).await;
    for realm in ["https://evil.example.com/token", "http://europe-docker.pkg.dev/token"] {
        let registry = Fake::start(move |_| unauthorized(&format!("Bearer realm=\"{realm}\",service=\"s\""))).await;
        let doors = NamedDoors::open(&[(HOST, &registry.url), ("evil.example.com", &evil.url)]).await;
        let registries = registries(&doors, vec![section(HOST, Some(Cloud::Google))], environment(&at(&metadata)));
        let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
        assert!(reason.contains("the token of login = \"google\" was not sent there"), "{reason}");
    }
    assert_eq!(evil.lines(), [] as [&str; 0]);
}

#[tokio::test]
async fn login_needs_a_host_of_its_cloud() {
    let doors = NamedDoors::open(&[("registry.example.com", "http://127.0.0.1:9")]).await;
    let settings = tagrelay::registry::RegistriesSettings {
        sections: vec![section("registry.example.com", Some(Cloud::Google))],
        ..Default::default()
    };
    let error = tagrelay::registry::Registries::open(settings).unwrap_err().to_string();
    assert!(error.contains("login = \"google\" is for \"*-docker.pkg.dev\" or \"*.gcr.io\" only"), "{error}");
    // A section for a pattern is checked for each host.
    let pattern = section("*.example.com", Some(Cloud::Google));
    let registries = registries(&doors, vec![pattern], environment(&[]));
    let reason = not_allowed(registries.confirm(&image("registry.example.com", "a", "1")).await);
    assert!(reason.contains("login = \"google\" is for"), "{reason}");
}
