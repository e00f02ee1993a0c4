//! ECR with moto, which verifies signatures and permissions as AWS does.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tagrelay::registry::Cloud;
use tagrelay_test_support::fake::{Answer, Fake};
use tagrelay_test_support::git_tls::NamedDoors;
use tagrelay_test_support::guarded_registry::{GuardedRegistry, SignIn};
use tagrelay_test_support::moto::Moto;

use super::{
    assert_there, basic, basic_registry, environment, manifest, not_allowed, not_now, registries, section, unauthorized,
};
use crate::image;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";
const ECR: &str = "api.ecr.eu-west-1.amazonaws.com";

/// The password that moto issues.
const ACCOUNT: &str = "AWS:123456789012-auth-token";

/// A token of the service account in a file.
struct TokenFile(tempfile::TempDir);

impl TokenFile {
    fn new(text: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("token")
    }
}

/// The variables of a role with the token file at `file`.
fn role_variables<'a>(role: &'a str, file: &'a str) -> [(&'a str, &'a str); 2] {
    [("AWS_ROLE_ARN", role), ("AWS_WEB_IDENTITY_TOKEN_FILE", file)]
}

fn jwt(expiry: i64) -> String {
    format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{expiry}}}"#)))
}

#[tokio::test]
async fn role_of_the_service_account_logs_in_once() {
    // Verified from the fourth request on: after the two that create the role, and STS.
    let Some(moto) = Moto::start(3) else { return };
    let role = moto.create_role("puller").await;
    moto.allow("puller", "ecr:GetAuthorizationToken").await;
    let (registry, _) = basic_registry(ACCOUNT).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), (STS, &moto.url), (ECR, &moto.url)]).await;
    let file = TokenFile::new(&jwt(4_000_000_000));
    let path = file.path();
    let variables = role_variables(&role, path.to_str().unwrap());
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(&variables));
    assert_there(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    let head = |path: &str| format!("HEAD {HOST}/v2/{path}/manifests/1");
    // The first one is answered with the challenge.
    assert_eq!(registry.lines(), [head("uyou/a"), head("uyou/a")]);
    // Nothing but the registry is needed any more.
    drop(moto);
    for path in ["uyou/a", "uyou/b"] {
        assert_there(registries.confirm(&image(HOST, path, "1")).await);
        assert_eq!(registry.lines(), [head(path)]);
    }
}

#[tokio::test]
async fn role_without_permission_is_named_and_other_registries_work() {
    let Some(moto) = Moto::start(2) else { return };
    let role = moto.create_role("stranger").await;
    let (registry, _) = basic_registry(ACCOUNT).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), (STS, &moto.url), (ECR, &moto.url)]).await;
    let file = TokenFile::new(&jwt(4_000_000_000));
    let path = file.path();
    let other = GuardedRegistry::start(SignIn::None).await;
    other.push("a", "1").await;
    let plain = tagrelay::registry::RegistrySettings { plain_http: true, ..section(&other.host(), None) };
    let sections = vec![section(HOST, Some(Cloud::Aws)), plain];
    let variables = role_variables(&role, path.to_str().unwrap());
    let registries = registries(&doors, sections, environment(&variables));
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    for part in [
        "AWS ECR at api.ecr.eu-west-1.amazonaws.com",
        "(AccessDenied: User: arn:aws:sts::123456789012:assumed-role/stranger/tagrelay is not",
        "allows ecr:GetAuthorizationToken",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_there(registries.confirm(&image(&other.host(), "a", "1")).await);
}

#[tokio::test]
async fn keys_that_aws_does_not_know_are_refused() {
    let Some(moto) = Moto::start(0) else { return };
    let (registry, _) = basic_registry(ACCOUNT).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), (ECR, &moto.url)]).await;
    let variables = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "hunter2 hunter2")];
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(&variables));
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert!(reason.contains("InvalidClientTokenId") && !reason.contains("hunter2"), "{reason}");
}

#[tokio::test]
async fn pod_identity_provides_the_keys() {
    let Some(moto) = Moto::start(1000) else { return };
    let agent = Fake::start(|asked| match asked.header("authorization") {
        "token of the pod" => Answer::Json(
            200,
            r#"{"AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#
                .to_owned(),
        ),
        _ => Answer::Json(403, r#"{"message":"no token"}"#.to_owned()),
    });
    let agent = agent.await;
    let (registry, _) = basic_registry(ACCOUNT).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), (ECR, &moto.url)]).await;
    let file = TokenFile::new("token of nobody");
    let (path, uri) = (file.path(), format!("{}/v1/credentials", agent.url));
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path.to_str().unwrap()),
    ];
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(&variables));
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert!(reason.starts_with("EKS Pod Identity at 127.0.0.1 (login to registry"), "{reason}");
    // The file is read at each login.
    std::fs::write(&path, "token of the pod\n").unwrap();
    assert_there(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert_eq!(agent.lines(), ["GET 127.0.0.1/v1/credentials", "GET 127.0.0.1/v1/credentials"]);
}

