//! Accounts at Google Artifact Registry and Container Registry: an access token is the password.
//!
//! The identity is a file that `GOOGLE_APPLICATION_CREDENTIALS` names (the key of a service account, or workload identity
//! federation of a cluster outside Google Cloud), otherwise that of the metadata server (GKE workload identity, the node).

use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tagrelay_git::sign_json_web_token;
use tagrelay_secret::ExposeSecret as _;
use url::Url;

use super::Cloud;
use super::environment::{CloudEnvironment, google as variables};
use super::services::{AccessToken, Service, Services};
use super::token::{CloudToken, life_until};
use crate::registry::docker_config::Account;
use crate::registry::failure::RegistryFailure;

/// The user name for access tokens (<https://cloud.google.com/artifact-registry/docs/docker/authentication#token>).
const USERNAME: &str = "oauth2accesstoken";

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

const METADATA_HOST: &str = "metadata.google.internal";

/// Google accepts an assertion that is valid for up to an hour.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Fetches an account, which is the same for every host of Google.
pub(super) async fn fetch(services: &Services, environment: &CloudEnvironment) -> Result<CloudToken, RegistryFailure> {
    let asked_at = Instant::now();
    let (token, life) = match environment.text(variables::CREDENTIALS) {
        Some(file) => from_file(services, &file).await?,
        None => {
            let host = environment.text(variables::METADATA_HOST);
            from_metadata(services, host.as_deref().unwrap_or(METADATA_HOST)).await?
        }
    };
    let account = Account::Password { username: USERNAME.to_owned(), password: token };
    Ok(CloudToken::new(Cloud::Google, account, asked_at, life))
}

/// Asks the metadata server (<https://cloud.google.com/compute/docs/metadata/overview>).
async fn from_metadata(services: &Services, host: &str) -> Result<(SecretString, Duration), RegistryFailure> {
    let service = Service {
        name: format!("Google's metadata server at {host}"),
        advice:
            "check that the pod runs on Google Cloud, that the NetworkPolicy allows the metadata server, and that the \
                 ServiceAccount has a Google service account; elsewhere, set GOOGLE_APPLICATION_CREDENTIALS"
                .to_owned(),
        secrets: Vec::new(),
    };
    let address = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let address = Url::parse(&address)
        .map_err(|_| services.unusable("GCE_METADATA_HOST is not a host, such as metadata.google.internal"))?;
    let request = services.metadata.get(address).header("metadata-flavor", "Google");
    let answer = services.call_metadata(&service, request).await?;
    read_token(services, &service, services.json(&service, &answer, "a token")?)
}

fn read_token(
    services: &Services,
    service: &Service<'_>,
    token: AccessToken,
) -> Result<(SecretString, Duration), RegistryFailure> {
    let life = token.life().ok_or_else(|| services.unreadable(service, "`expires_in`"))?;
    Ok((token.access_token, life))
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CredentialsFile {
    ServiceAccount(ServiceAccount),
    ExternalAccount(ExternalAccount),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: SecretString,
    private_key_id: Option<String>,
    token_uri: String,
}

/// <https://google.aip.dev/auth/4117>
#[derive(Deserialize)]
struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: CredentialSource,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<String>,
    format: Option<SourceFormat>,
}

#[derive(Deserialize)]
struct SourceFormat {
    subject_token_field_name: Option<String>,
}

async fn from_file(services: &Services, path: &str) -> Result<(SecretString, Duration), RegistryFailure> {
    let text = services.read_file(variables::CREDENTIALS, path)?;
    // The parser's message could quote the key.
    let file: CredentialsFile = serde_json::from_str(text.expose_secret()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        services.unusable(&format!(
            "{path} is not a credentials file of Google (line {line}, column {column}): it needs `type` service_account or \
             external_account with its keys"
        ))
    })?;
    match file {
        CredentialsFile::ServiceAccount(account) => service_account(services, path, &account).await,
        CredentialsFile::ExternalAccount(account) => external_account(services, path, &account).await,
        CredentialsFile::Other => Err(services
            .unusable(&format!("the `type` in {path} is not supported: use service_account or external_account"))),
    }
}

