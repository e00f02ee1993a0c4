//! Slow, excessive and oversized requests, and that they do not affect other senders.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use tagrelay_test_support::fleet::{API_TOKEN, Fleet, LIMIT, READ_TOKEN, sha};

/// A second receiver, which must stay usable.
const OTHER: &str = "name = \"other\"\nkind = \"generic\"\nunauthenticated = true";

async fn connect(fleet: &Fleet) -> TcpStream {
    let address = fleet.url("").replace("http://", "");
    TcpStream::connect(address).await.unwrap()
}

/// Sends bytes on a new connection.
async fn begin(fleet: &Fleet, bytes: &str) -> TcpStream {
    let mut stream = connect(fleet).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Returns everything that the program sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it is not closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Calls the API and the other receiver, which must answer.
async fn assert_others_answer(fleet: &Fleet) {
    let (status, _) = fleet.api("GET", "/environments", None).await;
    assert_eq!(status, 200);
    let image = format!("{}:{}", fleet.repository("user-service"), sha('e'));
    let answer = fleet.client.post(fleet.url("/webhooks/other")).json(&json!({ "image": image })).send().await;
    assert_eq!(answer.unwrap().status(), 202);
}

/// How many of the connections are open without an answer.
fn unanswered(streams: &[TcpStream]) -> usize {
    let is_waiting = |stream: &&TcpStream| {
        stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    streams.iter().filter(is_waiting).count()
}

/// A signature, so that wrong credentials are noticed only after the body.
const SLOW_BODY: &str =
    "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nX-Tagrelay-Signature: sha256=00\r\nContent-Length: 1000\r\n\r\n{";

#[tokio::test]
async fn slow_headers_time_out_without_blocking_others() {
    let fleet = crate::fleet().server("max_connections = 32").service("user-service").receiver(OTHER).start().await;
    let mut first = begin(&fleet, "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    // Four times the limit: each new connection replaces the oldest idle one.
    let mut slow = Vec::new();
    for _ in 0..128 {
        slow.push(begin(&fleet, "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nX-Slow: ").await);
    }
    for _ in 0..5 {
        assert_others_answer(&fleet).await;
    }
    assert!(unanswered(&slow) > 0, "the slow connections were gone before the others were answered");
    // The first was closed long ago.
    rest(&mut first).await;
    // A connection that is not replaced is closed by the time limit, even if it sends a byte a second.
    drop(slow);
    let mut last = begin(&fleet, "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let mut bytes = 0;
    let drip = async {
        while last.write_all(b"x").await.is_ok() {
            bytes += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, drip).await.expect("a slow header never ends");
    assert!(bytes >= 5, "it had no time at all: {bytes} bytes");
    assert_others_answer(&fleet).await;
}

#[tokio::test]
async fn idle_connection_is_kept() {
    let fleet = crate::fleet().service("user-service").start().await;
    let mut stream = connect(&fleet).await;
    // Longer apart than the time limit of a header, because proxies keep connections for a minute.
    for pause in [Duration::ZERO, Duration::from_secs(12)] {
        tokio::time::sleep(pause).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        let mut more = [0; 1024];
        let _ = stream.read(&mut more).await.unwrap();
    }
}

#[tokio::test]
async fn slow_bodies_time_out_and_leave_places_for_other_requests() {
    let fleet = crate::fleet().server("max_connections = 8").service("user-service").start().await;
    let mut slow = Vec::new();
    // A connection whose request has not been read yet can be replaced, so it takes some until all places are taken.
    let mut refused = String::new();
    while !refused.starts_with("HTTP/1.1 503") {
        assert!(slow.len() < 1000, "connections without end; the last said {refused:?}");
        slow.push(begin(&fleet, SLOW_BODY).await);
        let mut one_more = begin(&fleet, SLOW_BODY).await;
        let mut answer = [0; 512];
        let reading = tokio::time::timeout(Duration::from_millis(200), one_more.read(&mut answer)).await;
        refused =
            String::from_utf8_lossy(answer.get(..reading.map_or(0, Result::unwrap_or_default)).unwrap()).into_owned();
        slow.push(one_more);
    }
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1"), "{refused}");
    // Health and the API are not affected.
    let healthy = rest(&mut begin(&fleet, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await).await;
    assert!(healthy.starts_with("HTTP/1.1 200"), "{healthy}");
    assert_eq!(fleet.api("GET", "/environments", None).await.0, 200);
    let mut too_slow = 0;
    for stream in &mut slow {
        let mut status = [0; 12];
        let answer = tokio::time::timeout(LIMIT, stream.read_exact(&mut status)).await.expect("it is not closed");
        too_slow += usize::from(answer.is_ok() && &status == b"HTTP/1.1 408");
    }
    // Of five parts, one each for health, API, streams and the receiver, and one for all. On a slow machine the first have timed out
    // before the last were sent.
    assert!(too_slow >= 5, "{too_slow}");
}

#[tokio::test]
async fn slow_bodies_on_two_receivers_leave_places_for_a_third() {
    let more = |name: &str| format!("name = \"{name}\"\nkind = \"generic\"\nsecret = {{ value = \"s3cret\" }}");
    let fleet = crate::fleet()
        .server("max_connections = 64")
        .service("user-service")
        .receiver(OTHER)
        .receiver(&more("second"))
        .start()
        .await;
    let mut slow = Vec::new();
    for name in ["ci", "second"].repeat(64) {
        slow.push(begin(&fleet, &SLOW_BODY.replace("/ci", &format!("/{name}"))).await);
    }
    for _ in 0..5 {
        assert_others_answer(&fleet).await;
    }
    assert!(unanswered(&slow) > 20, "the slow bodies were gone before the others were answered");
}

#[tokio::test]
async fn body_of_a_token_without_permission_is_not_read() {
    let fleet = crate::fleet().service("user-service").start().await;
    for route in ["holds", "freezes", "events/replay"] {
        let head = format!(
            "POST /api/v1/{route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ_TOKEN}\r\nContent-Type: application/json\r\n\
             Content-Length: 1000\r\n\r\n{{"
        );
        let mut status = [0; 12];
        begin(&fleet, &head).await.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 403", "{route}");
    }
}

#[tokio::test]
async fn token_has_at_most_16_streams() {
    let fleet = crate::fleet().service("user-service").start().await;
    let open = async || {
        let request = fleet.client.get(fleet.url("/api/v1/stream")).bearer_auth(READ_TOKEN);
        request.send().await.unwrap()
    };
    let mut streams = Vec::new();
    for _ in 0..16 {
        let stream = open().await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    assert_eq!(open().await.status(), 429);
    // Another token is not affected, and a closed stream makes room.
    let other = fleet.client.get(fleet.url("/api/v1/stream")).bearer_auth(API_TOKEN).send().await.unwrap();
    assert_eq!(other.status(), 200);
    streams.pop();
    fleet.eventually("there is room again", async || open().await.status() == 200).await;
}

#[tokio::test]
async fn unauthenticated_flood_does_not_affect_known_senders() {
    let fleet = crate::fleet()
        .server("max_connections = 512")
        .service("user-service")
        .receiver(OTHER)
        .receiver("name = \"known\"\nkind = \"docker-hub\"\nsecret = { value = \"s3cret\" }\nrate_limit = \"2/h\"")
        .start()
        .await;
    let before = fleet.peak_memory_kib();
    // Bodies near the size limit with a wrong signature, on all connections but a few. Those beyond the receiver's limit get 503,
    // and their connections are free.
    let length = 65_000;
    let large = "x".repeat(length - 1);
    let head = format!(
        "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nX-Tagrelay-Signature: sha256=00\r\nContent-Length: {length}\r\n\r\n{large}"
    );
    let mut slow = Vec::new();
    for _ in 0..500 {
        slow.push(begin(&fleet, &head).await);
    }
    for _ in 0..5 {
        assert_others_answer(&fleet).await;
    }
    assert!(unanswered(&slow) > 0, "the flood was over before the others were answered");
    assert_eq!(fleet.client.get(fleet.url("/healthz")).send().await.unwrap().status(), 200);
    let peak = fleet.peak_memory_kib();
    // All bodies together would be 32 MiB.
    assert!(peak < before + 28 * 1024, "{before} KiB before, {peak} KiB at most");
    // Failed authentication does not use up the sender's rate limit.
    let url = fleet.url("/webhooks/known?token=");
    for _ in 0..10 {
        assert_eq!(fleet.client.post(format!("{url}wrong")).body("{}").send().await.unwrap().status(), 401);
    }
    for status in [200, 200, 429] {
        assert_eq!(fleet.client.post(format!("{url}s3cret")).body("{}").send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn one_request_announces_at_most_1000_tags() {
    let fleet = crate::fleet()
        .server("")
        .service("user-service")
        .receiver("name = \"quay\"\nkind = \"quay\"\nsecret = { value = \"s3cret\" }")
        .start()
        .await;
    for (number, status) in [(1000, 202), (1001, 413)] {
        let tags: Vec<String> = (0..number).map(|tag| format!("{tag:040}")).collect();
        let url = fleet.repository("user-service");
        let body = json!({ "repository": "uyou/user-service", "docker_url": url, "updated_tags": tags });
        let answer = fleet.client.post(fleet.url("/webhooks/quay?token=s3cret")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{}", answer.text().await.unwrap());
    }
}

#[tokio::test]
async fn endless_bodies_and_zip_bombs_use_no_memory() {
    let fleet = crate::fleet().server("").service("user-service").receiver(OTHER).start().await;
    let before = fleet.peak_memory_kib();
    let block = "x".repeat(64 * 1024);
    let head = "POST /webhooks/other HTTP/1.1\r\nHost: x\r\n";
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..16 {
        // Half of them declare their length.
        let chunked = number % 2 == 0;
        let length = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 10737418240" };
        let mut stream = begin(&fleet, &format!("{head}{length}\r\n\r\n")).await;
        let block = if chunked { format!("10000\r\n{block}\r\n") } else { block.clone() };
        sending.spawn(async move {
            let mut sent = 0_u64;
            // 10 GiB, if they were read.
            while sent < 10 << 30 && stream.write_all(block.as_bytes()).await.is_ok() {
                sent += 64 * 1024;
            }
            sent
        });
    }
    while let Some(sent) = sending.join_next().await {
        let sent = sent.unwrap();
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
    // 200 MB in 200 KB.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..200 {
        bomb.write_all(&[b' '; 1_000_000]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1_000_000);
    let request = fleet.client.post(fleet.url("/webhooks/other")).header("content-encoding", "gzip").body(bomb);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["ignored"][0]["class"], "malformed", "{answer}");
    assert!(answer["ignored"][0]["reason"].as_str().unwrap().contains("compressed"), "{answer}");
    let peak = fleet.peak_memory_kib();
    // The bomb alone would be 200 MB.
    assert!(peak < before + 24 * 1024, "{before} KiB before, {peak} KiB at most");
    assert_others_answer(&fleet).await;
}

#[tokio::test]
async fn flood_on_one_receiver_does_not_affect_others() {
    let fleet = crate::fleet()
        .service("user-service")
        .receiver(OTHER)
        .receiver("name = \"flooded\"\nkind = \"generic\"\nunauthenticated = true\nrate_limit = \"20/m\"")
        .start()
        .await;
    // The receiver's whole memory budget, reserved by bodies that never arrive.
    let mut slow = Vec::new();
    for _ in 0..80 {
        slow.push(begin(&fleet, SLOW_BODY).await);
    }
    // A request without credentials neither waits nor reserves memory.
    let refused =
        rest(&mut begin(&fleet, "POST /webhooks/ci HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await).await;
    assert!(refused.starts_with("HTTP/1.1 401"), "answered without the rest of its body: {refused}");
    let flood = async {
        let (mut taken, mut limited) = (0, 0);
        for number in 0..300 {
            let image = format!("{}:{number:040}", fleet.repository("user-service"));
            let body = json!({ "image": image });
            let answer = fleet.client.post(fleet.url("/webhooks/flooded")).json(&body).send().await.unwrap();
            match answer.status().as_u16() {
                202 => taken += 1,
                429 => {
                    limited += 1;
                    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                    assert!((1..=60).contains(&wait), "{wait}");
                    assert_eq!(answer.headers()["content-type"], "application/problem+json");
                }
                other => panic!("{other}"),
            }
        }
        (taken, limited)
    };
    let others = async {
        for _ in 0..10 {
            assert_others_answer(&fleet).await;
        }
    };
    let ((taken, limited), ()) = tokio::join!(flood, others);
    assert_eq!(taken + limited, 300);
    // A burst of 20, and one more every three seconds.
    assert!((20..100).contains(&taken), "{taken}");
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let counted = format!(r#"tagrelay_webhook_requests_total{{receiver="flooded",outcome="rate_limited"}} {limited}"#);
    assert!(metrics.contains(&counted), "{counted} is not in\n{metrics}");
}
