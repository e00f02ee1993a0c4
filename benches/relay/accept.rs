//! Measures accepted webhooks per second; each is on disk before it is answered.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderValue, StatusCode, header};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tagrelay_embedded_registry::EmbeddedRegistry;

use tagrelay_test_support::fleet::Fleet;
use tagrelay_test_support::measure::{Work, median, milliseconds, quantile};
use tagrelay_test_support::wire::{Connection, webhook_of_size};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// Sizes of requests, in bytes: one event, and a large envelope.
const BODIES: [usize; 2] = [1024, 64 * 1024];

/// Services that the events concern, if the pipeline processes them.
const SERVICES: usize = 100;

/// The argument with which the benchmark starts itself as a reference server.
pub const PEER: &str = "peer-server";

pub async fn run() {
    println!("Accepting webhooks: durable before the answer, beside servers in processes of their own that do");
    println!("nothing, or one SQLite commit with a flush for each request. Every event is new. Interleaved rounds of");
    println!("{} s, medians of {ROUNDS}; latencies in milliseconds as the sender sees them.", ROUND.as_secs());
    println!("`CPU us` is the processor time of the server's process for each request, in microseconds.");
    println!(
        "`stored`: the registry gives no answer, so that storing is all the work there is. `pipeline`: meanwhile all"
    );
    println!("events are confirmed by the registry and written to the branch, on the same processors.");
    let folder = tempfile::tempdir().unwrap();
    let nothing = Peer::start("nothing", folder.path());
    let flushing = Peer::start("commit", folder.path());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stored = fleet(&silent.local_addr().unwrap().to_string()).await;
    let registry =
        EmbeddedRegistry::start_behind("127.0.0.1:0".parse().unwrap(), None, |_| every_image()).await.unwrap();
    let pipeline = fleet(&registry.host()).await;
    let targets = [
        Target::new("an axum handler that does nothing", nothing.child.id(), nothing.address, "registry.test"),
        Target::new("a SQLite commit for each request", flushing.child.id(), flushing.address, "registry.test"),
        Target::new("tagrelay, stored", stored.pid(), stored.address(), stored.registry_host()),
        Target::new("tagrelay, pipeline", pipeline.pid(), pipeline.address(), pipeline.registry_host()),
    ];
    println!(
        "\n{:>6} {:>11} {:<34} {:>9} {:>8} {:>8} {:>11} {:>11} {:>9}",
        "body", "connections", "", "per sec.", "p50", "p99", "of nothing", "of commit", "CPU us"
    );
    for (bytes, connections) in BODIES.into_iter().flat_map(|bytes| CONNECTIONS.map(|number| (bytes, number))) {
        let mut results: Vec<Vec<Round>> = targets.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            // The order rotates.
            for place in (0..targets.len()).map(|place| (place + round) % targets.len()) {
                results[place].push(targets[place].load(connections, bytes).await);
            }
        }
        let middle =
            |rounds: &[Round], figure: fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        let rate = |rounds: &[Round]| middle(rounds, |round| round.per_second);
        for (target, rounds) in targets.iter().zip(&results) {
            println!(
                "{bytes:>6} {connections:>11} {:<34} {:>9.0} {:>8.2} {:>8.2} {:>11.3} {:>11.2} {:>9.0}",
                target.name,
                rate(rounds),
                middle(rounds, |round| round.p50),
                middle(rounds, |round| round.p99),
                rate(rounds) / rate(&results[0]),
                rate(rounds) / rate(&results[1]),
                middle(rounds, |round| round.microseconds),
            );
        }
    }
    println!();
}

async fn fleet(registry_host: &str) -> Fleet {
    let mut builder = crate::fleet().registry(registry_host).variable("TAGRELAY_LOG", "info");
    for number in 0..SERVICES {
        builder = builder.service(&format!("service-{number}"));
    }
    let fleet = builder.start().await;
    fleet
        .eventually("it is ready", async || {
            fleet.client.get(fleet.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    fleet
}

/// A registry with every image.
fn every_image() -> Router {
    let digest = HeaderValue::from_str(tagrelay_image::Digest::of(b"any").as_str()).unwrap();
    Router::new().fallback(async move || [("docker-content-digest", digest)])
}

struct Target {
    name: &'static str,
    process: u32,
    address: SocketAddr,
    registry_host: String,
    /// Counts events over all rounds.
    next: Arc<AtomicUsize>,
}

struct Round {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Processor time of the server per request.
    microseconds: f64,
}

impl Target {
    fn new(name: &'static str, process: u32, address: SocketAddr, registry_host: &str) -> Self {
        Self { name, process, address, registry_host: registry_host.to_owned(), next: Arc::default() }
    }

    async fn load(&self, connections: usize, bytes: usize) -> Round {
        let mut senders = tokio::task::JoinSet::new();
        let before = Work::of(self.process);
        let begun = Instant::now();
        for _ in 0..connections {
            let (address, host, next) = (self.address, self.registry_host.clone(), Arc::clone(&self.next));
            senders.spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut times = Vec::new();
                while begun.elapsed() < ROUND {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let image = format!("{host}/uyou/service-{}:{number:040x}", number % SERVICES);
                    let request = webhook_of_size(&image, bytes);
                    let sent = Instant::now();
                    assert_eq!(connection.send(&request).await, 202);
                    times.push(milliseconds(sent.elapsed()));
                }
                times
            });
        }
        let mut times = Vec::new();
        while let Some(sender) = senders.join_next().await {
            times.extend(sender.unwrap());
        }
        let (busy, _) = Work::of(self.process).since(&before);
        Round {
            microseconds: busy.as_secs_f64() * 1e6 / times.len() as f64,
            per_second: times.len() as f64 / begun.elapsed().as_secs_f64(),
            p50: median(&times),
            p99: quantile(&times, 0.99),
        }
    }
}

/// A reference server. It is stopped on drop.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    fn start(kind: &str, folder: &std::path::Path) -> Self {
        use std::io::BufRead as _;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([PEER, kind])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The main function of the reference server.
pub async fn serve(kind: &str) {
    let router = match kind {
        "nothing" => Router::new().route("/webhooks/ci", post(async |_: Bytes| accepted())),
        _ => Router::new().route("/webhooks/ci", post(commit)).with_state(database().await),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let listener = axum::serve::ListenerExt::tap_io(listener, |connection| connection.set_nodelay(true).unwrap());
    axum::serve(listener, router).await.unwrap();
}

/// Has the length of Tagrelay's answer.
fn accepted() -> Response {
    let text = "{\"events\":[],\"ignored\":[]}".to_owned() + &" ".repeat(150);
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn database() -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename("commits.db")
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(60))
        .connect_with(options)
        .await
        .unwrap();
    sqlx::query("CREATE TABLE events (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")
        .execute(&pool)
        .await
        .unwrap();
    pool
}

async fn commit(State(pool): State<SqlitePool>, body: Bytes) -> Response {
    sqlx::query("INSERT INTO events (body) VALUES (?)").bind(&body[..]).execute(&pool).await.unwrap();
    accepted()
}
