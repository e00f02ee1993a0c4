//! Azure Container Registry with fakes of Microsoft Entra ID and of the metadata server
//! (<https://learn.microsoft.com/en-us/azure/container-registry/container-registry-authentication>).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tagrelay::registry::Cloud;
use tagrelay_test_support::fake::{Answer, Fake};
use tagrelay_test_support::git_tls::NamedDoors;

use super::{assert_there, environment, manifest, not_allowed, registries, section, unauthorized};
use crate::image;

const HOST: &str = "uyou.azurecr.io";
const ENTRA: &str = "login.microsoftonline.com";

fn refresh_token() -> String {
    format!("e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"exp":4000000000}"#))
}

/// A registry that exchanges the token `entra` for a refresh token, and that for an access token.
async fn registry() -> Fake {
    Fake::start(|asked| match (asked.target.as_str(), asked.field("grant_type").as_str()) {
        ("/oauth2/exchange", "access_token")
            if asked.field("access_token") == "entra" && asked.field("service") == HOST =>
        {
            Answer::Json(200, json!({"refresh_token": refresh_token()}).to_string())
        }
        ("/oauth2/exchange", _) => {
            let error = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
            Answer::Json(401, error.to_string())
        }
        ("/oauth2/token", "refresh_token") if asked.field("refresh_token") == refresh_token() => {
            Answer::Json(200, json!({"access_token": "access"}).to_string())
        }
        _ if asked.header("authorization") == "Bearer access" => manifest(),
        _ => unauthorized(&format!("Bearer realm=\"https://{HOST}/oauth2/token\",service=\"{HOST}\"")),
    })
    .await
}

#[tokio::test]
async fn federated_identity_is_exchanged_at_the_registry() {
    let entra = Fake::start(|asked| {
        match asked.field("client_assertion").as_str() {
        "token of the pod" => {
            Answer::Json(200, json!({"access_token": "entra", "expires_in": 3599}).to_string())
        }
        _ => Answer::Json(
            401,
            json!({"error": "invalid_client", "error_description": "AADSTS70021: No matching federated identity record"})
                .to_string(),
        ),
    }
    });
    let entra = entra.await;
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), (ENTRA, &entra.url)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "token of nobody").unwrap();
    let variables = [
        ("AZURE_CLIENT_ID", "client-1"),
        ("AZURE_TENANT_ID", "tenant-1"),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
    ];
    let registries = registries(&doors, vec![section("*.azurecr.io", Some(Cloud::Azure))], environment(&variables));
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    for part in
        ["Microsoft Entra ID at login.microsoftonline.com", "AADSTS70021", "client-1 has a federated credential"]
    {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    std::fs::write(&file, "token of the pod").unwrap();
    entra.take();
    registry.take();
    assert_there(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    let asked = entra.take();
    assert_eq!(asked[0].target, "/tenant-1/oauth2/v2.0/token");
    assert_eq!(asked[0].field("scope"), "https://containerregistry.azure.net/.default");
    registry.take();
    assert_there(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert_eq!(registry.lines(), [format!("HEAD {HOST}/v2/uyou/a/manifests/1")]);
}

#[tokio::test]
async fn managed_identity_of_the_node_logs_in() {
    // The lifetime is a text there.
    let metadata = Fake::start(|asked| match asked.header("metadata") {
        "true" => Answer::Json(200, json!({"access_token": "entra", "expires_in": "86399"}).to_string()),
        _ => Answer::Json(400, String::new()),
    });
    let metadata = metadata.await;
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url.as_str()), ("AZURE_CLIENT_ID", "client-1")];
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Azure))], environment(&variables));
    assert_there(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    let expected = "/metadata/identity/oauth2/token?api-version=2018-02-01\
                    &resource=https%3A%2F%2Fcontainerregistry.azure.net&client_id=client-1";
    assert_eq!(metadata.take()[0].target, expected);
}

#[tokio::test]
async fn refused_exchange_names_the_role() {
    let metadata = Fake::start(|_| Answer::Json(200, json!({"access_token": "other", "expires_in": "60"}).to_string()));
    let metadata = metadata.await;
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url.as_str())];
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Azure))], environment(&variables));
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert!(reason.contains("UNAUTHORIZED: authentication required") && reason.contains("AcrPull"), "{reason}");
}

#[tokio::test]
async fn token_does_not_follow_a_redirect() {
    let evil = Fake::start(|_| Answer::Json(200, json!({"refresh_token": "r"}).to_string())).await;
    let location = "https://evil.example.com/steal".to_owned();
    let registry = Fake::start(move |asked| match asked.target.as_str() {
        "/oauth2/exchange" => Answer::With(307, vec![("location", location.clone())], String::new()),
        _ => unauthorized(&format!("Bearer realm=\"https://{HOST}/oauth2/token\",service=\"{HOST}\"")),
    });
    let registry = registry.await;
    let metadata = Fake::start(|_| Answer::Json(200, json!({"access_token": "entra", "expires_in": "60"}).to_string()));
    let metadata = metadata.await;
    let doors = NamedDoors::open(&[(HOST, &registry.url), ("evil.example.com", &evil.url)]).await;
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url.as_str())];
    let registries = registries(&doors, vec![section(HOST, Some(Cloud::Azure))], environment(&variables));
    let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
    assert!(reason.contains("answered 307"), "{reason}");
    assert_eq!(evil.lines(), [] as [&str; 0]);
}

#[tokio::test]
async fn contradictory_variables_are_named() {
    let registry = registry().await;
    let doors = NamedDoors::open(&[(HOST, &registry.url)]).await;
    let (file, client, tenant) =
        (("AZURE_FEDERATED_TOKEN_FILE", "/t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t"));
    for (variables, expected) in [
        (&[file, tenant][..], "AZURE_FEDERATED_TOKEN_FILE is set, but AZURE_CLIENT_ID is not"),
        (&[file, client], "AZURE_FEDERATED_TOKEN_FILE is set, but AZURE_TENANT_ID is not"),
        (
            &[file, client, tenant, ("AZURE_AUTHORITY_HOST", "https://evil.example.com/")],
            "AZURE_AUTHORITY_HOST or AZURE_TENANT_ID is not usable",
        ),
    ] {
        let registries = registries(&doors, vec![section(HOST, Some(Cloud::Azure))], environment(variables));
        let reason = not_allowed(registries.confirm(&image(HOST, "uyou/a", "1")).await);
        assert!(reason.contains(expected), "{reason}");
    }
}
