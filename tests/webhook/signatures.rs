//! Credentials beyond shared secrets: signatures of Amazon SNS, and OpenID Connect tokens.
//!
//! The private keys of the files in `tests/fixtures/webhook-signatures/` were deleted; `make.py` there makes new files. Their
//! time is 2025-08-21T10:41:04Z.

use std::path::Path;

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use tagrelay_secret::Secret;
use tagrelay_webhook::{
    Delivery, Errand, IdentityTokens, InvalidReceiver, Kind, Receiver, ReceiverSettings, Request, SigningKeys,
    Unauthorized,
};

const CERTIFICATE: &str =
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0098f3724adcdea1eeff469a19509fba.pem";

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhook-signatures").join(name)).unwrap()
}

fn sample(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks").join(path)).unwrap()
}

fn now() -> Timestamp {
    "2025-08-21T10:41:30Z".parse().unwrap()
}

fn settings(kind: Kind, secret: Option<&str>) -> ReceiverSettings {
    ReceiverSettings {
        secret: secret.map(|secret| Secret::inline(secret.to_owned()).unwrap()),
        ..ReceiverSettings::new("test", kind)
    }
}

/// An ECR receiver that knows a certificate.
fn sns_receiver(certificate: &str) -> Receiver {
    let receiver = Receiver::new(settings(Kind::Ecr, Some("webhook-secret"))).unwrap();
    receiver.learn_certificate(&CERTIFICATE.parse().unwrap(), &file(certificate)).unwrap();
    receiver
}

fn deliver(receiver: &Receiver, body: &[u8], authorization: &str, now: Timestamp) -> Result<Delivery, Unauthorized> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=UTF-8"));
    if !authorization.is_empty() {
        headers.insert("authorization", HeaderValue::from_str(authorization).unwrap());
    }
    receiver.receive_at(&Request { headers: &headers, query: None, body }, now)
}

/// `sns:webhook-secret`.
const PASSWORD: &str = "Basic c25zOndlYmhvb2stc2VjcmV0";

#[test]
fn signed_sns_message_is_read() {
    for name in ["sns-push-v1.json", "sns-push-v2.json", "sns-push-with-subject.json"] {
        let delivery = deliver(&sns_receiver("sns.pem"), &file(name), PASSWORD, now()).unwrap();
        let [event] = &delivery.events[..] else { panic!("{name}: {delivery:?}") };
        assert_eq!(event.repository.as_str(), "123456789012.dkr.ecr.eu-central-1.amazonaws.com/uyou/order-service");
        assert_eq!(event.delivery.as_deref(), Some("7cffa50b-4572-409d-aa83-c28c73bb5547"));
        assert_eq!(delivery.errand, None);
    }
}

#[test]
fn sns_certificate_is_requested_and_cached() {
    let receiver = Receiver::new(settings(Kind::Ecr, Some("webhook-secret"))).unwrap();
    let body = file("sns-push-v2.json");
    let delivery = deliver(&receiver, &body, PASSWORD, now()).unwrap();
    assert!(delivery.events.is_empty());
    let Some(Errand::LearnCertificate(address)) = delivery.errand else { panic!("{delivery:?}") };
    assert_eq!(address.as_str(), CERTIFICATE);
    assert!(receiver.learn_certificate(&address, b"<html>not found</html>").is_err());
    let elsewhere = "https://evil.example/SimpleNotificationService-0.pem".parse().unwrap();
    assert!(receiver.learn_certificate(&elsewhere, &file("sns.pem")).is_err());
    // Clones, like those of the connections, share the certificates.
    receiver.clone().learn_certificate(&address, &file("sns.pem")).unwrap();
    assert_eq!(deliver(&receiver, &body, PASSWORD, now()).unwrap().events.len(), 1);
}

