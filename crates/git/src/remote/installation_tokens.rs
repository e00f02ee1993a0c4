//! Installation tokens of a GitHub App, for one repository.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tagrelay_secret::Redaction;
use tokio::sync::Mutex;
use url::Url;

use super::http_error::with_sources;
use crate::credentials::GitHubApp;
use crate::error::RemoteError;
use crate::retry_after::retry_after;

/// The user name that goes with an installation token.
pub(super) const USERNAME: &str = "x-access-token";

/// A token is replaced this long before it expires, or in the last twelfth of a life shorter than an hour.
const RENEWAL_MARGIN: Duration = Duration::from_secs(5 * 60);

/// GitHub's answer has a few kilobytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// Requests tokens of an installation when they are needed and keeps the newest.
pub(super) struct InstallationTokens {
    app: GitHubApp,
    client: Client,
    /// The name of the repository. Tokens are limited to it.
    repository: String,
    /// Locked during a request for a token, so that concurrent callers share its result.
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

    /// Returns a token that is valid for at least some minutes.
    pub(super) async fn token(&self) -> Result<Arc<SecretString>, RemoteError> {
        let mut kept = self.kept.lock().await;
        let now = Timestamp::now();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.replace_at) {
            return Ok(kept.token.clone());
        }
        match self.request(now).await {
            Ok(new) => {
                let token = new.token.clone();
                *kept = Some(new);
                Ok(token)
            }
            // The old token is still valid, and GitHub may recover before it expires.
            Err(error) => match kept.as_ref().filter(|kept| error.is_transient() && now < kept.expires_at) {
                Some(kept) => Ok(kept.token.clone()),
                None => Err(error),
            },
        }
    }

    /// Drops the token after the server rejected it: it may have been revoked.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn request(&self, now: Timestamp) -> Result<Kept, RemoteError> {
        let app = self.app.clone();
        // Signing takes about a millisecond.
        let proof = tokio::task::spawn_blocking(move || app.proof(now)).await;
        let proof = proof.map_err(|error| RemoteError::unavailable(error.to_string()))?;
        let proof = proof.map_err(|error| RemoteError::Unauthorized { reason: error.to_string() })?;
        let request = self
            .client
            .post(self.app.token_url())
            .bearer_auth(&proof)
            .header("Accept", "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .timeout(REQUEST_LIMIT)
            .json(&json!({ "repositories": [self.repository], "permissions": { "contents": "write" } }));
        let unreachable = |error: reqwest::Error| {
            RemoteError::unavailable(format!("GitHub gave no token: {}", with_sources(&error.without_url())))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let ask_again_after = retry_after(response.headers(), now, LONGEST_WAIT);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(RemoteError::Protocol { reason: "GitHub's answer is too long".to_owned() });
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::CREATED {
            return Err(refusal(status, ask_again_after, &body).redacted(&Redaction::of("", &proof)));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| RemoteError::Protocol { reason: "GitHub's answer contains no token".to_owned() })?;
        let life = Duration::try_from(answer.expires_at.duration_since(now)).unwrap_or_default();
        tracing::info!(expires_at = %answer.expires_at, "received a GitHub installation token");
        Ok(Kept {
            token: Arc::new(answer.token),
            replace_at: answer.expires_at.checked_sub(RENEWAL_MARGIN.min(life / 12)).unwrap_or(now),
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
    let reason = format!("GitHub refused an installation token: {status} {said}");
    let limited = status == StatusCode::FORBIDDEN && ask_again_after.is_some();
    if limited || status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        RemoteError::Unavailable { reason, ask_again_after }
    } else {
        let advice = match status {
            StatusCode::UNAUTHORIZED => {
                "; do `app_id` and `private_key` belong to the same app, and is the clock right?"
            }
            StatusCode::NOT_FOUND => "; does `installation_id` belong to this app?",
            StatusCode::UNPROCESSABLE_ENTITY => {
                "; is the app installed on this repository with write access to contents?"
            }
            _ => "",
        };
        RemoteError::Unauthorized { reason: reason.trim_end().to_owned() + advice }
    }
}
