//! Measures an update of the config repository, next to a bare `git push` of a prepared commit and a single POST.
//!
//! `cargo bench --bench git`, or only parts of it: `cargo bench --bench git -- index updates tls burst`.
//! docs/benchmarks.md explains the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod setup;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use tagrelay::config_repo::{Authentication, ConfigRepository, Plan};
use tagrelay_secret::Secret;
use tagrelay_test_support::delay::link;
use tagrelay_test_support::fleet::deployment;
use tagrelay_test_support::git::{self, Remote};
use tagrelay_test_support::git_http::Server;
use tagrelay_test_support::git_tls::Door;
use tagrelay_test_support::measure::{Work, median, memory_mib, milliseconds};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use setup::{Setup, environment_plan, plan, prepare};

/// Measured rounds, and warm-up rounds, which open connections and learn the server's capabilities.
const ROUNDS: usize = 31;
const WARM_UP: usize = 3;

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// Round-trip time to a Git host in the same region.
const ROUND_TRIP: Duration = Duration::from_millis(20);

const USER: &str = "tagrelay";
const PASSWORD: &str = "hunter2";

/// The name of the threads that do the program's work. All other threads belong to the server.
const CLIENT: &str = "client";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo adds options such as `--bench`.
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let parts = ["index", "updates", "tls", "burst"];
    if let Some(unknown) = wanted.iter().find(|name| !parts.contains(&name.as_str())) {
        panic!("there is no part {unknown:?}; there are {}", parts.join(", "));
    }
    let index_times = IndexTimes::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(index_times.clone())).unwrap();
    let runtime = |name: &str| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name(name).enable_all().build().unwrap()
    };
    let (servers, client) = (runtime("server"), runtime(CLIENT));
    let client = client.handle();
    servers.block_on(async {
        for part in parts.into_iter().filter(|part| wanted.is_empty() || wanted.iter().any(|name| name == part)) {
            match part {
                "index" => client.spawn(index(index_times.clone())).await.unwrap(),
                "updates" => updates(client).await,
                "tls" => tls(client).await,
                _ => client.spawn(burst()).await.unwrap(),
            }
        }
    });
}

/// A remote with one manifest per service, in folders of at most 100.
fn platform(services: usize) -> Remote {
    let remote = Remote::empty();
    let mut import =
        git::command(&remote.bare()).args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stream = std::io::BufWriter::new(import.stdin.take().unwrap());
    write!(stream, "commit refs/heads/main\ncommitter A <a@example.com> 0 +0000\ndata 5\nfirst\n").unwrap();
    for service in 0..services {
        let text = deployment(&format!("uyou/service-{service}:0"));
        write!(stream, "M 100644 inline {}\ndata {}\n{text}\n", path(service), text.len()).unwrap();
    }
    drop(stream);
    assert!(import.wait().unwrap().success());
    remote
}

fn path(service: usize) -> String {
    format!("environments/staging/team-{}/service-{service}/deployment.yaml", service / 100)
}

/// How a remote is reached.
struct Way {
    /// The URL of the folder of `config.git`; `None`: on disk.
    server: Option<String>,
    authority: Option<PathBuf>,
}

impl Way {
    fn setup(&self, remote: &Remote) -> Setup {
        let Some(server) = &self.server else { return Setup::new(&remote.file_url(), Authentication::None, None) };
        let password = Secret::inline(PASSWORD.to_owned()).unwrap();
        let authentication = Authentication::Basic { username: USER.to_owned(), password };
        Setup::new(&format!("{server}/config.git"), authentication, self.authority.clone())
    }

    /// Pushes a commit with Git. Credentials are sent with the first request, which saves one round trip.
    fn bare_push(&self, remote: &Remote, url: &str, commit: &str) {
        let mut push = git::command(&remote.work());
        if self.server.is_some() {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
            push.args(["-c", &format!("http.extraHeader=Authorization: Basic {pair}")]);
        }
        if let Some(authority) = &self.authority {
            push.arg("-c").arg(format!("http.sslCAInfo={}", authority.display()));
        }
        let pushed = push.args(["push", "-q", url, &format!("{commit}:refs/heads/main")]).output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }

