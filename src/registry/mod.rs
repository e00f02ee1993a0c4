//! Verifies announced images with their registry, and reads build times and tag lists from it.
//!
//! [`Registries::confirm`] sends one `HEAD` by tag; connections and tokens are kept between requests. [`Confirmation`]
//! separates "no" from "not now". The room has its own HTTP client, because `oci-client` hides `Retry-After`, reports
//! every failure of a token service as "not authorized" and repeats a failed `HEAD` as `GET`. Only the media types come
//! from that crate.
//!
//! - [`Registries`]: all registries; `one.rs`: requests to one of them;
//! - `login.rs`: the account of a registry; [`Cloud`]: accounts of the pod's cloud identity; `docker_config.rs`: accounts in a Docker config file; `host_pattern.rs`:
//!   patterns of hosts;
//! - `auth.rs`: authentication and cached tokens; `challenge.rs`: the `WWW-Authenticate` header;
//! - `built.rs`: build times;
//! - `tags.rs`: tag lists; `link.rs`: the link to the next page;
//! - `throttle.rs`: pauses that a registry asks for;
//! - `failure.rs`: failed requests in words, with the time of the next attempt;
//! - `client.rs`: TLS trust, time limits, redirects.
//!
//! Credentials are sent over HTTPS only, to the registry and to the token service that the registry names, unless the settings say
//! `plain_http = true` (also needed for `localhost`). Credentials are not sent to another host after a redirect, and redirects from
//! HTTPS to HTTP are refused: otherwise a compromised proxy could collect credentials.

mod auth;
mod body;
mod built;
mod challenge;
mod client;
mod cloud;
mod docker_config;
mod failure;
mod host_pattern;
mod lenient;
mod link;
mod login;
mod one;
mod settings;
mod tags;
mod throttle;
mod verified;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub use client::{Addresses, ClientError, TimeLimits, install_tls_provider};
pub use cloud::{Cloud, CloudEnvironment};
pub use docker_config::{DockerConfigError, docker_config_helpers};
pub use settings::{Credentials, RegistriesSettings, RegistrySettings};
pub use verified::{UnverifiedImage, VerifiedImage};

use built::Stated;
use client::ClientFor;
use cloud::{CloudLogin, METADATA_LIMIT, Services};
use docker_config::DockerConfig;
use failure::{RegistryFailure, is_loopback};
use host_pattern::HostPattern;
use jiff::Timestamp;
use login::Login;
use one::{Held, Read, Registry};
use tags::Listed;

use tagrelay_image::{Digest, InvalidRepository, Repository, Tag};

/// The maximum number of registries without settings that are kept.
///
/// One more clears all of them with their connections and tokens, so that events with invented hosts cannot fill the memory.
const MANY_REGISTRIES: usize = 256;

/// A registry's answer about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Confirmation {
    /// The tag exists. The verified image has the digest of the tag.
    There(VerifiedImage),
    /// The tag does not exist.
    NotThere,
    /// Access denied, or the host is not a registry. A retry fails too until the settings or the registry change.
    NotAllowed {
        /// The failure, its host, and what to do. Contains no credential.
        reason: String,
    },
    /// A temporary failure.
    NotNow {
        /// The failure, its host, and what to do. Contains no credential.
        reason: String,
        /// The pause that the registry asks for (`Retry-After`), at most six hours; `None`: no pause is named.
        ask_again_after: Option<Duration>,
    },
}

impl Confirmation {
    /// Returns the `outcome` label of metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::There(_) => "there",
            Self::NotThere => "not_there",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NotNow { .. } => "not_now",
        }
    }
}

/// A registry's answer about the build time of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum BuildTime {
    /// The time that the image states.
    At(Timestamp),
    /// The image states no plausible time. The answer is final, because a digest fixes the content.
    NotStated,
    /// The registry no longer has the manifest.
    Gone {
        /// The missing part and its digest.
        reason: String,
    },
    /// The registry has the manifest but not its config, so the image cannot be pulled.
    Incomplete {
        /// The missing part and its digest.
        reason: String,
    },
    /// Access denied. A retry fails too until the settings or the registry change.
    NotAllowed {
        /// The failure, its host, and what to do. Contains no credential.
        reason: String,
    },
    /// A temporary failure.
    NotNow {
        /// The failure, its host, and what to do. Contains no credential.
        reason: String,
        /// The pause that the registry asks for (`Retry-After`); `None`: no pause is named.
        ask_again_after: Option<Duration>,
    },
}

