//! Counts the requests of a verification with a cloud's login, against fakes of the clouds.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tagrelay::registry::{
    Addresses, Cloud, CloudEnvironment, Confirmation, Registries, RegistriesSettings, RegistrySettings, TimeLimits,
    UnverifiedImage,
};
use tagrelay_image::Repository;
use tagrelay_test_support::fake::{Answer, Asked, Fake};
use tagrelay_test_support::git_tls::NamedDoors;

/// Verifications with a cached token.
const IMAGES: usize = 200;

const AWS: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const GOOGLE: &str = "europe-docker.pkg.dev";
const AZURE: &str = "uyou.azurecr.io";

/// Counts, and fails unless a verification with a cached token is one request to the registry and none to the cloud.
pub async fn run() {
    println!("Requests of a verification with a cloud's login: those to the registry + those to token services");
    println!("{:<8} {:>12} {:>14} {:>14} {:>10}", "login", "first image", "same again", "other repo", "median");
    for (cloud, host) in [(Cloud::Aws, AWS), (Cloud::Google, GOOGLE), (Cloud::Azure, AZURE)] {
        measure(cloud, host).await;
    }
    println!();
}

async fn measure(cloud: Cloud, host: &str) {
    let (registry, services) = (Fake::start(registry).await, Fake::start(service).await);
    let names =
        ["api.ecr.eu-west-1.amazonaws.com", "login.microsoftonline.com"].map(|name| (name, services.url.as_str()));
    let doors = NamedDoors::open(&[names[0], names[1], (host, &registry.url)]).await;
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "token of the pod").unwrap();
    let environment = CloudEnvironment::read(&|name| match name {
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" | "AZURE_CLIENT_ID" | "AZURE_TENANT_ID" => Ok("x".to_owned()),
        "AZURE_FEDERATED_TOKEN_FILE" => Ok(token_file.path().to_str().unwrap().to_owned()),
        "GCE_METADATA_HOST" => Ok(services.url.strip_prefix("http://").unwrap().to_owned()),
        _ => Err(std::env::VarError::NotPresent),
    });
    let ca_bundle = Some(doors.authority());
    let section = RegistrySettings { login: Some(cloud), ca_bundle, ..RegistrySettings::for_host(host) };
    let settings = RegistriesSettings { sections: vec![section], docker_config: None, environment };
    let addresses = Addresses(doors.addresses.clone());
    let registries = Registries::open_with(settings, TimeLimits::default(), addresses).unwrap();
    let verify = async |path: &str| {
        let image = UnverifiedImage { repository: Repository::new(host, path).unwrap(), tag: "1".parse().unwrap() };
        let begun = Instant::now();
        let confirmation = registries.confirm(&image).await;
        assert!(matches!(confirmation, Confirmation::There(_)), "{confirmation:?}");
        // Registries of Google and Azure have their own token service.
        let (heads, own): (Vec<Asked>, Vec<Asked>) =
            registry.take().into_iter().partition(|asked| asked.method == "HEAD");
        (begun.elapsed(), heads.len(), own.len() + services.take().len())
    };
    let (_, first_heads, first_others) = verify("uyou/a").await;
    let mut times = Vec::new();
    for _ in 0..IMAGES {
        let (took, heads, others) = verify("uyou/a").await;
        assert_eq!((heads, others), (1, 0), "{cloud}: requests with a cached token");
        times.push(took);
    }
    times.sort_unstable();
    let (_, heads, others) = verify("uyou/b").await;
    let first = format!("{first_heads} + {first_others}");
    let other = format!("{heads} + {others}");
    let median = times[times.len() / 2].as_secs_f64() * 1e3;
    println!("{:<8} {first:>12} {:>14} {other:>14} {median:>7.2} ms", cloud.as_str(), "1 + 0");
}

fn registry(asked: &Asked) -> Answer {
    let path = asked.target.split('?').next().unwrap();
    match (path, asked.host.as_str(), asked.header("authorization")) {
        ("/v2/token" | "/oauth2/token", ..) => {
            Answer::Json(200, r#"{"access_token":"t","expires_in":3600}"#.to_owned())
        }
        ("/oauth2/exchange", ..) => Answer::Json(200, r#"{"refresh_token":"r"}"#.to_owned()),
        (.., "") => {
            let challenge = match asked.host.as_str() {
                AWS => "Basic realm=\"r\"".to_owned(),
                GOOGLE => format!("Bearer realm=\"https://{GOOGLE}/v2/token\""),
                host => format!("Bearer realm=\"https://{host}/oauth2/token\""),
            };
            Answer::With(401, vec![("www-authenticate", challenge)], String::new())
        }
        _ => {
            let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
            let digest = format!("sha256:{}", "a".repeat(64));
            Answer::With(200, vec![("content-type", media_type), ("docker-content-digest", digest)], String::new())
        }
    }
}

/// The token services of all clouds.
fn service(asked: &Asked) -> Answer {
    if asked.header("x-amz-target").is_empty() {
        return Answer::Json(200, r#"{"access_token":"t","expires_in":3600}"#.to_owned());
    }
    let token = STANDARD.encode("AWS:password");
    Answer::Json(200, format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":4000000000}}]}}"#))
}