    /// A client for the single POST.
    fn client(&self) -> reqwest::Client {
        let mut client = reqwest::Client::builder();
        if let Some(authority) = &self.authority {
            let pem = std::fs::read(authority).unwrap();
            client = client.tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
        }
        client.build().unwrap()
    }
}

async fn updates(client: &tokio::runtime::Handle) {
    for transport in ["file", "http"] {
        heading(&format!("over {transport}"));
        let mut all = Vec::new();
        for services in SIZES {
            let remote = platform(services);
            let server = (transport == "http").then(|| Server::start(remote.root(), USER, PASSWORD).url);
            all.push(compare(client, &remote, &Way { server, authority: None }, services).await);
        }
        let growth = |of: &dyn Fn(&Figures) -> f64| of(&all[all.len() - 1]) / of(&all[0]);
        println!(
            "          from {} to {}: tagrelay x{:.2}, its processor time x{:.2}, git push x{:.2}",
            SIZES[0],
            SIZES[SIZES.len() - 1],
            growth(&|figures| median(&figures.ours)),
            growth(&|figures| figures.busy),
            growth(&|figures| median(&figures.theirs)),
        );
    }
}

async fn tls(client: &tokio::runtime::Handle) {
    heading(&format!("over https and a link with a round trip of {} ms", ROUND_TRIP.as_millis()));
    for services in SIZES {
        let remote = platform(services);
        let server = Server::start(remote.root(), USER, PASSWORD);
        let door = Door::open(&server.url).await;
        let link = link(&door.url, ROUND_TRIP).await;
        let way = Way { server: Some(link), authority: Some(door.authority()) };
        compare(client, &remote, &way, services).await;
    }
}

fn heading(way: &str) {
    println!("\nan update {way}, medians of {ROUNDS} rounds in which the three take turns to be first, milliseconds");
    println!(
        "{:>9} {:>9} {:>10} {:>9} {:>11} {:>11} {:>10}",
        "services", "tagrelay", "git push", "one POST", "to git push", "to one POST", "processor"
    );
}

#[derive(Default)]
struct Figures {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    floor: Vec<f64>,
    /// Mean processor time per update, without the server's.
    busy: f64,
}

impl Figures {
    fn print(&self, services: usize) {
        let (ours, theirs) = (median(&self.ours), median(&self.theirs));
        // On disk there is no request.
        let floor = (!self.floor.is_empty()).then(|| median(&self.floor));
        let shown = |value: Option<f64>, places| value.map_or("-".to_owned(), |value| format!("{value:.places$}"));
        println!(
            "{services:>9} {ours:>9.1} {theirs:>10.1} {:>9} {:>11.2} {:>11} {:>10.2}",
            shown(floor, 1),
            ours / theirs,
            shown(floor.map(|floor| ours / floor), 2),
            self.busy
        );
    }
}

async fn compare(client: &tokio::runtime::Handle, remote: &Remote, way: &Way, services: usize) -> Figures {
    let setup = way.setup(remote);
    let repository = setup.open().await;
    let race = Race { client, remote, way, repository, url: setup.settings.url.to_string(), http: way.client() };
    let mut figures = Figures::default();
    let mut busy = Vec::new();
    for round in 0..ROUNDS + WARM_UP {
        // Different folders each time.
        let service = (round * 7_919) % services;
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => {
                    let (time, work) = race.update(service, round).await;
                    figures.ours.push(milliseconds(time));
                    busy.push(milliseconds(work));
                }
                1 => figures.theirs.push(milliseconds(race.bare_push(service, round))),
                _ if way.server.is_none() => {}
                _ => figures.floor.push(milliseconds(race.one_post(service, round).await)),
            }
        }
    }
    for times in [&mut figures.ours, &mut figures.theirs, &mut figures.floor, &mut busy] {
        *times = times.split_off(times.len().min(WARM_UP));
    }
    figures.busy = busy.iter().sum::<f64>() / busy.len() as f64;
    figures.print(services);
    figures
}

