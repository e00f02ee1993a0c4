//! Who asks: answers to a registry's challenge, and the tokens that are kept while they are valid.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use url::Url;

use super::Credentials;
use super::body::read_at_most;
use super::challenge::{Bearer, Challenge, choose};
use super::client::TimeLimits;
use super::setback::{Setback, passing, unanswered};
use crate::secret::{ExposeSecret as _, Redaction};

/// What a token is good for where the service does not say
/// (<https://distribution.github.io/distribution/spec/auth/token/#token-response-fields>).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// No token is kept for longer, whatever the service says.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A token counts as expired this long before it is, or a tenth of its life if that is less: it has to arrive too.
const LONGEST_MARGIN: Duration = Duration::from_secs(10);

/// Tokens are a few kilobytes.
const MAX_TOKEN_ANSWER_BYTES: usize = 1 << 20;

/// From this many kept tokens on, the expired ones are thrown away before another one is kept.
const MANY_TOKENS: usize = 1024;

/// A token and the moment from which on it is not used.
pub(super) struct Token {
    header: HeaderValue,
    until: Instant,
}

/// What a request carries to show who asks.
pub(super) enum Pass {
    /// Nothing: the registry has not asked yet.
    Nothing,
    /// User name and password.
    Basic(HeaderValue),
    /// A token, which was `kept` from before or fetched just now.
    Bearer { token: Arc<Token>, kept: bool },
}

impl Pass {
    /// Returns the `Authorization` header.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Basic(header) => Some(header.clone()),
            Self::Bearer { token, .. } => Some(token.header.clone()),
        }
    }
}

/// Everything known about how one registry wants to be asked.
pub(super) struct Authority {
    context: Arc<Context>,
    /// The last challenge: the next request answers it without being asked.
    challenge: Mutex<Option<Challenge>>,
    /// By scope. A token on its way is shared by everybody who waits for it.
    tokens: Mutex<HashMap<String, Shared<BoxFuture<'static, Answer>>>>,
}

type Answer = Result<Arc<Token>, Setback>;

/// What is needed to fetch a token.
pub(super) struct Context {
    /// The registry as references write it.
    pub(super) host: String,
    pub(super) plain_http: bool,
    /// The hosts that the settings call plain HTTP, with their ports where those are not 80.
    pub(super) insecure: Arc<HashSet<String>>,
    pub(super) credentials: Option<Credentials>,
    pub(super) client: reqwest::Client,
    pub(super) limits: TimeLimits,
}

impl Authority {
    pub(super) fn new(context: Context) -> Self {
        Self { context: Arc::new(context), challenge: Mutex::default(), tokens: Mutex::default() }
    }

    /// Returns what the first request for `scope` carries, from what is known of the registry.
    pub(super) async fn pass(&self, scope: &str) -> Result<Pass, Setback> {
        let challenge = lock(&self.challenge).clone();
        match challenge {
            None => Ok(Pass::Nothing),
            Some(challenge) => self.meet(challenge, Pass::Nothing, scope).await,
        }
    }

    /// Returns what the second request carries after the registry answered 401 to `rejected`.
    ///
    /// A kept token is replaced once. A token that was fetched for this very request is not, unless the registry names
    /// another token service than before.
    pub(super) async fn pass_after(&self, rejected: Pass, answer: &HeaderMap, scope: &str) -> Result<Pass, Setback> {
        let Some(challenge) = choose(answer.get_all(header::WWW_AUTHENTICATE)) else {
            return Err(Setback::not_allowed(format!(
                "registry {} answered 401 and does not say how to sign in (WWW-Authenticate with Bearer or Basic): \
                 check that the host is a registry",
                self.context.host
            )));
        };
        let before = lock(&self.challenge).replace(challenge.clone());
        let tried = matches!(rejected, Pass::Basic(_) | Pass::Bearer { kept: false, .. });
        if tried && before.as_ref() == Some(&challenge) {
            self.forget(&challenge);
            return Err(self.refused());
        }
        self.meet(challenge, rejected, scope).await
    }

    /// Returns what the registry asks for, other than `rejected`.
    async fn meet(&self, challenge: Challenge, rejected: Pass, scope: &str) -> Result<Pass, Setback> {
        let pass = match &challenge {
            Challenge::Basic => self.basic(),
            Challenge::Bearer(bearer) => {
                let rejected = match &rejected {
                    Pass::Bearer { token, .. } => Some(token),
                    Pass::Nothing | Pass::Basic(_) => None,
                };
                self.token(bearer.clone(), scope, rejected).await
            }
        };
        if pass.is_err() {
            self.forget(&challenge);
        }
        pass
    }

