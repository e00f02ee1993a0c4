//! `file` remotes: a child process of Git per conversation, with its own environment.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::address::Address;
use super::duplex::{Duplex, Stderr};
use super::pktline::{Incoming, PacketReader};
use super::protocol::Service;
use crate::error::{AddressError, RemoteError};

/// A repository in a local folder.
pub(super) struct LocalRemote {
    path: PathBuf,
}

impl LocalRemote {
    pub(super) fn new(address: &Address) -> Result<Self, AddressError> {
        let invalid = |()| {
            AddressError::Url(format!("`{}` is not the URL of a folder; write file:///absolute/path", address.url))
        };
        Ok(Self { path: address.url.to_file_path().map_err(invalid)? })
    }

    pub(super) fn open(&self, service: Service) -> Result<Duplex, RemoteError> {
        // Checked here, because Git's message differs between versions.
        if !self.path.exists() {
            return Err(RemoteError::NotFound { reason: format!("the folder {} does not exist", self.path.display()) });
        }
        let mut child = self.command(service).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RemoteError::Protocol {
                reason: "a file URL needs the program `git`, which is not installed".to_owned(),
            },
            _ => RemoteError::unavailable(format!("`git` cannot be started: {error}")),
        })?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(RemoteError::unavailable("`git` was started without its pipes"));
        };
        let stderr = Stderr::default();
        tokio::spawn(collect(errors, stderr.clone(), child));
        Ok(Duplex { reader: PacketReader::new(incoming(output)), writer: Box::new(input), stderr })
    }

    fn command(&self, service: Service) -> Command {
        let mut command = Command::new("git");
        command
            // Git reads only the repository's configuration, and its hooks see none of our environment.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_PROTOCOL", if service == Service::UploadPack { "version=2" } else { "version=0" })
            // A folder named in the settings is trusted, even if another user owns it.
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

/// Collects the standard error of a child process, and reaps the process.
async fn collect(mut errors: impl AsyncRead + Unpin, stderr: Stderr, mut child: Child) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        stderr.add(&buffer[..count]);
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