impl BuildTime {
    /// Returns the `outcome` label of metrics and logs; the same words as [`Confirmation::outcome`].
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::At(_) | Self::NotStated => "there",
            Self::Gone { .. } | Self::Incomplete { .. } => "not_there",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NotNow { .. } => "not_now",
        }
    }
}

/// A registry's answer about the tags of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Listing {
    /// The complete list. Empty if the repository does not exist.
    Tags {
        /// Sorted, without duplicates.
        tags: Vec<Tag>,
        /// Requests that the list took.
        pages: usize,
    },
    /// The registry does not support tag lists.
    Unsupported {
        /// The registry's answer.
        reason: String,
    },
    /// The answer is not a tag list. A retry fails too until the registry changes.
    NoList {
        /// The registry's answer.
        reason: String,
    },
    /// Access denied. A retry fails too until the settings or the registry change.
    NotAllowed {
        /// The failure, its host, and what to do. Contains no credential.
        reason: String,
    },
    /// A temporary failure, or the rate limit is reached.
    NotNow {
        /// The failure, its host, and what to do. Contains no credential.
        reason: String,
        /// The pause that the registry asks for (`Retry-After`), at most six hours; `None`: no pause is named.
        ask_again_after: Option<Duration>,
    },
}

impl Listing {
    /// Returns the `outcome` label of metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Tags { .. } => "listed",
            Self::Unsupported { .. } => "unsupported",
            Self::NoList { .. } => "no_list",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NotNow { .. } => "not_now",
        }
    }
}

/// A login that the settings do not mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomaticLogin {
    pub cloud: Cloud,
    /// The environment variables that are its reason.
    pub variables: Vec<&'static str>,
}

/// Writes `uses login = "aws", because the environment has AWS_ROLE_ARN`.
impl std::fmt::Display for AutomaticLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uses login = \"{}\", because the environment has {}", self.cloud, self.variables.join(", "))
    }
}

/// Why the `[[registry]]` settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// The host is not written as in image references.
    #[error("[[registry]] host = \"{host}\": {reason}")]
    Host {
        /// The host, as written in the settings.
        host: String,
        /// The syntax error.
        reason: InvalidRepository,
    },
    /// Two sections name the same registry, perhaps by two names of Docker Hub.
    #[error("[[registry]] host = \"{0}\" is configured twice: merge the two sections")]
    Twice(String),
    /// The host does not form a URL.
    #[error("[[registry]] host = \"{host}\" does not form a URL: {reason}")]
    Address {
        /// The host, as written in the settings.
        host: String,
        /// The syntax error.
        reason: url::ParseError,
    },
    /// The Docker config file cannot be used.
    #[error("[registries] docker_config: {0}")]
    DockerConfig(#[from] DockerConfigError),
    /// `login` is for hosts of another cloud.
    #[error("[[registry]] host = \"{host}\": login = \"{cloud}\" is for {} only", cloud.example_hosts())]
    OtherCloud {
        /// The registry's host.
        host: String,
        /// Of `login`.
        cloud: Cloud,
    },
    /// The HTTP client of this registry cannot be created.
    #[error("[[registry]] host = \"{host}\": {reason}")]
    Client {
        /// The host, as written in the settings.
        host: String,
        /// The client's error.
        reason: ClientError,
    },
}

/// All registries, with and without settings. Share this value in an [`Arc`], because it has the connections and tokens.
pub struct Registries {
    configured: HashMap<String, Arc<Registry>>,
    /// Settings of hosts that match a pattern, the most specific first.
    patterns: Vec<(HostPattern, RegistrySettings)>,
    /// Registries without settings or with the settings of a pattern, added on first use.
    others: Mutex<HashMap<String, Arc<Registry>>>,
    clients: Clients,
}

impl Registries {
    /// Creates the registries with these settings and the default time limits. Sends nothing.
    ///
    /// # Errors
    ///
    /// An invalid or repeated host, an unusable CA bundle, or a missing set of system CA certificates.
    pub fn new(sections: Vec<RegistrySettings>) -> Result<Self, RegistriesError> {
        Self::open(RegistriesSettings { sections, ..RegistriesSettings::default() })
    }

    /// Creates the registries with all settings and the default time limits. Reads the Docker config, sends nothing.
    ///
    /// # Errors
    ///
    /// The errors of [`Registries::new`], or a Docker config that is unreadable or invalid.
    pub fn open(settings: RegistriesSettings) -> Result<Self, RegistriesError> {
        Self::open_with(settings, TimeLimits::default(), Addresses::default())
    }