/// Three clients that push to the same branch in turns.
struct Race<'a> {
    client: &'a tokio::runtime::Handle,
    remote: &'a Remote,
    way: &'a Way,
    repository: ConfigRepository,
    url: String,
    http: reqwest::Client,
}

impl Race<'_> {
    /// Does the program's work for one update. Returns its time and processor time.
    async fn update(&self, service: usize, round: usize) -> (Duration, Duration) {
        let repository = self.repository.clone();
        // Fetches the pushes of the others, which is not measured: no fetch precedes a push.
        self.client.spawn(async move { repository.refresh().await.unwrap() }).await.unwrap();
        // The server's processes end shortly after their answer. Wait, so that they do not disturb the measurement.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let repository = self.repository.clone();
        let work = Work::of_threads(std::process::id(), CLIENT);
        let update = async move {
            let image = format!("uyou/service-{service}");
            push(&repository, plan("staging", &[(&image, &format!("v{round}"))])).await;
        };
        let time = self.client.spawn(timed(update)).await.unwrap();
        (time, Work::of_threads(std::process::id(), CLIENT).since(&work).0)
    }

    fn bare_push(&self, service: usize, round: usize) -> Duration {
        let (_, commit) = foreign_commit(self.remote, service, &format!("g{round}"));
        let begun = Instant::now();
        tokio::task::block_in_place(|| self.way.bare_push(self.remote, &self.url, &commit));
        begun.elapsed()
    }

    async fn one_post(&self, service: usize, round: usize) -> Duration {
        let (old, commit) = foreign_commit(self.remote, service, &format!("p{round}"));
        let request = self
            .http
            .post(format!("{}/git-receive-pack", self.url))
            .basic_auth(USER, Some(PASSWORD))
            .header("Content-Type", "application/x-git-receive-pack-request")
            .body(push_body(self.remote, &old, &commit));
        let time = self.client.spawn(timed(async { request.send().await.unwrap().bytes().await.unwrap() })).await;
        assert_eq!(self.remote.tip(), commit);
        time.unwrap()
    }
}

async fn push(repository: &ConfigRepository, plan: Plan) {
    let prepared = prepare(repository, plan).await;
    assert!(!prepared.is_empty());
    repository.push(prepared).await.unwrap();
}

/// Creates a commit in the working copy that changes one tag on top of the remote's tip.
fn foreign_commit(remote: &Remote, service: usize, tag: &str) -> (String, String) {
    let work = remote.work();
    git::git(&work, &["fetch", "-q", "origin", "main"]);
    let old = git::git(&work, &["rev-parse", "FETCH_HEAD"]).trim().to_owned();
    let text = deployment(&format!("uyou/service-{service}:{tag}"));
    let blob = git::git_with_input(&work, &["hash-object", "-w", "--stdin"], text.as_bytes());
    git::git(&work, &["read-tree", "FETCH_HEAD"]);
    git::git(&work, &["update-index", "--cacheinfo", &format!("100644,{blob},{}", path(service))]);
    let tree = git::git(&work, &["write-tree"]);
    let commit = git::git(&work, &["commit-tree", "-p", &old, "-m", "foreign", tree.trim()]);
    (old, commit.trim().to_owned())
}

