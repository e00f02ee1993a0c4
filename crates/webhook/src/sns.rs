//! Messages of Amazon SNS and their signatures
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).
//!
//! The message names the certificate, so the address is checked first: only Amazon's hosts, over HTTPS, at the path of
//! SNS certificates. The caller fetches it (see [`Errand`](super::Errand)), because this crate does no network I/O.

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

/// The maximum age of a message. SNS retries for at most an hour; an older message may be a replay attack.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How far the sender's clock may be ahead.
const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// Limit of cached certificates. SNS uses one per region at a time.
const MAX_CERTIFICATES: usize = 64;

/// The members that a signature covers, in order, by the type of the message.
const NOTIFICATION: &[&str] = &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const CONFIRMATION: &[&str] = &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// The cached certificates by address. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Certificates(Arc<RwLock<BTreeMap<Url, CertificateDer<'static>>>>);

/// A fetched certificate is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate at {address} cannot be used: {reason}")]
pub struct InvalidCertificate {
    /// The address of the certificate.
    pub address: Url,
    /// The fault.
    pub reason: String,
}

impl Certificates {
    /// Stores the certificate (PEM) from `address`.
    pub(crate) fn learn(&self, address: &Url, pem: &[u8]) -> Result<(), InvalidCertificate> {
        let invalid = |reason: String| InvalidCertificate { address: address.clone(), reason };
        if !is_certificate_address(address) {
            return Err(invalid("it is not the address of an Amazon SNS certificate".to_owned()));
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

/// The result of verifying a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The signature is valid, and the message is recent.
    Genuine,
    /// The certificate at this address is needed first.
    Unknown(Url),
    /// The signature is invalid, for this reason.
    Refused(String),
}

/// Verifies the signature of a message.
pub(crate) fn check(message: Node<'_>, certificates: &Certificates, now: Timestamp) -> Checked {
    match try_check(message, certificates, now) {
        Ok(checked) => checked,
        Err(reason) => Checked::Refused(reason.to_owned()),
    }
}

fn try_check(message: Node<'_>, certificates: &Certificates, now: Timestamp) -> Result<Checked, &'static str> {
    let address = message.get("SigningCertURL").text().ok_or("the message has no `SigningCertURL`")?;
    let address = Url::parse(&address).ok().filter(is_certificate_address);
    let address = address.ok_or("`SigningCertURL` is not the address of an Amazon SNS certificate")?;
    let algorithm: &dyn SignatureVerificationAlgorithm = match message.get("SignatureVersion").text().as_deref() {
        Some("1") => &RsaSha1,
        Some("2") => webpki::ring::RSA_PKCS1_2048_8192_SHA256,
        _ => return Err("`SignatureVersion` is neither 1 nor 2"),
    };
    let signature = message.get("Signature").text().ok_or("the message has no `Signature`")?;
    let signature = base64::engine::general_purpose::STANDARD.decode(signature.as_bytes());
    let signature = signature.map_err(|_| "`Signature` is not Base64")?;
    let time = message.get("Timestamp").time().ok_or("the message has no `Timestamp`")?;
    let Some(certificate) = certificates.get(&address) else {
        return Ok(Checked::Unknown(address));
    };
    let certificate = webpki::EndEntityCert::try_from(&certificate).map_err(|_| "the certificate cannot be read")?;
    let signed = signed_text(message).ok_or("`Type` is unknown")?;
    let verified = certificate.verify_signature(algorithm, signed.as_bytes(), &signature);
    verified.map_err(|_| "the signature of the message is wrong")?;
    let age = now.duration_since(time);
    if age > MAX_AGE || age < -MAX_AHEAD {
        return Err("the message was signed more than a day ago, or in the future");
    }
    Ok(Checked::Genuine)
}

/// Returns the text that SNS signs: each member and its value on separate lines.
fn signed_text(message: Node<'_>) -> Option<String> {
    let members = match &*message.get("Type").text()? {
        "Notification" => NOTIFICATION,
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => CONFIRMATION,
        _ => return None,
    };
    let mut text = String::new();
    for name in members {
        // Only the subject is optional.
        match message.get(name).string() {
            Some(value) => text.extend([name, "\n", value, "\n"]),
            None if *name == "Subject" => {}
            None => return None,
        }
    }
    Some(text)
}

/// Returns whether an address is one of SNS' certificates.
fn is_certificate_address(url: &Url) -> bool {
    let path = url.path();
    let named = path.starts_with("/SimpleNotificationService-") && path.ends_with(".pem");
    is_sns(url) && named && !path.contains("..") && url.query().is_none()
}

/// Returns whether an address confirms a subscription.
pub(crate) fn is_confirmation_address(url: &Url) -> bool {
    is_sns(url) && url.path() == "/" && url.query().is_some_and(|query| query.contains("Action=ConfirmSubscription"))
}

/// Returns whether a URL belongs to SNS: `https://sns.<region>.amazonaws.com[.cn]`.
fn is_sns(url: &Url) -> bool {
    let plain =
        url.scheme() == "https" && url.port().is_none() && url.username().is_empty() && url.password().is_none();
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_suffix(".cn").filter(|host| host.starts_with("sns.cn-")).unwrap_or(host);
    let region = host.strip_prefix("sns.").and_then(|rest| rest.strip_suffix(".amazonaws.com"));
    let is_region = |region: &str| region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain && region.is_some_and(|region| !region.is_empty() && is_region(region))
}

/// RSA with SHA-1, which SNS uses unless a topic's `SignatureVersion` is 2. Accepted only here.
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
    fn only_amazons_addresses_are_accepted() {
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
