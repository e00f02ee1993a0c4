//! The demo's registry: the embedded one, or an installed CNCF Distribution.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;
use url::Url;

use super::RegistryChoice;
use super::workspace::{Workspace, write_private};
use tagrelay_embedded_registry::{EmbeddedRegistry, NotifyEndpoint};

/// How long `docker-registry` may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running registry.
pub(super) enum Peer {
    Embedded(EmbeddedRegistry),
    Docker(DockerRegistry),
}

impl Peer {
    /// Starts a registry on a local port (0: a free one). It sends no webhooks yet.
    pub(super) async fn start(choice: RegistryChoice, port: u16, workspace: &Workspace) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(match choice {
            RegistryChoice::Embedded => {
                let registry = EmbeddedRegistry::start(address, None).await;
                Self::Embedded(registry.with_context(|| format!("the registry cannot listen on {address}"))?)
            }
            RegistryChoice::DockerRegistry => Self::Docker(DockerRegistry::start(workspace.path(), address).await?),
        })
    }

    /// Returns the host, as in image references.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Embedded(registry) => registry.host(),
            Self::Docker(registry) => registry.address.to_string(),
        }
    }

    pub(super) fn description(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded in this program",
            Self::Docker(_) => "docker-registry, CNCF Distribution",
        }
    }

    /// Sends a webhook to `url` for every push from now on, with `token` as bearer token.
    pub(super) async fn notify(&mut self, url: Url, token: &str) -> anyhow::Result<()> {
        match self {
            Self::Embedded(registry) => {
                let mut token = HeaderValue::from_str(&format!("Bearer {token}"))?;
                token.set_sensitive(true);
                registry.notify(NotifyEndpoint { url, headers: HeaderMap::from_iter([(header::AUTHORIZATION, token)]) })
            }
            Self::Docker(registry) => registry.restart_notifying(&url, token).await,
        }
    }

    pub(super) async fn stop(self) {
        match self {
            Self::Embedded(registry) => registry.stop().await,
            Self::Docker(mut registry) => registry.end().await,
        }
    }
}

/// The process `docker-registry`, with storage and log in the temporary folder. Killed on drop.
pub(super) struct DockerRegistry {
    folder: PathBuf,
    address: SocketAddr,
    process: Child,
}

impl DockerRegistry {
    async fn start(folder: &Path, listen: SocketAddr) -> anyhow::Result<Self> {
        let settings = settings(folder, listen, None)?;
        let (process, address) = spawn(folder, &settings).await?;
        Ok(Self { folder: folder.to_owned(), address, process })
    }

    /// Restarts it with the webhook on the same address and storage: it reads its configuration only at the start.
    async fn restart_notifying(&mut self, url: &Url, token: &str) -> anyhow::Result<()> {
        self.end().await;
        let settings = settings(&self.folder, self.address, Some((url, token)))?;
        (self.process, self.address) = spawn(&self.folder, &settings).await?;
        Ok(())
    }

    async fn end(&mut self) {
        // Fails if it has ended already.
        drop(self.process.kill().await);
    }
}

/// Returns the configuration (<https://distribution.github.io/distribution/about/configuration/>).
fn settings(folder: &Path, listen: SocketAddr, notify: Option<(&Url, &str)>) -> anyhow::Result<String> {
    let storage = folder.join("registry");
    let storage = storage.to_str().context("the temporary folder is not UTF-8")?.replace('\'', "''");
    let mut text = format!(
        "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: '{storage}'}}}}\n\
         http:\n  addr: '{listen}'\n  secret: one-process-needs-none\n"
    );
    if let Some((url, token)) = notify {
        text.push_str(&format!(
            "notifications:\n  endpoints:\n    - name: tagrelay\n      url: '{url}'\n      \
             headers: {{Authorization: ['Bearer {token}']}}\n      timeout: 5s\n      threshold: 3\n      \
             backoff: 200ms\n      ignore: {{actions: [pull]}}\n"
        ));
    }
    Ok(text)
}

async fn spawn(folder: &Path, settings: &str) -> anyhow::Result<(Child, SocketAddr)> {
    let path = folder.join("docker-registry.yml");
    write_private(&path, settings)?;
    let mut command = Command::new("docker-registry");
    // Variables named REGISTRY_… would override the file.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.kill_on_drop(true).spawn().context(
        "docker-registry cannot be started: install it (Debian: apt-get install docker-registry), or leave out \
         `--registry docker-registry` to use the embedded registry",
    )?;
    let log = process.stderr.take().context("docker-registry has no standard error")?;
    let (said, heard) = oneshot::channel();
    let copy = folder.join("docker-registry.log");
    tokio::spawn(follow(BufReader::new(log).lines(), copy.clone(), said));
    match tokio::time::timeout(START_LIMIT, heard).await {
        Ok(Ok(address)) => Ok((process, address)),
        Ok(Err(_)) => bail!("docker-registry failed at the start: {}", last_lines(&copy)),
        Err(_) => bail!("docker-registry did not start within {} s", START_LIMIT.as_secs()),
    }
}

/// Copies the log of the process, and sends its address once it is in the log.
async fn follow(mut log: Lines<BufReader<ChildStderr>>, copy: PathBuf, said: oneshot::Sender<SocketAddr>) {
    let mut said = Some(said);
    let mut copy = tokio::fs::OpenOptions::new().create(true).append(true).open(copy).await.ok();
    while let Ok(Some(line)) = log.next_line().await {
        if let Some(copy) = &mut copy {
            // Errors are ignored: the process would block if its output were not read.
            drop(copy.write_all(format!("{line}\n").as_bytes()).await);
            drop(copy.flush().await);
        }
        if let Some(address) = listening_on(&line)
            && let Some(said) = said.take()
        {
            // Fails if the start timed out.
            let _ = said.send(address);
        }
    }
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split(['"', ',', ' ']).next()?.parse().ok()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_from_the_log() {
        let line = r#"time="2026-11-23T08:00:00Z" level=info msg="listening on 127.0.0.1:41873" version=2.8.2"#;
        assert_eq!(listening_on(line), Some("127.0.0.1:41873".parse().unwrap()));
        assert_eq!(listening_on("level=info msg=\"redis not configured\""), None);
    }
}
