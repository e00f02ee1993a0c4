//! Accounts from a Docker config file, and sections for patterns of hosts.

use std::future::IntoFuture as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tagrelay::registry::{Confirmation, Credentials, Registries, RegistriesSettings, RegistrySettings};
use tagrelay_secret::Secret;
use tagrelay_test_support::guarded_registry::{GuardedRegistry, READER, SignIn};

use crate::image;

fn plain(host: &str) -> RegistrySettings {
    RegistrySettings { plain_http: true, ..RegistrySettings::for_host(host) }
}

struct ConfigFile(tempfile::TempDir);

impl ConfigFile {
    fn new(key: &str, password: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(key, password);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    fn write(&self, key: &str, password: &str) {
        let auth = STANDARD.encode(format!("{}:{password}", READER.0));
        std::fs::write(self.path(), format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#)).unwrap();
    }
}

fn open(section: RegistrySettings, file: PathBuf) -> Registries {
    let (sections, docker_config) = (vec![section], Some(file));
    Registries::open(RegistriesSettings { sections, docker_config, ..RegistriesSettings::default() }).unwrap()
}

fn registries(host: &str, file: &Path) -> Registries {
    open(plain(host), file.to_owned())
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

#[tokio::test]
async fn entry_applies_to_its_path_with_basic_and_with_tokens() {
    for sign_in in [SignIn::Basic, SignIn::BearerForReader] {
        let registry = GuardedRegistry::start(sign_in).await;
        registry.push("uyou/app", "1").await;
        registry.push("other/app", "1").await;
        let host = registry.host();
        let file = ConfigFile::new(&format!("{host}/uyou"), READER.1);
        let registries = registries(&host, &file.path());
        assert_there(registries.confirm(&image(&host, "uyou/app", "1")).await);
        let reason = not_allowed(registries.confirm(&image(&host, "other/app", "1")).await);
        assert!(reason.contains("check that an entry for") && !reason.contains(READER.1), "{reason}");
        assert_there(registries.confirm(&image(&host, "uyou/app", "1")).await);
    }
}

#[tokio::test]
async fn host_without_an_entry_is_named_with_the_file() {
    let registry = GuardedRegistry::start(SignIn::BearerForReader).await;
    registry.push("a", "1").await;
    let file = ConfigFile::new("r.example.com", READER.1);
    let host = registry.host();
    let reason = not_allowed(registries(&host, &file.path()).confirm(&image(&host, "a", "1")).await);
    let expected = format!("docker_config {} has no entry for {host}", file.path().display());
    assert!(reason.contains(&expected), "{reason}");
}

#[tokio::test]
async fn rotated_file_is_read_and_broken_file_keeps_the_last_credentials() {
    let registry = GuardedRegistry::start(SignIn::Basic).await;
    registry.push("a", "1").await;
    let host = registry.host();
    let file = ConfigFile::new(&host, "wrong");
    let registries = registries(&host, &file.path());
    let image = image(&host, "a", "1");
    not_allowed(registries.confirm(&image).await);
    file.write(&host, READER.1);
    assert_there(registries.confirm(&image).await);
    std::fs::write(file.path(), "{").unwrap();
    assert_there(registries.confirm(&image).await);
    std::fs::remove_file(file.path()).unwrap();
    assert_there(registries.confirm(&image).await);
}

#[tokio::test]
async fn identity_token_is_exchanged_once_at_the_token_service() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
    let forms = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&forms);
    let exchange = move |body: String| {
        seen.lock().unwrap().push(body);
        async { r#"{"access_token":"t","expires_in":300}"# }
    };
    let manifest = move |headers: HeaderMap| async move {
        if headers.get("authorization").is_some_and(|value| value == "Bearer t") {
            let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
            let digest = format!("sha256:{}", "a".repeat(64));
            return [("content-type", media_type), ("docker-content-digest", digest)].into_response();
        }
        (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
    };
    let routes = Router::new().route("/token", post(exchange)).route("/v2/a/manifests/1", get(manifest));
    let server = tokio::spawn(axum::serve(listener, routes).into_future());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"identitytoken":"id token"}}}}}}"#)).unwrap();
    let registries = registries(&host, &file);
    assert_there(registries.confirm(&image(&host, "a", "1")).await);
    assert_there(registries.confirm(&image(&host, "a", "1")).await);
    let form =
        "grant_type=refresh_token&client_id=tagrelay&refresh_token=id+token&service=s&scope=repository%3Aa%3Apull";
    assert_eq!(*forms.lock().unwrap(), [form]);
    server.abort();
}

#[tokio::test]
async fn section_takes_precedence_over_the_file() {
    let registry = GuardedRegistry::start(SignIn::Basic).await;
    registry.push("a", "1").await;
    let host = registry.host();
    let file = ConfigFile::new(&host, "wrong");
    let password = Secret::inline(READER.1.to_owned()).unwrap();
    let credentials = Some(Credentials { username: READER.0.to_owned(), password });
    let settings = RegistrySettings { credentials, ..plain(&host) };
    let registries = open(settings, file.path());
    assert_there(registries.confirm(&image(&host, "a", "1")).await);
}

#[tokio::test]
async fn section_of_a_pattern_applies_to_matching_hosts() {
    let registry = GuardedRegistry::start(SignIn::Basic).await;
    registry.push("a", "1").await;
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    let host = format!("localhost:{port}");
    let password = Secret::inline(READER.1.to_owned()).unwrap();
    let credentials = Some(Credentials { username: READER.0.to_owned(), password });
    let section = |host: String| RegistrySettings { credentials: credentials.clone(), ..plain(&host) };
    let image = image(&host, "a", "1");
    // The settings refuse a pattern with plain HTTP; the client does not need to.
    let matching = Registries::new(vec![section(format!("local*:{port}"))]).unwrap();
    assert_there(matching.confirm(&image).await);
    let exact_first = Registries::new(vec![section(format!("local*:{port}")), plain(&host)]).unwrap();
    assert!(not_allowed(exact_first.confirm(&image).await).contains("denied anonymous access"));
}
