//! Messages of Amazon SNS and their signatures
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).
//!
//! Which certificate signs is said in the message, so its address is checked before anybody follows it: only Amazon's
//! own hosts, over HTTPS, at the path where SNS keeps its certificates. Fetching it is somebody else's work (see
//! [`Errand`](super::Errand)), because this room touches nothing but the request.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use url::Url;

use super::json::Node;

/// The oldest message that is taken. SNS repeats a delivery for an hour at most; beyond a day it is a replay.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How far the clock of the sender may be ahead.
const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// How many certificates are kept. SNS has one at a time for each region.
const MAX_CERTIFICATES: usize = 64;

/// The members that a signature covers, in their order, by the type of the message.
const NOTIFICATION: &[&str] = &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const CONFIRMATION: &[&str] = &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// The certificates that were fetched, by their addresses. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Certificates(Arc<RwLock<BTreeMap<Url, CertificateDer<'static>>>>);

/// A certificate that was fetched for a signature cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate at {address} cannot be used: {reason}")]
pub struct InvalidCertificate {
    /// Where it was fetched.
    pub address: Url,
    /// What is wrong with it.
    pub reason: String,
}

impl Certificates {
    /// Keeps the certificate that lies, as PEM, at `address`.
    pub(crate) fn learn(&self, address: &Url, pem: &[u8]) -> Result<(), InvalidCertificate> {
        let invalid = |reason: String| InvalidCertificate { address: address.clone(), reason };
        if !is_certificate_address(address) {
            return Err(invalid("it is no address of a certificate of Amazon SNS".to_owned()));
        }
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|error| invalid(error.to_string()))?;
        webpki::EndEntityCert::try_from(&certificate).map_err(|error| invalid(error.to_string()))?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CERTIFICATES && !known.contains_key(address) {
            known.pop_first();
        }
        known.insert(address.clone(), certificate);
        Ok(())
    }

    fn get(&self, address: &Url) -> Option<CertificateDer<'static>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }
}

/// What came of looking at a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The message is as SNS signed it, and fresh.
    Genuine,
    /// The certificate at this address is needed first.
    Unknown(Url),
    /// It is not, for this reason.
    Refused(String),
}

/// Checks the signature of a message.
pub(crate) fn check(message: Node<'_>, certificates: &Certificates, now: Timestamp) -> Checked {
    match try_check(message, certificates, now) {
        Ok(checked) => checked,
        Err(reason) => Checked::Refused(reason.to_owned()),
    }
}

