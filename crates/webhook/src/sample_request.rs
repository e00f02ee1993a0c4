//! Requests as senders make them, so that a person can try a receiver.

use hmac::{KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;

use super::credential::{Credential, Hash};
use super::sample::SamplePush;
use super::senders::Kind;

/// A request for a receiver, well-formed and with its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRequest {
    /// The headers.
    pub headers: HeaderMap,
    /// What is to be added to the URL's query, decoded: name and value.
    pub query: Option<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A sample cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSample {
    /// The sender has no such images.
    #[error("{0}")]
    Image(String),
    /// A header cannot hold the secret.
    #[error("the secret cannot be sent in a header: it has a line break or another control character")]
    Secret,
}

impl Kind {
    /// Returns the request with which this sender would tell of a push, and with which it would show `secret`.
    ///
    /// # Errors
    ///
    /// [`NoSample`], when the sender could not have that image or could not send that secret.
    pub fn sample(self, push: &SamplePush, secret: Option<&str>) -> Result<SampleRequest, NoSample> {
        let sender = self.sender();
        let mut message = (sender.sample)(push).map_err(NoSample::Image)?;
        prune(&mut message.body);
        let body = message.body.to_string().into_bytes();
        let mut request = SampleRequest { headers: HeaderMap::new(), query: None, body };
        for (name, value) in message.headers {
            let value = HeaderValue::from_str(&value);
            let value = value.map_err(|_| NoSample::Image(format!("`{name}` cannot hold this image")))?;
            request.headers.append(HeaderName::from_static(name), value);
        }
        // The first is what the sender does by itself; a token has to be set besides where it needs one.
        let credential = sender.credentials.iter().find(|credential| **credential != Credential::IdentityToken);
        if let (Some(secret), Some(credential)) = (secret, credential) {
            show(credential, secret, &mut request)?;
        }
        Ok(request)
    }

    /// Returns, as words for people, which events are to be ticked at the sender.
    pub fn events(self) -> &'static str {
        self.sender().events
    }

    /// Returns the parameter of the URL that holds the secret, for senders that can do nothing better.
    pub fn query_parameter(self) -> Option<&'static str> {
        match self.sender().credentials.first() {
            Some(Credential::Query(parameter)) => Some(parameter),
            _ => None,
        }
    }
}

/// Puts the secret where the sender would.
fn show(credential: &Credential, secret: &str, request: &mut SampleRequest) -> Result<(), NoSample> {
    let (name, value) = match *credential {
        Credential::Query(parameter) => {
            request.query = Some((parameter, secret.to_owned()));
            return Ok(());
        }
        Credential::IdentityToken => return Ok(()),
        Credential::Authorization => (header::AUTHORIZATION.as_str(), secret.to_owned()),
        Credential::Bearer => (header::AUTHORIZATION.as_str(), format!("Bearer {secret}")),
        Credential::CustomHeader => ("x-api-key", secret.to_owned()),
        Credential::Header(name) => (name, secret.to_owned()),
        Credential::Hmac { header, prefix, hash, .. } => {
            (header, format!("{prefix}{}", sign(hash, secret.as_bytes(), &request.body)))
        }
    };
    let name = HeaderName::try_from(name).map_err(|_| NoSample::Secret)?;
    let mut value = HeaderValue::from_str(&value).map_err(|_| NoSample::Secret)?;
    value.set_sensitive(true);
    request.headers.append(name, value);
    Ok(())
}

fn sign(hash: Hash, secret: &[u8], body: &[u8]) -> String {
    // A key of any length is taken, so `new_from_slice` cannot fail; if it did, the receiver would say 401.
    match hash {
        Hash::Sha1 => hmac::Hmac::<sha1::Sha1>::new_from_slice(secret)
            .map(|mac| hex::encode(mac.chain_update(body).finalize().into_bytes())),
        Hash::Sha256 => hmac::Hmac::<sha2::Sha256>::new_from_slice(secret)
            .map(|mac| hex::encode(mac.chain_update(body).finalize().into_bytes())),
    }
    .unwrap_or_default()
}

/// Takes members that are `null` out, because senders leave out what they do not know.
fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
