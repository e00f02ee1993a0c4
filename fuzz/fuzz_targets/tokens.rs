//! Arbitrary bytes as an OpenID Connect token and as a key set.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use tagrelay_webhook::{IdentityTokens, Kind, Receiver, ReceiverSettings, Request, SigningKeys};

const KEYS: &[u8] = include_bytes!("../../tests/fixtures/webhook-signatures/keys.json");

static RECEIVER: LazyLock<Receiver> = LazyLock::new(|| {
    let tokens = IdentityTokens {
        issuer: "https://accounts.google.com".to_owned(),
        audience: "https://tagrelay.example.com/webhooks/gar".to_owned(),
        account: None,
        keys: SigningKeys::from_key_set(KEYS).unwrap(),
    };
    let settings = ReceiverSettings { identity_token: Some(tokens), ..ReceiverSettings::new("fuzz", Kind::Gar) };
    Receiver::new(settings).unwrap()
});

fuzz_target!(|input: &[u8]| {
    let _ = SigningKeys::from_key_set(input);
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", input].concat()) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, value);
    let request = Request { headers: &headers, query: None, body: b"{}" };
    // Long after the seeds' tokens expired, so that every token must be refused.
    let now: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    assert!(RECEIVER.receive_at(&request, now).is_err(), "an expired token was accepted");
});