    /// Creates the registries with these settings and time limits. Sends nothing.
    ///
    /// # Errors
    ///
    /// The errors of [`Registries::new`].
    pub fn with_limits(sections: Vec<RegistrySettings>, limits: TimeLimits) -> Result<Self, RegistriesError> {
        let settings = RegistriesSettings { sections, ..RegistriesSettings::default() };
        Self::open_with(settings, limits, Addresses::default())
    }

    /// Does the same as [`Registries::open`], with these time limits, and with these addresses instead of those of the DNS.
    ///
    /// # Errors
    ///
    /// The errors of [`Registries::open`].
    pub fn open_with(
        settings: RegistriesSettings,
        limits: TimeLimits,
        addresses: Addresses,
    ) -> Result<Self, RegistriesError> {
        let RegistriesSettings { sections: settings, docker_config, environment } = settings;
        let docker_config = docker_config.map(DockerConfig::open).transpose()?.map(Arc::new);
        let insecure = settings.iter().filter(|settings| settings.plain_http);
        let insecure = insecure.map(|settings| normal_host(&settings.host)).collect::<Result<_, _>>()?;
        let clients = Clients::new(limits, insecure, docker_config, environment, addresses);
        let (mut configured, mut patterns) = (HashMap::new(), Vec::new());
        for settings in settings {
            let host = normal_host(&settings.host)?;
            if settings.host.contains('*') {
                // Fails now if the CA bundle is unusable.
                clients.set_up(&host, RegistrySettings { login: None, ..settings.clone() })?;
                patterns.extend(HostPattern::new(&settings.host).map(|pattern| (pattern, settings)));
                continue;
            }
            let registry = Arc::new(clients.set_up(&host, settings)?);
            if configured.insert(host.clone(), registry).is_some() {
                return Err(RegistriesError::Twice(host));
            }
        }
        patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.specificity()));
        Ok(Self { configured, patterns, others: Mutex::default(), clients })
    }

    /// Sends a request whether the tag exists, and to which digest the tag points.
    ///
    /// Costs one `HEAD` if no token is needed or a cached one is still valid. Concurrent calls share one request for a
    /// token, and a slow registry does not delay the others.
    pub async fn confirm(&self, image: &UnverifiedImage) -> Confirmation {
        self.look_up(image, Read::Digest).await
    }

    /// Does the same as [`Self::confirm`], and keeps the manifest for [`Self::build_time`].
    ///
    /// Costs one `GET`, which Docker Hub counts as a pull, and saves a request for the build time.
    pub async fn confirm_and_read(&self, image: &UnverifiedImage) -> Confirmation {
        self.look_up(image, Read::Manifest).await
    }

    async fn look_up(&self, image: &UnverifiedImage, read: Read) -> Confirmation {
        let registry = match self.registry(image.repository.registry()) {
            Ok(registry) => registry,
            // A client that cannot be created fails the same way on a retry.
            Err(error) => return Confirmation::NotAllowed { reason: error.to_string() },
        };
        match registry.look_up(image, read).await.map_err(|failure| registry.redacted(failure)) {
            Ok(Held::Manifest(digest)) => Confirmation::There(VerifiedImage::confirmed(image, digest)),
            Ok(Held::Nothing) => Confirmation::NotThere,
            Err(RegistryFailure::NotAllowed { reason }) => Confirmation::NotAllowed { reason },
            Err(RegistryFailure::NotNow { reason, ask_again_after }) => {
                Confirmation::NotNow { reason, ask_again_after }
            }
        }
    }

    /// Reads the build time of a digest.
    ///
    /// The time is the annotation or label `org.opencontainers.image.created`, or else `created` of the config. The invented dates
    /// of reproducible builds are ignored.
    ///
    /// Takes one to three requests. The answer never changes, so callers should store it.
    pub async fn build_time(&self, repository: &Repository, digest: &Digest) -> BuildTime {
        let registry = match self.registry(repository.registry()) {
            Ok(registry) => registry,
            Err(error) => return BuildTime::NotAllowed { reason: error.to_string() },
        };
        let missing =
            |what: &str, digest: &Digest| format!("{} has no {what} {}", repository.registry(), digest.short());
        let built = registry.built_at(repository.path(), digest, Timestamp::now()).await;
        match built.map_err(|failure| registry.redacted(failure)) {
            Ok(Stated::At(at)) => BuildTime::At(at),
            Ok(Stated::NoTime) => BuildTime::NotStated,
            Ok(Stated::NoManifest) => BuildTime::Gone { reason: missing("manifest", digest) },
            Ok(Stated::NoConfig(config)) => BuildTime::Incomplete { reason: missing("config", &config) },
            Err(RegistryFailure::NotAllowed { reason }) => BuildTime::NotAllowed { reason },
            Err(RegistryFailure::NotNow { reason, ask_again_after }) => BuildTime::NotNow { reason, ask_again_after },
        }
    }

    /// Lists the tags of a repository, with one request per page and at most 1,000 pages.
    pub async fn tags(&self, repository: &Repository) -> Listing {
        let registry = match self.registry(repository.registry()) {
            Ok(registry) => registry,
            Err(error) => return Listing::NotAllowed { reason: error.to_string() },
        };
        match registry.tags(repository.path()).await.map_err(|failure| registry.redacted(failure)) {
            Ok(Listed::Tags { tags, requests }) => Listing::Tags { tags, pages: requests },
            Ok(Listed::Unsupported { reason }) => Listing::Unsupported { reason },
            Ok(Listed::NoList { reason }) => Listing::NoList { reason },
            Err(RegistryFailure::NotAllowed { reason }) => Listing::NotAllowed { reason },
            Err(RegistryFailure::NotNow { reason, ask_again_after }) => Listing::NotNow { reason, ask_again_after },
        }
    }

    /// Returns the current pause of a registry: its reason and remaining time. `None`: no pause.
    ///
    /// Requests that can wait must not be sent during a pause. Any answer of the registry can start a pause (`throttle.rs`).
    /// Confirming an image does not wait for the end of the pause.
    pub fn quiet(&self, registry: &str) -> Option<(String, Duration)> {
        let pause = self.registry(registry).ok()?.pause()?;
        Some((format!("registry {registry} is paused: {}", pause.reason), pause.wait))
    }

    /// Accepts the image without a request (`verify = "nothing"`, for trials without network). The image has no digest.
    pub fn take_unchecked(image: &UnverifiedImage) -> VerifiedImage {
        VerifiedImage::unchecked(image)
    }

    /// Returns the login that the registry uses although the settings do not mention it.
    pub fn automatic_login(&self, host: &str) -> Option<AutomaticLogin> {
        let cloud = self.registry(host).ok()?.automatic_login()?;
        Some(AutomaticLogin { cloud, variables: self.clients.environment.identity_variables(cloud) })
    }

    fn registry(&self, host: &str) -> Result<Arc<Registry>, RegistriesError> {
        if let Some(registry) = self.configured.get(host) {
            return Ok(Arc::clone(registry));
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = others.get(host) {
            return Ok(Arc::clone(registry));
        }
        let settings = match self.patterns.iter().find(|(pattern, _)| pattern.matches(host)) {
            Some((_, settings)) => settings.clone(),
            None => RegistrySettings::for_host(host),
        };
        let registry = Arc::new(self.clients.set_up(host, settings)?);
        if others.len() >= MANY_REGISTRIES {
            others.clear();
        }
        others.insert(host.to_owned(), Arc::clone(&registry));
        Ok(registry)
    }
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("configured", &self.configured.keys()).finish_non_exhaustive()
    }
}

