//! Authentication to a registry: answers to its challenges, and a cache of tokens.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::body::read_at_most;
use super::challenge::{Bearer, Challenge, choose};
use super::client::TimeLimits;
use super::cloud::Cloud;
use super::docker_config::Account;
use super::failure::{RegistryFailure, no_answer, temporary};
use super::lenient::Count;
use super::login::{Found, Login};
use tagrelay_secret::ExposeSecret as _;

/// Lifetime of a token without `expires_in`.
///
/// Source: <https://distribution.github.io/distribution/spec/auth/token/#token-response-fields>.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// Upper bound of a token's lifetime in the cache.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A token is replaced this long before it expires, because the request still has to arrive.
///
/// The margin is a tenth of the lifetime if that is less.
const LONGEST_MARGIN: Duration = Duration::from_secs(10);

/// Tokens have a few kilobytes.
const MAX_TOKEN_ANSWER_BYTES: usize = 256 << 10;

/// Above this many cached tokens, expired ones are removed before another is added.
const MANY_TOKENS: usize = 1024;

/// A token and the time until which it is used.
pub(super) struct Token {
    header: HeaderValue,
    until: Instant,
}

/// The credentials of one request.
pub(super) enum Authorization {
    /// No credentials, because the registry has not sent a challenge yet.
    Nothing,
    /// User name and password, from this account.
    Basic { header: HeaderValue, found: Found },
    /// A token; `cached` unless it was fetched for this request.
    Bearer { token: Arc<Token>, cached: bool },
}

impl Authorization {
    /// Returns the `Authorization` header.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Basic { header, .. } => Some(header.clone()),
            Self::Bearer { token, .. } => Some(token.header.clone()),
        }
    }
}

/// Authenticates requests to one registry.
pub(super) struct Authenticator {
    context: Arc<Context>,
    /// The last challenge. Later requests answer the challenge at once, without a 401 first.
    challenge: Mutex<Option<Challenge>>,
    /// The tokens by scope. Concurrent requests share one fetch of a token.
    tokens: Mutex<HashMap<String, Shared<BoxFuture<'static, Answer>>>>,
}

type Answer = Result<Arc<Token>, RegistryFailure>;

/// The parameters of token requests.
pub(super) struct Context {
    /// The registry's host as in image references.
    pub(super) host: String,
    pub(super) plain_http: bool,
    /// Hosts with `plain_http = true`, with the port unless it is 80.
    pub(super) insecure: Arc<HashSet<String>>,
    pub(super) login: Login,
    pub(super) client: reqwest::Client,
    pub(super) limits: TimeLimits,
}

impl Authenticator {
    pub(super) fn new(context: Context) -> Self {
        Self { context: Arc::new(context), challenge: Mutex::default(), tokens: Mutex::default() }
    }

    /// Returns the credentials of the first request for `scope`, based on the last challenge.
    pub(super) async fn authorization(&self, scope: &str) -> Result<Authorization, RegistryFailure> {
        let challenge = lock(&self.challenge).clone();
        match challenge {
            None => Ok(Authorization::Nothing),
            Some(challenge) => self.meet(challenge, Authorization::Nothing, scope).await,
        }
    }

    /// Returns the credentials of the second request, after a 401 to `rejected`.
    ///
    /// A cached token, also a cached account of a cloud, is replaced once. One that was fetched for this request is replaced
    /// only if the registry now names another token service.
    pub(super) async fn authorization_after(
        &self,
        rejected: Authorization,
        answer: &HeaderMap,
        scope: &str,
    ) -> Result<Authorization, RegistryFailure> {
        let Some(challenge) = choose(answer.get_all(header::WWW_AUTHENTICATE)) else {
            return Err(RegistryFailure::not_allowed(format!(
                "registry {} answered 401 without a usable challenge (WWW-Authenticate with Bearer or Basic): check \
                 that the host is a registry",
                self.context.host
            )));
        };
        let before = lock(&self.challenge).replace(challenge.clone());
        let tried = match &rejected {
            Authorization::Nothing | Authorization::Bearer { cached: true, .. } => false,
            Authorization::Bearer { cached: false, .. } => true,
            Authorization::Basic { found, .. } => !self.context.login.drop_refused(found),
        };
        if tried && before.as_ref() == Some(&challenge) {
            self.forget(&challenge);
            return Err(self.refused());
        }
        self.meet(challenge, rejected, scope).await
    }

