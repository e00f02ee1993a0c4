//! An image that a sender announced becomes an image that its registry has confirmed.
//!
//! [`Registries::confirm`] asks the registry itself, with one `HEAD` by tag, over connections and with tokens that are
//! kept. Its answer is one of four ([`Confirmation`]), so that the caller can tell "no" from "not now". The room has
//! its own client and not that of `oci-client`, which hides `Retry-After`, turns every failure of a token service into
//! "not authorized" and answers a failed `HEAD` by a `GET`; the media types are that crate's.
//!
//! - [`Registries`] knows the registries, each of which is asked by one `Registry` (`one.rs`);
//! - `auth.rs` answers challenges (`challenge.rs`) and keeps tokens;
//! - `built.rs` reads when an image was built;
//! - `tags.rs` lists the tags of a repository, over as many pages as it has (`link.rs`);
//! - `patience.rs` knows when a registry wants to be left alone;
//! - `setback.rs` says in words why there is no answer, and when to ask again;
//! - `client.rs` says what is trusted and how long is waited.
//!
//! Credentials go to the registry over HTTPS, to the token service that it names if that is HTTPS too, and over plain
//! HTTP only where the settings say `plain_http = true`; also `localhost` is asked over HTTPS without it. They do not
//! follow a redirect to another host, and no redirect from HTTPS to HTTP is followed: a registry behind a proxy that
//! somebody else controls could otherwise have them sent anywhere.

mod auth;
mod body;
mod built;
mod challenge;
mod client;
mod link;
mod one;
mod patience;
mod setback;
mod settings;
mod tags;
mod verified;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use client::{ClientError, TimeLimits, install_tls_provider};
pub use settings::{Credentials, RegistrySettings};
pub use verified::{UnverifiedImage, VerifiedImage};

use built::Saying;
use client::ClientFor;
use jiff::Timestamp;
use one::{Held, Registry};
use setback::{Setback, is_loopback};
use tags::Listed;

use crate::image::{Digest, InvalidRepository, Repository, Tag};

/// From this many registries without settings on, what is known of them is forgotten: connections and tokens are made
/// anew, and no stream of made-up hosts fills the memory.
const MANY_REGISTRIES: usize = 256;

/// What a registry says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Confirmation {
    /// The tag is there and points at this digest.
    There(VerifiedImage),
    /// The registry answered, and the tag is not there.
    NotThere,
    /// The registry does not let us look, or is none. Asking again changes nothing until somebody acts.
    NotAllowed {
        /// What, where, and what to do. Never a credential.
        reason: String,
    },
    /// The registry could not answer now.
    NotNow {
        /// What, where, and what to do. Never a credential.
        reason: String,
        /// How long the registry asks to be left alone, at most six hours; `None` where it does not say.
        ask_again_after: Option<Duration>,
    },
}

impl Confirmation {
    /// Returns the outcome as metrics and logs name it.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::There(_) => "there",
            Self::NotThere => "not_there",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NotNow { .. } => "not_now",
        }
    }
}

/// What a registry says about when an image was built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum BuildTime {
    /// The image says that it was built then.
    At(Timestamp),
    /// The image says nothing that could be true. It never will: a digest names its content.
    Unsaid,
    /// The registry does not have the image any more.
    Gone {
        /// What it does not have.
        reason: String,
    },
    /// The registry has the manifest, and not the config that it names: nobody can pull the image.
    Incomplete {
        /// What it does not have.
        reason: String,
    },
    /// The registry does not let us look. Asking again changes nothing until somebody acts.
    NotAllowed {
        /// What, where, and what to do. Never a credential.
        reason: String,
    },
    /// The registry could not answer now.
    NotNow {
        /// What, where, and what to do. Never a credential.
        reason: String,
        /// How long the registry asks to be left alone; `None` where it does not say.
        ask_again_after: Option<Duration>,
    },
}

impl BuildTime {
    /// Returns the outcome as metrics and logs name it, in the words of [`Confirmation::outcome`].
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::At(_) | Self::Unsaid => "there",
            Self::Gone { .. } | Self::Incomplete { .. } => "not_there",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NotNow { .. } => "not_now",
        }
    }
}

/// What a registry says about which tags a repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Listing {
    /// These, sorted, each once. None, where the registry does not have the repository.
    Tags {
        /// The tags.
        tags: Vec<Tag>,
        /// How many pages they came on.
        pages: usize,
    },
    /// The registry does not list tags.
    Unsupported {
        /// What it answered.
        reason: String,
    },
    /// The registry has answered, and not with a list of tags. Asking again changes nothing until somebody acts.
    NoList {
        /// What it answered.
        reason: String,
    },
    /// The registry does not let us look. Asking again changes nothing until somebody acts.
    NotAllowed {
        /// What, where, and what to do. Never a credential.
        reason: String,
    },
    /// The registry could not answer now, or wants to be left alone.
    NotNow {
        /// What, where, and what to do. Never a credential.
        reason: String,
        /// How long the registry asks to be left alone, at most six hours; `None` where it does not say.
        ask_again_after: Option<Duration>,
    },
}

