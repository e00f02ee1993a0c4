use base64::Engine as _;
use hmac::{KeyInit as _, Mac as _};
use sha2::Digest as _;
use subtle::ConstantTimeEq as _;

use super::credential::{Credential, Hash, Signed};
use super::identity::IdentityTokens;
use super::request::Request;
use super::sender::Sender;
use tagrelay_secret::{ExposeSecret as _, Secret};

const BEARER: &str = "Bearer realm=\"tagrelay\"";

/// The request is not authenticated.
///
/// The reason is for the operator's log. The sender gets only the 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unauthorized {
    /// The fault. Contains no part of a secret and no text of the request.
    pub reason: String,
    /// The value of `WWW-Authenticate` in the answer. Some senders (Amazon SNS) send their password only after it.
    pub challenge: &'static str,
    /// The credential could not be checked, because the receiver's secret cannot be read.
    pub undecided: bool,
}

/// Checks that the request has one of the sender's credentials, with one of the secrets.
///
/// All secrets and all forms are tried, so the time does not reveal which one was nearly right.
pub(crate) fn authenticate(sender: &Sender, secrets: &[&Secret], request: &Request<'_>) -> Result<(), Unauthorized> {
    let mut checked = CredentialCheck::default();
    let mut unreadable = None;
    for secret in secrets {
        match secret.reveal() {
            Ok(secret) => checked = checked.or(check(sender, secret.expose_secret().as_bytes(), request)),
            Err(error) => unreadable = Some(error),
        }
    }
    if checked.accepted() {
        return Ok(());
    }
    let undecided = unreadable.is_some() && checked.shown;
    let reason = match (unreadable, checked.shown) {
        (Some(error), _) => format!("the receiver's secret cannot be read: {error}"),
        (None, true) => "the credential is wrong".to_owned(),
        (None, false) => format!("no credential: {} sends {}", sender.title, words(sender.credentials)),
    };
    Err(Unauthorized { undecided, ..refused(sender, reason) })
}

/// Checks credentials before the body has arrived. A signature must be present; every other credential is checked.
pub(crate) fn authenticate_head(sender: &Sender, secrets: &[&Secret], head: &Request<'_>) -> Result<(), Unauthorized> {
    let shows = |credential: &Credential| matches!(credential, Credential::Hmac { header, .. } if head.headers.contains_key(*header));
    if sender.credentials.iter().any(shows) { Ok(()) } else { authenticate(sender, secrets, head) }
}

/// Returns the refusal of a sender's request.
pub(crate) fn refused(sender: &Sender, reason: String) -> Unauthorized {
    let basic = sender.credentials.contains(&Credential::Authorization);
    let challenge = if basic { "Basic realm=\"tagrelay\"" } else { BEARER };
    Unauthorized { reason, challenge, undecided: false }
}

/// Checks the OpenID Connect token of the request.
pub(crate) fn authenticate_identity(
    tokens: &IdentityTokens,
    request: &Request<'_>,
    now: jiff::Timestamp,
) -> Result<(), Unauthorized> {
    let mut reason = "there is no token in `Authorization: Bearer`";
    for token in bearer_values(request) {
        match tokens.check(&token, now) {
            Ok(()) => return Ok(()),
            Err(wrong) => reason = wrong,
        }
    }
    Err(Unauthorized { reason: reason.to_owned(), challenge: BEARER, undecided: false })
}

/// Returns the credentials in words: `` `?token=` with the secret in the URL, or … ``.
pub(crate) fn words(credentials: &[Credential]) -> String {
    credentials.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or ")
}

/// The credentials that were checked so far.
#[derive(Debug, Default, Clone, Copy)]
struct CredentialCheck {
    /// A credential is present, valid or not.
    shown: bool,
    /// A signature is present, valid or not.
    signed: bool,
    signature_right: bool,
    token_right: bool,
}

impl CredentialCheck {
    fn or(self, other: Self) -> Self {
        Self {
            shown: self.shown | other.shown,
            signed: self.signed | other.signed,
            signature_right: self.signature_right | other.signature_right,
            token_right: self.token_right | other.token_right,
        }
    }

    /// Returns whether the request is authenticated. A signature that is present must be valid, even if a token is.
    fn accepted(self) -> bool {
        if self.signed { self.signature_right } else { self.token_right }
    }
}

fn check(sender: &Sender, secret: &[u8], request: &Request<'_>) -> CredentialCheck {
    sender.credentials.iter().fold(CredentialCheck::default(), |checked, credential| {
        checked.or(match *credential {
            Credential::Hmac { header, prefix, hash, signed } => {
                signature(request, secret, header, prefix, hash, signed, is_shared(sender, header))
            }
            Credential::Query(parameter) => tokens(secret, query_values(request, parameter)),
            Credential::Authorization => tokens(secret, authorization_values(request)),
            // Checked separately by `authenticate_identity`.
            Credential::IdentityToken => CredentialCheck::default(),
            Credential::Bearer => tokens(secret, bearer_values(request)),
            Credential::CustomHeader => tokens(secret, custom_header_values(request)),
            Credential::Header(header) => tokens(secret, header_values(request, header)),
        })
    })
}