    /// Returns credentials that answer the challenge, other than `rejected`.
    async fn meet(
        &self,
        challenge: Challenge,
        rejected: Authorization,
        scope: &str,
    ) -> Result<Authorization, RegistryFailure> {
        let authorization = match &challenge {
            Challenge::Basic => self.basic(scope).await,
            Challenge::Bearer(bearer) => {
                let rejected = match &rejected {
                    Authorization::Bearer { token, .. } => Some(token),
                    Authorization::Nothing | Authorization::Basic { .. } => None,
                };
                self.token(bearer.clone(), scope, rejected).await
            }
        };
        if authorization.is_err() {
            self.forget(&challenge);
        }
        authorization
    }

    /// Forgets the challenge, so that the next request gets a new one.
    ///
    /// The token service may have moved, or the registry may now allow anonymous access.
    fn forget(&self, challenge: &Challenge) {
        let mut known = lock(&self.challenge);
        if known.as_ref() == Some(challenge) {
            *known = None;
        }
    }

    /// Returns the cloud of a login that the settings do not mention.
    pub(super) fn automatic_login(&self) -> Option<Cloud> {
        self.context.login.automatic()
    }

    /// Returns the failure for a registry that denies access.
    pub(super) fn refused(&self) -> RegistryFailure {
        self.context.refused("registry", &self.context.host)
    }

    /// Removes the credentials from a message, which may quote the registry or its token service.
    pub(super) fn redacted(&self, failure: RegistryFailure) -> RegistryFailure {
        let clean = |reason: &str| self.context.login.clean(&self.context.host, reason);
        match failure {
            RegistryFailure::NotAllowed { reason } => RegistryFailure::NotAllowed { reason: clean(&reason) },
            RegistryFailure::NotNow { reason, ask_again_after } => {
                RegistryFailure::NotNow { reason: clean(&reason), ask_again_after }
            }
        }
    }

    async fn basic(&self, scope: &str) -> Result<Authorization, RegistryFailure> {
        let host = &self.context.host;
        let Some(found) = self.context.account(scope).await? else { return Err(self.refused()) };
        match found.account() {
            Account::Password { username, password } => {
                let header = basic_header(username, password, host)?;
                Ok(Authorization::Basic { header, found })
            }
            Account::IdentityToken(_) => Err(RegistryFailure::not_allowed(format!(
                "registry {host} requires a password, and its account is an identity token, which only a token service \
                 accepts: write username and password instead"
            ))),
        }
    }

    /// Returns the cached token of `scope`, joins a fetch in flight, or starts a fetch.
    async fn token(
        &self,
        bearer: Bearer,
        scope: &str,
        rejected: Option<&Arc<Token>>,
    ) -> Result<Authorization, RegistryFailure> {
        let shared = {
            let mut tokens = lock(&self.tokens);
            match tokens.get(scope).map(|shared| (usable(shared, rejected), shared.clone())) {
                Some((Some(Reuse::Cached(token)), _)) => return Ok(Authorization::Bearer { token, cached: true }),
                Some((Some(Reuse::InFlight), shared)) => shared,
                Some((None, _)) | None => {
                    if tokens.len() >= MANY_TOKENS {
                        tokens.retain(|_, shared| usable(shared, None).is_some());
                    }
                    let fetched = fetch(Arc::clone(&self.context), bearer, scope.to_owned()).boxed().shared();
                    tokens.insert(scope.to_owned(), fetched.clone());
                    fetched
                }
            }
        };
        // The lock is released here, so a slow token service delays only requests for this scope.
        Ok(Authorization::Bearer { token: shared.await?, cached: false })
    }
}

enum Reuse {
    Cached(Arc<Token>),
    InFlight,
}