fn try_check(message: Node<'_>, certificates: &Certificates, now: Timestamp) -> Result<Checked, &'static str> {
    let address = message.get("SigningCertURL").text().ok_or("the message has no `SigningCertURL`")?;
    let address = Url::parse(&address).ok().filter(is_certificate_address);
    let address = address.ok_or("`SigningCertURL` is no address of a certificate of Amazon SNS")?;
    let algorithm: &dyn SignatureVerificationAlgorithm = match message.get("SignatureVersion").text().as_deref() {
        Some("1") => &RsaSha1,
        Some("2") => webpki::ring::RSA_PKCS1_2048_8192_SHA256,
        _ => return Err("`SignatureVersion` is neither 1 nor 2"),
    };
    let signature = message.get("Signature").text().ok_or("the message has no `Signature`")?;
    let signature = base64::engine::general_purpose::STANDARD.decode(signature.as_bytes());
    let signature = signature.map_err(|_| "`Signature` is no base64")?;
    let time = message.get("Timestamp").time().ok_or("the message has no `Timestamp`")?;
    let Some(certificate) = certificates.get(&address) else {
        return Ok(Checked::Unknown(address));
    };
    let certificate = webpki::EndEntityCert::try_from(&certificate).map_err(|_| "the certificate cannot be read")?;
    let signed = signed_text(message).ok_or("`Type` is none of those that SNS has")?;
    let verified = certificate.verify_signature(algorithm, signed.as_bytes(), &signature);
    verified.map_err(|_| "the signature of the message is wrong")?;
    let age = now.duration_since(time);
    if age > MAX_AGE || age < -MAX_AHEAD {
        return Err("the message was signed more than a day ago, or in the future");
    }
    Ok(Checked::Genuine)
}

/// Returns the text that SNS signs: each member and its value on lines of their own.
fn signed_text(message: Node<'_>) -> Option<String> {
    let members = match &*message.get("Type").text()? {
        "Notification" => NOTIFICATION,
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => CONFIRMATION,
        _ => return None,
    };
    let mut text = String::new();
    for name in members {
        // Only the subject may be absent.
        match message.get(name).string() {
            Some(value) => text.extend([name, "\n", value, "\n"]),
            None if *name == "Subject" => {}
            None => return None,
        }
    }
    Some(text)
}

/// Tells whether SNS keeps certificates there.
fn is_certificate_address(url: &Url) -> bool {
    let path = url.path();
    let named = path.starts_with("/SimpleNotificationService-") && path.ends_with(".pem");
    is_sns(url) && named && !path.contains("..") && url.query().is_none()
}

/// Tells whether an address is one where a subscription is confirmed.
pub(crate) fn is_confirmation_address(url: &Url) -> bool {
    is_sns(url) && url.path() == "/" && url.query().is_some_and(|query| query.contains("Action=ConfirmSubscription"))
}

/// Tells whether a URL leads to SNS itself: `https://sns.<region>.amazonaws.com[.cn]`.
fn is_sns(url: &Url) -> bool {
    let plain =
        url.scheme() == "https" && url.port().is_none() && url.username().is_empty() && url.password().is_none();
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_suffix(".cn").filter(|host| host.starts_with("sns.cn-")).unwrap_or(host);
    let region = host.strip_prefix("sns.").and_then(|rest| rest.strip_suffix(".amazonaws.com"));
    let is_region = |region: &str| region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain && region.is_some_and(|region| !region.is_empty() && is_region(region))
}

/// RSA with SHA-1, which SNS uses unless a topic's `SignatureVersion` is 2. Refused everywhere else.
#[derive(Debug)]
struct RsaSha1;

impl SignatureVerificationAlgorithm for RsaSha1 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let algorithm = &ring::signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
        let key = ring::signature::UnparsedPublicKey::new(algorithm, public_key);
        key.verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        // sha1WithRSAEncryption, 1.2.840.113549.1.1.5, with NULL parameters.
        AlgorithmIdentifier::from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amazons_addresses_are_followed() {
        let certificate = |text: &str| is_certificate_address(&Url::parse(text).unwrap());
        assert!(certificate("https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0098f3.pem"));
        assert!(certificate("https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0098f3.pem"));
        for wrong in [
            "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0098f3.pem",
            "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0098f3.pem",
            "https://user@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0098f3.pem",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0098f3.pem?x",
            "https://sns.eu-central-1.amazonaws.com/bucket/SimpleNotificationService-0098f3.pem",
            "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0098f3.pem",
            "https://sns.evil.example/SimpleNotificationService-0098f3.pem",
            "https://sns.a.b.amazonaws.com/SimpleNotificationService-0098f3.pem",
            "https://sns.s3.amazonaws.com.cn/SimpleNotificationService-0098f3.pem",
            "https://evil.amazonaws.com/SimpleNotificationService-0098f3.pem",
            "https://sns..amazonaws.com/SimpleNotificationService-0098f3.pem",
        ] {
            assert!(!certificate(wrong), "{wrong}");
        }
        let confirmation = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=1";
        assert!(is_confirmation_address(&Url::parse(confirmation).unwrap()));
        let other = "https://sns.eu-central-1.amazonaws.com/?Action=DeleteTopic";
        assert!(!is_confirmation_address(&Url::parse(other).unwrap()));
    }
}
