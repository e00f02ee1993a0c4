//! One account for all requests to a registry: fetched once, renewed before its end, dropped when the registry refuses it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::token::CloudToken;
use super::{Cloud, CloudEnvironment, Services, aws, azure, google};
use crate::registry::docker_config::Account;
use crate::registry::failure::RegistryFailure;

/// The pause after a failed renewal, while the last account is still valid.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// The least time between two accounts that the registry refuses. Otherwise a registry that refuses every account would
/// cause several requests per image.
const DROP_PAUSE: Duration = Duration::from_secs(30);

type Answer = Result<Arc<CloudToken>, RegistryFailure>;

/// The login to one registry.
pub(in crate::registry) struct CloudLogin {
    cloud: Cloud,
    host: String,
    environment: CloudEnvironment,
    services: Services,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<CloudToken>>,
    /// The fetch in flight, which all requests share.
    fetch: Option<Shared<BoxFuture<'static, Answer>>>,
    next_renewal: Option<Instant>,
    last_drop: Option<Instant>,
}

impl CloudLogin {
    /// Creates the login; `None`: the host does not belong to the cloud.
    pub(in crate::registry) fn new(
        cloud: Cloud,
        host: &str,
        environment: CloudEnvironment,
        services: Services,
    ) -> Option<Self> {
        let is_own = Cloud::of_host(host) == Some(cloud);
        is_own.then(|| Self { cloud, host: host.to_owned(), environment, services, state: Mutex::default() })
    }

    pub(in crate::registry) fn cloud(&self) -> Cloud {
        self.cloud
    }

    /// Returns the client for requests that carry the account in their body. It follows no redirects.
    pub(in crate::registry) fn client(&self) -> &reqwest::Client {
        &self.services.client
    }