/// Returns how a cache entry can be reused; `None`: it cannot be reused.
///
/// An entry cannot be reused if it failed, expired or was rejected, or if it is a fetch whose callers were all dropped, so that it
/// makes no progress.
fn usable(shared: &Shared<BoxFuture<'static, Answer>>, rejected: Option<&Arc<Token>>) -> Option<Reuse> {
    match shared.peek() {
        Some(Ok(token)) => {
            let valid = token.until > Instant::now() && !rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, token));
            valid.then(|| Reuse::Cached(Arc::clone(token)))
        }
        Some(Err(_)) => None,
        None => (shared.strong_count().unwrap_or(0) > 1).then_some(Reuse::InFlight),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    fn refused(&self, what: &str, name: &str) -> RegistryFailure {
        RegistryFailure::not_allowed(format!("{what} {name} {}", self.login.describe_refusal(&self.host)))
    }

    /// Returns the current account for the repository in a scope; `None`: anonymous.
    async fn account(&self, scope: &str) -> Result<Option<Found>, RegistryFailure> {
        let path = scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':'));
        self.login.account(&self.host, path.map_or("", |(path, _)| path)).await
    }

    /// Returns the URL of the token service. An error if the credentials of `account` must not be sent there.
    ///
    /// The registry names the service in its 401, and Docker and containerd send the credentials to any service
    /// (<https://github.com/containerd/containerd/blob/v2.0.0/core/remotes/docker/authorizer.go>). Over HTTPS, Tagrelay does the
    /// same: token services may run on any host (Docker Hub, GitLab, clouds), and a malicious registry could ask for the
    /// credentials itself.
    ///
    /// A 401 over plain HTTP may be forged. The credentials are then sent over plain HTTP only to hosts that receive them over
    /// plain HTTP anyway: the registry's own host, on any port, or a host with `plain_http = true`. An HTTPS registry never leads
    /// to a token service with plain HTTP.
    ///
    /// The account of a cloud may be good for more than its registry, so it goes only to hosts of that cloud.
    fn realm(&self, bearer: &Bearer, found: Option<&Found>) -> Result<Url, RegistryFailure> {
        let host = &self.host;
        let realm = Url::parse(&bearer.realm).map_err(|error| {
            RegistryFailure::not_allowed(format!(
                "registry {host} names a token service with an invalid URL ({error}): check the realm in the registry's \
                 own settings"
            ))
        })?;
        let named = realm.host_str().unwrap_or_default();
        if let Some(cloud) = found.and_then(Found::cloud)
            && (realm.scheme() != "https" || realm.port().is_some() || Cloud::of_host(named) != Some(cloud))
        {
            return Err(RegistryFailure::not_allowed(format!(
                "registry {host} names a token service at {}://{named}, which is not a registry host of this cloud over HTTPS; the \
                 token of login = \"{cloud}\" was not sent there",
                realm.scheme()
            )));
        }
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if self.plain_http && (found.is_none() || self.is_insecure(&realm)) => Ok(realm),
            "http" if self.plain_http => Err(RegistryFailure::not_allowed(format!(
                "registry {host} names a token service at http://{named}, which is another host without HTTPS; no credentials \
                 were sent there: correct the realm in the registry's own settings, or add a [[registry]] with the host and port \
                 of the token service and plain_http = true"
            ))),
            scheme => Err(RegistryFailure::not_allowed(format!(
                "registry {host} names a token service at {scheme}://{named}, which is not HTTPS; nothing was sent there: \
                 correct the realm in the registry's own settings, or set plain_http = true if the registry itself uses \
                 plain HTTP"
            ))),
        }
    }

    /// Returns whether the settings allow plain HTTP for this URL.
    fn is_insecure(&self, address: &Url) -> bool {
        let Some(name) = address.host_str() else { return false };
        let own = Url::parse(&format!("http://{}", self.host)).ok();
        let is_own = own.as_ref().and_then(Url::host_str) == Some(name);
        let port = address.port_or_known_default().unwrap_or(80);
        let written = [format!("{name}:{port}"), name.to_owned()];
        is_own || written.iter().take(if port == 80 { 2 } else { 1 }).any(|host| self.insecure.contains(host))
    }
}

fn basic_header(username: &str, password: &SecretString, host: &str) -> Result<HeaderValue, RegistryFailure> {
    let pair = format!("{username}:{}", password.expose_secret());
    sensitive(&format!("Basic {}", STANDARD.encode(pair))).ok_or_else(|| {
        RegistryFailure::not_allowed(format!(
            "the credentials of registry {host} contain characters invalid in a header"
        ))
    })
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds. Any JSON value is accepted; all but a number count as absent.
    #[serde(default)]
    expires_in: Count,
}