/// The body of the request with which Git would push the commit.
fn push_body(remote: &Remote, old: &str, new: &str) -> Vec<u8> {
    let command = format!("{old} {new} refs/heads/main\0 report-status side-band-64k");
    let mut body = format!("{:04x}{command}0000", command.len() + 4).into_bytes();
    let mut packing = git::command(&remote.work())
        .args(["pack-objects", "--revs", "--thin", "--stdout", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    write!(packing.stdin.take().unwrap(), "{new}\n^{old}\n").unwrap();
    body.extend(packing.wait_with_output().unwrap().stdout);
    body
}

/// Measures the index of a large repository: first build, restart, and after small commits.
async fn index(times: IndexTimes) {
    const SERVICES: usize = 30_000;
    let remote = platform(SERVICES);
    let setup = Way { server: None, authority: None }.setup(&remote);
    println!("\n{SERVICES} manifests over file, milliseconds: all of it, and the index alone");
    let show = |what: &str, all: Duration, index: f64| println!("{what:>32} {:>9.1} {index:>9.1}", milliseconds(all));
    let repository = setup.open().await;
    let first = timed(repository.refresh()).await;
    show("first fetch and index", first, times.take()[0]);
    println!("{:>32} {:>9.1}", "peak memory in MiB", memory_mib(std::process::id(), "VmHWM"));
    drop(repository);
    for _ in 0..3 {
        let repository = setup.open().await;
        let restart = timed(repository.refresh()).await;
        assert_eq!(repository.snapshot().unwrap().environments["staging"].sites.len(), SERVICES);
        show("index after a restart", restart, times.take()[0]);
    }
    let repository = setup.open().await;
    repository.refresh().await.unwrap();
    times.take();
    let (mut all, mut index) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let changed = (0..5).map(|number| (number * 5_000 + round * 131) % SERVICES);
        let changed: Vec<(String, String)> =
            changed.map(|service| (path(service), deployment(&format!("uyou/service-{service}:{round}")))).collect();
        let changed: Vec<(&str, &str)> = changed.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        remote.commit("five files", &changed);
        all.push(timed(repository.refresh()).await);
        index.push(times.take()[0]);
    }
    let all: Vec<f64> = all.into_iter().map(milliseconds).collect();
    show("after a commit to 5 files", Duration::from_secs_f64(median(&all) / 1e3), median(&index));
    println!("{:>32} {:>9.1}", "peak memory in MiB", memory_mib(std::process::id(), "VmHWM"));
}

/// Time spent on the index, in milliseconds, from the log.
#[derive(Debug, Clone, Default)]
struct IndexTimes(Arc<Mutex<Vec<f64>>>);

impl IndexTimes {
    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: tracing::Subscriber> Layer<S> for IndexTimes {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Seconds(bool, f64);
        impl Visit for Seconds {
            fn record_f64(&mut self, field: &Field, value: f64) {
                if field.name() == "seconds" {
                    self.1 = value;
                }
            }

            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == "the index is brought up to date";
            }
        }
        if !event.metadata().target().starts_with("tagrelay") {
            return;
        }
        let mut seconds = Seconds(false, 0.0);
        event.record(&mut seconds);
        if seconds.0 {
            self.0.lock().unwrap().push(seconds.1 * 1e3);
        }
    }
}

/// Measures 1,000 updates at once.
async fn burst() {
    let remote = platform(1_000);
    let server = Server::start(remote.root(), USER, PASSWORD);
    let setup = Way { server: Some(server.url), authority: None }.setup(&remote);
    let repository = setup.open().await;
    println!(
        "\n1,000 updates of 1,000 services in one commit over http, milliseconds: all of it, and what is done here"
    );
    for round in 0..5 {
        repository.refresh().await.unwrap();
        let images: Vec<String> = (0..1_000).map(|service| format!("uyou/service-{service}")).collect();
        let tag = format!("burst{round}");
        let wanted: Vec<(&str, &str)> = images.iter().map(|image| (image.as_str(), tag.as_str())).collect();
        let plan = Plan { environments: vec![environment_plan("staging", &wanted)] };
        let begun = Instant::now();
        let prepared = prepare(&repository, plan).await;
        let preparing = begun.elapsed();
        repository.push(prepared).await.unwrap();
        println!("{:>9.1} {:>9.1}", milliseconds(begun.elapsed()), milliseconds(preparing));
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let begun = Instant::now();
    work.await;
    begun.elapsed()
}