/// Exchanges an assertion that the key has signed (<https://developers.google.com/identity/protocols/oauth2/service-account>).
async fn service_account(
    services: &Services,
    path: &str,
    account: &ServiceAccount,
) -> Result<(SecretString, Duration), RegistryFailure> {
    let address = google_url(services, path, "token_uri", &account.token_uri)?;
    let now = Timestamp::now();
    let claims = json!({
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": now.as_second(),
        "exp": (now + ASSERTION_LIFETIME).as_second(),
    });
    let no_key = || services.unusable(&format!("`private_key` in {path} is not an RSA key in PEM form"));
    let assertion = sign_json_web_token(account.private_key.expose_secret(), &claims).ok_or_else(no_key)?;
    let assertion = SecretString::from(assertion);
    let key = account.private_key_id.as_deref().unwrap_or("in the file");
    let service = Service {
        name: format!("Google's token service at {}", address.host_str().unwrap_or_default()),
        advice: format!("check that the service account {} exists and still has the key {key}", account.client_email),
        secrets: vec![&assertion],
    };
    let form =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.expose_secret())];
    let answer = services.call(&service, services.post_form(address, &form)).await?;
    read_token(services, &service, services.json(&service, &answer, "a token")?)
}

/// Exchanges a token of another issuer, such as the cluster's, for one of Google, and that for one of the service account.
async fn external_account(
    services: &Services,
    path: &str,
    account: &ExternalAccount,
) -> Result<(SecretString, Duration), RegistryFailure> {
    let address = google_url(services, path, "token_url", &account.token_url)?;
    let Some(file) = &account.credential_source.file else {
        let reason = format!("`credential_source` in {path} names no `file`; other sources are not supported");
        return Err(services.unusable(&reason));
    };
    let subject = subject_token(services, path, file, account.credential_source.format.as_ref())?;
    let service = Service {
        name: format!("Google's token service at {}", address.host_str().unwrap_or_default()),
        advice: format!(
            "check that the workload identity pool {} trusts the token's issuer and subject",
            account.audience
        ),
        secrets: vec![&subject],
    };
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", &account.audience),
        ("scope", SCOPE),
        ("subject_token_type", &account.subject_token_type),
        ("subject_token", subject.expose_secret()),
    ];
    let answer = services.call(&service, services.post_form(address, &form)).await?;
    let (token, life) = read_token(services, &service, services.json(&service, &answer, "a token")?)?;
    match &account.service_account_impersonation_url {
        None => Ok((token, life)),
        Some(url) => {
            impersonate(services, google_url(services, path, "service_account_impersonation_url", url)?, &token).await
        }
    }
}

/// Reads the token of the other issuer: the text of a file, or one member of its JSON.
fn subject_token(
    services: &Services,
    path: &str,
    file: &str,
    format: Option<&SourceFormat>,
) -> Result<SecretString, RegistryFailure> {
    let text = services.read_file(&format!("`credential_source` in {path}"), file)?;
    let Some(member) = format.and_then(|format| format.subject_token_field_name.as_deref()) else { return Ok(text) };
    let json: Option<Value> = serde_json::from_str(text.expose_secret()).ok();
    let token = json.as_ref().and_then(|json| json.get(member)).and_then(Value::as_str);
    token.map(SecretString::from).ok_or_else(|| services.unusable(&format!("{file} has no text `{member}`")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: SecretString,
    expire_time: Timestamp,
}

/// <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>
async fn impersonate(
    services: &Services,
    address: Url,
    token: &SecretString,
) -> Result<(SecretString, Duration), RegistryFailure> {
    let service = Service {
        name: format!("Google IAM at {}", address.host_str().unwrap_or_default()),
        advice: "check that the federated identity has the role roles/iam.workloadIdentityUser on the service account"
            .to_owned(),
        secrets: vec![token],
    };
    let request = services.client.post(address).bearer_auth(token.expose_secret());
    let request = request.header("content-type", "application/json").body(json!({ "scope": [SCOPE] }).to_string());
    let answer = services.call(&service, request).await?;
    let token: Impersonated = services.json(&service, &answer, "a token")?;
    Ok((token.access_token, life_until(token.expire_time, answer.date)))
}

/// Returns a URL of the file if it belongs to Google, because an assertion or a token is sent there.
fn google_url(services: &Services, path: &str, key: &str, text: &str) -> Result<Url, RegistryFailure> {
    let url = Url::parse(text).ok().filter(is_google);
    url.ok_or_else(|| services.unusable(&format!("`{key}` in {path} is not an https URL below googleapis.com")))
}

fn is_google(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    url.scheme() == "https"
        && url.port().is_none()
        && url.username().is_empty()
        && (host.ends_with(".googleapis.com") || host == "accounts.google.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_only_to_google() {
        for url in ["https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token"] {
            assert!(is_google(&url.parse().unwrap()), "{url}");
        }
        for url in [
            "http://oauth2.googleapis.com/token",
            "https://oauth2.googleapis.com:8443/token",
            "https://googleapis.com.evil.example/token",
            "https://evilgoogleapis.com/token",
            "https://user@oauth2.googleapis.com/token",
            "https://127.0.0.1/token",
        ] {
            assert!(!is_google(&url.parse().unwrap()), "{url}");
        }
    }
}
