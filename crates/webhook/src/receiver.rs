use super::authentication::{self, Unauthorized};
use super::delivery::Delivery;
use super::findings::Findings;
use super::identity::InvalidKeys;
use super::json::{self, Node};
use super::request::Request;
use super::sender::Message;
use super::senders::Kind;
use super::settings::ReceiverSettings;
use super::sns::{Certificates, InvalidCertificate};
use tagrelay_image::{InvalidRepository, Repository};
use tagrelay_secret::Secret;

/// A configured webhook target.
#[derive(Debug, Clone)]
pub struct Receiver {
    settings: ReceiverSettings,
    certificates: Certificates,
}

/// Why the settings do not form a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReceiver {
    /// There is no credential, and `unauthenticated` is not set.
    #[error(
        "receiver `{name}` has no secret: set `secret` ({credentials}), or `unauthenticated = true` to accept every request"
    )]
    NoSecret {
        /// The receiver's name.
        name: String,
        /// The credentials that the sender supports.
        credentials: String,
    },
    /// A credential and `unauthenticated = true` exclude each other.
    #[error("receiver `{name}` has a credential and `unauthenticated = true`: leave one of them out")]
    SecretAndUnauthenticated {
        /// The receiver's name.
        name: String,
    },
    /// The sender sends no OpenID Connect tokens.
    #[error("receiver `{name}`: {title} sends no OpenID Connect tokens")]
    NoIdentityTokens {
        /// The receiver's name.
        name: String,
        /// The sender's name for users.
        title: &'static str,
    },
    /// The sender's requests name no registry.
    #[error("receiver `{name}`: the events of {title} do not name their registry: set `registry` to its host")]
    NoRegistry {
        /// The receiver's name.
        name: String,
        /// The sender's name for users.
        title: &'static str,
    },
    /// `registry` is not a valid host.
    #[error("receiver `{name}`: `registry`: {error}")]
    Registry {
        /// The receiver's name.
        name: String,
        /// The syntax error.
        error: InvalidRepository,
    },
}

impl Receiver {
    /// Creates a receiver.
    ///
    /// # Errors
    ///
    /// [`InvalidReceiver`] if a secret or the registry's host is missing or invalid.
    pub fn new(settings: ReceiverSettings) -> Result<Self, InvalidReceiver> {
        let name = settings.name.clone();
        let has_token = settings.identity_token.is_some();
        if has_token && !settings.kind.sends_identity_tokens() {
            return Err(InvalidReceiver::NoIdentityTokens { name, title: settings.kind.title() });
        }
        let has_secret = settings.secret.is_some() || settings.previous_secret.is_some();
        if settings.unauthenticated && (has_secret || has_token) {
            return Err(InvalidReceiver::SecretAndUnauthenticated { name });
        }
        if settings.secret.is_none() && !has_token && !settings.unauthenticated {
            return Err(InvalidReceiver::NoSecret { name, credentials: settings.kind.credentials() });
        }
        match &settings.registry {
            Some(host) => {
                // The path is irrelevant; only the host is checked.
                if let Err(error) = Repository::new(host, "a") {
                    return Err(InvalidReceiver::Registry { name, error });
                }
            }
            None if settings.kind.needs_registry() => {
                return Err(InvalidReceiver::NoRegistry { name, title: settings.kind.title() });
            }
            None => {}
        }
        Ok(Self { settings, certificates: Certificates::default() })
    }

    /// Returns the last part of the receiver's URL.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Returns the sender.
    pub fn kind(&self) -> Kind {
        self.settings.kind
    }

    /// Returns the settings that the receiver was created with.
    pub fn settings(&self) -> &ReceiverSettings {
        &self.settings
    }

    /// Authenticates a request and reads its events.
    ///
    /// Does no I/O except reading the file of the secret or of the keys. Never panics, and uses memory in proportion to the
    /// body (at most some tens of bytes per byte).
    ///
    /// # Errors
    ///
    /// [`Unauthorized`] if the credential is missing or wrong. Any other fault is an entry in [`Delivery::ignored`].
    pub fn receive(&self, request: &Request<'_>) -> Result<Delivery, Unauthorized> {
        self.receive_at(request, jiff::Timestamp::now())
    }