impl Listing {
    /// Returns the outcome as metrics and logs name it.
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

/// Why the settings of a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// Not a host as references write it.
    #[error("[[registry]] host = \"{host}\": {reason}")]
    Host {
        /// What the settings say.
        host: String,
        /// What is wrong with it.
        reason: InvalidRepository,
    },
    /// Two settings for one registry; Docker Hub has several names.
    #[error("[[registry]] host = \"{0}\" is there twice: put the settings of a registry into one place")]
    Twice(String),
    /// No address can be made of the host.
    #[error("[[registry]] host = \"{host}\" makes no address: {reason}")]
    Address {
        /// The host.
        host: String,
        /// What is wrong with it.
        reason: url::ParseError,
    },
    /// No client for this registry.
    #[error("[[registry]] host = \"{host}\": {reason}")]
    Client {
        /// The host.
        host: String,
        /// Why not.
        reason: ClientError,
    },
}

/// All registries, those with settings and those without. Share it in an [`Arc`]: it keeps connections and tokens.
pub struct Registries {
    configured: HashMap<String, Arc<Registry>>,
    /// Registries without settings, as they are met.
    others: Mutex<HashMap<String, Arc<Registry>>>,
    clients: Clients,
}

impl Registries {
    /// Returns the registries with these settings and the usual time limits. Sends nothing.
    ///
    /// # Errors
    ///
    /// A host that is none or that is there twice, a CA bundle without certificates, no CA certificates at all.
    pub fn new(settings: Vec<RegistrySettings>) -> Result<Self, RegistriesError> {
        Self::with_limits(settings, TimeLimits::default())
    }

    /// Returns the registries with these settings and time limits. Sends nothing.
    ///
    /// # Errors
    ///
    /// As [`Registries::new`].
    pub fn with_limits(settings: Vec<RegistrySettings>, limits: TimeLimits) -> Result<Self, RegistriesError> {
        let insecure = settings.iter().filter(|settings| settings.plain_http);
        let insecure = insecure.map(|settings| normal_host(&settings.host)).collect::<Result<_, _>>()?;
        let clients = Clients::new(limits, insecure);
        let mut configured = HashMap::new();
        for settings in settings {
            let host = normal_host(&settings.host)?;
            let registry = Arc::new(clients.set_up(&host, settings)?);
            if configured.insert(host.clone(), registry).is_some() {
                return Err(RegistriesError::Twice(host));
            }
        }
        Ok(Self { configured, others: Mutex::default(), clients })
    }

    /// Asks the registry of the image whether the tag is there and what it points at.
    ///
    /// Costs one `HEAD` where the registry wants no token or its token is still valid. Any number may run at once: those
    /// that need the same token share one request for it, and no registry waits for another.
    pub async fn confirm(&self, image: &UnverifiedImage) -> Confirmation {
        let registry = match self.registry(image.repository.registry()) {
            Ok(registry) => registry,
            // Its client cannot be made, and the next one cannot be made either.
            Err(error) => return Confirmation::NotAllowed { reason: error.to_string() },
        };
        match registry.look_up(image).await.map_err(|setback| registry.redacted(setback)) {
            Ok(Held::Manifest(digest)) => Confirmation::There(VerifiedImage::confirmed(image, digest)),
            Ok(Held::Nothing) => Confirmation::NotThere,
            Err(Setback::NotAllowed { reason }) => Confirmation::NotAllowed { reason },
            Err(Setback::NotNow { reason, ask_again_after }) => Confirmation::NotNow { reason, ask_again_after },
        }
    }

    /// Asks the registry when the image of a digest was built: its annotation or label
    /// `org.opencontainers.image.created`, else `created` of its config. Dates that reproducible builds make up are
    /// none. One to three requests; keep the answer, which never changes.
    pub async fn build_time(&self, repository: &Repository, digest: &Digest) -> BuildTime {
        let registry = match self.registry(repository.registry()) {
            Ok(registry) => registry,
            Err(error) => return BuildTime::NotAllowed { reason: error.to_string() },
        };
        let missing =
            |what: &str, digest: &Digest| format!("{} has no {what} {}", repository.registry(), digest.short());
        let built = registry.built_at(repository.path(), digest, Timestamp::now()).await;
        match built.map_err(|setback| registry.redacted(setback)) {
            Ok(Saying::At(at)) => BuildTime::At(at),
            Ok(Saying::Nothing) => BuildTime::Unsaid,
            Ok(Saying::NotThere) => BuildTime::Gone { reason: missing("manifest", digest) },
            Ok(Saying::Incomplete(config)) => BuildTime::Incomplete { reason: missing("config", &config) },
            Err(Setback::NotAllowed { reason }) => BuildTime::NotAllowed { reason },
            Err(Setback::NotNow { reason, ask_again_after }) => BuildTime::NotNow { reason, ask_again_after },
        }
    }