/// Returns the host in the form of [`Repository::registry`], with `x` for each `*` of a pattern.
fn normal_host(host: &str) -> Result<String, RegistriesError> {
    let repository = Repository::new(&host.replace('*', "x"), "any/path");
    let repository = repository.map_err(|reason| RegistriesError::Host { host: host.to_owned(), reason })?;
    Ok(repository.registry().to_owned())
}

/// Creates the HTTP client of each registry.
///
/// Registries without special settings share one client, because loading the system's CA certificates takes milliseconds and
/// megabytes.
struct Clients {
    /// An error if the system has no CA certificates. Plain HTTP and CA bundles still work in that case.
    usual: Result<reqwest::Client, ClientError>,
    /// The clients of cloud logins without a CA bundle, created at the first.
    cloud: OnceLock<Result<(reqwest::Client, reqwest::Client), ClientError>>,
    limits: TimeLimits,
    /// Hosts with `plain_http = true`.
    insecure: Arc<HashSet<String>>,
    docker_config: Option<Arc<DockerConfig>>,
    environment: CloudEnvironment,
    addresses: Addresses,
}

impl Clients {
    fn new(
        limits: TimeLimits,
        insecure: HashSet<String>,
        docker_config: Option<Arc<DockerConfig>>,
        environment: CloudEnvironment,
        addresses: Addresses,
    ) -> Self {
        let usual = ClientFor {
            ca_bundle: None,
            is_near: false,
            plain_http: false,
            redirects: true,
            limits,
            addresses: &addresses,
        };
        let usual = usual.build();
        let (cloud, insecure) = (OnceLock::new(), Arc::new(insecure));
        Self { usual, cloud, limits, insecure, docker_config, environment, addresses }
    }

