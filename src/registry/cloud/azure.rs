//! Accounts at Azure Container Registry: a token of Microsoft Entra ID is exchanged for a refresh token of the registry.
//!
//! The identity is that of the service account (workload identity: a token file), otherwise a managed identity of the node.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use tagrelay_secret::ExposeSecret as _;
use url::Url;

use super::Cloud;
use super::environment::{CloudEnvironment, azure as variables};
use super::services::{AccessToken, Service, Services, expiry_of};
use super::token::{CloudToken, life_until};
use crate::registry::docker_config::Account;
use crate::registry::failure::RegistryFailure;

/// The resource of tokens for registries, in every Azure cloud.
const RESOURCE: &str = "https://containerregistry.azure.net";

const DEFAULT_AUTHORITY: &str = "https://login.microsoftonline.com/";

/// The hosts of Microsoft Entra ID in each Azure cloud
/// (<https://learn.microsoft.com/en-us/entra/identity-platform/authentication-national-cloud>).
const AUTHORITIES: [&str; 4] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
];

const METADATA: &str = "http://169.254.169.254";

/// The life of a refresh token that does not say it. Azure's have three hours.
const DEFAULT_LIFE: Duration = Duration::from_secs(60 * 60);

/// Fetches an account for a registry host.
pub(super) async fn fetch(
    services: &Services,
    host: &str,
    environment: &CloudEnvironment,
) -> Result<CloudToken, RegistryFailure> {
    let text = |name: &str| environment.text(name);
    let token = match (text(variables::TOKEN_FILE), text(variables::CLIENT_ID), text(variables::TENANT_ID)) {
        (Some(file), Some(client), Some(tenant)) => {
            let authority = text(variables::AUTHORITY).unwrap_or_else(|| DEFAULT_AUTHORITY.to_owned());
            federated(services, &authority, &tenant, &client, &file).await?
        }
        (Some(_), client, _) => {
            let missing = if client.is_none() { variables::CLIENT_ID } else { variables::TENANT_ID };
            return Err(services.unusable(&format!(
                "{} is set, but {missing} is not: annotate the ServiceAccount with azure.workload.identity/client-id, and \
                 restart the pod",
                variables::TOKEN_FILE
            )));
        }
        (None, client, _) => {
            let server = text(variables::METADATA_HOST).unwrap_or_else(|| METADATA.to_owned());
            managed_identity(services, &server, client.as_deref()).await?
        }
    };
    let asked_at = Instant::now();
    let (token, life) = exchange(services, host, &token).await?;
    Ok(CloudToken::new(Cloud::Azure, Account::IdentityToken(token), asked_at, life))
}

/// Exchanges the token of the service account for one of Microsoft Entra ID
/// (<https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow>).
async fn federated(
    services: &Services,
    authority: &str,
    tenant: &str,
    client: &str,
    file: &str,
) -> Result<SecretString, RegistryFailure> {
    let address = token_address(authority, tenant).ok_or_else(|| {
        let reason = format!(
            "{} or {} is not usable: the first must be https://login.microsoftonline.com/ or that of a national cloud",
            variables::AUTHORITY,
            variables::TENANT_ID
        );
        services.unusable(&reason)
    })?;
    let assertion = services.read_file(variables::TOKEN_FILE, file)?;
    let service = Service {
        name: format!("Microsoft Entra ID at {}", address.host_str().unwrap_or_default()),
        advice: format!("check that the identity {client} has a federated credential for this service account"),
        secrets: vec![&assertion],
    };
    let scope = format!("{RESOURCE}/.default");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("scope", &scope),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.expose_secret()),
    ];
    let answer = services.call(&service, services.post_form(address, &form)).await?;
    let token: AccessToken = services.json(&service, &answer, "a token")?;
    Ok(token.access_token)
}

