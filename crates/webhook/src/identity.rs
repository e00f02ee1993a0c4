//! OpenID Connect tokens in `Authorization: Bearer`: Google Pub/Sub, Azure Event Grid.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::Value;
use url::Url;

use super::json::{self, Node};

/// Allowed clock difference between issuer and receiver, in seconds.
const LEEWAY: i64 = 60;

/// The required claims of a sender's OpenID Connect token, and the issuer's keys.
///
/// For Google: issuer `https://accounts.google.com`, keys at <https://www.googleapis.com/oauth2/v3/certs>, audience and
/// service account as in the push subscription.
#[derive(Debug, Clone)]
pub struct IdentityTokens {
    /// The issuer, with or without `https://`: Google uses both.
    pub issuer: String,
    /// The audience.
    pub audience: String,
    /// The sender's account: the verified `email`, or the `sub`, in which `*` stands for any text without `:` and `/`. `None` accepts every account for which the issuer signs
    /// tokens with this audience, which for Google is anyone's.
    pub account: Option<String>,
    /// The issuer's public keys.
    pub keys: SigningKeys,
}

/// The public keys of an issuer. Clones share them, so a rotation reaches all receivers.
#[derive(Debug, Clone)]
pub struct SigningKeys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    keys: RwLock<Vec<Key>>,
    source: Source,
    /// When they were last fetched, successfully or not.
    fetched: Mutex<Option<Instant>>,
}

/// The source of newer keys.
#[derive(Debug)]
enum Source {
    Nowhere,
    /// Read again if a token names an unknown key.
    File(PathBuf),
    /// Fetched by the caller if a token names an unknown key.
    Address(Url),
}

/// The minimum interval between two fetches, however many tokens name unknown keys.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

/// The key set is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no RSA key for signatures in the key set (RFC 7517): {0}")]
pub struct InvalidKeys(String);

impl SigningKeys {
    fn new(keys: Vec<Key>, source: Source) -> Self {
        Self(Arc::new(Shared { keys: RwLock::new(keys), source, fetched: Mutex::new(None) }))
    }

    /// Parses a JSON Web Key Set (<https://www.rfc-editor.org/rfc/rfc7517#section-5>) and keeps its RSA keys.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys`] if it has none.
    pub fn from_key_set(json: &[u8]) -> Result<Self, InvalidKeys> {
        Ok(Self::new(read_keys(json)?, Source::Nowhere))
    }

    /// Reads the key set in a file. It is read again if a token names an unknown key, so keys can be replaced without a
    /// restart.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys`] if the file cannot be read or has no key.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, InvalidKeys> {
        let path = path.into();
        let json = std::fs::read(&path).map_err(|error| InvalidKeys(format!("{}: {error}", path.display())))?;
        Ok(Self::new(read_keys(&json)?, Source::File(path)))
    }

    /// Creates keys that are fetched from an address; see [`Receiver::keys_to_fetch`](super::Receiver::keys_to_fetch).
    pub fn at(address: Url) -> Self {
        Self::new(Vec::new(), Source::Address(address))
    }

    /// Replaces all keys by those of a newer set.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys`] if it has no key; the previous keys stay.
    pub fn replace(&self, json: &[u8]) -> Result<(), InvalidKeys> {
        let keys = read_keys(json)?;
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Returns whether no keys have been fetched yet.
    pub(crate) fn are_missing(&self) -> bool {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Returns the address to fetch newer keys from, at most once per interval.
    fn address_to_fetch(&self) -> Option<Url> {
        let Source::Address(address) = &self.0.source else { return None };
        let mut fetched = self.0.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.is_some_and(|when| when.elapsed() < FETCH_INTERVAL) {
            return None;
        }
        *fetched = Some(Instant::now());
        Some(address.clone())
    }

    /// Reads the key file again if the key is unknown.
    fn read_again_for(&self, id: Option<&str>) {
        let Source::File(path) = &self.0.source else { return };
        if self.knows(id) {
            return;
        }
        // If the file is just being replaced, it is read at the next request; the previous keys stay until then.
        let read = std::fs::read(path).map_err(|error| InvalidKeys(error.to_string()));
        if let Err(error) = read.and_then(|json| self.replace(&json)) {
            tracing::warn!(path = %path.display(), %error, "the key set cannot be reloaded");
        }
    }

    fn knows(&self, id: Option<&str>) -> bool {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().any(|key| id.is_none() || key.id.as_deref() == id)
    }

    fn verify(&self, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        self.read_again_for(id);
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut candidates = keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
        candidates.any(|key| {
            let key = RsaPublicKeyComponents { n: &key.modulus, e: &key.exponent };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
        })
    }
}

fn read_keys(json: &[u8]) -> Result<Vec<Key>, InvalidKeys> {
    let value = json::parse_text(json).map_err(InvalidKeys)?;
    let read = |key: Node<'_>| {
        let is = |name: &str, expected: &str| key.get(name).text().is_none_or(|text| text == expected);
        if key.get("kty").text()? != "RSA" || !is("use", "sig") || !is("alg", "RS256") {
            return None;
        }
        Some(Key {
            id: key.get("kid").text().map(Cow::into_owned),
            modulus: URL_SAFE_NO_PAD.decode(key.get("n").text()?.as_bytes()).ok()?,
            exponent: URL_SAFE_NO_PAD.decode(key.get("e").text()?.as_bytes()).ok()?,
        })
    };
    let keys: Vec<_> = Node::new(&value).get("keys").items().filter_map(read).collect();
    if keys.is_empty() { Err(InvalidKeys("it has no such key".to_owned())) } else { Ok(keys) }
}

