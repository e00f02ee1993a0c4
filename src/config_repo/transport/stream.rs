//! Git's programs at the end of a pair of pipes: a child process, or a channel of an SSH connection.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::local::LocalRemote;
use super::pktline::{PacketReader, put_flush};
use super::protocol::{self, Advertisement, Capabilities, ReadError, References, Service};
use super::report::{self, Report};
use super::ssh::SshRemote;
use super::{Push, patience_for};
use crate::config_repo::error::{OpenError, PushError, RemoteError};
use crate::config_repo::object::CommitId;
use crate::config_repo::pack::Deltas;
use crate::config_repo::receive::PackReceiver;
use crate::config_repo::settings::RemoteSettings;

/// What a program wrote to its standard error; it explains an end that nothing else explains.
#[derive(Clone, Default)]
pub(super) struct Complaints(Arc<Mutex<Vec<u8>>>);

impl Complaints {
    pub(super) fn add(&self, text: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = 4096_usize.saturating_sub(kept.len());
        kept.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn text(&self) -> String {
        super::readable(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says why the conversation broke off, in the program's own words where it had any.
    pub(super) async fn explain(&self, error: ReadError) -> RemoteError {
        let error = match error {
            ReadError::Said(error) => return error,
            ReadError::Lost(error) => error,
        };
        if error.kind() == io::ErrorKind::UnexpectedEof && self.text().is_empty() {
            // Both pipes end together, and the words may still be on their way.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let said = self.text();
        if let Some(refusal) = super::refusal(&said) {
            return refusal;
        }
        if error.kind() == io::ErrorKind::InvalidData {
            return RemoteError::Protocol { reason: error.to_string() };
        }
        RemoteError::unavailable(if said.is_empty() { error.to_string() } else { said })
    }
}

/// A running program of Git.
pub(super) struct Duplex {
    pub(super) reader: PacketReader,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) complaints: Complaints,
}

impl Duplex {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        within(patience_for(bytes.len()), sending).await
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} seconds", patience.as_secs())))
    })
}

/// A remote whose programs are reached through pipes.
pub(super) enum StreamRemote {
    Local(LocalRemote),
    Ssh(Box<SshRemote>),
}

impl StreamRemote {
    pub(super) fn local(settings: &RemoteSettings) -> Result<Self, OpenError> {
        Ok(Self::Local(LocalRemote::new(settings)?))
    }

    pub(super) fn ssh(settings: &RemoteSettings) -> Result<Self, OpenError> {
        Ok(Self::Ssh(Box::new(SshRemote::new(settings)?)))
    }

    async fn open(&self, service: Service) -> Result<Duplex, RemoteError> {
        match self {
            Self::Local(local) => local.open(service),
            Self::Ssh(ssh) => ssh.open(service).await,
        }
    }

    pub(super) async fn read(&self, branch: &str, reference: &str) -> Result<StreamReading, RemoteError> {
        let mut duplex = self.open(Service::UploadPack).await?;
        let advertisement = match protocol::read_advertisement(&mut duplex.reader, reference).await {
            Ok(advertisement) => advertisement,
            Err(error) => return Err(duplex.complaints.explain(error).await),
        };
        Ok(StreamReading { duplex, advertisement, branch: branch.to_owned(), reference: reference.to_owned() })
    }

    pub(super) async fn push(&self, reference: &str, push: &Push) -> Result<(), PushError> {
        let mut duplex = self.open(Service::ReceivePack).await?;
        let capabilities = push_capabilities(&mut duplex, reference, push).await?;
        let command = report::push_command(reference, push.old, push.new, &capabilities)?;
        let body = report::push_body(command, push.pack(&capabilities, Deltas::Allowed).await?);
        exchange(duplex, body, reference, capabilities.has("side-band-64k")).await?.judge()
    }
}

