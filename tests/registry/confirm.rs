//! Confirmations against the embedded registry behind its guard.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use tagrelay::registry::{Confirmation, Credentials, Registries, RegistrySettings, TimeLimits, UnverifiedImage};
use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_image::Repository;
use tagrelay_secret::Secret;
use tagrelay_test_support::guarded_registry::{Fault, GuardedRegistry, READER, SignIn};

use crate::image;

fn plain(host: &str) -> RegistrySettings {
    RegistrySettings { plain_http: true, ..RegistrySettings::for_host(host) }
}

fn with_password(host: &str, password: &str) -> RegistrySettings {
    let password = Secret::inline(password.to_owned()).unwrap();
    RegistrySettings { credentials: Some(Credentials { username: READER.0.to_owned(), password }), ..plain(host) }
}

fn asking(registry: &GuardedRegistry) -> Registries {
    Registries::new(vec![plain(&registry.host())]).unwrap()
}

/// Short time limits for tests that exceed them.
const SHORT: TimeLimits = TimeLimits { connect: Duration::from_secs(1), request: Duration::from_secs(2) };

#[track_caller]
fn digest(confirmation: Confirmation) -> String {
    match confirmation {
        Confirmation::There(image) => image.digest().unwrap().to_string(),
        other => panic!("not there: {other:?}"),
    }
}

#[track_caller]
fn not_allowed(confirmation: Confirmation) -> String {
    match confirmation {
        Confirmation::NotAllowed { reason } => reason,
        other => panic!("not what was expected: {other:?}"),
    }
}

#[track_caller]
fn not_now(confirmation: Confirmation) -> (String, Option<u64>) {
    match confirmation {
        Confirmation::NotNow { reason, ask_again_after } => (reason, ask_again_after.map(|wait| wait.as_secs())),
        other => panic!("not what was expected: {other:?}"),
    }
}

#[tokio::test]
async fn registry_without_sign_in_needs_one_head() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    let pushed = registry.push("uyou/user-service", "1").await;
    let registries = asking(&registry);
    let image = image(&registry.host(), "uyou/user-service", "1");
    let Confirmation::There(verified) = registries.confirm(&image).await else { panic!() };
    assert_eq!((verified.repository(), verified.tag()), (&image.repository, &image.tag));
    assert_eq!(verified.version().to_string(), format!("1@{pushed}"));
    assert_eq!(registry.requests(), ["HEAD /v2/uyou/user-service/manifests/1"]);
}

#[tokio::test]
async fn unknown_tag_is_not_there() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    registry.push("a", "1").await;
    let registries = asking(&registry);
    assert_eq!(registries.confirm(&image(&registry.host(), "a", "2")).await, Confirmation::NotThere);
    assert_eq!(registries.confirm(&image(&registry.host(), "b", "1")).await, Confirmation::NotThere);
    assert_eq!(registry.requests(), ["HEAD /v2/a/manifests/2", "HEAD /v2/b/manifests/1"]);
}

#[tokio::test]
async fn kept_token_makes_the_second_confirmation_one_head() {
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 300 }).await;
    let pushed = registry.push("a/b", "1").await;
    let registries = asking(&registry);
    let image = image(&registry.host(), "a/b", "1");
    assert_eq!(digest(registries.confirm(&image).await), pushed.to_string());
    assert_eq!(registry.requests(), ["HEAD /v2/a/b/manifests/1", "GET /token", "HEAD /v2/a/b/manifests/1"]);
    for _ in 0..3 {
        assert_eq!(digest(registries.confirm(&image).await), pushed.to_string());
        assert_eq!(registry.requests(), ["HEAD /v2/a/b/manifests/1"]);
    }
    // Another repository needs another token, but no new challenge.
    assert_eq!(registries.confirm(&crate::image(&registry.host(), "c", "1")).await, Confirmation::NotThere);
    assert_eq!(registry.requests(), ["GET /token", "HEAD /v2/c/manifests/1"]);
}

#[tokio::test]
async fn expired_token_is_replaced_before_it_is_used() {
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 0 }).await;
    registry.push("a", "1").await;
    let registries = asking(&registry);
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
    registry.requests();
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
    assert_eq!(registry.requests(), ["GET /token", "HEAD /v2/a/manifests/1"]);
}

