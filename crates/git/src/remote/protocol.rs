//! Git's protocol, independent of the transport: requests as bytes, answers as values.
//!
//! Reading uses version 2 (<https://git-scm.com/docs/protocol-v2>) and falls back to version 0
//! (<https://git-scm.com/docs/pack-protocol>). Pushing always uses version 0; see `push` and `report`.

use std::io;

use super::pktline::{Packet, PacketReader, line, put_delimiter, put_flush, put_line};
use super::server_text::{one_line, permanent_error};
use crate::branch_name::BranchName;
use crate::error::RemoteError;
use crate::mirror::PackReceiver;
use crate::object::{CommitId, ObjectId};

/// Our name for the server.
pub(super) const AGENT: &str = concat!("tagrelay/", env!("CARGO_PKG_VERSION"));

/// The prefix of branches among references.
pub(super) const HEADS: &str = "refs/heads/";

/// A program of Git on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    UploadPack,
    ReceivePack,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }
}

/// The capabilities that a server advertises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities(Vec<String>);

impl Capabilities {
    fn parse(text: &str) -> Self {
        Self(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|capability| capability.split('=').next() == Some(name))
    }

    /// Whether a command of version 2 supports a feature, as in `fetch=shallow filter`.
    pub(super) fn can(&self, command: &str, feature: &str) -> bool {
        self.0.iter().any(|capability| {
            let features = capability.split_once('=').filter(|(name, _)| *name == command);
            features.is_some_and(|(_, features)| features.split(' ').any(|word| word == feature))
        })
    }

    /// Refuses object formats other than SHA-1, which is the default.
    fn check_object_format(&self) -> Result<(), RemoteError> {
        match self.0.iter().find_map(|capability| capability.strip_prefix("object-format=")) {
            None | Some("sha1") => Ok(()),
            Some(other) => Err(RemoteError::Protocol {
                reason: format!("the repository uses the object format {other}, and only sha1 is supported"),
            }),
        }
    }
}

/// The first message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advertisement {
    /// Version 2: only the capabilities. References are listed by a request.
    Version2(Capabilities),
    /// Versions 0 and 1: the capabilities and all references.
    Version0 { capabilities: Capabilities, branches: Branches },
}

/// The branches of a repository, without `refs/heads/`, and their commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Branches(pub(super) Vec<(String, CommitId)>);

/// An error message names at most this many branches.
const MAX_NAMED_BRANCHES: usize = 5;

impl Branches {
    fn add(&mut self, id: ObjectId, reference: &str) {
        if let Some(branch) = reference.strip_prefix(HEADS) {
            self.0.push((branch.to_owned(), CommitId(id)));
        }
    }

    /// Returns the commit of a branch; `None` if there is no such branch.
    pub(super) fn find(&self, branch: &BranchName) -> Option<CommitId> {
        self.0.iter().find(|(name, _)| name == branch.as_str()).map(|(_, id)| *id)
    }

    /// Returns the commit of a branch, or an error that names other branches.
    pub(super) fn tip_of(&self, branch: &BranchName) -> Result<CommitId, RemoteError> {
        self.find(branch).ok_or_else(|| {
            let names = self.0.iter().take(MAX_NAMED_BRANCHES).map(|(name, _)| one_line(name.as_bytes()));
            let hint = match names.collect::<Vec<String>>().as_slice() {
                [] => "the repository has no branches; push a first commit to it".to_owned(),
                names => format!("the repository has {}", names.join(", ")),
            };
            RemoteError::NoBranch { branch: branch.as_str().to_owned(), hint }
        })
    }
}

/// Reads the first message of a server.
pub(super) async fn read_advertisement(reader: &mut PacketReader) -> Result<Advertisement, ReadError> {
    let mut first = next_line(reader).await?;
    // Over HTTP a service line and a flush come first.
    if first.as_ref().is_some_and(|text| text.starts_with("# service=")) {
        next_line(reader).await?;
        first = next_line(reader).await?;
    }
    if first.as_deref() == Some("version 1") {
        first = next_line(reader).await?;
    }
    if first.as_deref() == Some("version 2") {
        let mut capabilities = Vec::new();
        while let Some(capability) = next_line(reader).await? {
            capabilities.push(capability);
        }
        let capabilities = Capabilities(capabilities);
        capabilities.check_object_format()?;
        return Ok(Advertisement::Version2(capabilities));
    }
    let mut capabilities = Capabilities::default();
    let mut branches = Branches::default();
    while let Some(text) = first {
        let reference = match text.split_once('\0') {
            Some((reference, words)) => {
                capabilities = Capabilities::parse(words);
                reference
            }
            None => &text,
        };
        // `shallow <id>` lines may follow the references.
        if let Some((id, name)) = reference.split_once(' ')
            && let Some(id) = ObjectId::from_hex(id)
        {
            branches.add(id, name);
        }
        first = next_line(reader).await?;
    }
    capabilities.check_object_format()?;
    Ok(Advertisement::Version0 { capabilities, branches })
}