#[test]
fn altered_sns_message_is_refused() {
    let text = String::from_utf8(file("sns-push-v2.json")).unwrap();
    let refused = |receiver: &Receiver, text: &str, authorization: &str, now: Timestamp| {
        deliver(receiver, text.as_bytes(), authorization, now).unwrap_err().to_string()
    };
    let receiver = sns_receiver("sns.pem");
    for (from, to) in [
        ("uyou/order-service", "uyou/other-service"),
        ("10:41:04.125Z", "10:41:05.125Z"),
        ("\"SignatureVersion\": \"2\"", "\"SignatureVersion\": \"1\""),
        ("\"Type\": \"Notification\"", "\"Subject\": \"x\", \"Type\": \"Notification\""),
    ] {
        assert!(text.contains(from), "{from}");
        let reason = refused(&receiver, &text.replace(from, to), PASSWORD, now());
        assert_eq!(reason, "the signature of the message is wrong", "{from}");
    }
    for (from, to) in [
        ("sns.eu-central-1.amazonaws.com/Simple", "sns.evil.example/Simple"),
        ("\"Signature\": \"", "\"Signature\": \"!"),
        ("\"SignatureVersion\": \"2\"", "\"SignatureVersion\": \"3\""),
        ("\"Signature\"", "\"NoSignature\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(deliver(&receiver, text.replace(from, to).as_bytes(), PASSWORD, now()).is_err(), "{from}");
    }
    assert!(refused(&sns_receiver("sns-other.pem"), &text, PASSWORD, now()).contains("signature"));
    // Signed but old: a replay. Signed but from the future: a wrong clock.
    for time in ["2025-08-23T10:41:30Z", "2025-08-21T10:00:00Z"] {
        assert!(refused(&receiver, &text, PASSWORD, time.parse().unwrap()).contains("more than a day ago"));
    }
    // The signature does not replace the secret.
    let wrong = deliver(&receiver, text.as_bytes(), "Basic c25zOndyb25n", now()).unwrap_err();
    assert_eq!(wrong.to_string(), "the credential is wrong");
    let missing = deliver(&receiver, text.as_bytes(), "", now()).unwrap_err();
    assert!(missing.challenge.starts_with("Basic"), "SNS shows its password only when asked");
}

#[test]
fn subscription_is_confirmed_only_at_amazon() {
    for name in ["sns-confirmation-v1.json", "sns-confirmation-v2.json"] {
        let delivery = deliver(&sns_receiver("sns.pem"), &file(name), PASSWORD, now()).unwrap();
        assert!(delivery.events.is_empty());
        assert_eq!(delivery.ignored[0].class.name(), "handshake");
        let Some(Errand::Visit(url)) = delivery.errand else { panic!("{delivery:?}") };
        assert_eq!(url.host_str(), Some("sns.eu-central-1.amazonaws.com"));
    }
    let elsewhere = deliver(&sns_receiver("sns.pem"), &file("sns-confirmation-elsewhere.json"), PASSWORD, now());
    let elsewhere = elsewhere.unwrap();
    assert_eq!((elsewhere.errand, elsewhere.ignored[0].class.name()), (None, "malformed"));
    // Without a secret, any topic could be subscribed.
    let open = Receiver::new(ReceiverSettings { unauthenticated: true, ..settings(Kind::Ecr, None) }).unwrap();
    open.learn_certificate(&CERTIFICATE.parse().unwrap(), &file("sns.pem")).unwrap();
    let delivery = deliver(&open, &file("sns-confirmation-v2.json"), "", now()).unwrap();
    assert_eq!((delivery.errand, delivery.ignored[0].class.name()), (None, "handshake"));
}

fn identity_tokens() -> IdentityTokens {
    IdentityTokens {
        issuer: "https://accounts.google.com".to_owned(),
        audience: "https://tagrelay.example.com/webhooks/gar".to_owned(),
        account: Some("push@uyou-prod.iam.gserviceaccount.com".to_owned()),
        keys: SigningKeys::from_key_set(&file("keys.json")).unwrap(),
    }
}

fn tokens() -> Vec<(String, String)> {
    let tokens: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&file("tokens.json")).unwrap();
    tokens.into_iter().map(|(name, token)| (name, token.as_str().unwrap().to_owned())).collect()
}

#[test]
fn identity_token_must_be_valid_in_every_part() {
    let receiver =
        Receiver::new(ReceiverSettings { identity_token: Some(identity_tokens()), ..settings(Kind::Gar, None) })
            .unwrap();
    let body = sample("gar/push.json");
    let mut accepted = Vec::new();
    for (name, token) in tokens() {
        match deliver(&receiver, &body, &format!("Bearer {token}"), now()) {
            Ok(delivery) => {
                assert_eq!(delivery.events.len(), 1);
                accepted.push(name);
            }
            Err(refused) => assert!(!refused.to_string().contains(&token), "{refused}"),
        }
    }
    accepted.sort();
    assert_eq!(accepted, ["audience-in-a-list", "issuer-without-scheme", "right"]);
    let right = &tokens().into_iter().find(|(name, _)| name == "right").unwrap().1;
    let later = deliver(&receiver, &body, &format!("Bearer {right}"), "2025-08-21T11:45:00Z".parse().unwrap());
    assert_eq!(later.unwrap_err().to_string(), "the token has expired");
    assert!(deliver(&receiver, &body, "", now()).is_err());
    assert!(deliver(&receiver, &body, right, now()).is_err(), "a token without its scheme");
}

#[test]
fn identity_token_of_ci_replaces_the_secret_of_generic() {
    let tokens = tokens();
    let token = |name: &str| format!("Bearer {}", tokens.iter().find(|(found, _)| found == name).unwrap().1);
    let settings = ReceiverSettings { identity_token: Some(identity_tokens()), ..settings(Kind::Generic, None) };
    let receiver = Receiver::new(settings).unwrap();
    let body = br#"{"image": "docker.io/uyou/user-service:1.2.3"}"#;
    assert_eq!(deliver(&receiver, body, &token("right"), now()).unwrap().events.len(), 1);
    for wrong in ["wrong-account", "wrong-audience", "other-key", "algorithm-none"] {
        assert!(deliver(&receiver, body, &token(wrong), now()).is_err(), "{wrong}");
    }
    assert!(deliver(&receiver, body, "Bearer webhook-secret", now()).is_err());
}