#[tokio::test]
async fn refused_token_is_replaced_once() {
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 300 }).await;
    registry.push("a", "1").await;
    let registries = asking(&registry);
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
    registry.requests();
    registry.forget_tokens();
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
    let once = ["HEAD /v2/a/manifests/1", "GET /token", "HEAD /v2/a/manifests/1"];
    assert_eq!(registry.requests(), once);

    // A rejected token is not fetched repeatedly.
    let unauthorized = || Fault::status(401, &[("www-authenticate", "Bearer realm=\"http://127.0.0.1:1/\"")]);
    let challenge = format!("Bearer realm=\"http://{}/token?from=challenge\",service=\"tests\"", registry.host());
    registry.next([Fault::status(401, &[("www-authenticate", &challenge)]), unauthorized()]);
    let reason = not_allowed(registries.confirm(&image(&registry.host(), "a", "1")).await);
    assert!(reason.contains("set username and password"), "{reason}");
    assert_eq!(registry.requests(), once);
}

#[tokio::test]
async fn concurrent_confirmations_share_one_token_request() {
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 300 }).await;
    registry.push("a", "1").await;
    registry.requests();
    registry.hold_tokens_until(20);
    let registries = Arc::new(asking(&registry));
    let confirmations: Vec<_> = (0..20)
        .map(|_| {
            let (registries, image) = (Arc::clone(&registries), image(&registry.host(), "a", "1"));
            tokio::spawn(async move { digest(registries.confirm(&image).await) })
        })
        .collect();
    for confirmation in confirmations {
        confirmation.await.unwrap();
    }
    let requests = registry.requests();
    assert_eq!(requests.iter().filter(|line| *line == "GET /token").count(), 1, "{requests:?}");
    assert_eq!(requests.len(), 41);
}

#[tokio::test]
async fn credentials_go_only_to_the_token_service() {
    let registry = GuardedRegistry::start(SignIn::BearerForReader).await;
    registry.push("a", "1").await;
    let image = image(&registry.host(), "a", "1");
    let registries = Registries::new(vec![with_password(&registry.host(), READER.1)]).unwrap();
    digest(registries.confirm(&image).await);
    assert_eq!(registry.seen_authorization().len(), 2, "one Basic, one Bearer");

    let anonymous = not_allowed(asking(&registry).confirm(&image).await);
    assert!(anonymous.contains("denied anonymous access"), "{anonymous}");
    let registries = Registries::new(vec![with_password(&registry.host(), "wrong-password")]).unwrap();
    let wrong = not_allowed(registries.confirm(&image).await);
    assert!(wrong.contains("check username and password") && wrong.contains(&registry.host()), "{wrong}");
    assert!(!wrong.contains("wrong-password"), "{wrong}");
}

#[tokio::test]
async fn basic_authentication_is_sent_at_once_after_the_first_challenge() {
    let registry = GuardedRegistry::start(SignIn::Basic).await;
    registry.push("a", "1").await;
    let image = image(&registry.host(), "a", "1");
    let registries = Registries::new(vec![with_password(&registry.host(), READER.1)]).unwrap();
    registry.requests();
    digest(registries.confirm(&image).await);
    assert_eq!(registry.requests().len(), 2);
    digest(registries.confirm(&image).await);
    assert_eq!(registry.requests().len(), 1);

    not_allowed(asking(&registry).confirm(&image).await);
    let registries = Registries::new(vec![with_password(&registry.host(), "wrong")]).unwrap();
    registry.requests();
    not_allowed(registries.confirm(&image).await);
    not_allowed(registries.confirm(&image).await);
    assert_eq!(registry.requests().len(), 3, "the same wrong password is not sent twice for one question");
}