    /// As [`Receiver::receive`], for a request that arrived at `now`, with which signed times are compared.
    ///
    /// # Errors
    ///
    /// As [`Receiver::receive`].
    pub fn receive_at(&self, request: &Request<'_>, now: jiff::Timestamp) -> Result<Delivery, Unauthorized> {
        let sender = self.settings.kind.sender();
        let secrets = self.secrets();
        if let Some(tokens) = &self.settings.identity_token {
            authentication::authenticate_identity(tokens, request, now)?;
        }
        if !secrets.is_empty() {
            authentication::authenticate(sender, &secrets, request)?;
        }
        let mut findings = Findings::new(self.settings.registry.as_deref(), self.settings.kind.default_registry());
        match json::parse(request.headers, request.body) {
            Ok(body) => {
                let message = Message {
                    headers: request.headers,
                    body: Node::new(&body),
                    secret_shown: !secrets.is_empty(),
                    certificates: &self.certificates,
                    now,
                };
                (sender.read)(&message, &mut findings);
                if findings.is_empty() {
                    findings.malformed(format!("the body is not an event of {}", sender.title));
                }
            }
            Err(reason) => findings.malformed(reason),
        }
        findings.into_delivery().map_err(|reason| authentication::refused(sender, reason))
    }

    /// Checks a request before its body has arrived, so that unauthenticated clients are refused early. Ignores the body of
    /// `head`.
    ///
    /// # Errors
    ///
    /// [`Unauthorized`] if [`Receiver::receive`] would refuse the request with any body.
    pub fn check_head(&self, head: &Request<'_>) -> Result<(), Unauthorized> {
        if let Some(tokens) = &self.settings.identity_token {
            authentication::authenticate_identity(tokens, head, jiff::Timestamp::now())?;
        }
        let secrets = self.secrets();
        if secrets.is_empty() {
            Ok(())
        } else {
            authentication::authenticate_head(self.settings.kind.sender(), &secrets, head)
        }
    }

    fn secrets(&self) -> Vec<&Secret> {
        self.settings.secret.iter().chain(&self.settings.previous_secret).collect()
    }

    /// Returns the address of keys that must be fetched before the token of this request can be verified. Returns `None` for
    /// the next minute, whatever the result of the fetch.
    pub fn keys_to_fetch(&self, request: &Request<'_>) -> Option<url::Url> {
        let tokens = self.settings.identity_token.as_ref()?;
        authentication::bearer_values(request).iter().find_map(|token| tokens.keys_to_fetch(token))
    }

    /// Stores the keys that [`Receiver::keys_to_fetch`] asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys`] if the set has no key; the previous keys stay.
    pub fn learn_keys(&self, key_set: &[u8]) -> Result<(), InvalidKeys> {
        self.settings.identity_token.as_ref().map_or(Ok(()), |tokens| tokens.keys.replace(key_set))
    }

    /// Returns whether no request can be authenticated, because the keys were never fetched.
    pub fn lacks_keys(&self) -> bool {
        self.settings.identity_token.as_ref().is_some_and(|tokens| tokens.keys.are_missing())
    }

    /// Stores the certificate that [`Errand::LearnCertificate`](super::Errand::LearnCertificate) asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidCertificate`] if it cannot be parsed, or its address is not one of the sender's.
    pub fn learn_certificate(&self, address: &url::Url, pem: &[u8]) -> Result<(), InvalidCertificate> {
        self.certificates.learn(address, pem)
    }

    /// Returns the headers of the answer to a CloudEvents validation request (`OPTIONS`,
    /// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection>); `None`: it is
    /// none, or the sender does not use CloudEvents.
    ///
    /// The request has no credential, and the answer reveals only that the receiver exists.
    pub fn allow_sender(&self, headers: &http::HeaderMap) -> Option<http::HeaderMap> {
        if !matches!(self.settings.kind, Kind::Acr | Kind::Cloudevents | Kind::Cdevents) {
            return None;
        }
        let mut answer = http::HeaderMap::new();
        answer.insert("webhook-allowed-origin", headers.get("webhook-request-origin")?.clone());
        answer.insert("webhook-allowed-rate", http::HeaderValue::from_static("*"));
        Some(answer)
    }
}