/// Returns whether the sender uses this header for either a signature or the secret itself.
fn is_shared(sender: &Sender, header: &'static str) -> bool {
    sender.credentials.contains(&Credential::Header(header))
}

fn signature(
    request: &Request<'_>,
    secret: &[u8],
    header: &str,
    prefix: &str,
    hash: Hash,
    signed: Signed,
    shared: bool,
) -> CredentialCheck {
    let mut checked = CredentialCheck::default();
    for value in request.headers.get_all(header) {
        checked.shown = true;
        let digits = value.as_bytes().strip_prefix(prefix.as_bytes());
        let given = digits.and_then(|digits| hex::decode(digits).ok());
        // In a shared header, a value that is not hexadecimal is a token. A hexadecimal value may be either.
        checked.signed |= !shared;
        let Some(given) = given else { continue };
        let right = match signed {
            Signed::Payload => match super::json::form_payload(request.headers, request.body) {
                Some(payload) => is_mac(hash, secret, payload.as_bytes(), &given),
                None => is_mac(hash, secret, request.body, &given),
            },
            Signed::Body => is_mac(hash, secret, request.body, &given),
        };
        checked.signature_right |= right;
        checked.token_right |= right & shared;
    }
    checked
}

fn is_mac(hash: Hash, secret: &[u8], message: &[u8], given: &[u8]) -> bool {
    // HMAC accepts keys of any length, so `new_from_slice` cannot fail; an error counts as a wrong signature.
    match hash {
        Hash::Sha1 => hmac::Hmac::<sha1::Sha1>::new_from_slice(secret)
            .is_ok_and(|mac| mac.chain_update(message).verify_slice(given).is_ok()),
        Hash::Sha256 => hmac::Hmac::<sha2::Sha256>::new_from_slice(secret)
            .is_ok_and(|mac| mac.chain_update(message).verify_slice(given).is_ok()),
    }
}

fn tokens(secret: &[u8], shown: Vec<Vec<u8>>) -> CredentialCheck {
    let mut checked = CredentialCheck { shown: !shown.is_empty(), ..CredentialCheck::default() };
    for token in shown {
        checked.token_right |= equal(secret, &token);
    }
    checked
}

/// Compares in constant time. Hashing first hides the length of the secret.
pub(crate) fn equal(left: &[u8], right: &[u8]) -> bool {
    sha2::Sha256::digest(left).ct_eq(&sha2::Sha256::digest(right)).into()
}

fn query_values(request: &Request<'_>, parameter: &str) -> Vec<Vec<u8>> {
    let query = request.query.unwrap_or_default();
    // A `+` in a query may be a space or, in a pasted Base64 secret, a plus sign: try both.
    let pasted = query.replace('+', "%2B");
    let readings = [query, &pasted];
    let values = readings.iter().flat_map(|query| url::form_urlencoded::parse(query.as_bytes()));
    values.filter(|(name, _)| name == parameter).map(|(_, value)| value.into_owned().into_bytes()).collect()
}

fn header_values(request: &Request<'_>, header: &str) -> Vec<Vec<u8>> {
    request.headers.get_all(header).iter().map(|value| value.as_bytes().to_vec()).collect()
}

pub(crate) fn bearer_values(request: &Request<'_>) -> Vec<Vec<u8>> {
    let values = request.headers.get_all(http::header::AUTHORIZATION).iter();
    values.filter_map(|value| after_scheme(value.as_bytes(), b"bearer ").map(<[u8]>::to_vec)).collect()
}

fn authorization_values(request: &Request<'_>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for value in request.headers.get_all(http::header::AUTHORIZATION) {
        let value = value.as_bytes();
        found.push(value.to_vec());
        found.extend(after_scheme(value, b"bearer ").map(<[u8]>::to_vec));
        found.extend(after_scheme(value, b"basic ").and_then(password));
    }
    found
}

/// Returns the text after the scheme, whose case is ignored (<https://www.rfc-editor.org/rfc/rfc9110#section-11.1>).
fn after_scheme<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = value.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

fn password(encoded: &[u8]) -> Option<Vec<u8>> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

fn custom_header_values(request: &Request<'_>) -> Vec<Vec<u8>> {
    let headers = request.headers.iter();
    let custom = headers.filter(|(name, _)| name.as_str().starts_with("x-") || name.as_str() == "api-key");
    custom.map(|(_, value)| value.as_bytes().to_vec()).collect()
}