#[tokio::test]
async fn unreadable_password_is_transient() {
    let registry = GuardedRegistry::start(SignIn::Basic).await;
    registry.push("a", "1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, READER.1).unwrap();
    let credentials = Credentials { username: READER.0.to_owned(), password: Secret::from_file(&file).unwrap() };
    let settings = RegistrySettings { credentials: Some(credentials), ..plain(&registry.host()) };
    let registries = Registries::new(vec![settings]).unwrap();
    std::fs::remove_file(&file).unwrap();
    let (reason, _) = not_now(registries.confirm(&image(&registry.host(), "a", "1")).await);
    assert!(reason.contains(file.to_str().unwrap()), "{reason}");
    std::fs::write(&file, READER.1).unwrap();
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
}

#[tokio::test]
async fn transient_errors_are_not_refusals() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    registry.push("a", "1").await;
    let registries = asking(&registry);
    let image = image(&registry.host(), "a", "1");
    for (fault, expected) in [
        (Fault::status(429, &[("retry-after", "30")]), Some(30)),
        (Fault::status(429, &[]), None),
        (Fault::status(500, &[]), None),
        (Fault::status(503, &[("retry-after", "7")]), Some(7)),
        (Fault::status(408, &[]), None),
    ] {
        registry.next([fault]);
        let (reason, wait) = not_now(registries.confirm(&image).await);
        assert_eq!(wait, expected, "{reason}");
        assert!(reason.contains(&registry.host()), "{reason}");
    }
    digest(registries.confirm(&image).await);
}

#[tokio::test]
async fn unreachable_token_service_is_transient() {
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 300 }).await;
    registry.push("a", "1").await;
    let registries = Registries::with_limits(vec![plain(&registry.host())], SHORT).unwrap();
    let image = image(&registry.host(), "a", "1");
    registry.next_token([
        Fault::status(429, &[("retry-after", "9")]),
        Fault::status(502, &[]),
        Fault::Hang,
        Fault::Answer(http::StatusCode::OK, Vec::new(), b"<html>".to_vec()),
    ]);
    assert_eq!(not_now(registries.confirm(&image).await).1, Some(9));
    for expected in ["502", "did not answer within 2s", "without a token"] {
        let (reason, _) = not_now(registries.confirm(&image).await);
        assert!(reason.starts_with("the token service 127.0.0.1 of registry 127.0.0.1:"), "{reason}");
        assert!(reason.contains(expected), "{reason}");
    }
    digest(registries.confirm(&image).await);
}

#[tokio::test]
async fn refusals_contain_advice() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    registry.push("a", "1").await;
    let registries = asking(&registry);
    for (fault, expected) in [
        (Fault::status(403, &[]), "set username and password"),
        (Fault::status(401, &[]), "without a usable challenge"),
        (Fault::status(401, &[("www-authenticate", "Negotiate")]), "without a usable challenge"),
        (Fault::status(401, &[("www-authenticate", "Bearer realm=\"ftp://u:secret@x/\"")]), "which is not HTTPS"),
        (Fault::status(400, &[]), "remove plain_http"),
        (Fault::status(410, &[]), "check that the host is a registry"),
    ] {
        registry.next([fault]);
        let reason = not_allowed(registries.confirm(&image(&registry.host(), "a", "1")).await);
        assert!(reason.contains(expected) && !reason.contains("secret"), "{reason}");
    }
    // Registry errors are not cached, so they disappear when the registry is repaired.
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
}

#[tokio::test]
async fn missing_or_invalid_digest_costs_one_get() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    let pushed = registry.push("a", "1").await;
    let registries = asking(&registry);
    let image = image(&registry.host(), "a", "1");
    for fault in [
        Fault::Digest(None),
        Fault::Digest(Some("sha256:0123")),
        Fault::Digest(Some("md5:d41d8cd98f00b204e9800998ecf8427e")),
        Fault::status(405, &[]),
        Fault::status(501, &[]),
    ] {
        registry.requests();
        registry.next([fault]);
        assert_eq!(digest(registries.confirm(&image).await), pushed.to_string());
        assert_eq!(registry.requests(), ["HEAD /v2/a/manifests/1", "GET /v2/a/manifests/1"]);
    }
    // The hash of the bytes counts, not the digest in the header.
    const LIE: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    registry.next([Fault::Digest(None), Fault::Digest(Some(LIE))]);
    assert_eq!(digest(registries.confirm(&image).await), pushed.to_string());
}

#[tokio::test]
async fn login_page_is_not_an_image() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    let registries = asking(&registry);
    let page =
        |body: &[u8]| Fault::Answer(http::StatusCode::OK, vec![("content-type", "text/html".into())], body.into());
    registry.next([page(b""), page(b"<html>Sign in</html>")]);
    let reason = not_allowed(registries.confirm(&image(&registry.host(), "a", "1")).await);
    assert!(reason.contains("something other than a manifest"), "{reason}");
    registry.next([page(b""), page(&vec![b' '; (8 << 20) + 1])]);
    let reason = not_allowed(registries.confirm(&image(&registry.host(), "a", "1")).await);
    assert!(reason.contains("more than 4 MiB"), "{reason}");
}

