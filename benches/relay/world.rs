//! A platform of many services with the program, a registry and a Git server, and a twin of the config repository for
//! bare pushes.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::StreamExt as _;
use tagrelay_embedded_registry::EmbeddedRegistry;

use tagrelay_test_support::fleet::{Builder, Fleet, Upstream, free_port};
use tagrelay_test_support::git_http;
use tagrelay_test_support::manifests::deployment;

/// Lines of a manifest: a Deployment with probes, resources and some settings.
pub const LINES: usize = 60;

/// Services per team folder.
const TEAM: usize = 100;

const USER: &str = "tagrelay";
const PASSWORD: &str = "git-password";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    File,
    Http,
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::File, Self::Http];

    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file://",
            Self::Http => "smart HTTP",
        }
    }
}

/// The running platform.
pub struct World {
    pub fleet: Fleet,
    pub twin: Twin,
    /// Time to fetch and read the config repository.
    pub ready_after: Duration,
    /// Stores the pushed images.
    _registry: EmbeddedRegistry,
}

/// The commit that services get in a round.
pub fn tag(round: usize) -> String {
    format!("{:040x}", 0xfeed_0000 + round)
}

/// How builds are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By build time, with two more registry requests per image.
    BuildTime,
    /// By the run number in the tag.
    Number,
}

impl Order {
    pub const ALL: [Self; 2] = [Self::Number, Self::BuildTime];

    pub fn name(self) -> &'static str {
        match self {
            Self::BuildTime => "ordered by build time",
            Self::Number => "ordered by a number in the tag",
        }
    }

    /// The tag of a round.
    pub fn tag(self, round: usize) -> String {
        match self {
            Self::BuildTime => tag(round),
            Self::Number => format!("{}-{round}", tag(round)),
        }
    }

    /// The tag before the first round.
    fn first(self) -> String {
        let sha = "0".repeat(40);
        if self == Self::BuildTime { sha } else { sha + "-0" }
    }
}

pub fn service(number: usize) -> String {
    format!("service-{number}")
}

pub fn path(environment: &str, number: usize) -> String {
    format!("environments/{environment}/team-{}/{}/deployment.yaml", number / TEAM, service(number))
}

fn manifest(registry: &str, number: usize, tag: &str) -> String {
    let name = service(number);
    deployment(&name, &format!("{registry}/uyou/{name}:{tag}"), LINES)
}

impl World {
    /// Starts a platform with a number of services, each with a manifest in staging and in production. Returns when the
    /// program has read the config repository.
    pub async fn start(transport: Transport, services: usize) -> Self {
        Self::start_with(transport, services, &[]).await
    }

    /// As [`World::start`], with environment variables for the program.
    pub async fn start_with(transport: Transport, services: usize, variables: &[(&str, &str)]) -> Self {
        Self::start_ordered(transport, services, variables, Order::BuildTime).await
    }

    /// As [`World::start_with`], with a given order of tags.
    pub async fn start_ordered(
        transport: Transport,
        services: usize,
        variables: &[(&str, &str)],
        order: Order,
    ) -> Self {
        let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let host = registry.host();
        let mut builder: Builder = crate::fleet().registry(&host).variable("TAGRELAY_LOG", "info");
        for (name, value) in variables {
            builder = builder.variable(name, value);
        }
        if order == Order::Number {
            let pattern = "(?<sha>[0-9a-f]{40})-(?<number>[0-9]+)";
            builder = builder.image(&format!("tag = {{ kind = \"regex\", pattern = '{pattern}' }}"));
            // Catch-up would find them before the webhooks arrive.
            builder = builder.server("catch_up = \"off\"");
        }
        for number in 0..services {
            let text = manifest(&host, number, &order.first());
            for environment in ["staging", "production"] {
                builder = builder.file(&path(environment, number), &text);
            }
        }
        let upstream = builder.upstream(&host);
        let address = match transport {
            Transport::File => format!("file://{}", upstream.parent().display()),
            Transport::Http => git_http::start(upstream.parent(), USER, PASSWORD),
        };
        let credentials = match transport {
            Transport::File => String::new(),
            Transport::Http => format!("username = \"{USER}\"\npassword = {{ value = \"{PASSWORD}\" }}\n"),
        };
        let twin = Twin::new(&upstream, &host, format!("{address}/twin.git"));
        let begun = Instant::now();
        let fleet =
            builder.remote(&format!("{address}/config.git"), &credentials).start_at(free_port(), upstream).await;
        let mut world = Self { fleet, twin, ready_after: Duration::ZERO, _registry: registry };
        world.ready().await;
        world.ready_after = begun.elapsed();
        world
    }

