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

/// One webhook target, ready to take requests.
#[derive(Debug, Clone)]
pub struct Receiver {
    settings: ReceiverSettings,
    certificates: Certificates,
}

/// Why a receiver cannot be had with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReceiver {
    /// Nobody would have to show anything, and nobody said that this is meant.
    #[error(
        "receiver `{name}` has no secret: set `secret` ({credentials}), or `unauthenticated = true` where really everybody may send"
    )]
    NoSecret {
        /// The receiver.
        name: String,
        /// What the sender can show.
        credentials: String,
    },
    /// The settings say both that everybody may send and what a sender must know.
    #[error("receiver `{name}` wants a credential and says `unauthenticated = true`: leave one of the two out")]
    SecretForNobody {
        /// The receiver.
        name: String,
    },
    /// The settings ask for a kind of token that the sender does not have.
    #[error("receiver `{name}`: {title} sends no OpenID Connect tokens")]
    NoIdentityTokens {
        /// The receiver.
        name: String,
        /// What people call the sender.
        title: &'static str,
    },
    /// No body of this sender names the registry.
    #[error("receiver `{name}`: {title} does not say which registry it is, so set `registry` to its host")]
    NoRegistry {
        /// The receiver.
        name: String,
        /// What people call the sender.
        title: &'static str,
    },
    /// The host in the settings is none.
    #[error("receiver `{name}`: `registry`: {error}")]
    Registry {
        /// The receiver.
        name: String,
        /// What is wrong with it.
        error: InvalidRepository,
    },
}

impl Receiver {
    /// Returns the receiver of the settings.
    ///
    /// # Errors
    ///
    /// [`InvalidReceiver`]: a secret or a registry's host is missing or wrong.
    pub fn new(settings: ReceiverSettings) -> Result<Self, InvalidReceiver> {
        let name = settings.name.clone();
        let has_token = settings.identity_token.is_some();
        if has_token && !settings.kind.shows_identity_tokens() {
            return Err(InvalidReceiver::NoIdentityTokens { name, title: settings.kind.title() });
        }
        let has_secret = settings.secret.is_some() || settings.previous_secret.is_some();
        if settings.unauthenticated && (has_secret || has_token) {
            return Err(InvalidReceiver::SecretForNobody { name });
        }
        if settings.secret.is_none() && !has_token && !settings.unauthenticated {
            return Err(InvalidReceiver::NoSecret { name, credentials: settings.kind.credentials() });
        }
        match &settings.registry {
            Some(host) => {
                // Any path will do: it is the host that is looked at.
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

    /// Returns who sends.
    pub fn kind(&self) -> Kind {
        self.settings.kind
    }

    /// Returns the settings that it was made of.
    pub fn settings(&self) -> &ReceiverSettings {
        &self.settings
    }

    /// Checks who sends and reads what is said.
    ///
    /// Does no I/O but to read the file of the secret or of the keys, where they lie in one. Never panics, whatever the request
    /// holds, and needs memory in proportion to the body (at most some tens of bytes for each of its bytes).
    ///
    /// # Errors
    ///
    /// [`Unauthorized`] when the request does not show the secret. Everything else that may be wrong with a request
    /// is an entry of [`Delivery::ignored`].
    pub fn receive(&self, request: &Request<'_>) -> Result<Delivery, Unauthorized> {
        self.receive_at(request, jiff::Timestamp::now())
    }

    /// Does what [`Receiver::receive`] does, for a request that came at `now`: signed times are compared with it.
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
                    findings.malformed(format!("the body has nothing that {} sends", sender.title));
                }
            }
            Err(reason) => findings.malformed(reason),
        }
        findings.into_delivery().map_err(|reason| authentication::refused(sender, reason))
    }

    /// Checks what can be checked of a request before its body has come, so that a stranger is turned away before
    /// anything of it is read. The body of `head` is not looked at.
    ///
    /// # Errors
    ///
    /// [`Unauthorized`] when [`Receiver::receive`] would say so whatever the body is.
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

    /// Returns where the keys are to be fetched without which the token of this request cannot be checked, for receivers
    /// whose keys lie at an address. Asked again within a minute it returns `None`, whatever came of it.
    pub fn keys_to_fetch(&self, request: &Request<'_>) -> Option<url::Url> {
        let tokens = self.settings.identity_token.as_ref()?;
        authentication::bearer_values(request).iter().find_map(|token| tokens.keys_to_fetch(token))
    }

    /// Keeps the keys that [`Receiver::keys_to_fetch`] has asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys`] when there are none; the earlier keys stay.
    pub fn learn_keys(&self, key_set: &[u8]) -> Result<(), InvalidKeys> {
        self.settings.identity_token.as_ref().map_or(Ok(()), |tokens| tokens.keys.replace(key_set))
    }

    /// Tells whether no request can be believed at present, because the keys have never been fetched.
    pub fn lacks_keys(&self) -> bool {
        self.settings.identity_token.as_ref().is_some_and(|tokens| tokens.keys.are_missing())
    }

    /// Keeps the certificate that [`Errand::LearnCertificate`](super::Errand::LearnCertificate) has asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidCertificate`] when it is none, or lies where no certificate of the sender lies.
    pub fn learn_certificate(&self, address: &url::Url, pem: &[u8]) -> Result<(), InvalidCertificate> {
        self.certificates.learn(address, pem)
    }

    /// Returns the headers of the answer to a sender that asks with `OPTIONS` whether its CloudEvents are wanted
    /// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection>), or `None`
    /// for a request that does not ask that, and for senders that do not send CloudEvents.
    ///
    /// The question shows no credential. The answer tells nothing but that there is a receiver.
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