/// Why an answer could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The connection failed, or its bytes are not the protocol.
    Connection(io::Error),
    /// The server reported an error.
    Server(RemoteError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<RemoteError> for ReadError {
    fn from(error: RemoteError) -> Self {
        Self::Server(error)
    }
}

/// Returns the next line as text, or `None` at the end of a section.
async fn next_line(reader: &mut PacketReader) -> Result<Option<String>, ReadError> {
    match reader.next().await? {
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()),
        Some(Packet::Data(data)) => {
            if let Some(message) = data.strip_prefix(b"ERR ") {
                return Err(server_error(message).into());
            }
            Ok(Some(String::from_utf8_lossy(line(&data)).into_owned()))
        }
        Some(Packet::Flush | Packet::Delimiter | Packet::ResponseEnd) => Ok(None),
    }
}

/// Returns the error of an `ERR` line. Hosts send it for a missing repository or a missing permission.
pub(super) fn server_error(message: &[u8]) -> RemoteError {
    let reason = one_line(line(message));
    permanent_error(&reason).unwrap_or(RemoteError::Unavailable { reason, ask_again_after: None })
}

/// A request for the references whose names start with `prefix`.
pub(super) fn list_request(prefix: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_line(&mut out, "command=ls-refs");
    put_line(&mut out, &format!("agent={AGENT}"));
    put_delimiter(&mut out);
    put_line(&mut out, &format!("ref-prefix {prefix}"));
    put_flush(&mut out);
    out
}

/// Reads the answer to [`list_request`].
pub(super) async fn read_list(reader: &mut PacketReader) -> Result<Branches, ReadError> {
    let mut branches = Branches::default();
    while let Some(text) = next_line(reader).await? {
        if let Some((id, rest)) = text.split_once(' ')
            && let Some(id) = ObjectId::from_hex(id)
        {
            branches.add(id, rest.split(' ').next().unwrap_or(rest));
        }
    }
    Ok(branches)
}

/// A request for one commit and those of its objects that `have` lacks, in version 2.
pub(super) fn fetch_request_v2(want: CommitId, have: Option<CommitId>) -> Vec<u8> {
    let mut out = Vec::new();
    put_line(&mut out, "command=fetch");
    put_line(&mut out, &format!("agent={AGENT}"));
    put_delimiter(&mut out);
    // Without `thin-pack` Git sends all objects of the commit again to a shallow client. With it, it leaves out those that
    // the client has (`--objects-edge-aggressive`).
    for word in ["thin-pack", "ofs-delta", "no-progress"] {
        put_line(&mut out, word);
    }
    put_wants(&mut out, &format!("want {want}"), have);
    // `done` in the first request skips the negotiation: one round trip.
    if let Some(have) = have {
        put_line(&mut out, &format!("have {have}"));
    }
    put_line(&mut out, "done");
    put_flush(&mut out);
    out
}

/// The request of [`fetch_request_v2`] in version 0.
pub(super) fn fetch_request_v0(
    want: CommitId,
    have: Option<CommitId>,
    capabilities: &Capabilities,
) -> Result<Vec<u8>, RemoteError> {
    if !capabilities.has("side-band-64k") || !capabilities.has("shallow") {
        let reason = "the server supports neither protocol version 2 nor fetches of depth 1".to_owned();
        return Err(RemoteError::Protocol { reason });
    }
    let mut out = Vec::new();
    let mut first = format!("want {want}");
    for word in ["side-band-64k", "thin-pack", "ofs-delta", "no-progress", "shallow"] {
        if capabilities.has(word) {
            first.push(' ');
            first.push_str(word);
        }
    }
    if capabilities.has("agent") {
        first.push_str(&format!(" agent={AGENT}"));
    }
    put_wants(&mut out, &first, have);
    put_flush(&mut out);
    if let Some(have) = have {
        put_line(&mut out, &format!("have {have}"));
    }
    put_line(&mut out, "done");
    Ok(out)
}