    /// Lets the registry say anew how to sign in, because its token service may have moved, or it may be open now.
    fn forget(&self, challenge: &Challenge) {
        let mut known = lock(&self.challenge);
        if known.as_ref() == Some(challenge) {
            *known = None;
        }
    }

    /// Returns the setback for a registry that knows who asks and says no.
    pub(super) fn refused(&self) -> Setback {
        self.context.refused("registry", &self.context.host)
    }

    /// Takes the account out of a setback, whose words are partly those of the registry or of its token service.
    pub(super) fn redacted(&self, setback: Setback) -> Setback {
        let Some(credentials) = &self.context.credentials else { return setback };
        let Ok(password) = credentials.password.reveal() else { return setback };
        let redaction = Redaction::of(&credentials.username, password.expose_secret());
        match setback {
            Setback::NotAllowed { reason } => Setback::NotAllowed { reason: redaction.clean(&reason) },
            Setback::NotNow { reason, ask_again_after } => {
                Setback::NotNow { reason: redaction.clean(&reason), ask_again_after }
            }
        }
    }

    fn basic(&self) -> Result<Pass, Setback> {
        match &self.context.credentials {
            Some(credentials) => Ok(Pass::Basic(basic_header(credentials, &self.context.host)?)),
            None => Err(self.refused()),
        }
    }

    /// Returns the kept token of `scope`, or one on its way to somebody else, or a new one.
    async fn token(&self, bearer: Bearer, scope: &str, rejected: Option<&Arc<Token>>) -> Result<Pass, Setback> {
        let shared = {
            let mut tokens = lock(&self.tokens);
            match tokens.get(scope).map(|shared| (usable(shared, rejected), shared.clone())) {
                Some((Some(Use::Kept(token)), _)) => return Ok(Pass::Bearer { token, kept: true }),
                Some((Some(Use::OnItsWay), shared)) => shared,
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
        // The lock is released: a slow token service holds up nobody but those who need this token.
        Ok(Pass::Bearer { token: shared.await?, kept: false })
    }
}

enum Use {
    Kept(Arc<Token>),
    OnItsWay,
}

/// Says what an entry is good for; `None` for a failure, an expired or rejected token, and a fetch that nobody waits
/// for any more and that therefore stands still.
fn usable(shared: &Shared<BoxFuture<'static, Answer>>, rejected: Option<&Arc<Token>>) -> Option<Use> {
    match shared.peek() {
        Some(Ok(token)) => {
            let valid = token.until > Instant::now() && !rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, token));
            valid.then(|| Use::Kept(Arc::clone(token)))
        }
        Some(Err(_)) => None,
        None => (shared.strong_count().unwrap_or(0) > 1).then_some(Use::OnItsWay),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    fn refused(&self, what: &str, name: &str) -> Setback {
        let host = &self.host;
        Setback::not_allowed(match &self.credentials {
            Some(_) => format!(
                "{what} {name} refuses the account that is set for [[registry]] host = \"{host}\": check username and \
                 password, and that the account may pull from the repository; a repository that does not exist may \
                 look the same"
            ),
            None => format!(
                "{what} {name} refuses anonymous requests for the repository: set username and password for \
                 [[registry]] host = \"{host}\"; a repository that does not exist may look the same"
            ),
        })
    }

    /// Returns the address of the token service, if the account may be shown there.
    ///
    /// The registry names it in its 401, and Docker and containerd show the account to whatever it names
    /// (<https://github.com/containerd/containerd/blob/v2.0.0/core/remotes/docker/authorizer.go>). Over HTTPS so do we: registries
    /// keep their token services where they like (Docker Hub, GitLab, clouds), and who speaks for the registry over HTTPS could
    /// as well ask for the account itself. Over plain HTTP anybody on the way may have written the answer, so that the account
    /// goes in the clear only to where the settings send it in the clear anyway: the registry's own host, at any port, or a host
    /// that has `plain_http` too. A registry over HTTPS never leads to plain HTTP.
    fn realm(&self, bearer: &Bearer) -> Result<Url, Setback> {
        let host = &self.host;
        let realm = Url::parse(&bearer.realm).map_err(|error| {
            Setback::not_allowed(format!(
                "registry {host} names a token service whose address cannot be read ({error}): check the registry's \
                 own settings"
            ))
        })?;
        let named = realm.host_str().unwrap_or_default();
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if self.plain_http && (self.credentials.is_none() || self.is_insecure(&realm)) => Ok(realm),
            "http" if self.plain_http => Err(Setback::not_allowed(format!(
                "registry {host} names a token service at http://{named}, another host that is not HTTPS, so the account is not \
                 shown there: correct the realm in the registry's own settings, or add a [[registry]] with the host and port of the \
                 token service and plain_http = true"
            ))),
            scheme => Err(Setback::not_allowed(format!(
                "registry {host} names a token service at {scheme}://{named}, which is not HTTPS, so nothing is sent there: \
                 correct the realm in the registry's own settings, or set plain_http = true if the registry itself is \
                 plain HTTP"
            ))),
        }
    }