#[tokio::test]
async fn hanging_registry_does_not_delay_others() {
    let (slow, quick) = (GuardedRegistry::start(SignIn::None).await, GuardedRegistry::start(SignIn::None).await);
    quick.push("a", "1").await;
    slow.next([Fault::Hang]);
    let limits = TimeLimits { request: Duration::from_secs(2), ..TimeLimits::default() };
    let settings = vec![plain(&slow.host()), plain(&quick.host())];
    let registries = Arc::new(Registries::with_limits(settings, limits).unwrap());
    let waiting = tokio::spawn({
        let (registries, image) = (Arc::clone(&registries), image(&slow.host(), "a", "1"));
        async move { registries.confirm(&image).await }
    });
    while slow.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    digest(registries.confirm(&image(&quick.host(), "a", "1")).await);
    // Nor are other requests to the slow registry delayed.
    assert_eq!(registries.confirm(&image(&slow.host(), "b", "1")).await, Confirmation::NotThere);
    assert!(!waiting.is_finished());
    let (reason, _) = not_now(waiting.await.unwrap());
    assert!(reason.contains("did not answer within 2s"), "{reason}");
}

#[tokio::test]
async fn concurrent_requests_to_a_registry_are_limited() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    registry.next(std::iter::repeat_n(Fault::Hang, 64));
    let limits = TimeLimits { request: Duration::from_secs(3), ..TimeLimits::default() };
    let other = GuardedRegistry::start(SignIn::None).await;
    let settings = vec![plain(&registry.host()), plain(&other.host())];
    let registries = Arc::new(Registries::with_limits(settings, limits).unwrap());
    let confirmations: Vec<_> = (0..200)
        .map(|_| {
            let (registries, image) = (Arc::clone(&registries), image(&registry.host(), "a", "1"));
            tokio::spawn(async move { registries.confirm(&image).await })
        })
        .collect();
    let mut asked = 0;
    while asked < 64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        asked += registry.requests().len();
    }
    // While a confirmation at another registry goes through, no further request is sent to this one.
    assert_eq!(registries.confirm(&image(&other.host(), "a", "1")).await, Confirmation::NotThere);
    assert_eq!(asked + registry.requests().len(), 64);
    let mut late = 0;
    for confirmation in confirmations {
        match confirmation.await.unwrap() {
            Confirmation::NotThere => {}
            other => late += usize::from(not_now(other).0.contains("did not answer")),
        }
    }
    assert_eq!(late, 64, "the time limit of a queued request begins when it is sent");
}

#[tokio::test]
async fn token_does_not_follow_a_redirect_to_another_host() {
    let elsewhere = GuardedRegistry::start(SignIn::None).await;
    let pushed = elsewhere.push("a", "1").await;
    let registry = GuardedRegistry::start(SignIn::Bearer { expires_in: 300 }).await;
    registry.push("a", "1").await;
    let registries = asking(&registry);
    digest(registries.confirm(&image(&registry.host(), "a", "1")).await);
    let there = format!("http://{}/v2/a/manifests/1", elsewhere.host());
    registry.next([Fault::status(307, &[("location", &there)])]);
    assert_eq!(digest(registries.confirm(&image(&registry.host(), "a", "1")).await), pushed.to_string());
    assert_eq!(elsewhere.requests(), ["HEAD /v2/a/manifests/1"]);
    assert!(elsewhere.seen_authorization().is_empty());

    let around = format!("http://{}/v2/a/manifests/1", registry.host());
    registry.next(std::iter::repeat_n(Fault::status(307, &[("location", &around)]), 10));
    let (reason, _) = not_now(registries.confirm(&image(&registry.host(), "a", "1")).await);
    assert!(reason.contains("too many redirects"), "{reason}");
}

#[tokio::test]
async fn restarted_registry_is_found_again() {
    let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let (address, host) = (registry.address(), registry.host());
    let image = UnverifiedImage { repository: Repository::new(&host, "a").unwrap(), tag: "1".parse().unwrap() };
    let registries = Registries::new(vec![plain(&host)]).unwrap();
    assert_eq!(registries.confirm(&image).await, Confirmation::NotThere);
    registry.stop().await;
    assert!(not_now(registries.confirm(&image).await).0.contains("connection refused"));
    let _again = EmbeddedRegistry::start(address, None).await.unwrap();
    assert_eq!(registries.confirm(&image).await, Confirmation::NotThere);
}