    /// Waits until the program has read the config repository.
    pub async fn ready(&self) {
        self.fleet
            .eventually("it is ready", async || {
                self.fleet.client.get(self.fleet.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
            })
            .await;
    }

    /// Pushes images to the registry: number of the service, and tag.
    pub async fn push_images(&self, images: impl IntoIterator<Item = (usize, String)>) {
        let pushes = images.into_iter().map(|(number, tag)| async move {
            self.fleet.push_image(&service(number), &tag).await;
        });
        futures_util::stream::iter(pushes).buffer_unordered(8).collect::<Vec<()>>().await;
    }

    /// Counts the services that run a tag in staging, by the files on the branch.
    pub fn running(&self, tag: &str) -> usize {
        let found = self.fleet.upstream.git(&["grep", "-h", "image: ", "main", "--", "environments/staging"]);
        found.lines().filter(|line| line.contains(tag)).count()
    }

    /// Returns the values of `/metrics`, by name with labels.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let answer = self.fleet.client.get(self.fleet.url("/metrics")).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let figure = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter(|line| !line.starts_with('#')).filter_map(figure).collect()
    }
}

/// A copy of the config repository, with prepared commits.
pub struct Twin {
    pub repository: PathBuf,
    /// The folder with the commits.
    prepared: PathBuf,
    url: String,
    registry: String,
}

impl Twin {
    fn new(upstream: &Upstream, registry: &str, url: String) -> Self {
        let (repository, prepared) = (upstream.parent().join("twin.git"), upstream.parent().join("prepared.git"));
        for copy in [&repository, &prepared] {
            run(Command::new("cp").arg("-r").args([&upstream.path(), copy]));
        }
        Self { repository, prepared, url, registry: registry.to_owned() }
    }

    /// Prepares a chain of commits that change one manifest each, as loose objects like those of `git commit`.
    pub fn prepare(&self, changes: &[(usize, String)]) -> Vec<String> {
        let mut import = git(&self.prepared);
        import.args(["-c", "fastimport.unpackLimit=1000000", "fast-import", "--quiet"]).stdin(Stdio::piped());
        let mut child = import.spawn().unwrap();
        let mut stream = std::io::BufWriter::new(child.stdin.take().unwrap());
        for (place, (number, tag)) in changes.iter().enumerate() {
            let text = manifest(&self.registry, *number, tag);
            let from = if place == 0 { "from refs/heads/main^0\n" } else { "" };
            write!(
                stream,
                "commit refs/heads/prepared\ncommitter A <a@example.com> 1700000000 +0000\ndata 8\nprepared\n{from}\
                 M 100644 inline {}\ndata {}\n{text}\n",
                path("staging", *number),
                text.len()
            )
            .unwrap();
        }
        drop(stream);
        assert!(child.wait().unwrap().success());
        let commits = run(git(&self.prepared).args(["rev-list", "--reverse", "main..prepared"]));
        commits.lines().map(str::to_owned).collect()
    }

    /// Pushes one of the commits. Credentials are sent with the first request, which saves one round trip.
    pub fn push(&self, commit: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let header = format!("http.extraHeader=Authorization: Basic {pair}");
        run(git(&self.prepared)
            .args(["-c", &header, "push", "--quiet", &self.url])
            .arg(format!("{commit}:refs/heads/main")));
    }
}

/// Git, isolated from the user's settings.
fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Polls the branch `main` of a bare repository, four times per millisecond.
pub struct Watch {
    moves: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub fn start(repository: &Path) -> Self {
        let (moves, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (Arc::clone(&moves), Arc::clone(&stop));
        let branch = repository.join("refs/heads/main");
        let mut last = std::fs::read(&branch).unwrap();
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Git replaces the file. After packing references, the file is missing until the next push.
                if let Ok(tip) = std::fs::read(&branch)
                    && tip != last
                {
                    noted.lock().unwrap().push(Instant::now());
                    last = tip;
                }
                std::thread::sleep(Duration::from_micros(250));
            }
        });
        Self { moves, stop }
    }

    /// Returns the times at which the branch moved.
    pub fn moves(&self) -> Vec<Instant> {
        self.moves.lock().unwrap().clone()
    }

    /// Waits until the branch moves, and returns the time of the first move.
    pub async fn first(&self) -> Instant {
        loop {
            if let Some(moved) = self.moves().first() {
                return *moved;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