    /// Returns the variables that describe the identity.
    pub(in crate::registry) fn variables(&self) -> Vec<&'static str> {
        self.environment.identity_variables(self.cloud)
    }

    /// Returns the current token, and whether it was there already. Fetches one if there is none.
    pub(in crate::registry) async fn token(self: &Arc<Self>) -> Result<(Arc<CloudToken>, bool), RegistryFailure> {
        let fetch = {
            let mut state = self.lock();
            let now = Instant::now();
            match state.current.clone().filter(|token| now < token.until) {
                Some(token) => {
                    let is_due = now >= token.renew_at && state.next_renewal.is_none_or(|next| now >= next);
                    if is_due && state.fetch.is_none() {
                        drop(self.start_fetch(&mut state));
                    }
                    return Ok((token, true));
                }
                None => match &state.fetch {
                    Some(fetch) => fetch.clone(),
                    None => self.start_fetch(&mut state),
                },
            }
        };
        fetch.await.map(|token| (token, false))
    }

    /// Drops a token that the registry has refused. Returns whether another one may be tried.
    pub(in crate::registry) fn drop_token(&self, refused: &Arc<CloudToken>) -> bool {
        let mut state = self.lock();
        if !state.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused)) {
            return true;
        }
        let now = Instant::now();
        if state.last_drop.is_some_and(|last| now < last + DROP_PAUSE) {
            return false;
        }
        state.current = None;
        state.last_drop = Some(now);
        true
    }

    /// Returns the last account, for redaction.
    pub(in crate::registry) fn last_account(&self) -> Option<Account> {
        self.lock().current.as_ref().map(|token| token.account.clone())
    }

    /// Starts a fetch as a task of its own, so that it ends even if its callers are dropped.
    fn start_fetch(self: &Arc<Self>, state: &mut State) -> Shared<BoxFuture<'static, Answer>> {
        let login = Arc::clone(self);
        let fetch = async move { login.finish(login.fetch().await) }.boxed().shared();
        state.fetch = Some(fetch.clone());
        tokio::spawn(fetch.clone());
        fetch
    }

    async fn fetch(&self) -> Result<CloudToken, RegistryFailure> {
        match self.cloud {
            Cloud::Aws => aws::fetch(&self.services, &self.host, &self.environment).await,
            Cloud::Google => google::fetch(&self.services, &self.environment).await,
            Cloud::Azure => azure::fetch(&self.services, &self.host, &self.environment).await,
        }
    }

    fn finish(&self, fetched: Result<CloudToken, RegistryFailure>) -> Answer {
        let mut state = self.lock();
        state.fetch = None;
        match fetched {
            Ok(token) => {
                state.next_renewal = None;
                Ok(Arc::clone(state.current.insert(Arc::new(token))))
            }
            Err(failure) => {
                let now = Instant::now();
                state.next_renewal = Some(now + RENEWAL_PAUSE);
                if let Some(token) = state.current.as_ref().filter(|token| now < token.until) {
                    let left = token.until.duration_since(now).as_secs();
                    let reason = failure.reason();
                    tracing::warn!(registry = self.host, "{reason}; the last token stays in use, for up to {left} s");
                }
                Err(failure)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tagrelay_test_support::fake::{Answer as FakeAnswer, Fake};

    const HOST: &str = "europe-docker.pkg.dev";

    /// A login whose metadata server is a fake.
    fn login(metadata: &Fake) -> Arc<CloudLogin> {
        let host = metadata.url.strip_prefix("http://").unwrap().to_owned();
        let environment = CloudEnvironment::read(&|name| match name {
            "GCE_METADATA_HOST" => Ok(host.clone()),
            _ => Err(std::env::VarError::NotPresent),
        });
        crate::registry::install_tls_provider();
        let client = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
        let (registry, limits) = (HOST.to_owned(), Default::default());
        let services = Services { registry, metadata: client.clone(), client, limits };
        Arc::new(CloudLogin::new(Cloud::Google, HOST, environment, services).unwrap())
    }

    /// A token that is due for renewal, and valid for another hour.
    fn due() -> Arc<CloudToken> {
        let account = Account::Password { username: "u".to_owned(), password: "old".into() };
        let now = Instant::now();
        Arc::new(CloudToken { cloud: Cloud::Google, account, renew_at: now, until: now + Duration::from_secs(3600) })
    }

    async fn password(login: &Arc<CloudLogin>) -> (String, bool) {
        use tagrelay_secret::ExposeSecret as _;
        let (token, cached) = login.token().await.unwrap();
        let Account::Password { password, .. } = &token.account else { panic!("no password") };
        (password.expose_secret().to_owned(), cached)
    }

    /// Waits until the fetch in flight has ended.
    async fn fetched(login: &Arc<CloudLogin>) {
        let fetch = login.lock().fetch.clone();
        if let Some(fetch) = fetch {
            drop(fetch.await);
        }
    }

    #[tokio::test]
    async fn token_is_renewed_in_the_background() {
        let answer = |_: &_| FakeAnswer::Json(200, r#"{"access_token":"new","expires_in":3599}"#.to_owned());
        let metadata = Fake::start(answer).await;
        let login = login(&metadata);
        login.lock().current = Some(due());
        assert_eq!(password(&login).await, ("old".to_owned(), true));
        assert!(password(&login).await.1, "a request does not wait for the renewal");
        fetched(&login).await;
        assert_eq!(password(&login).await, ("new".to_owned(), true));
        assert_eq!(metadata.take().len(), 1);
    }

    #[tokio::test]
    async fn failed_renewal_keeps_the_token_and_pauses() {
        for answer in [FakeAnswer::Json(503, String::new()), FakeAnswer::Json(403, String::new())] {
            let metadata = Fake::start(move |_| answer.clone()).await;
            let login = login(&metadata);
            login.lock().current = Some(due());
            for _ in 0..3 {
                assert_eq!(password(&login).await, ("old".to_owned(), true));
                fetched(&login).await;
            }
            assert_eq!(metadata.take().len(), 1);
            // At its end it is not used any more.
            let ended = CloudToken { until: Instant::now(), ..Arc::into_inner(due()).unwrap() };
            login.lock().current = Some(Arc::new(ended));
            assert!(login.token().await.is_err());
        }
    }
}
