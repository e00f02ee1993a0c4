//! Remotes that run one program of Git per conversation: a child process, or a channel of an SSH connection.

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use super::address::Address;
use super::duplex::{Duplex, within};
use super::limits::silence_limit_for;
use super::local::LocalRemote;
use super::pktline::put_flush;
use super::protocol::{self, Advertisement, Boundary, Branches, Capabilities, HEADS, Service};
use super::push::Push;
use super::report::{self, Report};
use super::ssh::SshRemote;
use crate::branch_name::BranchName;
use crate::error::{AddressError, PushError, RemoteError};
use crate::mirror::PackReceiver;
use crate::object::CommitId;
use crate::pack::Deltas;

/// A remote that is reached through the pipes of a program.
pub(super) enum StreamRemote {
    Local(LocalRemote),
    Ssh(Box<SshRemote>),
}

impl StreamRemote {
    pub(super) fn local(address: &Address) -> Result<Self, AddressError> {
        Ok(Self::Local(LocalRemote::new(address)?))
    }

    pub(super) fn ssh(address: &Address) -> Result<Self, AddressError> {
        Ok(Self::Ssh(Box::new(SshRemote::new(address)?)))
    }

    async fn open(&self, service: Service) -> Result<Duplex, RemoteError> {
        match self {
            Self::Local(local) => local.open(service),
            Self::Ssh(ssh) => ssh.open(service).await,
        }
    }

    pub(super) async fn read(&self) -> Result<StreamReading, RemoteError> {
        let mut duplex = self.open(Service::UploadPack).await?;
        match protocol::read_advertisement(&mut duplex.reader).await {
            Ok(advertisement) => Ok(StreamReading { duplex, advertisement }),
            Err(error) => Err(duplex.stderr.explain(error).await),
        }
    }

    pub(super) async fn push(&self, branch: &BranchName, push: &Push) -> Result<(), PushError> {
        let mut duplex = self.open(Service::ReceivePack).await?;
        let capabilities = push_capabilities(&mut duplex, branch, push).await?;
        let body = push.body(branch, &capabilities, Deltas::Allowed).await?;
        exchange(duplex, body, branch.reference(), capabilities.has("side-band-64k")).await?.into_result()
    }
}

/// Reads the capabilities of the server, and checks that the branch is at the expected commit.
async fn push_capabilities(duplex: &mut Duplex, branch: &BranchName, push: &Push) -> Result<Capabilities, PushError> {
    let advertisement = match protocol::read_advertisement(&mut duplex.reader).await {
        Ok(advertisement) => advertisement,
        Err(error) => return Err(duplex.stderr.explain(error).await.into()),
    };
    let Advertisement::Version0 { capabilities, branches } = advertisement else {
        return Err(PushError::Refused { reason: report::UNKNOWN_PUSH_PROTOCOL.to_owned() });
    };
    if branches.find(branch) == Some(push.old) {
        return Ok(capabilities);
    }
    // The flush ends the program without an error in the server's log. It may have ended already.
    let _ = duplex.send(b"0000").await;
    Err(PushError::Outdated { reason: format!("the branch is no longer at {}", push.old) })
}

/// Sends the command and the pack, and reads the report.
async fn exchange(duplex: Duplex, body: Bytes, reference: &str, sideband: bool) -> Result<Report, PushError> {
    let Duplex { mut reader, mut writer, stderr } = duplex;
    let limit = silence_limit_for(body.len());
    reader.set_silence_limit(limit);
    // A server that rejects a push early writes before it has read everything. Send and read at the same time, so that
    // neither side waits for the other.
    let sending = tokio::spawn(async move {
        let sent = within(limit, async {
            writer.write_all(&body).await?;
            writer.flush().await
        });
        // The writer is returned, because closing the pipe before the report would end the conversation.
        (sent.await, writer)
    });
    let report = report::read_report(&mut reader, reference, sideband).await;
    let (sent, _writer) = sending.await.map_err(|error| PushError::unknown(error.to_string()))?;
    match (report, sent) {
        (Ok(report), _) => {
            // Post-receive hooks may still be running; the push does not wait for them.
            tokio::spawn(reader.drain());
            Ok(report)
        }
        (Err(error), Ok(())) => Err(PushError::unknown(stderr.explain(error).await.to_string())),
        (Err(error), Err(sending)) => Err(PushError::unknown(format!("{}; {sending}", stderr.explain(error).await))),
    }
}

/// A conversation that reads a repository.
pub(super) struct StreamReading {
    duplex: Duplex,
    pub(super) advertisement: Advertisement,
}

impl StreamReading {
    pub(super) async fn tip(&mut self, branch: &BranchName) -> Result<CommitId, RemoteError> {
        if let Advertisement::Version0 { branches, .. } = &self.advertisement {
            return branches.tip_of(branch);
        }
        match self.list(branch.reference()).await?.find(branch) {
            Some(tip) => Ok(tip),
            None => self.list(HEADS).await?.tip_of(branch),
        }
    }

    pub(super) async fn list(&mut self, prefix: &str) -> Result<Branches, RemoteError> {
        let listed = match self.duplex.send(&protocol::list_request(prefix)).await {
            Ok(()) => protocol::read_list(&mut self.duplex.reader).await,
            Err(error) => Err(error.into()),
        };
        match listed {
            Ok(branches) => Ok(branches),
            Err(error) => Err(self.duplex.stderr.explain(error).await),
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
        self.receive_pack(&request, receiver).await.map(|_| ())
    }

    /// Sends a fetch request and passes the pack of the answer to `receiver`.
    pub(super) async fn receive_pack(
        &mut self,
        request: &[u8],
        receiver: &mut PackReceiver,
    ) -> Result<Boundary, RemoteError> {
        let fetched = match self.duplex.send(request).await {
            Ok(()) => protocol::read_pack(&mut self.duplex.reader, receiver).await,
            Err(error) => Err(error.into()),
        };
        match fetched {
            Ok(boundary) => Ok(boundary),
            Err(error) => Err(self.duplex.stderr.explain(error).await),
        }
    }
}

impl Drop for StreamReading {
    fn drop(&mut self) {
        // A flush instead of another command ends the program on the server without an error.
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