impl IdentityTokens {
    /// Verifies a token (<https://www.rfc-editor.org/rfc/rfc7519#section-7.2>).
    ///
    /// # Errors
    ///
    /// The reason, without any text of the token.
    pub(crate) fn check(&self, token: &[u8], now: Timestamp) -> Result<(), &'static str> {
        let text = std::str::from_utf8(token).map_err(|_| "the token is not a JSON Web Token")?;
        let (signed, signature) = text.rsplit_once('.').ok_or("the token is not a JSON Web Token")?;
        let (header, claims) = signed.split_once('.').ok_or("the token is not a JSON Web Token")?;
        let header = decode(header).ok_or("the token's header cannot be read")?;
        let header = Node::new(&header);
        if header.get("alg").text().as_deref() != Some("RS256") {
            return Err("the token is not signed with RS256");
        }
        // A critical header that is not understood makes the token invalid (<https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11>).
        if header.get("crit").is_present() {
            return Err("the token's header requires extensions that are not supported");
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the token's signature cannot be read")?;
        if !self.keys.verify(header.get("kid").text().as_deref(), signed.as_bytes(), &signature) {
            return Err("none of the issuer's keys has signed the token");
        }
        let claims = decode(claims).ok_or("the token's claims cannot be read")?;
        self.check_claims(Node::new(&claims), now.as_second())
    }

    /// Returns the address of keys that are needed to verify this token, if it names an unknown key.
    pub(crate) fn keys_to_fetch(&self, token: &[u8]) -> Option<Url> {
        let text = std::str::from_utf8(token).ok()?;
        let header = decode(text.split_once('.')?.0)?;
        let id = Node::new(&header).get("kid").text();
        if self.keys.knows(id.as_deref()) { None } else { self.keys.address_to_fetch() }
    }

    fn check_claims(&self, claims: Node<'_>, now: i64) -> Result<(), &'static str> {
        let bare = |issuer: &str| issuer.strip_prefix("https://").unwrap_or(issuer).to_owned();
        if claims.get("iss").text().is_none_or(|issuer| bare(&issuer) != bare(&self.issuer)) {
            return Err("the token has another issuer");
        }
        let audience = claims.get("aud");
        let named = |node: Node<'_>| node.text().is_some_and(|text| text == self.audience);
        if !named(audience) && !audience.items().any(named) {
            return Err("the token is for another audience");
        }
        let second = |name: &str| claims.get(name).text().and_then(|text| seconds(&text));
        if second("exp").is_none_or(|end| end.saturating_add(LEEWAY) < now) {
            return Err("the token has expired");
        }
        if [second("nbf"), second("iat")].into_iter().flatten().any(|start| start.saturating_sub(LEEWAY) > now) {
            return Err("the token is not valid yet");
        }
        let Some(account) = &self.account else { return Ok(()) };
        let email = claims.get("email").text().filter(|_| claims.get("email_verified").is_true());
        let subject = claims.get("sub").text();
        if email.as_deref() == Some(account) || subject.is_some_and(|subject| fits(account, &subject)) {
            Ok(())
        } else {
            Err("the token names another account")
        }
    }
}

/// Returns the whole seconds of a NumericDate, which may have a fraction (RFC 7519, section 2).
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    whole.parse().ok().filter(|_| is_number)
}

/// Returns whether an account is the expected one, in which `*` stands for any text without `:` and `/`.
///
/// The separators stay separators: an environment of CI with a name like the rest of the pattern does not fit.
fn fits(pattern: &str, account: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == account };
    let Some(account) = account.strip_prefix(before) else { return false };
    let longest = account.find([':', '/']).unwrap_or(account.len());
    account.char_indices().map(|(index, _)| index).chain([account.len()]).take_while(|end| *end <= longest).any(|end| {
        let (_, left) = account.split_at(end);
        fits(rest, left)
    })
}

fn decode(part: &str) -> Option<Value> {
    json::parse_text(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_of_a_claim_may_have_a_fraction() {
        assert_eq!(
            [seconds("1700000000"), seconds("1700000000.25"), seconds("-1.5")],
            [Some(1_700_000_000), Some(1_700_000_000), Some(-1)]
        );
        for wrong in ["", ".5", "1.", "1.x", "1e9", "NaN"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn star_in_an_account_stays_between_separators() {
        let main = "repo:uyou/*:ref:refs/heads/main";
        assert!(fits(main, "repo:uyou/user-service:ref:refs/heads/main"));
        assert!(fits("a*b*", "axxb") && fits("*", "") && fits("me@example.com", "me@example.com"));
        for other in [
            "repo:uyou/user-service:ref:refs/heads/main2",
            "repo:uyou/user-service:environment:x:ref:refs/heads/main",
            "repo:uyou/a/b:ref:refs/heads/main",
            "repo:other/user-service:ref:refs/heads/main",
            "repo:uyou/user-service:pull_request",
            "",
        ] {
            assert!(!fits(main, other), "{other}");
        }
    }
}