#[tokio::test]
async fn public_ecr_logs_in_at_its_own_api() {
    const PUBLIC: &str = "public.ecr.aws";
    let api = Fake::start(|asked| {
        let token = STANDARD.encode("AWS:public password");
        match asked.header("x-amz-target") {
            "SpencerFrontendService.GetAuthorizationToken" => Answer::Json(
                200,
                format!(r#"{{"authorizationData":{{"authorizationToken":"{token}","expiresAt":4000000000}}}}"#),
            ),
            _ => Answer::Json(400, String::new()),
        }
    });
    let api = api.await;
    let registry = Fake::start(|asked| match (asked.target.as_str(), basic(asked).as_deref()) {
        (target, Some("AWS:public password")) if target.starts_with("/token/") => {
            Answer::Json(200, r#"{"token":"bearer"}"#.to_owned())
        }
        _ if asked.header("authorization") == "Bearer bearer" => manifest(),
        _ => unauthorized("Bearer realm=\"https://public.ecr.aws/token/\",service=\"public.ecr.aws\""),
    });
    let registry = registry.await;
    let doors =
        NamedDoors::open(&[(PUBLIC, &registry.url), ("api.ecr-public.us-east-1.amazonaws.com", &api.url)]).await;
    let variables = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let registries = registries(&doors, vec![section(PUBLIC, Some(Cloud::Aws))], environment(&variables));
    assert_there(registries.confirm(&image(PUBLIC, "uyou/a", "1")).await);
    let asked = api.take();
    assert!(asked[0].header("authorization").contains("/us-east-1/ecr-public/aws4_request"), "{asked:?}");
}

#[tokio::test]
async fn expired_token_file_and_clock_skew_are_named() {
    let (registry, _) = basic_registry(ACCOUNT).await;
    let denied = "<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>Token expired</Message></Error></ErrorResponse>";
    let sts = Fake::start(move |_| Answer::With(400, Vec::new(), denied.to_owned())).await;
    let slow_clock = Fake::start(|_| {
        let date = "Tue, 24 Nov 2020 08:00:00 GMT".to_owned();
        Answer::With(403, vec![("date", date)], r#"{"__type":"InvalidSignatureException"}"#.to_owned())
    });
    let slow_clock = slow_clock.await;
    let file = TokenFile::new(&jwt(1_600_000_000));
    let path = file.path();
    let variables = role_variables("arn:aws:iam::123456789012:role/r", path.to_str().unwrap());
    for (sts, expected) in [
        (&sts, "ExpiredTokenException: Token expired): the token in the file expired at 2020-09-13T12:26:40Z"),
        (&slow_clock, "minutes ahead of the service's clock: correct it"),
    ] {
        let doors = NamedDoors::open(&[(HOST, &registry.url), (STS, &sts.url)]).await;
        let registries = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(&variables));
        let reason = not_now(registries.confirm(&image(HOST, "uyou/a", "1")).await);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn contradictory_variables_are_named() {
    let (registry, _) = basic_registry(ACCOUNT).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    for (variables, expected) in [
        (&[("AWS_ROLE_ARN", "r")][..], "AWS_ROLE_ARN is set, but AWS_WEB_IDENTITY_TOKEN_FILE is not"),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")], "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not"),
        (&[("AWS_ACCESS_KEY_ID", "a")], "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"),
        (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/")], "the addresses of EKS Pod Identity"),
        (&[], "the environment has no AWS identity"),
    ] {
        let registries = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(variables));
        let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
        assert!(reason.contains(expected), "{reason}");
    }
    let missing = role_variables("r", "/no/such/token");
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(&missing));
    let reason = not_now(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert!(reason.contains("AWS_WEB_IDENTITY_TOKEN_FILE: the secret file /no/such/token cannot be read"), "{reason}");
}

#[tokio::test]
async fn login_is_automatic_with_the_variables_and_a_private_host() {
    let (registry, _) = basic_registry(ACCOUNT).await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let variables = [("AWS_ROLE_ARN", "r"), ("AZURE_CLIENT_ID", "c")];
    let with = registries(&doors, Vec::new(), environment(&variables));
    let login = |host: &str| with.automatic_login(host).map(|login| login.to_string());
    let expected =
        |cloud: &str, variable: &str| Some(format!("uses login = \"{cloud}\", because the environment has {variable}"));
    assert_eq!(login(HOST), expected("aws", "AWS_ROLE_ARN"));
    assert_eq!(login("uyou.azurecr.io"), expected("azure", "AZURE_CLIENT_ID"));
    // Anonymous access works there, and the identity may have no permission.
    assert_eq!(with.automatic_login("public.ecr.aws"), None);
    assert_eq!(with.automatic_login("gcr.io"), None);
    assert_eq!(with.automatic_login("ghcr.io"), None);
    let without = registries(&doors, Vec::new(), environment(&[]));
    assert_eq!(without.automatic_login(HOST), None);
    let explicit = registries(&doors, vec![section(HOST, Some(Cloud::Aws))], environment(&variables));
    assert_eq!(explicit.automatic_login(HOST), None);
}
