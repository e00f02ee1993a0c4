//! GitHub Apps: the key of an app signs requests for installation tokens, which are passwords for an hour
//! (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>).

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use tagrelay_secret::{ExposeSecret as _, Secret};
use url::Url;

use super::json_web_token::{read_rsa_key, sign_json_web_token};

/// GitHub accepts a JSON Web Token that is valid for at most ten minutes. One minute at each end allows for clock skew.
const PROOF_LIFETIME: Duration = Duration::from_secs(8 * 60);
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// An installation of a GitHub App. `Debug` shows where the key is stored, never the key.
#[derive(Debug, Clone)]
pub struct GitHubApp {
    /// The client id or the number of the app.
    issuer: String,
    installation: u64,
    key: Secret,
    /// The base URL of the API, without a trailing slash.
    api: String,
}

/// Why the private key of a GitHub App is unusable. The message contains no part of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAppKey(String);

impl GitHubApp {
    /// Checks the key and returns the installation.
    ///
    /// `issuer` is the client id or the number of the app. `api` is the base URL of the API; `None`: GitHub's default for
    /// the host of `repository`.
    ///
    /// # Errors
    ///
    /// If the key is not an RSA key in PEM form.
    pub fn new(
        issuer: String,
        installation: u64,
        key: Secret,
        api: Option<&Url>,
        repository: &Url,
    ) -> Result<Self, InvalidAppKey> {
        let api = api.map_or_else(|| api_of(repository), ToString::to_string);
        let app = Self { issuer, installation, key, api: api.trim_end_matches('/').to_owned() };
        app.read_key()?;
        Ok(app)
    }

    fn read_key(&self) -> Result<SecretString, InvalidAppKey> {
        let text = self.key.reveal().map_err(|error| InvalidAppKey(error.to_string()))?;
        match read_rsa_key(text.expose_secret()) {
            Some(_) => Ok(text),
            None => Err(InvalidAppKey(
                "the key of the GitHub App is not an RSA key in PEM form: use the file that GitHub generated"
                    .to_owned(),
            )),
        }
    }

    /// The URL at which GitHub creates installation tokens.
    pub(crate) fn token_url(&self) -> String {
        format!("{}/app/installations/{}/access_tokens", self.api, self.installation)
    }

    /// Signs a JSON Web Token that authenticates us as the app
    /// (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>).
    pub(crate) fn proof(&self, now: Timestamp) -> Result<String, InvalidAppKey> {
        let key = self.read_key()?;
        let claims = json!({
            "iat": (now - CLOCK_SKEW).as_second(),
            "exp": (now + PROOF_LIFETIME).as_second(),
            "iss": self.issuer,
        });
        sign_json_web_token(key.expose_secret(), &claims)
            .ok_or_else(|| InvalidAppKey("signing with the key of the GitHub App failed".to_owned()))
    }
}

/// Returns the URL of GitHub's API for the host of a repository
/// (<https://docs.github.com/en/enterprise-server/rest/using-the-rest-api/getting-started-with-the-rest-api>).
fn api_of(repository: &Url) -> String {
    let host = repository.host_str().unwrap_or_default();
    if host == "github.com" || host.ends_with(".ghe.com") {
        return format!("https://api.{host}");
    }
    let port = repository.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}/api/v3", repository.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_url_follows_the_host() {
        for (repository, api) in [
            ("https://github.com/uyou/config.git", "https://api.github.com"),
            ("https://uyou.ghe.com/uyou/config", "https://api.uyou.ghe.com"),
            ("https://git.example.com:8443/uyou/config.git", "https://git.example.com:8443/api/v3"),
        ] {
            assert_eq!(api_of(&repository.parse().unwrap()), api);
        }
    }
}