#[test]
fn identity_token_does_not_replace_the_secret() {
    let tokens = tokens();
    let right = &tokens.iter().find(|(name, _)| name == "right").unwrap().1;
    let receiver = Receiver::new(ReceiverSettings {
        identity_token: Some(identity_tokens()),
        ..settings(Kind::Gar, Some("webhook-secret"))
    })
    .unwrap();
    let body = sample("gar/push.json");
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::from_str(&format!("Bearer {right}")).unwrap();
    let receive = |headers: &HeaderMap, query| receiver.receive_at(&Request { headers, query, body: &body }, now());
    assert!(receive(&headers, Some("token=webhook-secret")).is_err());
    headers.insert("authorization", bearer);
    assert!(receive(&headers, None).is_err());
    assert!(receive(&headers, Some("token=webhook-secret")).is_ok());
}

#[test]
fn keys_are_rotated_and_checked() {
    let tokens = identity_tokens();
    assert!(SigningKeys::from_key_set(b"{\"keys\": []}").is_err());
    assert!(SigningKeys::from_key_set(b"no json").is_err());
    assert!(tokens.keys.replace(b"{}").is_err());
    let other = br#"{"keys": [{"kty": "RSA", "kid": "key-1", "n": "AQAB", "e": "AQAB"}]}"#;
    let receiver =
        Receiver::new(ReceiverSettings { identity_token: Some(tokens.clone()), ..settings(Kind::Gar, None) }).unwrap();
    let (body, all) = (sample("gar/push.json"), self::tokens());
    let bearer = format!("Bearer {}", all.iter().find(|(name, _)| name == "right").unwrap().1);
    assert!(deliver(&receiver, &body, &bearer, now()).is_ok());
    tokens.keys.replace(other).unwrap();
    assert!(deliver(&receiver, &body, &bearer, now()).is_err());
}

#[test]
fn identity_tokens_need_a_sender_that_has_them() {
    let refused = Receiver::new(ReceiverSettings {
        identity_token: Some(identity_tokens()),
        ..settings(Kind::Harbor, Some("x"))
    });
    assert!(matches!(refused, Err(InvalidReceiver::NoIdentityTokens { .. })));
}

#[test]
fn keys_file_is_read_again_for_an_unknown_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    assert!(SigningKeys::from_file(&path).is_err(), "a file that is not there");
    std::fs::write(&path, r#"{"keys": [{"kty": "RSA", "kid": "old", "n": "AQAB", "e": "AQAB"}]}"#).unwrap();
    let tokens = IdentityTokens { keys: SigningKeys::from_file(&path).unwrap(), ..identity_tokens() };
    let receiver =
        Receiver::new(ReceiverSettings { identity_token: Some(tokens), ..settings(Kind::Gar, None) }).unwrap();
    let body = sample("gar/push.json");
    let bearer = format!("Bearer {}", self::tokens().into_iter().find(|(name, _)| name == "right").unwrap().1);
    assert!(deliver(&receiver, &body, &bearer, now()).is_err());
    std::fs::write(&path, "half a file").unwrap();
    assert!(deliver(&receiver, &body, &bearer, now()).is_err());
    std::fs::write(&path, file("keys.json")).unwrap();
    assert!(deliver(&receiver, &body, &bearer, now()).is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(deliver(&receiver, &body, &bearer, now()).is_ok(), "known keys stay");
}

#[test]
fn fetched_keys_are_requested_at_intervals() {
    let keys = SigningKeys::at("https://keys.example.com/certs".parse().unwrap());
    let tokens = IdentityTokens { keys, ..identity_tokens() };
    let receiver =
        Receiver::new(ReceiverSettings { identity_token: Some(tokens), ..settings(Kind::Gar, None) }).unwrap();
    let body = sample("gar/push.json");
    let bearer = format!("Bearer {}", self::tokens().into_iter().find(|(name, _)| name == "right").unwrap().1);
    let mut headers = HeaderMap::new();
    let request = |headers: &HeaderMap| receiver.keys_to_fetch(&Request { headers, query: None, body: &body });
    assert_eq!(request(&headers), None, "nothing to check");
    headers.insert("authorization", HeaderValue::from_static("Bearer nonsense"));
    assert_eq!(request(&headers), None, "no token");
    headers.insert("authorization", HeaderValue::from_str(&bearer).unwrap());
    assert!(receiver.lacks_keys());
    assert_eq!(request(&headers).unwrap().as_str(), "https://keys.example.com/certs");
    assert_eq!(request(&headers), None, "asked a moment ago");
    assert!(receiver.learn_keys(b"{}").is_err());
    receiver.learn_keys(&file("keys.json")).unwrap();
    assert!(!receiver.lacks_keys());
    assert!(deliver(&receiver, &body, &bearer, now()).is_ok());
}