    /// Asks the registry which tags a repository has: one request for each page, up to a thousand.
    pub async fn tags(&self, repository: &Repository) -> Listing {
        let registry = match self.registry(repository.registry()) {
            Ok(registry) => registry,
            Err(error) => return Listing::NotAllowed { reason: error.to_string() },
        };
        match registry.tags(repository.path()).await.map_err(|setback| registry.redacted(setback)) {
            Ok(Listed::Tags { tags, requests }) => Listing::Tags { tags, pages: requests },
            Ok(Listed::Unsupported { reason }) => Listing::Unsupported { reason },
            Ok(Listed::NoList { reason }) => Listing::NoList { reason },
            Err(Setback::NotAllowed { reason }) => Listing::NotAllowed { reason },
            Err(Setback::NotNow { reason, ask_again_after }) => Listing::NotNow { reason, ask_again_after },
        }
    }

    /// Returns why, and for how long, a registry is to be left alone by whoever can wait: by what it has answered to
    /// any request. `None` where nothing speaks against asking it.
    pub fn quiet(&self, registry: &str) -> Option<(String, Duration)> {
        let quiet = self.registry(registry).ok()?.quiet()?;
        Some((format!("registry {registry} is not asked for now: {}", quiet.reason), quiet.wait))
    }

    /// Takes the sender's word, for trials without a way to the registry. The image has no digest.
    pub fn take_unchecked(image: &UnverifiedImage) -> VerifiedImage {
        VerifiedImage::unchecked(image)
    }

    fn registry(&self, host: &str) -> Result<Arc<Registry>, RegistriesError> {
        if let Some(registry) = self.configured.get(host) {
            return Ok(Arc::clone(registry));
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = others.get(host) {
            return Ok(Arc::clone(registry));
        }
        let settings =
            RegistrySettings { host: host.to_owned(), plain_http: false, credentials: None, ca_bundle: None };
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

/// Returns the host as [`Repository::registry`] writes it.
fn normal_host(host: &str) -> Result<String, RegistriesError> {
    let repository = Repository::new(host, "any/path");
    let repository = repository.map_err(|reason| RegistriesError::Host { host: host.to_owned(), reason })?;
    Ok(repository.registry().to_owned())
}

/// Makes registries, which share one client unless something is special about them: reading the system's authorities
/// takes milliseconds and megabytes.
struct Clients {
    /// A machine without authorities may still ask registries over plain HTTP or with a CA bundle.
    usual: Result<reqwest::Client, ClientError>,
    limits: TimeLimits,
    /// The hosts that the settings call plain HTTP.
    insecure: Arc<HashSet<String>>,
}

impl Clients {
    fn new(limits: TimeLimits, insecure: HashSet<String>) -> Self {
        let usual = ClientFor { ca_bundle: None, loopback: false, plain_http: false, limits }.build();
        Self { usual, limits, insecure: Arc::new(insecure) }
    }

    fn set_up(&self, host: &str, settings: RegistrySettings) -> Result<Registry, RegistriesError> {
        let RegistrySettings { host: _, plain_http, credentials, ca_bundle } = settings;
        let (loopback, limits) = (is_loopback(host), self.limits);
        let client = match ca_bundle {
            None if !loopback && !plain_http => self.usual.clone(),
            _ => ClientFor { ca_bundle: ca_bundle.as_deref(), loopback, plain_http, limits }.build(),
        };
        let client = client.map_err(|reason| RegistriesError::Client { host: host.to_owned(), reason })?;
        Registry::new(host, (plain_http, self.insecure.clone()), credentials, client, limits)
            .map_err(|reason| RegistriesError::Address { host: host.to_owned(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: &str) -> RegistrySettings {
        RegistrySettings { host: host.to_owned(), plain_http: true, credentials: None, ca_bundle: None }
    }

    #[test]
    fn a_registry_is_found_under_the_name_that_references_have() {
        let registries = Registries::new(vec![settings("index.docker.io"), settings("Localhost:5000")]).unwrap();
        let mut hosts: Vec<_> = registries.configured.keys().collect();
        hosts.sort();
        assert_eq!(hosts, ["docker.io", "localhost:5000"]);
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
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
    fn made_up_hosts_do_not_pile_up() {
        let registries = Registries::new(Vec::new()).unwrap();
        for number in 0..MANY_REGISTRIES + 1 {
            registries.registry(&format!("r{number}.example.com")).unwrap();
        }
        assert_eq!(registries.others.lock().unwrap().len(), 1);
    }
}