    /// Returns whether the settings have it that what goes to this address over plain HTTP goes there so.
    fn is_insecure(&self, address: &Url) -> bool {
        let Some(name) = address.host_str() else { return false };
        let own = Url::parse(&format!("http://{}", self.host)).ok();
        let is_own = own.as_ref().and_then(Url::host_str) == Some(name);
        let port = address.port_or_known_default().unwrap_or(80);
        let written = [format!("{name}:{port}"), name.to_owned()];
        is_own || written.iter().take(if port == 80 { 2 } else { 1 }).any(|host| self.insecure.contains(host))
    }
}

fn basic_header(credentials: &Credentials, host: &str) -> Result<HeaderValue, Setback> {
    // Not a refusal: a mounted secret may be on its way.
    let password = credentials
        .password
        .reveal()
        .map_err(|error| Setback::not_now(format!("the password of registry {host} cannot be had: {error}")))?;
    let pair = format!("{}:{}", credentials.username, password.expose_secret());
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
        .ok_or_else(|| Setback::not_allowed(format!("the account of registry {host} cannot be written into a header")))
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
    /// Seconds. Any JSON value, because a service that says it badly is not to be refused for it.
    expires_in: Option<serde_json::Value>,
}

/// Asks the token service for a token to pull with.
async fn fetch(context: Arc<Context>, bearer: Bearer, scope: String) -> Answer {
    let mut address = context.realm(&bearer)?;
    {
        let mut query = address.query_pairs_mut();
        if let Some(service) = &bearer.service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", &scope);
    }
    let service_host = address.host_str().unwrap_or_default().to_owned();
    let who = format!("the token service {service_host} of registry {}", context.host);
    let mut request = context.client.get(address);
    if let Some(credentials) = &context.credentials {
        request = request.header(header::AUTHORIZATION, basic_header(credentials, &context.host)?);
    }
    // The life of a token begins before it is sent, so the time of the request itself is not lent to it.
    let asked_at = Instant::now();
    let unanswered = |error| unanswered(error, &who, &context.host, context.limits);
    let response = request.send().await.map_err(unanswered)?;
    let status = response.status();
    if !status.is_success() {
        return Err(passing(status, response.headers(), &who, &context.host).unwrap_or_else(|| match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => context.refused("the token service", &service_host),
            _ => Setback::not_allowed(format!("{who} answered {status} instead of a token: check the registry's host")),
        }));
    }
    let body = read_at_most(response, MAX_TOKEN_ANSWER_BYTES).await.map_err(unanswered)?;
    let answer = body.and_then(|body| serde_json::from_slice::<TokenAnswer>(&body).ok());
    answer.and_then(|answer| keep(answer, asked_at)).map(Arc::new).ok_or_else(|| {
        Setback::not_now(format!("{who} answered {status} without a token: it is asked again; see its own log"))
    })
}

