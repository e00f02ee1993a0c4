//! Accounts at Amazon ECR.
//!
//! The identity is a role of the service account (IRSA: a token file, exchanged at STS), that of EKS Pod Identity (a server
//! on the node), or keys in the environment. ECR's API then issues a password that is valid for twelve hours.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use tagrelay_secret::ExposeSecret as _;
use url::{Host, Url};

use super::Cloud;
use super::environment::{CloudEnvironment, aws as variables};
use super::host::EcrHost;
use super::services::{Service, Services, element};
use super::sigv4::{Keys, Request};
use super::token::{CloudToken, life_until};
use crate::registry::docker_config::Account;
use crate::registry::failure::RegistryFailure;

/// Addresses of EKS Pod Identity and of ECS on the node. Other addresses would get the pod's token over plain HTTP.
const NODE_ADDRESSES: [&str; 3] = ["169.254.170.23", "169.254.170.2", "fd00:ec2::23"];

/// Fetches an account for a registry host.
pub(super) async fn fetch(
    services: &Services,
    host: &str,
    environment: &CloudEnvironment,
) -> Result<CloudToken, RegistryFailure> {
    let no_host = || services.unusable("the host is not one of Amazon ECR");
    let host = EcrHost::parse(host).ok_or_else(no_host)?;
    let keys = keys(services, &host, environment).await?;
    let asked_at = Instant::now();
    let (account, expiry, date) = authorize(services, &host, &keys).await?;
    Ok(CloudToken::new(Cloud::Aws, account, asked_at, life_until(expiry, date)))
}

/// Returns the keys of the first identity that the environment describes, in the order of Amazon's SDKs.
async fn keys(services: &Services, host: &EcrHost, environment: &CloudEnvironment) -> Result<Keys, RegistryFailure> {
    let text = |name: &str| environment.text(name);
    if let Some(id) = text(variables::KEY_ID) {
        let missing = || services.unusable("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
        let secret = text(variables::SECRET_KEY).ok_or_else(missing)?;
        let session_token = text(variables::SESSION_TOKEN).map(SecretString::from);
        return Ok(Keys { id, secret: secret.into(), session_token });
    }
    match (text(variables::ROLE_ARN), text(variables::TOKEN_FILE), text(variables::CONTAINER_URI)) {
        (Some(role), Some(file), _) => {
            let session = text(variables::SESSION_NAME).unwrap_or_else(|| "tagrelay".to_owned());
            let region = text(variables::REGION).unwrap_or_else(|| host.region.clone());
            assume_role(services, host, &role, &file, &session, &region).await
        }
        (Some(_), None, _) => Err(services.unusable(
            "AWS_ROLE_ARN is set, but AWS_WEB_IDENTITY_TOKEN_FILE is not: restart the pod, so that EKS injects both",
        )),
        (None, Some(_), _) => Err(services.unusable(
            "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not: annotate the ServiceAccount with \
             eks.amazonaws.com/role-arn, and restart the pod",
        )),
        (None, None, Some(uri)) => {
            ask_node(services, &uri, text(variables::CONTAINER_TOKEN_FILE).as_deref()).await
        }
        (None, None, None) => Err(services.unusable(
            "the environment has no AWS identity: annotate the ServiceAccount with eks.amazonaws.com/role-arn (IRSA), or \
             create an EKS Pod Identity association, and restart the pod",
        )),
    }
}

/// Exchanges the token of the service account for keys of the role
/// (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>). The request is unsigned.
async fn assume_role(
    services: &Services,
    host: &EcrHost,
    role: &str,
    file: &str,
    session: &str,
    region: &str,
) -> Result<Keys, RegistryFailure> {
    // The region becomes a part of the host.
    if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(services.unusable("AWS_REGION is not the name of a region"));
    }
    let token = services.read_file(variables::TOKEN_FILE, file)?;
    let name = format!("sts.{region}.{}", host.domain);
    let service = Service {
        name: format!("AWS STS at {name}"),
        advice: format!(
            "check that the trust policy of {role} allows this service account, and that the cluster's OIDC provider exists in IAM"
        ),
        secrets: vec![&token],
    };
    let address = Url::parse(&format!("https://{name}/"));
    let address = address.map_err(|_| services.unusable("AWS_REGION is not the name of a region"))?;
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", session),
        ("WebIdentityToken", token.expose_secret()),
    ];
    let request = services.post_form(address, &form);
    let answer = services.call(&service, request).await?;
    let xml = std::str::from_utf8(&answer.body).unwrap_or_default();
    let part = |name: &str| element(xml, name).ok_or_else(|| services.unreadable(&service, name));
    Ok(Keys {
        id: part("AccessKeyId")?,
        secret: part("SecretAccessKey")?.into(),
        session_token: Some(part("SessionToken")?.into()),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeKeys {
    access_key_id: String,
    secret_access_key: SecretString,
    token: SecretString,
}

/// Asks the agent of EKS Pod Identity
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>).
async fn ask_node(services: &Services, uri: &str, token_file: Option<&str>) -> Result<Keys, RegistryFailure> {
    let uri = Url::parse(uri).ok().filter(is_node).ok_or_else(|| {
        services.unusable(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI is not at http://169.254.170.23 or http://[fd00:ec2::23], the addresses of EKS \
             Pod Identity",
        )
    })?;
    let token = token_file.map(|file| services.read_file(variables::CONTAINER_TOKEN_FILE, file)).transpose()?;
    let service = Service {
        name: format!("EKS Pod Identity at {}", uri.host_str().unwrap_or_default()),
        advice: "check that the EKS Pod Identity Agent runs on the node, that the NetworkPolicy allows the address, and that the \
                 association's role exists"
            .to_owned(),
        secrets: token.iter().collect(),
    };
    let mut request = services.metadata.get(uri.clone());
    if let Some(token) = &token {
        request = request.header("authorization", token.expose_secret());
    }
    let answer = services.call_metadata(&service, request).await?;
    let keys: NodeKeys = services.json(&service, &answer, "keys")?;
    Ok(Keys { id: keys.access_key_id, secret: keys.secret_access_key, session_token: Some(keys.token) })
}

/// Returns whether a URL is on the node or on this machine, as Amazon's SDKs require for plain HTTP.
fn is_node(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || NODE_ADDRESSES.contains(&address.to_string().as_str()),
        Some(Host::Ipv6(address)) => address.is_loopback() || NODE_ADDRESSES.contains(&address.to_string().as_str()),
        _ => false,
    };
    url.scheme() == "http" && is_local
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorized {
    authorization_data: OneOrMany,
}

/// ECR answers with a list of one, ECR Public with the object itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<AuthorizationData>),
    One(AuthorizationData),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    /// `AWS:password` in base64.
    authorization_token: SecretString,
    /// Seconds since 1970 with a fraction; an ISO 8601 text from ECR Public.
    expires_at: serde_json::Value,
}