/// Fetches a token with the right to pull. An account of a cloud that is refused is replaced once.
async fn fetch(context: Arc<Context>, bearer: Bearer, scope: String) -> Answer {
    loop {
        let found = context.account(&scope).await?;
        match request_token(&context, &bearer, &scope, found.as_ref()).await? {
            Some(token) => return Ok(Arc::new(token)),
            None if found.as_ref().is_some_and(|found| context.login.drop_refused(found)) => {}
            None => {
                let address = context.realm(&bearer, found.as_ref())?;
                return Err(context.refused("the token service", address.host_str().unwrap_or_default()));
            }
        }
    }
}

/// Requests a token once; `None`: the account is refused.
async fn request_token(
    context: &Context,
    bearer: &Bearer,
    scope: &str,
    found: Option<&Found>,
) -> Result<Option<Token>, RegistryFailure> {
    let address = context.realm(bearer, found)?;
    let service_host = address.host_str().unwrap_or_default();
    let who = format!("the token service {service_host} of registry {}", context.host);
    let request = token_request(context, address.clone(), bearer, scope, found.map(Found::account))?;
    // The lifetime counts from before the request, because the service issues the token before the answer arrives.
    let asked_at = Instant::now();
    let failed = |error| no_answer(error, &who, &context.host, context.limits);
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(None);
    }
    if !status.is_success() {
        return Err(temporary(status, response.headers(), &who, &context.host).unwrap_or_else(|| {
            RegistryFailure::not_allowed(format!(
                "{who} answered {status} instead of a token: check the registry's host"
            ))
        }));
    }
    let body = read_at_most(response, MAX_TOKEN_ANSWER_BYTES).await.map_err(failed)?;
    let answer = body.and_then(|body| serde_json::from_slice::<TokenAnswer>(&body).ok());
    let token = answer.and_then(|answer| read_token(answer, asked_at));
    token.map(Some).ok_or_else(|| {
        RegistryFailure::not_now(format!("{who} answered {status} without a token; retrying; see its log"))
    })
}

/// Creates the request for a token.
///
/// A `GET` with the password, or a `POST` that exchanges the identity token
/// (<https://distribution.github.io/distribution/spec/auth/oauth/>).
fn token_request(
    context: &Context,
    mut address: Url,
    bearer: &Bearer,
    scope: &str,
    account: Option<&Account>,
) -> Result<reqwest::RequestBuilder, RegistryFailure> {
    let service = bearer.service.as_deref().map(|service| ("service", service));
    let parameters = service.into_iter().chain([("scope", scope)]);
    let client = context.login.client().unwrap_or(&context.client);
    match account {
        Some(Account::IdentityToken(token)) => {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "tagrelay");
            form.append_pair("refresh_token", token.expose_secret()).extend_pairs(parameters);
            let form_type = "application/x-www-form-urlencoded";
            Ok(client.post(address).header(header::CONTENT_TYPE, form_type).body(form.finish()))
        }
        Some(Account::Password { username, password }) => {
            address.query_pairs_mut().extend_pairs(parameters);
            let header = basic_header(username, password, &context.host)?;
            Ok(client.get(address).header(header::AUTHORIZATION, header))
        }
        None => {
            address.query_pairs_mut().extend_pairs(parameters);
            Ok(client.get(address))
        }
    }
}

