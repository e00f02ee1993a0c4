//! Artifact Registry with fakes of Google's token services
//! (<https://developers.google.com/identity/protocols/oauth2/service-account>, <https://google.aip.dev/auth/4117>).

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tagrelay::registry::{Cloud, Registries};
use tagrelay_test_support::fake::{Answer, Asked, Fake};
use tagrelay_test_support::git_tls::NamedDoors;

use super::{assert_there, basic, environment, manifest, not_allowed, not_now, registries, section, unauthorized};
use crate::image;

const HOST: &str = "europe-west3-docker.pkg.dev";

/// A registry that exchanges `oauth2accesstoken:token-1` for a token of its own, as Artifact Registry does.
async fn registry() -> Fake {
    Fake::start(|asked| match asked.header("authorization") {
        "Bearer of-the-registry" => manifest(),
        _ if asked.target.starts_with("/v2/token?") => match basic(asked).as_deref() {
            Some("oauth2accesstoken:token-1") => {
                Answer::Json(200, r#"{"token":"of-the-registry","expires_in":3600}"#.to_owned())
            }
            _ => Answer::Json(401, String::new()),
        },
        _ => unauthorized(&format!("Bearer realm=\"https://{HOST}/v2/token\",service=\"{HOST}\"")),
    })
    .await
}

fn token(text: &str) -> Answer {
    Answer::Json(200, json!({"access_token": text, "expires_in": 3599, "token_type": "Bearer"}).to_string())
}

fn with_file(doors: &NamedDoors, file: &Path) -> Registries {
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())];
    registries(doors, vec![section(HOST, Some(Cloud::Google))], environment(&variables))
}

#[tokio::test]
async fn identity_of_the_metadata_server_logs_in() {
    let metadata = Fake::start(|asked| match asked.header("metadata-flavor") {
        "Google" => token("token-1"),
        _ => Answer::Json(403, String::new()),
    });
    let metadata = metadata.await;
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let variables = [("GCE_METADATA_HOST", metadata.url.strip_prefix("http://").unwrap())];
    let registries =
        registries(&doors, vec![section("*-docker.pkg.dev", Some(Cloud::Google))], environment(&variables));
    for _ in 0..2 {
        assert_there(registries.confirm(&image(HOST, "uyou/apps/a", "1")).await);
    }
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    assert_eq!(metadata.lines(), [format!("GET 127.0.0.1{path}")]);
    let head = format!("HEAD {HOST}/v2/uyou/apps/a/manifests/1");
    let exchange = format!("GET {HOST}/v2/token?service={HOST}&scope=repository%3Auyou%2Fapps%2Fa%3Apull");
    assert_eq!(registry.lines(), [head.clone(), exchange, head.clone(), head]);
}

/// A key of a service account: the file of Google, and the public key in PEM form.
fn service_account(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
    openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    let file = json!({
        "type": "service_account",
        "project_id": "uyou",
        "private_key_id": "key-1",
        "private_key": std::fs::read_to_string(folder.join("key.pem")).unwrap(),
        "client_email": "tagrelay@uyou.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(folder.join("account.json"), file.to_string()).unwrap();
}

/// Verifies the assertion of a request and returns its claims.
fn verified_claims(asked: &Asked, folder: &Path) -> Value {
    let assertion = asked.field("assertion");
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    std::fs::write(folder.join("signed"), signed).unwrap();
    std::fs::write(folder.join("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let arguments = ["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"];
    let verified = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap()).unwrap()
}

#[tokio::test]
async fn key_of_a_service_account_signs_an_assertion() {
    let folder = tempfile::tempdir().unwrap();
    service_account(folder.path());
    let google = Fake::start(|asked| match asked.field("grant_type").as_str() {
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => token("token-1"),
        _ => Answer::Json(400, String::new()),
    });
    let google = google.await;
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), ("oauth2.googleapis.com", &google.url)]).await;
    let registries = with_file(&doors, &folder.path().join("account.json"));
    assert_there(registries.confirm(&image(HOST, "uyou/apps/a", "1")).await);
    let claims = verified_claims(&google.take()[0], folder.path());
    assert_eq!(claims["iss"], "tagrelay@uyou.iam.gserviceaccount.com");
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1..=3600).contains(&life), "{life}");
}

#[tokio::test]
async fn federated_identity_impersonates_a_service_account() {
    let google = Fake::start(|asked| match asked.host.as_str() {
        "sts.googleapis.com" if asked.field("subject_token") == "token of the cluster" => token("federated"),
        "iamcredentials.googleapis.com" if asked.header("authorization") == "Bearer federated" => {
            let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
            Answer::Json(200, json!({"accessToken": "token-1", "expireTime": expiry.to_string()}).to_string())
        }
        _ => Answer::Json(400, json!({"error": "invalid_grant", "error_description": "no such pool"}).to_string()),
    });
    let google = google.await;
    let registry = registry().await;
    let names = ["sts.googleapis.com", "iamcredentials.googleapis.com"].map(|name| (name, google.url.as_str()));
    let doors = NamedDoors::open(&[names[0], names[1], (HOST, &registry.url)]).await;
    let folder = tempfile::tempdir().unwrap();
    let (subject, file) = (folder.path().join("token"), folder.path().join("federation.json"));
    std::fs::write(&subject, r#"{"id_token":"token of nobody"}"#).unwrap();
    let impersonation = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/t:generateAccessToken";
    let federation = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/c",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": impersonation,
        "credential_source": {
            "file": subject,
            "format": {"type": "json", "subject_token_field_name": "id_token"},
        },
    });
    std::fs::write(&file, federation.to_string()).unwrap();
    let registries = with_file(&doors, &file);
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/apps/a", "1")).await);
    for part in
        ["Google's token service at sts.googleapis.com", "invalid_grant: no such pool", "workload identity pool"]
    {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    // The file is read at each login.
    std::fs::write(&subject, r#"{"id_token":"token of the cluster"}"#).unwrap();
    assert_there(registries.confirm(&image(HOST, "uyou/apps/a", "1")).await);
}

#[tokio::test]
async fn unusable_files_are_named_without_their_content() {
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    let account = |uri: &str| {
        json!({"type": "service_account", "client_email": "a", "private_key": "hunter2", "token_uri": uri}).to_string()
    };
    for (text, expected) in [
        ("hunter2".to_owned(), "is not a credentials file of Google (line 1, column 1)"),
        (r#"{"type":"authorized_user","refresh_token":"hunter2"}"#.to_owned(), "is not supported: use service_account"),
        (account("https://oauth2.googleapis.com/token"), "`private_key` in"),
        (account("https://evil.example.com/token"), "is not an https URL below googleapis.com"),
    ] {
        std::fs::write(&file, text).unwrap();
        let reason = not_allowed(with_file(&doors, &file).confirm(&image(HOST, "uyou/apps/a", "1")).await);
        assert!(reason.contains(expected) && !reason.contains("hunter2"), "{reason}");
    }
    let missing = with_file(&doors, Path::new("/no/such.json"));
    let reason = not_now(missing.confirm(&image(HOST, "uyou/apps/a", "1")).await);
    assert!(
        reason.contains("GOOGLE_APPLICATION_CREDENTIALS: the secret file /no/such.json cannot be read"),
        "{reason}"
    );
}