/// Asks ECR for the registry's password
/// (<https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>).
async fn authorize(
    services: &Services,
    host: &EcrHost,
    keys: &Keys,
) -> Result<(Account, Timestamp, Timestamp), RegistryFailure> {
    let (service_name, target, permissions) = match host.is_public {
        true => (
            "ecr-public",
            "SpencerFrontendService.GetAuthorizationToken",
            "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken",
        ),
        false => ("ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", "ecr:GetAuthorizationToken"),
    };
    let service = Service {
        name: format!("AWS ECR at {}", host.api),
        advice: format!("check that a policy of the role allows {permissions}"),
        secrets: keys.session_token.iter().chain([&keys.secret]).collect(),
    };
    let request = Request { host: &host.api, service: service_name, region: &host.region, target, body: "{}" };
    let headers = request.sign(keys, Timestamp::now());
    let sent = services.client.post(format!("https://{}/", host.api)).body(request.body.to_owned());
    // The host is signed, and the client sends the same one.
    let headers = headers.into_iter().filter(|(name, _)| *name != "host");
    let sent = headers.fold(sent, |sent, (name, value)| sent.header(name, value));
    let answer = services.call(&service, sent).await?;
    let authorized: Authorized = services.json(&service, &answer, "a token")?;
    let data = match authorized.authorization_data {
        OneOrMany::Many(list) => list.into_iter().next(),
        OneOrMany::One(data) => Some(data),
    };
    let read = data.and_then(|data| Some((account(&data)?, expiry(&data)?)));
    let (account, expiry) = read.ok_or_else(|| services.unreadable(&service, "a token"))?;
    Ok((account, expiry, answer.date))
}

fn account(data: &AuthorizationData) -> Option<Account> {
    let pair = STANDARD.decode(data.authorization_token.expose_secret()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some(Account::Password { username: username.to_owned(), password: password.to_owned().into() })
}

fn expiry(data: &AuthorizationData) -> Option<Timestamp> {
    match data.expires_at.as_f64() {
        Some(seconds) => Timestamp::from_second(seconds as i64).ok(),
        None => data.expires_at.as_str()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_pod_identity_goes_only_to_the_node() {
        for uri in
            ["http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1/credentials", "http://127.0.0.1:80/"]
        {
            assert!(is_node(&uri.parse().unwrap()), "{uri}");
        }
        for uri in ["http://169.254.169.254/", "http://10.0.0.1/", "https://evil.example/", "http://localhost.evil/"] {
            assert!(!is_node(&uri.parse().unwrap()), "{uri}");
        }
    }

    #[test]
    fn both_forms_of_an_answer_are_read() {
        let token = STANDARD.encode("AWS:secret");
        for (json, seconds) in [
            (format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":1800000000.5}}]}}"#), 0),
            (
                format!(
                    r#"{{"authorizationData":{{"authorizationToken":"{token}","expiresAt":"2027-01-15T08:00:01Z"}}}}"#
                ),
                1,
            ),
        ] {
            let authorized: Authorized = serde_json::from_str(&json).unwrap();
            let data = match authorized.authorization_data {
                OneOrMany::Many(list) => list.into_iter().next().unwrap(),
                OneOrMany::One(data) => data,
            };
            assert_eq!(expiry(&data).unwrap().as_second(), 1_800_000_000 + seconds);
            let Some(Account::Password { username, password }) = account(&data) else { panic!("{json}") };
            assert_eq!((username.as_str(), password.expose_secret()), ("AWS", "secret"));
        }
    }
}
