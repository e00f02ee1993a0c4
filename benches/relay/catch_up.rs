//! Measures catch-up with 500 repositories of 1,000 tags.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use tagrelay_image::Digest;

use tagrelay_test_support::fleet::{Builder, Fleet, deployment};
use tagrelay_test_support::measure::{Work, memory_mib};

const REPOSITORIES: usize = 500;
const TAGS: usize = 1_000;

/// Repositories in which a tag is pushed without a webhook.
const LOST: usize = 50;

/// Tags per page.
const PAGE: usize = 1_000;

/// The interval of catch-up.
const PERIOD: Duration = Duration::from_secs(15 * 60);

/// Requests allowed to verify and compare a new tag: a `HEAD`, and manifest and config of it and of the running version.
const PER_FOUND: usize = 1 + 2 * 3;

/// Concurrent requests, all of which may get a 401 before the first token.
const CHALLENGES: usize = 4;

/// A registry with tokens and tag lists. All tags have the same image.
#[derive(Default)]
struct Registry {
    /// By repository.
    pushed: HashMap<String, Vec<String>>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    lists: usize,
    tokens: usize,
    /// Requests answered with 401.
    challenges: usize,
    heads: usize,
    others: usize,
}

impl Counts {
    fn total(&self) -> usize {
        self.lists + self.tokens + self.challenges + self.heads + self.others
    }
}

type Shared = Arc<Mutex<Registry>>;

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut registry = shared.lock().unwrap();
    let json = |text: String| Response::builder().header("content-type", "application/json").body(Body::from(text));
    if path == "/token" {
        registry.counts.tokens += 1;
        return json(r#"{"token":"t","expires_in":300}"#.to_owned()).unwrap();
    }
    if !request.headers().contains_key("authorization") {
        registry.counts.challenges += 1;
        let host = request.headers()["host"].to_str().unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"bench\"");
        let denied = Response::builder().status(401).header("www-authenticate", challenge);
        return denied.body(Body::empty()).unwrap();
    }
    let place = path.trim_start_matches("/v2/");
    if let Some(repository) = place.strip_suffix("/tags/list") {
        registry.counts.lists += 1;
        let tags = (0..TAGS).map(old_tag).chain(registry.pushed.get(repository).into_iter().flatten().cloned());
        let (tags, query) = (tags.collect::<Vec<_>>(), request.uri().query().unwrap_or_default());
        // In the order of names, as CNCF Distribution 3.
        let last = query.split('&').find_map(|pair| pair.strip_prefix("last=")).unwrap_or_default();
        let mut tags: Vec<&String> = tags.iter().filter(|tag| tag.as_str() > last).collect();
        tags.sort();
        let more = tags.len() > PAGE;
        tags.truncate(PAGE);
        let mut response = json(serde_json::json!({ "name": repository, "tags": tags }).to_string()).unwrap();
        if let Some(last) = tags.last().filter(|_| more) {
            let link = format!("</v2/{repository}/tags/list?n={PAGE}&last={last}>; rel=\"next\"");
            response.headers_mut().insert("link", link.parse().unwrap());
        }
        return response;
    }
    match *request.method() {
        Method::HEAD => {
            registry.counts.heads += 1;
            let digest = Digest::of(place.as_bytes()).to_string();
            Response::builder().header("docker-content-digest", digest).body(Body::empty()).unwrap()
        }
        _ => {
            registry.counts.others += 1;
            Response::builder().status(404).body(Body::empty()).unwrap()
        }
    }
}

/// Names spread over the alphabet, before those that are pushed later.
fn old_tag(number: usize) -> String {
    Digest::of(&number.to_be_bytes()).as_str()["sha256:".len()..][..40].to_owned()
}

fn service(number: usize) -> String {
    format!("service-{number}")
}

pub async fn run() {
    println!("catch-up over {REPOSITORIES} repositories of {TAGS} tags, at a registry that wants tokens");
    let shared = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let routes = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let mut builder: Builder = crate::fleet().registry(&host).variable("TAGRELAY_LOG", "info");
    for number in 0..REPOSITORIES {
        let text = deployment(&format!("REGISTRY/uyou/{}:{}", service(number), "0".repeat(40)));
        builder = builder.file(&format!("environments/staging/{}.yaml", service(number)), &text);
    }
    let mut fleet = builder.start().await;
    println!(
        "{:>22} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7} {:>8} {:>8} {:>9}",
        "", "lists", "tokens", "401", "HEAD", "others", "budget", "time", "CPU", "peak"
    );
    round(&fleet, &shared, "the first", 0).await;
    assert_eq!(fleet.terminate(), Some(0));
    for number in 0..LOST {
        let tag = format!("{:040x}", 0xfeed_0000_usize + number);
        shared.lock().unwrap().pushed.insert(format!("uyou/{}", service(number)), vec![tag]);
    }
    fleet.start().await;
    round(&fleet, &shared, &format!("{LOST} lost webhooks"), LOST).await;
    let file = std::fs::metadata(fleet.folder().join("tagrelay.db")).unwrap().len();
    println!("the store has {:.1} MiB\n", file as f64 / f64::from(1 << 20));
}

/// Waits until every repository was listed since the start, and the missed versions are committed.
async fn round(fleet: &Fleet, shared: &Shared, title: &str, lost: usize) {
    let before = std::mem::take(&mut shared.lock().unwrap().counts);
    // Requests before this point belong to the program too, because it was just started.
    let (begun, work) = (Instant::now(), Work::of(fleet.pid()));
    let listed =
        "tagrelay_catch_up_looks_total{registry=\"HOST\",outcome=\"listed\"}".replace("HOST", fleet.registry_host());
    let committed = "tagrelay_updates_total{environment=\"staging\",outcome=\"committed\"}";
    loop {
        let text = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let figure = |name: &str| -> f64 {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
        };
        if figure(&listed) >= REPOSITORIES as f64 && figure(committed) >= lost as f64 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(600), "{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let elapsed = begun.elapsed();
    let mut counts = std::mem::take(&mut shared.lock().unwrap().counts);
    counts.lists += before.lists;
    counts.tokens += before.tokens;
    counts.challenges += before.challenges;
    counts.heads += before.heads;
    counts.others += before.others;
    let (busy, _) = Work::of(fleet.pid()).since(&work);
    // Per repository a token, a page, and a second page, because the first is full and had no link. Plus the share of
    // the next round that has begun.
    let even = (REPOSITORIES as f64 * elapsed.as_secs_f64() / PERIOD.as_secs_f64()).ceil() as usize + 1;
    let budget = 3 * (REPOSITORIES + even) + lost * PER_FOUND + CHALLENGES;
    println!(
        "{title:>22} {:>7} {:>7} {:>7} {:>6} {:>7} {budget:>7} {:>6.1} s {:>6.2} s {:>5.0} MiB",
        counts.lists,
        counts.tokens,
        counts.challenges,
        counts.heads,
        counts.others,
        elapsed.as_secs_f64(),
        busy.as_secs_f64(),
        memory_mib(fleet.pid(), "VmHWM")
    );
    assert!(counts.total() <= budget, "{counts:?} are more than {budget}");
}
