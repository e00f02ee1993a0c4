//! `file` remotes: Git's own programs, started for each conversation in an environment of their own.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::pktline::{Incoming, PacketReader};
use super::protocol::Service;
use super::stream::{Complaints, Duplex};
use crate::config_repo::error::{OpenError, RemoteError};
use crate::config_repo::settings::RemoteSettings;

/// A repository on a disk of this machine.
pub(super) struct LocalRemote {
    path: PathBuf,
}

impl LocalRemote {
    pub(super) fn new(settings: &RemoteSettings) -> Result<Self, OpenError> {
        let path = settings.url.to_file_path().map_err(|()| OpenError::Address {
            name: settings.name.clone(),
            reason: format!("`{}` names no file; write file:///absolute/path", settings.url),
        })?;
        Ok(Self { path })
    }

    pub(super) fn open(&self, service: Service) -> Result<Duplex, RemoteError> {
        // Said here, because Git's own words for it differ between versions.
        if !self.path.exists() {
            return Err(RemoteError::NotFound { reason: format!("there is no folder {}", self.path.display()) });
        }
        let mut child = self.command(service).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RemoteError::Protocol {
                reason: "file remotes need the program `git`, which is not installed".to_owned(),
            },
            _ => RemoteError::unavailable(format!("`git` cannot be started: {error}")),
        })?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(RemoteError::unavailable("`git` was started without its pipes"));
        };
        let complaints = Complaints::default();
        tokio::spawn(listen(errors, complaints.clone(), child));
        Ok(Duplex { reader: PacketReader::new(incoming(output)), writer: Box::new(input), complaints })
    }

    fn command(&self, service: Service) -> Command {
        let mut command = Command::new("git");
        command
            // No configuration but the repository's own, nothing of ours for its hooks to read.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_PROTOCOL", if service == Service::UploadPack { "version=2" } else { "version=0" })
            // Whoever wrote the address into the settings trusts the folder, whoever owns it.
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", &self.path)
            .arg(service.name().trim_start_matches("git-"))
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Keeps what the program complains of, and waits for its end so that no zombie stays.
async fn listen(mut errors: impl AsyncRead + Unpin, complaints: Complaints, mut child: Child) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        complaints.add(&buffer[..count]);
    }
    if let Err(error) = child.wait().await {
        tracing::debug!("waiting for git failed: {error}");
    }
}

fn incoming(output: impl AsyncRead + Send + Unpin + 'static) -> Incoming {
    let read = |mut output: Box<dyn AsyncRead + Send + Unpin>| async move {
        let mut buffer = vec![0; 32 << 10];
        match output.read(&mut buffer).await {
            Ok(0) => None,
            Ok(count) => {
                buffer.truncate(count);
                Some((Ok(Bytes::from(buffer)), output))
            }
            Err(error) => Some((Err(error), output)),
        }
    };
    futures_util::stream::unfold(Box::new(output) as Box<dyn AsyncRead + Send + Unpin>, read).boxed()
}
