//! From the wanted version to the moved branch, beside a bare `git push` of one prepared commit and beside the one
//! request that cannot be avoided. Prints medians and ratios; `make bench` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/git.rs"]
mod git;
#[path = "../tests/support/git_fleet.rs"]
mod git_fleet;
#[path = "../tests/support/git_http.rs"]
mod git_http;

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use git::{Remote, git as run_git};
use git_fleet::{Fleet, deployment, environment_plan, plan, prepare};
use git_http::Server;
use tagrelay::config_repo::{Authentication, ConfigRepository, Plan};
use tagrelay::secret::Secret;

/// Updates of each kind in each setting.
const ROUNDS: usize = 25;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        index().await;
        for transport in ["file", "http"] {
            println!("\nper update over {transport}, median of {ROUNDS}, milliseconds");
            println!(
                "{:>9} {:>9} {:>10} {:>9} {:>11} {:>11}",
                "services", "tagrelay", "git push", "one POST", "to git push", "to one POST"
            );
            for services in [10, 1_000, 10_000] {
                updates(transport, services).await;
            }
        }
        burst().await;
    });
}

/// A remote with one manifest a service, in folders of at most a hundred.
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

fn fleet(transport: &str, remote: &Remote) -> Fleet {
    match transport {
        "file" => Fleet::new(&remote.file_url()),
        _ => {
            let server = Server::start(remote.root(), "tagrelay", "hunter2");
            let password = Secret::inline("hunter2".to_owned()).unwrap();
            Fleet::new(&format!("{}/config.git", server.url))
                .with_authentication(Authentication::Basic { username: "tagrelay".to_owned(), password })
        }
    }
}

async fn updates(transport: &str, services: usize) {
    let remote = platform(services);
    let fleet = fleet(transport, &remote);
    let repository = fleet.open().await;
    let work = remote.work();
    let mut pushes = url::Url::parse(fleet.settings.url.as_str()).unwrap();
    if transport == "http" {
        pushes.set_username("tagrelay").unwrap();
        pushes.set_password(Some("hunter2")).unwrap();
    }
    let client = reqwest::Client::new();
    let (mut ours, mut theirs, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 2 {
        repository.refresh().await.unwrap();
        let image = format!("uyou/service-{}", round % services);
        ours.push(timed(push(&repository, plan("staging", &[(&image, &format!("v{round}"))]))).await);

        let (_, commit) = foreign_commit(&remote, round % services, &format!("g{round}"));
        let begin = Instant::now();
        run_git(&work, &["push", "-q", pushes.as_str(), &format!("{commit}:refs/heads/main")]);
        theirs.push(begin.elapsed());

        let (old, commit) = foreign_commit(&remote, round % services, &format!("p{round}"));
        if transport == "http" {
            let body = push_body(&remote, &old, &commit);
            let request = client
                .post(format!("{}/git-receive-pack", fleet.settings.url))
                .basic_auth("tagrelay", Some("hunter2"))
                .header("Content-Type", "application/x-git-receive-pack-request")
                .body(body);
            floor.push(timed(async { request.send().await.unwrap().bytes().await.unwrap() }).await);
            assert_eq!(remote.tip(), commit);
        }
    }
    // The first of each makes connections and learns what the server can do.
    let [ours, theirs, floor] = [ours, theirs, floor].map(|mut times| median(&mut times.split_off(times.len().min(2))));
    let per = |other: Option<f64>| other.map_or("-".to_owned(), |other| format!("{:.2}", ours.unwrap() / other));
    let shown = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1}"));
    println!(
        "{services:>9} {:>9} {:>10} {:>9} {:>11} {:>11}",
        shown(ours),
        shown(theirs),
        shown(floor),
        per(theirs),
        per(floor)
    );
}

async fn push(repository: &ConfigRepository, plan: Plan) {
    let prepared = prepare(repository, plan).await;
    assert!(!prepared.is_empty());
    repository.push(prepared).await.unwrap();
}

/// Makes, in the working copy's object database, a commit on top of the remote's that changes one tag.
fn foreign_commit(remote: &Remote, service: usize, tag: &str) -> (String, String) {
    let work = remote.work();
    run_git(&work, &["fetch", "-q", "origin", "main"]);
    let old = run_git(&work, &["rev-parse", "FETCH_HEAD"]).trim().to_owned();
    let text = deployment(&format!("uyou/service-{service}:{tag}"));
    let blob = git::git_with_input(&work, &["hash-object", "-w", "--stdin"], text.as_bytes());
    run_git(&work, &["read-tree", "FETCH_HEAD"]);
    run_git(&work, &["update-index", "--cacheinfo", &format!("100644,{blob},{}", path(service))]);
    let tree = run_git(&work, &["write-tree"]);
    let commit = run_git(&work, &["commit-tree", "-p", &old, "-m", "foreign", tree.trim()]);
    (old, commit.trim().to_owned())
}

/// The body of the request with which Git itself would push the commit, with no word too many.
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

/// The first look at a large repository, and a second one after a small commit.
async fn index() {
    const SERVICES: usize = 30_000;
    let remote = platform(SERVICES);
    let fleet = fleet("file", &remote);
    let repository = fleet.open().await;
    let first = timed(repository.refresh()).await;
    drop(repository);
    let repository = fleet.open().await;
    let restart = timed(repository.refresh()).await;
    assert_eq!(repository.snapshot().unwrap().environments["staging"].sites.len(), SERVICES);
    let changed: Vec<(String, String)> = (0..5)
        .map(|number| (path(number * 5_000), deployment(&format!("uyou/service-{}:9", number * 5_000))))
        .collect();
    let changed: Vec<(&str, &str)> = changed.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    remote.commit("five files", &changed);
    let second = timed(repository.refresh()).await;
    println!(
        "{SERVICES} manifests over file: first fetch and index {} ms, index after a restart {} ms, ",
        ms(first),
        ms(restart)
    );
    println!("fetch and index of a commit to 5 files {} ms, peak memory {} MiB", ms(second), peak_memory_mib());
}

/// A thousand updates at once.
async fn burst() {
    let remote = platform(1_000);
    let fleet = fleet("http", &remote);
    let repository = fleet.open().await;
    repository.refresh().await.unwrap();
    let images: Vec<String> = (0..1_000).map(|service| format!("uyou/service-{service}")).collect();
    let wanted: Vec<(&str, &str)> = images.iter().map(|image| (image.as_str(), "burst")).collect();
    let plan = Plan { environments: vec![environment_plan("staging", &wanted)] };
    let begin = Instant::now();
    let prepared = prepare(&repository, plan).await;
    let preparing = begin.elapsed();
    repository.push(prepared).await.unwrap();
    println!(
        "\n1000 updates of 1000 services in one commit over http: {} ms, of which {} ms here",
        ms(begin.elapsed()),
        ms(preparing)
    );
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let begin = Instant::now();
    work.await;
    begin.elapsed()
}

fn median(times: &mut [Duration]) -> Option<f64> {
    times.sort_unstable();
    times.get(times.len() / 2).map(|time| time.as_secs_f64() * 1e3)
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// The most memory that this process has had, from `/proc/self/status`.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