/// Hears what the server can do and where the branch is.
async fn push_capabilities(duplex: &mut Duplex, reference: &str, push: &Push) -> Result<Capabilities, PushError> {
    let advertisement = match protocol::read_advertisement(&mut duplex.reader, reference).await {
        Ok(advertisement) => advertisement,
        Err(error) => return Err(duplex.complaints.explain(error).await.into()),
    };
    let Advertisement::Version0 { capabilities, references } = advertisement else {
        return Err(PushError::Refused { reason: report::UNKNOWN_PUSH_PROTOCOL.to_owned() });
    };
    if references.tip == Some(push.old.0) {
        return Ok(capabilities);
    }
    // Ending politely: a program that is left in the middle complains in the server's log. It may be gone already.
    let _ = duplex.send(b"0000").await;
    Err(PushError::Outdated { reason: format!("it is no longer at {}", push.old) })
}

/// Sends the command and the pack, and returns what the server says of them.
async fn exchange(duplex: Duplex, body: Bytes, reference: &str, sideband: bool) -> Result<Report, PushError> {
    let Duplex { mut reader, mut writer, complaints } = duplex;
    let patience = patience_for(body.len());
    reader.set_patience(patience);
    // A server that refuses early talks before it has read everything, so both pipes must flow.
    let sending = tokio::spawn(async move {
        let sent = within(patience, async {
            writer.write_all(&body).await?;
            writer.flush().await
        });
        // Given back, because closing the pipe before the answer has come would end the conversation.
        (sent.await, writer)
    });
    let report = report::read_report(&mut reader, reference, sideband).await;
    let (sent, _writer) = sending.await.map_err(|error| PushError::unknown(error.to_string()))?;
    match (report, sent) {
        (Ok(report), _) => {
            // Hooks that run after the branch has moved are let finish, without anybody waiting for them.
            tokio::spawn(reader.drain());
            Ok(report)
        }
        (Err(error), Ok(())) => Err(PushError::unknown(complaints.explain(error).await.to_string())),
        (Err(error), Err(sending)) => {
            Err(PushError::unknown(format!("{}; {sending}", complaints.explain(error).await)))
        }
    }
}

/// A conversation in which a remote is read.
pub(in crate::config_repo) struct StreamReading {
    pub(super) duplex: Duplex,
    pub(super) advertisement: Advertisement,
    branch: String,
    reference: String,
}

impl StreamReading {
    pub(super) async fn tip(&mut self) -> Result<CommitId, RemoteError> {
        let references = match &self.advertisement {
            Advertisement::Version0 { references, .. } => references.clone(),
            Advertisement::Version2(_) => {
                let references = self.list(&self.reference.clone()).await?;
                if references.tip.is_some() { references } else { self.list("refs/heads/").await? }
            }
        };
        references.tip_of(&self.branch)
    }

    async fn list(&mut self, prefix: &str) -> Result<References, RemoteError> {
        let listed = match self.duplex.send(&protocol::list_request(prefix)).await {
            Ok(()) => protocol::read_list(&mut self.duplex.reader, &self.reference).await,
            Err(error) => Err(error.into()),
        };
        match listed {
            Ok(references) => Ok(references),
            Err(error) => Err(self.duplex.complaints.explain(error).await),
        }
    }

    pub(super) async fn fetch(
        &mut self,
        want: CommitId,
        have: Option<CommitId>,
        receiver: &mut PackReceiver,
    ) -> Result<(), RemoteError> {
        let request = match &self.advertisement {
            Advertisement::Version2(_) => protocol::fetch_request_v2(want, have),
            Advertisement::Version0 { capabilities, .. } => protocol::fetch_request_v0(want, have, capabilities)?,
        };
        let fetched = match self.duplex.send(&request).await {
            Ok(()) => protocol::read_pack(&mut self.duplex.reader, receiver).await,
            Err(error) => Err(error.into()),
        };
        match fetched {
            Ok(_) => Ok(()),
            Err(error) => Err(self.duplex.complaints.explain(error).await),
        }
    }
}

impl Drop for StreamReading {
    fn drop(&mut self) {
        // A flush in place of another command ends the program on the other side without a complaint.
        let mut goodbye = Vec::new();
        put_flush(&mut goodbye);
        let writer = std::mem::replace(&mut self.duplex.writer, Box::new(tokio::io::sink()));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut writer = writer;
                let _ = writer.write_all(&goodbye).await;
                let _ = writer.shutdown().await;
            });
        }
    }
}