fn keep(answer: TokenAnswer, asked_at: Instant) -> Option<Token> {
    let text = answer.token.or(answer.access_token).filter(|text| !text.is_empty())?;
    let seconds = answer.expires_in.as_ref().and_then(serde_json::Value::as_u64);
    let life = seconds.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE);
    let margin = (life / 10).min(LONGEST_MARGIN);
    Some(Token { header: sensitive(&format!("Bearer {text}"))?, until: asked_at + life - margin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn life(json: &str) -> Option<Duration> {
        let asked_at = Instant::now();
        keep(serde_json::from_str(json).unwrap(), asked_at).map(|token| token.until - asked_at)
    }

    #[test]
    fn a_token_lives_a_little_shorter_than_it_says() {
        assert_eq!(life(r#"{"token":"t"}"#), Some(Duration::from_secs(54)));
        assert_eq!(life(r#"{"access_token":"t","expires_in":300}"#), Some(Duration::from_secs(290)));
        assert_eq!(life(r#"{"token":"t","expires_in":0}"#), Some(Duration::ZERO));
        assert_eq!(life(r#"{"token":"t","expires_in":"soon"}"#), Some(Duration::from_secs(54)));
        assert_eq!(life(r#"{"token":"t","expires_in":18446744073709551615}"#), Some(LONGEST_LIFE - LONGEST_MARGIN));
    }

    #[test]
    fn an_account_that_a_registry_repeats_is_taken_out() {
        let account = Credentials { username: "reader".to_owned(), password: Secret::inline("hunter2222").unwrap() };
        let client = super::super::client::ClientFor {
            ca_bundle: None,
            loopback: true,
            plain_http: true,
            limits: TimeLimits::default(),
        };
        let (client, limits) = (client.build().unwrap(), TimeLimits::default());
        let (host, insecure) = ("r.example.com".to_owned(), Arc::default());
        let context = Context { host, plain_http: false, insecure, credentials: Some(account), client, limits };
        let authority = Authority::new(context);
        let header = STANDARD.encode("reader:hunter2222");
        for said in ["no hunter2222".to_owned(), format!("no {header}")] {
            let clean = Setback::not_allowed("no [redacted]");
            assert_eq!(authority.redacted(Setback::not_allowed(said.clone())), clean, "{said}");
            assert_eq!(authority.redacted(Setback::not_now(said)), Setback::not_now("no [redacted]"));
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for json in ["{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"expires_in":60}"#] {
            assert_eq!(life(json), None, "{json}");
        }
    }

    #[test]
    fn headers_do_not_show_what_they_carry() {
        assert_eq!(format!("{:?}", sensitive("Bearer hunter2").unwrap()), "Sensitive");
    }

    #[test]
    fn a_password_goes_over_https_or_where_the_settings_have_it_go_without() {
        let account = || Credentials { username: "reader".to_owned(), password: Secret::inline("hunter2").unwrap() };
        let context = |plain_http| Context {
            host: "r.example.com:5000".to_owned(),
            plain_http,
            insecure: Arc::new(HashSet::from(
                ["r.example.com:5000", "t2.example.com:81", "t3.example.com"].map(str::to_owned),
            )),
            credentials: Some(account()),
            client: super::super::client::ClientFor {
                ca_bundle: None,
                loopback: true,
                plain_http: true,
                limits: TimeLimits::default(),
            }
            .build()
            .unwrap(),
            limits: TimeLimits::default(),
        };
        let bearer = |realm: &str| Bearer { realm: realm.to_owned(), service: None };
        assert!(context(false).realm(&bearer("https://t.example.com/token?a=b")).is_ok());
        for realm in [
            "https://t.example.com/token",
            "http://r.example.com:5000/token",
            "http://R.example.com:5001/token",
            "http://t2.example.com:81/token",
            "http://t3.example.com/token",
        ] {
            assert!(context(true).realm(&bearer(realm)).is_ok(), "{realm}");
            assert_eq!(context(false).realm(&bearer(realm)).is_ok(), realm.starts_with("https"), "{realm}");
        }
        for realm in [
            "http://t.example.com/token",
            "http://t2.example.com/token",
            "http://t3.example.com:81/token",
            "http://r.example.com.evil.example/token",
            "http://r.example.com:5000@t.example.com/token",
        ] {
            let Err(Setback::NotAllowed { reason }) = context(true).realm(&bearer(realm)) else { panic!("{realm}") };
            assert!(reason.contains("the account is not shown there"), "{reason}");
            // Without an account there is nothing to show.
            assert!(Context { credentials: None, ..context(true) }.realm(&bearer(realm)).is_ok(), "{realm}");
        }
        for realm in ["http://user:hunter2@t.example.com/token", "file:///etc/passwd", "/token", ""] {
            let Err(Setback::NotAllowed { reason }) = context(false).realm(&bearer(realm)) else { panic!("{realm}") };
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
