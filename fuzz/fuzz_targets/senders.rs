//! Arbitrary bytes, headers and queries for the receiver of each sender.
//!
//! The input is a byte that chooses the sender, header lines, an empty line and the body. A line that begins with `?`
//! is the query.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tagrelay_secret::Secret;
use tagrelay_webhook::{Delivery, Kind, Receiver, ReceiverSettings, Request};

/// 32 random bytes, which no input can contain.
const SECRET: &str = "5d1c6f0e9b7a4832a1f4c07b2e96d35880c2f1b7e64d9a0358cfa1e2b3d49765";

struct Pair {
    open: Receiver,
    closed: Receiver,
}

/// For each sender one receiver that accepts every request, and one that must refuse all.
static RECEIVERS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let pair = |kind: &Kind| {
        let registry = kind.needs_registry().then(|| "registry.example.com:5000".to_owned());
        let settings = ReceiverSettings { registry, ..ReceiverSettings::new("fuzz", *kind) };
        let open = ReceiverSettings { unauthenticated: true, ..settings.clone() };
        let closed = ReceiverSettings { secret: Some(Secret::inline(SECRET.to_owned()).unwrap()), ..settings };
        Pair { open: Receiver::new(open).unwrap(), closed: Receiver::new(closed).unwrap() }
    };
    Kind::ALL.iter().map(pair).collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let Some(pair) = RECEIVERS.get(usize::from(*choice)) else { return };
    let (head, body) = match rest.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&rest[..end], &rest[end + 2..]),
        None => (&b""[..], rest),
    };
    let mut headers = HeaderMap::new();
    let mut query = None;
    for line in head.split(|byte| *byte == b'\n') {
        if let Some(text) = line.strip_prefix(b"?") {
            query = std::str::from_utf8(text).ok();
        } else if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), value) {
                headers.append(name, value);
            }
        }
    }
    let request = Request { headers: &headers, query, body };
    // Refused only if a signature inside the body is wrong.
    if let Ok(delivery) = pair.open.receive(&request) {
        check(&delivery, body.len());
    }
    assert!(pair.closed.receive(&request).is_err(), "a request was accepted without the secret");
    let _ = pair.open.allow_sender(&headers);
});

/// The bounds of every answer, which keep stored and logged values small.
fn check(delivery: &Delivery, length: usize) {
    assert!(delivery.events.len() <= length, "more events than bytes");
    assert!(delivery.ignored.len() <= 101, "the list is unbounded");
    for ignored in &delivery.ignored {
        assert!(ignored.reason.chars().count() <= 301, "the reason is unbounded");
        assert!(!ignored.reason.chars().any(char::is_control), "control characters in a reason");
    }
    for event in &delivery.events {
        assert!(event.delivery.as_ref().is_none_or(|id| id.len() <= 300), "the id is unbounded");
        let again = event.repository.as_str().parse();
        assert_eq!(again.as_ref(), Ok(&event.repository), "the repository does not survive a round trip");
    }
    assert!(
        !delivery.events.is_empty() || !delivery.ignored.is_empty() || delivery.errand.is_some(),
        "nothing is said of the request"
    );
}