fn put_wants(out: &mut Vec<u8>, want: &str, have: Option<CommitId>) {
    put_line(out, want);
    if let Some(have) = have {
        put_line(out, &format!("shallow {have}"));
    }
    put_line(out, "deepen 1");
}

/// How a fetch changed the shallow boundary of a history.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    /// Commits whose parents were left out.
    pub(super) shallow: Vec<CommitId>,
    /// Commits whose parents were left out by an earlier fetch and are included now.
    pub(super) unshallow: Vec<CommitId>,
}

impl Boundary {
    fn read_line(&mut self, text: &[u8]) {
        let id =
            |prefix: &[u8]| -> Option<CommitId> { std::str::from_utf8(text.strip_prefix(prefix)?).ok()?.parse().ok() };
        self.shallow.extend(id(b"shallow "));
        self.unshallow.extend(id(b"unshallow "));
    }
}

/// Reads the answer to a fetch request and passes the pack to `receiver`.
pub(super) async fn read_pack(reader: &mut PacketReader, receiver: &mut PackReceiver) -> Result<Boundary, ReadError> {
    let mut in_pack = false;
    let mut boundary = Boundary::default();
    loop {
        let data = match reader.next().await? {
            Some(Packet::Data(data)) => data,
            // The end of a section, or of the lines before the pack in version 0.
            Some(_) if !in_pack => continue,
            Some(_) | None if in_pack => return Ok(boundary),
            Some(_) | None => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server sent no pack").into());
            }
        };
        match data.first() {
            Some(1) => {
                in_pack = true;
                if !receiver.write(data.slice(1..)).await {
                    return Ok(boundary);
                }
            }
            Some(2) => {}
            Some(3) => {
                return Err(RemoteError::unavailable(one_line(line(&data[1..]))).into());
            }
            _ if data.starts_with(b"ERR ") => return Err(server_error(&data[4..]).into()),
            // `shallow-info`, `shallow <id>`, `packfile`, `ACK <id>`, `NAK`.
            _ => boundary.read_line(line(&data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt as _;

    use super::super::pktline::put_data;
    use super::*;

    fn reader(bytes: Vec<u8>) -> PacketReader {
        PacketReader::new(futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }

    #[tokio::test]
    async fn advertisements_of_both_versions_are_read() {
        let id = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let mut out = Vec::new();
        put_line(&mut out, "# service=git-receive-pack");
        put_flush(&mut out);
        put_data(&mut out, format!("{id} refs/heads/dev\0report-status ofs-delta agent=git/2").as_bytes());
        put_line(&mut out, &format!("{id} refs/heads/main"));
        put_line(&mut out, &format!("{id} refs/tags/v1"));
        put_flush(&mut out);
        let Ok(Advertisement::Version0 { capabilities, branches }) = read_advertisement(&mut reader(out)).await else {
            panic!("not version 0")
        };
        assert!(capabilities.has("agent") && !capabilities.has("side-band-64k"));
        assert_eq!(branches.tip_of(&BranchName::parse("main").unwrap()).unwrap().to_string(), id);
        let error = branches.tip_of(&BranchName::parse("next").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "branch `next` not found: the repository has dev, main");

        // An empty repository still has capabilities.
        let mut out = Vec::new();
        put_data(&mut out, format!("{} capabilities^{{}}\0report-status", ObjectId::ZERO).as_bytes());
        put_flush(&mut out);
        let Ok(Advertisement::Version0 { capabilities, branches }) = read_advertisement(&mut reader(out)).await else {
            panic!("not version 0")
        };
        assert!(capabilities.has("report-status") && branches.0.is_empty());

        let mut out = Vec::new();
        ["version 2", "agent=git/2", "fetch=shallow", "object-format=sha256"]
            .iter()
            .for_each(|line| put_line(&mut out, line));
        put_flush(&mut out);
        let Err(ReadError::Server(error)) = read_advertisement(&mut reader(out)).await else { panic!("accepted") };
        assert!(error.to_string().contains("sha256"), "{error}");

        let mut out = Vec::new();
        put_line(&mut out, "ERR Repository not found.");
        let Err(ReadError::Server(error)) = read_advertisement(&mut reader(out)).await else { panic!("accepted") };
        assert!(matches!(error, RemoteError::NotFound { .. }), "{error}");
    }
}
