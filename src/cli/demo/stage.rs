//! Starts and stops registry, config repository and server.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use tagrelay_embedded_registry::push::{TinyImage, push};
use tokio::sync::mpsc;
use url::Url;

use super::api::{Client, MessageStream};
use super::peer::Peer;
use super::platform::{self, Platform};
use super::screen::Screen;
use super::workspace::{API_TOKEN, CI_RECEIVER, REGISTRY_RECEIVER, Workspace};
use super::{Options, within};
use crate::api::{CellView, EnvironmentView};
use crate::cli::output::{Cell, Table, short};
use crate::server::{self, Server};
use crate::settings::Settings;
use tagrelay_image::{CommitSha, Digest, Repository, Tag};

/// How long the server may take to read the config repository.
const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(20);

/// The running demo.
pub(super) struct Stage<'a> {
    pub(super) screen: Screen,
    pub(super) workspace: &'a Workspace,
    pub(super) registry: Peer,
    pub(super) platform: Platform,
    pub(super) server: Server,
    pub(super) api: Client,
    pub(super) stream: MessageStream,
    /// An image in the registry that was not announced to the server.
    pub(super) unannounced: (Repository, Tag),
    /// The lines that a person enters; `None`: the tour runs through.
    enters: Option<mpsc::Receiver<()>>,
}

/// Reads lines from standard input. A thread of its own, because nothing can interrupt the reading.
fn enters() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) && sender.blocking_send(()).is_ok() {
            line.clear();
        }
    });
    receiver
}

impl<'a> Stage<'a> {
    /// Starts everything. The registry has the images of the manifests.
    pub(super) async fn set(options: &Options, workspace: &'a Workspace, screen: Screen) -> anyhow::Result<Self> {
        let mut registry = Peer::start(options.registry, options.registry_port, workspace).await?;
        let host = registry.host();
        let platform = create_platform(workspace, &host).await?;
        let unannounced = fill(&platform.images, &host).await?;

        let registry_secret = workspace.make_secret(REGISTRY_RECEIVER)?;
        workspace.make_secret(CI_RECEIVER)?;
        workspace.make_secret(API_TOKEN)?;
        workspace.write_settings(&host, options.port)?;
        let settings = Settings::load(&workspace.settings()).map_err(|faults| anyhow!("{faults}"))?;
        let server = server::start(settings, None).await?;
        let base = Url::parse(&format!("http://{}/", server.address()))?;
        let api = Client::new(base, workspace)?;
        within(READY_LIMIT, "the server to read the config repository", until_ready(&api)).await?;
        let stream = api.stream().await?;
        registry.notify(api.base().join(&format!("webhooks/{REGISTRY_RECEIVER}"))?, &registry_secret).await?;
        let is_watched = !options.once && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let enters = is_watched.then(enters);
        Ok(Self { screen, workspace, registry, platform, server, api, stream, unannounced, enters })
    }

    /// Begins the next step. On a terminal, waits for Enter before all but the first.
    pub(super) async fn begin(&mut self, title: &str, why: &str) -> anyhow::Result<()> {
        if let Some(enters) = self.enters.as_mut().filter(|_| self.screen.has_begun()) {
            self.screen.prompt("Enter: the next step, Ctrl-C: the end")?;
            // A closed standard input lets the rest run through.
            let _ = enters.recv().await;
        }
        Ok(self.screen.step(title, why)?)
    }

    /// Stops everything.
    pub(super) async fn strike(self) {
        let Self { registry, server, stream, api, .. } = self;
        // The server would wait for these connections.
        drop((stream, api));
        registry.stop().await;
        server.stop().await;
    }
}

async fn create_platform(workspace: &Workspace, host: &str) -> anyhow::Result<Platform> {
    let (path, host) = (workspace.config_repository(), host.to_owned());
    tokio::task::spawn_blocking(move || platform::create(&path, &host)).await?
}

async fn until_ready(api: &Client) -> anyhow::Result<()> {
    while !api.environments().await?.iter().all(|environment| environment.tip.is_some()) {
        tokio::time::sleep(READY_PAUSE).await;
    }
    Ok(())
}

/// Pushes the images of the manifests, and one more, which it returns.
async fn fill(images: &BTreeSet<(Repository, Tag)>, host: &str) -> anyhow::Result<(Repository, Tag)> {
    for (repository, tag) in images {
        build_and_push(repository, tag).await?;
    }
    let unannounced =
        (Repository::new(host, "uyou/order-service")?, made_up_commit("the next commit of order-service")?);
    build_and_push(&unannounced.0, &unannounced.1).await?;
    Ok(unannounced)
}

/// Pushes an image as a CI job that built the commit `tag`.
pub(super) async fn build_and_push(repository: &Repository, tag: &Tag) -> anyhow::Result<Digest> {
    let text = format!("{} built from {tag}\n", repository.name());
    let image = TinyImage { revision: Some(tag.to_string()), created: Timestamp::now(), text };
    push(repository, tag, &image, None).await.with_context(|| format!("{repository}:{tag} cannot be pushed"))
}

/// Returns a random commit id.
pub(super) fn made_up_commit(what: &str) -> anyhow::Result<Tag> {
    use sha1::Digest as _;
    let sha: CommitSha = hex::encode(sha1::Sha1::digest(format!("{what} {}", ulid::Ulid::new()))).parse()?;
    Ok(sha.as_str().parse()?)
}

/// Returns a table of the versions that the environments run.
pub(super) async fn matrix(api: &Client) -> anyhow::Result<Table> {
    let environments = api.environments().await?;
    let running = environments.iter().flat_map(|environment| &environment.repositories);
    let repositories: BTreeSet<&str> = running.map(|running| running.repository.as_str()).collect();
    let names = environments.iter().map(|environment| environment.name.as_str());
    let mut table = Table::new(&std::iter::once("").chain(names).collect::<Vec<_>>());
    for repository in repositories {
        let cells = environments.iter().map(|environment| running_in(environment, repository));
        let cells = cells.map(|running| running.map_or_else(|| "-".to_owned(), describe));
        let row = std::iter::once(name_of(repository).to_owned()).chain(cells);
        table.row(row.map(|cell| Cell::plain(&cell)).collect());
    }
    Ok(table)
}

/// Returns the cell of a repository in an environment.
pub(super) fn running_in<'e>(environment: &'e EnvironmentView, repository: &str) -> Option<&'e CellView> {
    environment.repositories.iter().find(|running| running.repository == repository)
}

fn describe(running: &CellView) -> String {
    let versions: Vec<String> = running.versions.iter().map(short).collect();
    let mut text = versions.join(" and ");
    if let Some(cause) = &running.cause {
        text.push_str(&format!(" by {cause}"));
    }
    if !running.holds.is_empty() {
        text.push_str(", held");
    }
    text
}

/// Returns the last component of a repository.
pub(super) fn name_of(repository: &str) -> &str {
    repository.rsplit('/').next().unwrap_or(repository)
}