#[tokio::test]
async fn refused_connection_is_transient() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let image =
        |host: &str| UnverifiedImage { repository: Repository::new(host, "a").unwrap(), tag: "1".parse().unwrap() };
    let registries = Registries::with_limits(vec![plain(&free), plain("registry.invalid")], SHORT).unwrap();
    let (reason, _) = not_now(registries.confirm(&image(&free)).await);
    assert!(reason.contains("connection refused"), "{reason}");
    let (reason, _) = not_now(registries.confirm(&image("registry.invalid")).await);
    assert!(reason.starts_with("registry registry.invalid "), "{reason}");
}

#[tokio::test]
async fn plain_http_needs_the_setting() {
    let registry = GuardedRegistry::start(SignIn::None).await;
    registry.push("a", "1").await;
    let (reason, _) = not_now(Registries::new(Vec::new()).unwrap().confirm(&image(&registry.host(), "a", "1")).await);
    let advice = format!("set plain_http = true for [[registry]] host = \"{}\"", registry.host());
    assert!(reason.contains(&advice) && reason.contains("Docker uses plain HTTP"), "{reason}");
    assert_eq!(registry.requests(), [""; 0]);
}

#[tokio::test]
async fn broken_and_silent_connections_are_explained() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let image = UnverifiedImage { repository: Repository::new(&host, "a").unwrap(), tag: "1".parse().unwrap() };
    let (hang_up, mut keep) = (Arc::new(std::sync::atomic::AtomicBool::new(true)), Vec::new());
    let hangs_up = Arc::clone(&hang_up);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if !hangs_up.load(std::sync::atomic::Ordering::SeqCst) {
                keep.push(connection);
            }
        }
    });
    let over_tls = Registries::with_limits(Vec::new(), SHORT).unwrap();
    let (reason, _) = not_now(over_tls.confirm(&image).await);
    assert!(reason.contains("set plain_http = true") || reason.contains("reset"), "{reason}");
    let over_http = Registries::with_limits(vec![plain(&host)], SHORT).unwrap();
    let (reason, _) = not_now(over_http.confirm(&image).await);
    assert!(reason.contains("sent an incomplete answer"), "{reason}");
    hang_up.store(false, std::sync::atomic::Ordering::SeqCst);
    let (reason, _) = not_now(over_tls.confirm(&image).await);
    assert!(reason.contains("connection timed out after 1s"), "{reason}");
}

/// A server on its own port that always returns `answer`, and the number of authenticated requests.
async fn service(answer: axum::response::Response<String>) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shown = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = shown.clone();
    let routes = axum::Router::new().fallback(move |headers: http::HeaderMap| async move {
        count.fetch_add(headers.contains_key("authorization").into(), std::sync::atomic::Ordering::SeqCst);
        answer
    });
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (port, shown)
}

#[tokio::test]
async fn credentials_are_not_sent_over_plain_http_to_unknown_hosts() {
    let answer = |status: u16, realm: Option<String>, body: &str| {
        let mut answer = http::Response::builder().status(status);
        if let Some(realm) = realm {
            answer = answer.header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""));
        }
        answer.body(body.to_owned()).unwrap()
    };
    let (tokens, shown) = service(answer(200, None, "{\"token\":\"t\"}")).await;
    // A different host name of the same machine.
    let (port, _) = service(answer(401, Some(format!("http://localhost:{tokens}/token")), "")).await;
    let host = format!("127.0.0.1:{port}");
    let image = UnverifiedImage {
        repository: Repository::from_str(&format!("{host}/a/b")).unwrap(),
        tag: "1".parse().unwrap(),
    };
    let shown = || shown.load(std::sync::atomic::Ordering::SeqCst);
    let registries = Registries::new(vec![with_password(&host, READER.1)]).unwrap();
    let refused = not_allowed(registries.confirm(&image).await);
    assert!(refused.contains("no credentials were sent there"), "{refused}");
    assert_eq!(shown(), 0);
    let known = plain(&format!("localhost:{tokens}"));
    let registries = Registries::new(vec![with_password(&host, READER.1), known]).unwrap();
    not_allowed(registries.confirm(&image).await);
    assert_eq!(shown(), 1, "the settings say that it goes there");
}
