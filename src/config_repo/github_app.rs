//! GitHub Apps: a key of the app makes tokens of an installation, which are passwords for an hour
//! (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::error::RemoteError;
use super::transport::in_full;
use crate::retry_after::retry_after;
use crate::secret::{ExposeSecret as _, Redaction, Secret};

/// The user name beside a token of an installation.
pub(super) const USERNAME: &str = "x-access-token";

/// A proof of the app may be valid for ten minutes at the most. A minute of it is for clocks that differ, at each end.
const PROOF_LIFETIME: Duration = Duration::from_secs(8 * 60);
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// A token is replaced this long before its end, and in the last twelfth of a life that is shorter than an hour.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// A token with all that GitHub says of it has some kilobytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// An installation of a GitHub App. Its `Debug` form shows where the key lies and nothing of it.
#[derive(Debug, Clone)]
pub struct GitHubApp {
    /// The client id or the number of the app.
    issuer: String,
    installation: u64,
    key: Secret,
    /// Where the API is, without a slash at its end.
    api: String,
}

/// The private key of a GitHub App cannot be used. The message holds nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAppKey(String);

impl GitHubApp {
    /// Takes an installation, whose key is read now to see whether it can be used.
    ///
    /// `issuer` is the client id or the number of the app. `api` is where the API is; `None`: where GitHub has it for the
    /// host of `repository`.
    ///
    /// # Errors
    ///
    /// When the key is no RSA key in PEM form.
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

    fn read_key(&self) -> Result<RsaKeyPair, InvalidAppKey> {
        let text = self.key.reveal().map_err(|error| InvalidAppKey(error.to_string()))?;
        let no_key = || {
            InvalidAppKey(
                "the key of the GitHub App is no RSA key in PEM form: take the file that GitHub made".to_owned(),
            )
        };
        let pair = match PrivateKeyDer::from_pem_slice(text.expose_secret().as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(key)) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(no_key()),
        };
        pair.map_err(|_| no_key())
    }

    /// Returns a proof that we are the app: a JSON Web Token
    /// (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>).
    fn proof(&self, now: Timestamp) -> Result<String, InvalidAppKey> {
        let key = self.read_key()?;
        let claims = json!({
            "iat": (now - CLOCK_DIFFERENCE).as_second(),
            "exp": (now + PROOF_LIFETIME).as_second(),
            "iss": self.issuer,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| InvalidAppKey("the key of the GitHub App does not sign".to_owned()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Returns where GitHub has its API for a host
/// (<https://docs.github.com/en/enterprise-server/rest/using-the-rest-api/getting-started-with-the-rest-api>).
fn api_of(repository: &Url) -> String {
    let host = repository.host_str().unwrap_or_default();
    if host == "github.com" || host.ends_with(".ghe.com") {
        return format!("https://api.{host}");
    }
    let port = repository.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}/api/v3", repository.scheme())
}

/// The tokens of an installation for one repository, made when they are needed.
pub(super) struct InstallationTokens {
    app: GitHubApp,
    client: Client,
    /// The name of the repository, which is all that a token is good for.
    repository: String,
    /// Held while a token is made, so that callers share it.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    token: Arc<SecretString>,
    replace_at: Timestamp,
    expires_at: Timestamp,
}

impl InstallationTokens {
    pub(super) fn new(app: GitHubApp, client: Client, repository: &Url) -> Self {
        let last = repository.path().trim_matches('/').rsplit('/').next().unwrap_or_default();
        let repository = last.strip_suffix(".git").unwrap_or(last).to_owned();
        Self { app, client, repository, kept: Mutex::new(None) }
    }

    /// Returns a token that is valid for some minutes at least.
    pub(super) async fn token(&self) -> Result<Arc<SecretString>, RemoteError> {
        let mut kept = self.kept.lock().await;
        let now = Timestamp::now();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.replace_at) {
            return Ok(kept.token.clone());
        }
        match self.make(now).await {
            Ok(made) => {
                let token = made.token.clone();
                *kept = Some(made);
                Ok(token)
            }
            // The old one is still good, and GitHub may have recovered before its end.
            Err(error) => match kept.as_ref().filter(|kept| error.is_transient() && now < kept.expires_at) {
                Some(kept) => Ok(kept.token.clone()),
                None => Err(error),
            },
        }
    }

    /// Forgets a token that was not accepted: it may have been revoked.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn make(&self, now: Timestamp) -> Result<Kept, RemoteError> {
        let app = self.app.clone();
        // A signature takes about a millisecond.
        let proof = tokio::task::spawn_blocking(move || app.proof(now)).await;
        let proof = proof.map_err(|error| RemoteError::unavailable(error.to_string()))?;
        let proof = proof.map_err(|error| RemoteError::Unauthorized { reason: error.to_string() })?;
        let address = format!("{}/app/installations/{}/access_tokens", self.app.api, self.app.installation);
        let request = self
            .client
            .post(address)
            .bearer_auth(&proof)
            .header("Accept", "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .timeout(PATIENCE)
            .json(&json!({ "repositories": [self.repository], "permissions": { "contents": "write" } }));
        let unreachable = |error: reqwest::Error| {
            RemoteError::unavailable(format!("GitHub gave no token: {}", in_full(&error.without_url())))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let ask_again_after = retry_after(response.headers(), now, LONGEST_WAIT);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(RemoteError::Protocol { reason: "GitHub's answer does not end".to_owned() });
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::CREATED {
            return Err(refusal(status, ask_again_after, &body).redacted(&Redaction::of("", &proof)));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| RemoteError::Protocol { reason: "GitHub's answer holds no token".to_owned() })?;
        let life = Duration::try_from(answer.expires_at.duration_since(now)).unwrap_or_default();
        tracing::info!(expires_at = %answer.expires_at, "GitHub made a token of the installation");
        Ok(Kept {
            token: Arc::new(answer.token),
            replace_at: answer.expires_at.checked_sub(MARGIN.min(life / 12)).unwrap_or(now),
            expires_at: answer.expires_at,
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    token: SecretString,
    expires_at: Timestamp,
}

fn refusal(status: StatusCode, ask_again_after: Option<Duration>, body: &[u8]) -> RemoteError {
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let said = said.as_ref().and_then(|said| said.get("message")?.as_str()).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    let reason = format!("GitHub gives no token of the installation: {status} {said}");
    let limited = status == StatusCode::FORBIDDEN && ask_again_after.is_some();
    if limited || status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        RemoteError::Unavailable { reason, ask_again_after }
    } else {
        let advice = match status {
            StatusCode::UNAUTHORIZED => "; are `app_id` and `private_key` of one app, and is the clock right?",
            StatusCode::NOT_FOUND => "; is `installation_id` that of this app?",
            StatusCode::UNPROCESSABLE_ENTITY => "; is the app installed on this repository, and may it write contents?",
            _ => "",
        };
        RemoteError::Unauthorized { reason: reason.trim_end().to_owned() + advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_github_has_it() {
        for (repository, api) in [
            ("https://github.com/uyou/config.git", "https://api.github.com"),
            ("https://uyou.ghe.com/uyou/config", "https://api.uyou.ghe.com"),
            ("https://git.example.com:8443/uyou/config.git", "https://git.example.com:8443/api/v3"),
        ] {
            assert_eq!(api_of(&repository.parse().unwrap()), api);
        }
    }
}