/// Returns the URL of the token service; `None`: the authority is not one of Microsoft's, or the tenant is not a name.
fn token_address(authority: &str, tenant: &str) -> Option<Url> {
    let authority = Url::parse(authority).ok()?;
    let is_tenant =
        !tenant.is_empty() && tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let is_own = authority.scheme() == "https"
        && authority.port().is_none()
        && authority.username().is_empty()
        && AUTHORITIES.contains(&authority.host_str().unwrap_or_default());
    if is_own && is_tenant { authority.join(&format!("/{tenant}/oauth2/v2.0/token")).ok() } else { None }
}

/// Asks the node's metadata server
/// (<https://learn.microsoft.com/en-us/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>).
async fn managed_identity(
    services: &Services,
    server: &str,
    client: Option<&str>,
) -> Result<SecretString, RegistryFailure> {
    let address = Url::parse(server).and_then(|server| server.join("/metadata/identity/oauth2/token"));
    let mut address = address
        .map_err(|_| services.unusable(&format!("{} is not a URL, such as {METADATA}", variables::METADATA_HOST)))?;
    address.query_pairs_mut().append_pair("api-version", "2018-02-01").append_pair("resource", RESOURCE);
    if let Some(client) = client {
        address.query_pairs_mut().append_pair("client_id", client);
    }
    let service = Service {
        name: format!("Azure's metadata server at {}", address.host_str().unwrap_or_default()),
        advice: format!(
            "check that the node has a managed identity, that the NetworkPolicy allows the metadata server, and that {} names \
             an identity of the node; with workload identity, label the pod azure.workload.identity/use",
            variables::CLIENT_ID
        ),
        secrets: Vec::new(),
    };
    let answer = services.call_metadata(&service, services.metadata.get(address).header("metadata", "true")).await?;
    let token: AccessToken = services.json(&service, &answer, "a token")?;
    Ok(token.access_token)
}

#[derive(Deserialize)]
struct RefreshToken {
    refresh_token: SecretString,
}

/// Exchanges the token for a refresh token of the registry
/// (<https://learn.microsoft.com/en-us/rest/api/containerregistry/refresh-tokens/get-from-exchange>).
async fn exchange(
    services: &Services,
    host: &str,
    token: &SecretString,
) -> Result<(SecretString, Duration), RegistryFailure> {
    let service = Service {
        name: format!("registry {host}"),
        advice: "check that the identity has the role AcrPull on the registry, and that both are in the same tenant"
            .to_owned(),
        secrets: vec![token],
    };
    let address = Url::parse(&format!("https://{host}/oauth2/exchange"));
    let address = address.map_err(|_| services.unusable("the host does not form a URL"))?;
    let form = [("grant_type", "access_token"), ("service", host), ("access_token", token.expose_secret())];
    let answer = services.call(&service, services.post_form(address, &form)).await?;
    let refresh: RefreshToken = services.json(&service, &answer, "a refresh token")?;
    let expiry: Option<Timestamp> = expiry_of(refresh.refresh_token.expose_secret());
    let life = expiry.map_or(DEFAULT_LIFE, |expiry| life_until(expiry, answer.date));
    Ok((refresh.refresh_token, life))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn federated_token_goes_only_to_microsoft() {
        let address = |authority: &str| token_address(authority, "72f988bf-tenant").map(|url| url.to_string());
        for authority in ["https://login.microsoftonline.com", "https://login.microsoftonline.com/"] {
            let expected = "https://login.microsoftonline.com/72f988bf-tenant/oauth2/v2.0/token";
            assert_eq!(address(authority).as_deref(), Some(expected));
        }
        for authority in [
            "http://login.microsoftonline.com/",
            "https://login.microsoftonline.com:8443/",
            "https://login.microsoftonline.com.evil.example/",
            "https://login.microsoftonline.com@evil.example/",
            "https://127.0.0.1/",
            "",
        ] {
            assert_eq!(address(authority), None, "{authority}");
        }
        assert_eq!(token_address(DEFAULT_AUTHORITY, "../evil"), None);
    }
}