    fn set_up(&self, host: &str, settings: RegistrySettings) -> Result<Registry, RegistriesError> {
        let RegistrySettings { host: section, plain_http, credentials, login, ca_bundle } = settings;
        let limits = self.limits;
        let unusable = |reason| RegistriesError::Client { host: host.to_owned(), reason };
        let automatic = self.automatic_login(host).filter(|_| !plain_http);
        let login = match (credentials, login.or(automatic), &self.docker_config) {
            (Some(credentials), _, _) => Login::Section { host: section, credentials },
            (None, Some(cloud), config) => {
                let services = self.services(host, ca_bundle.as_deref()).map_err(unusable)?;
                let own = CloudLogin::new(cloud, host, self.environment.clone(), services);
                let no_host = || RegistriesError::OtherCloud { host: host.to_owned(), cloud };
                let (explicit, own) = (login.is_some(), Arc::new(own.ok_or_else(no_host)?));
                Login::Cloud { login: own, explicit, docker_config: config.clone().filter(|_| !explicit) }
            }
            (None, None, Some(config)) => Login::DockerConfig(Arc::clone(config)),
            (None, None, None) => Login::Anonymous,
        };
        let is_near = is_loopback(host);
        let client = match ca_bundle {
            None if !is_near && !plain_http => self.usual.clone(),
            _ => {
                let ca_bundle = ca_bundle.as_deref();
                let addresses = &self.addresses;
                ClientFor { ca_bundle, is_near, plain_http, redirects: true, limits, addresses }.build()
            }
        };
        Registry::new(host, (plain_http, self.insecure.clone()), login, client.map_err(unusable)?, limits)
            .map_err(|reason| RegistriesError::Address { host: host.to_owned(), reason })
    }

    /// Returns the cloud of the host, if it requires an account and the environment describes an identity there.
    fn automatic_login(&self, host: &str) -> Option<Cloud> {
        let cloud = Cloud::of_private_host(host)?;
        (!self.environment.identity_variables(cloud).is_empty()).then_some(cloud)
    }

    /// Returns the clients for the token services of a cloud.
    fn services(&self, host: &str, ca_bundle: Option<&Path>) -> Result<Services, ClientError> {
        let build = || {
            let client = |is_near, limits| {
                let addresses = &self.addresses;
                ClientFor { ca_bundle, is_near, plain_http: false, redirects: false, limits, addresses }.build()
            };
            Ok((client(false, self.limits)?, client(true, METADATA_LIMIT)?))
        };
        let (client, metadata) = match ca_bundle {
            None => self.cloud.get_or_init(build).clone()?,
            Some(_) => build()?,
        };
        Ok(Services { registry: host.to_owned(), client, limits: self.limits, metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: &str) -> RegistrySettings {
        RegistrySettings { plain_http: true, ..RegistrySettings::for_host(host) }
    }

    #[test]
    fn hosts_are_normalised_as_in_references() {
        let registries = Registries::new(vec![settings("index.docker.io"), settings("Localhost:5000")]).unwrap();
        let mut hosts: Vec<_> = registries.configured.keys().collect();
        hosts.sort();
        assert_eq!(hosts, ["docker.io", "localhost:5000"]);
    }

    #[test]
    fn unusable_settings_are_refused() {
        let twice = Registries::new(vec![settings("docker.io"), settings("index.docker.io")]);
        assert!(matches!(twice, Err(RegistriesError::Twice(host)) if host == "docker.io"));
        assert!(matches!(Registries::new(vec![settings("https://r")]), Err(RegistriesError::Host { .. })));
        let no_bundle = RegistrySettings { ca_bundle: Some("/no/such.pem".into()), ..settings("r.example.com") };
        let error = Registries::new(vec![no_bundle]).unwrap_err().to_string();
        assert!(error.starts_with("[[registry]] host = \"r.example.com\": the CA bundle /no/such.pem"), "{error}");
    }

    #[test]
    fn unchecked_images_have_no_digest() {
        let image = UnverifiedImage { repository: "a/b".parse().unwrap(), tag: "1".parse().unwrap() };
        let taken = Registries::take_unchecked(&image);
        assert_eq!((taken.repository(), taken.tag(), taken.digest()), (&image.repository, &image.tag, None));
        assert_eq!(taken.version().to_string(), "1");
    }

    #[test]
    fn unknown_hosts_do_not_accumulate() {
        let registries = Registries::new(Vec::new()).unwrap();
        for number in 0..MANY_REGISTRIES + 1 {
            registries.registry(&format!("r{number}.example.com")).unwrap();
        }
        assert_eq!(registries.others.lock().unwrap().len(), 1);
    }
}
