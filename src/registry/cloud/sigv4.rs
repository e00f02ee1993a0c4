//! Signatures of requests to AWS, version 4 (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
//!
//! Only a `POST` of JSON to `/` is signed, which takes forty lines of HMAC; the crates for it bring at least fifteen
//! others.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tagrelay_secret::ExposeSecret as _;

/// The keys of an AWS identity.
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: SecretString,
    pub(super) session_token: Option<SecretString>,
}

/// A request to sign.
pub(super) struct Request<'a> {
    pub(super) host: &'a str,
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    /// `x-amz-target`, the operation.
    pub(super) target: &'a str,
    pub(super) body: &'a str,
}

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

impl Request<'_> {
    /// Returns the headers with the signature. The last two are secret.
    pub(super) fn sign(&self, keys: &Keys, now: Timestamp) -> Vec<(&'static str, String)> {
        let now = now.to_zoned(TimeZone::UTC);
        let (time, day) = (now.strftime("%Y%m%dT%H%M%SZ").to_string(), now.strftime("%Y%m%d").to_string());
        let mut headers = vec![
            ("content-type", CONTENT_TYPE.to_owned()),
            ("host", self.host.to_owned()),
            ("x-amz-date", time.clone()),
            ("x-amz-target", self.target.to_owned()),
        ];
        if let Some(token) = &keys.session_token {
            headers.insert(3, ("x-amz-security-token", token.expose_secret().to_owned()));
        }
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", hash(self.body));
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(&canonical));
        let first = format!("AWS4{}", keys.secret.expose_secret()).into_bytes();
        let parts = [day.as_str(), self.region, self.service, "aws4_request", &text];
        let signature = parts.iter().fold(first, |key, part| authenticate(&key, part));
        let (id, signature) = (&keys.id, hex::encode(signature));
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", authorization));
        headers
    }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn authenticate(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC accepts keys of every length, so this is never empty.
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(text).finalize().into_bytes().to_vec());
    mac.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected signatures are those of botocore 1.44 (`SigV4Auth`) for the same request.
    #[test]
    fn signatures_are_those_of_botocore() {
        let request = Request {
            host: "api.ecr.eu-west-1.amazonaws.com",
            service: "ecr",
            region: "eu-west-1",
            target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            body: "{}",
        };
        let now: Timestamp = "2026-11-24T08:15:30Z".parse().unwrap();
        let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/eu-west-1/ecr/aws4_request";
        for (session_token, headers, signature) in [
            (
                None,
                "content-type;host;x-amz-date;x-amz-target",
                "1b5f64650e9dc4ef2c7c26be67d52179cbe4b8f6d60d9faf3ec9a5c80ba26a2a",
            ),
            (
                Some("SESSION/TOKEN=="),
                "content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
                "08358c4ac64a0b9ad4b4ec50b9877b9163228c07c6a9eeddf4357a04c957df1e",
            ),
        ] {
            let expected = format!("{scope}, SignedHeaders={headers}, Signature={signature}");
            let keys = Keys {
                id: "AKIDEXAMPLE".to_owned(),
                secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
                session_token: session_token.map(Into::into),
            };
            let headers = request.sign(&keys, now);
            assert_eq!(headers.last().unwrap().1, expected);
        }
    }
}
