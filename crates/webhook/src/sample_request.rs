//! Sample requests, to test a receiver.

use hmac::{KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;

use super::credential::{Credential, Hash};
use super::sample::SamplePush;
use super::senders::Kind;

/// A valid request for a receiver, with its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRequest {
    /// The headers, with the credential if it is in one.
    pub headers: HeaderMap,
    /// A parameter to add to the URL's query, decoded: name and value.
    pub query: Option<(&'static str, String)>,
    /// The body, as the sender would write it.
    pub body: Vec<u8>,
}

/// Why a sample cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSample {
    /// The sender cannot have such an image.
    #[error("{0}")]
    Image(String),
    /// The secret contains characters that a header cannot contain.
    #[error("the secret cannot be sent in a header: it has a line break or another control character")]
    Secret,
}

impl Kind {
    /// Returns the request with which this sender would announce a push, with `secret` as its credential.
    ///
    /// # Errors
    ///
    /// [`NoSample`] if the sender cannot have that image or cannot send that secret.
    pub fn sample(self, push: &SamplePush, secret: Option<&str>) -> Result<SampleRequest, NoSample> {
        let sender = self.sender();
        let mut message = (sender.sample)(push).map_err(NoSample::Image)?;
        prune(&mut message.body);
        let body = message.body.to_string().into_bytes();
        let mut request = SampleRequest { headers: HeaderMap::new(), query: None, body };
        for (name, value) in message.headers {
            let value = HeaderValue::from_str(&value);
            let value = value.map_err(|_| NoSample::Image(format!("`{name}` cannot have this image")))?;
            request.headers.append(HeaderName::from_static(name), value);
        }
        // The first credential is the default one. A token may be needed in addition.
        let credential = sender.credentials.iter().find(|credential| **credential != Credential::IdentityToken);
        if let (Some(secret), Some(credential)) = (secret, credential) {
            show(credential, secret, &mut request)?;
        }
        Ok(request)
    }

    /// Returns the events that must be enabled at the sender, for users.
    pub fn events(self) -> &'static str {
        self.sender().events
    }

    /// Returns the query parameter with the secret, for senders that support nothing better.
    pub fn query_parameter(self) -> Option<&'static str> {
        match self.sender().credentials.first() {
            Some(Credential::Query(parameter)) => Some(parameter),
            _ => None,
        }
    }
}

/// Adds the secret as the sender would.
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
    // HMAC accepts keys of any length, so `new_from_slice` cannot fail; the receiver would answer 401.
    match hash {
        Hash::Sha1 => hmac::Hmac::<sha1::Sha1>::new_from_slice(secret)
            .map(|mac| hex::encode(mac.chain_update(body).finalize().into_bytes())),
        Hash::Sha256 => hmac::Hmac::<sha2::Sha256>::new_from_slice(secret)
            .map(|mac| hex::encode(mac.chain_update(body).finalize().into_bytes())),
    }
    .unwrap_or_default()
}

/// Removes members with `null`, because senders omit unknown values.
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
