//! No input causes a panic, and no request without the secret is accepted.

use std::path::Path;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use tagrelay_secret::Secret;
use tagrelay_webhook::{Delivery, Kind, Receiver, ReceiverSettings, Request};

/// The bodies and headers of all samples; each sender gets those of all others, too.
static SAMPLES: LazyLock<Vec<(Vec<u8>, HeaderMap)>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path().to_str().unwrap().to_owned();
            let Some(stem) = path.strip_suffix(".meta.json") else { continue };
            let meta: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in meta["headers"].as_object().unwrap() {
                let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
                headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            found.push((std::fs::read(format!("{stem}.json")).unwrap(), headers));
        }
    }
    found
});

fn receiver(kind: Kind, secret: Option<&str>) -> Receiver {
    Receiver::new(ReceiverSettings {
        secret: secret.map(|secret| Secret::inline(secret.to_owned()).unwrap()),
        previous_secret: None,
        unauthenticated: secret.is_none(),
        registry: kind.needs_registry().then(|| "registry.example.com".to_owned()),
        ..ReceiverSettings::new("test", kind)
    })
    .unwrap()
}

/// Every reason is non-empty and short.
fn check(delivery: &Delivery) {
    assert!(!delivery.events.is_empty() || !delivery.ignored.is_empty());
    for ignored in &delivery.ignored {
        assert!(!ignored.reason.is_empty() && ignored.reason.chars().count() <= 301, "{ignored:?}");
    }
    let mut seen = std::collections::HashSet::new();
    for event in &delivery.events {
        assert!(seen.insert((&event.repository, &event.tag, &event.digest)), "twice: {event:?}");
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    select(Kind::ALL)
}

/// A value of any type instead of the sender's.
fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        select(vec!["", ":", "@", "/", "a/", "sha256:", "https://", "host:1/a:b@c", "pkg:oci/a@b?tag", "%", "cn-"])
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON pointers to all values below `value`.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            pointers(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found))
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes_are_explained(kind in any_kind(), sample in any::<Index>(), body in any::<Vec<u8>>()) {
        let (_, headers) = sample.get(&SAMPLES);
        check(&receiver(kind, None).receive(&Request { headers, query: None, body: &body }).unwrap());
    }

    #[test]
    fn samples_with_other_bytes_are_explained(
        kind in any_kind(),
        sample in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        end in any::<Index>(),
    ) {
        let (body, headers) = sample.get(&SAMPLES);
        let mut body = body.clone();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        check_unless_refused(kind, headers, &body);
        check_unless_refused(kind, headers, &body[..end.index(body.len())]);
    }

    #[test]
    fn samples_with_other_values_are_explained(
        kind in any_kind(),
        sample in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any_value()), 1..4),
    ) {
        let (body, headers) = sample.get(&SAMPLES);
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
        for (place, new) in changes {
            let mut places = Vec::new();
            pointers(&value, "", &mut places);
            if let Some(old) = value.pointer_mut(&places[place.index(places.len())]) {
                *old = new;
            }
        }
        check_unless_refused(kind, headers, value.to_string().as_bytes());
    }

    #[test]
    fn random_credentials_are_refused(
        kind in any_kind(),
        sample in any::<Index>(),
        authorization in "[ -~]{0,40}",
        query in "[ -~]{0,40}",
    ) {
        // The samples have another secret and signature.
        let (body, headers) = sample.get(&SAMPLES);
        let receiver = receiver(kind, Some("4f1c-another-secret"));
        let outcome = receiver.receive(&Request { headers, query: Some(&query), body });
        prop_assert!(outcome.is_err());
        let mut headers = headers.clone();
        headers.insert("authorization", HeaderValue::from_str(&authorization).unwrap());
        let query = format!("token={query}");
        let outcome = receiver.receive(&Request { headers: &headers, query: Some(&query), body });
        prop_assert!(outcome.is_err());
    }
}

/// An SNS message with a wrong signature is refused; every other result has a reason.
fn check_unless_refused(kind: Kind, headers: &HeaderMap, body: &[u8]) {
    match receiver(kind, None).receive(&Request { headers, query: None, body }) {
        Ok(delivery) => check(&delivery),
        Err(refused) => assert_eq!(kind, Kind::Ecr, "{refused}"),
    }
}