/// Returns the token of an answer; `None`: the answer has no token, or one that is invalid in a header.
fn read_token(answer: TokenAnswer, asked_at: Instant) -> Option<Token> {
    let text = answer.token.or(answer.access_token).filter(|text| !text.is_empty())?;
    let seconds = answer.expires_in.0;
    let life = seconds.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE);
    let margin = (life / 10).min(LONGEST_MARGIN);
    Some(Token { header: sensitive(&format!("Bearer {text}"))?, until: asked_at + life - margin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Credentials;
    use crate::registry::client::Addresses;
    use tagrelay_secret::Secret;

    fn login(password: &str) -> Login {
        let credentials = Credentials { username: "reader".to_owned(), password: Secret::inline(password).unwrap() };
        Login::Section { host: "r.example.com".to_owned(), credentials }
    }

    fn life(json: &str) -> Option<Duration> {
        let asked_at = Instant::now();
        read_token(serde_json::from_str(json).unwrap(), asked_at).map(|token| token.until - asked_at)
    }

    #[test]
    fn token_is_replaced_before_it_expires() {
        assert_eq!(life(r#"{"token":"t"}"#), Some(Duration::from_secs(54)));
        assert_eq!(life(r#"{"access_token":"t","expires_in":300}"#), Some(Duration::from_secs(290)));
        assert_eq!(life(r#"{"token":"t","expires_in":0}"#), Some(Duration::ZERO));
        assert_eq!(life(r#"{"token":"t","expires_in":"soon"}"#), Some(Duration::from_secs(54)));
        assert_eq!(life(r#"{"token":"t","expires_in":18446744073709551615}"#), Some(LONGEST_LIFE - LONGEST_MARGIN));
    }

    #[test]
    fn credentials_quoted_by_the_registry_are_redacted() {
        let client = super::super::client::ClientFor {
            ca_bundle: None,
            is_near: true,
            plain_http: true,
            redirects: true,
            limits: TimeLimits::default(),
            addresses: &Addresses::default(),
        };
        let (client, limits) = (client.build().unwrap(), TimeLimits::default());
        let (host, insecure) = ("r.example.com".to_owned(), Arc::default());
        let context = Context { host, plain_http: false, insecure, login: login("hunter2222"), client, limits };
        let authenticator = Authenticator::new(context);
        let header = STANDARD.encode("reader:hunter2222");
        for said in ["no hunter2222".to_owned(), format!("no {header}")] {
            let clean = RegistryFailure::not_allowed("no [redacted]");
            assert_eq!(authenticator.redacted(RegistryFailure::not_allowed(said.clone())), clean, "{said}");
            assert_eq!(
                authenticator.redacted(RegistryFailure::not_now(said)),
                RegistryFailure::not_now("no [redacted]")
            );
        }
    }

    #[test]
    fn answers_without_a_usable_token_give_none() {
        for json in ["{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"expires_in":60}"#] {
            assert_eq!(life(json), None, "{json}");
        }
    }

    #[test]
    fn authorization_header_is_not_printed() {
        assert_eq!(format!("{:?}", sensitive("Bearer hunter2").unwrap()), "Sensitive");
    }

    #[tokio::test]
    async fn password_needs_https_unless_the_settings_allow_plain_http() {
        let account = login("hunter2").account("r.example.com", "a").await.unwrap();
        let account = account.as_ref();
        let context = |plain_http| Context {
            host: "r.example.com:5000".to_owned(),
            plain_http,
            insecure: Arc::new(HashSet::from(
                ["r.example.com:5000", "t2.example.com:81", "t3.example.com"].map(str::to_owned),
            )),
            login: login("hunter2"),
            client: super::super::client::ClientFor {
                ca_bundle: None,
                is_near: true,
                plain_http: true,
                redirects: true,
                limits: TimeLimits::default(),
                addresses: &Addresses::default(),
            }
            .build()
            .unwrap(),
            limits: TimeLimits::default(),
        };
        let bearer = |realm: &str| Bearer { realm: realm.to_owned(), service: None };
        assert!(context(false).realm(&bearer("https://t.example.com/token?a=b"), account).is_ok());
        for realm in [
            "https://t.example.com/token",
            "http://r.example.com:5000/token",
            "http://R.example.com:5001/token",
            "http://t2.example.com:81/token",
            "http://t3.example.com/token",
        ] {
            assert!(context(true).realm(&bearer(realm), account).is_ok(), "{realm}");
            assert_eq!(context(false).realm(&bearer(realm), account).is_ok(), realm.starts_with("https"), "{realm}");
        }
        for realm in [
            "http://t.example.com/token",
            "http://t2.example.com/token",
            "http://t3.example.com:81/token",
            "http://r.example.com.evil.example/token",
            "http://r.example.com:5000@t.example.com/token",
        ] {
            let Err(RegistryFailure::NotAllowed { reason }) = context(true).realm(&bearer(realm), account) else {
                panic!("{realm}")
            };
            assert!(reason.contains("no credentials were sent there"), "{reason}");
            // Anonymous requests have no credentials to protect.
            assert!(context(true).realm(&bearer(realm), None).is_ok(), "{realm}");
        }
        for realm in ["http://user:hunter2@t.example.com/token", "file:///etc/passwd", "/token", ""] {
            let Err(RegistryFailure::NotAllowed { reason }) = context(false).realm(&bearer(realm), account) else {
                panic!("{realm}")
            };
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
