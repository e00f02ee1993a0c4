//! What is said over a wire, whichever wire it is: requests as bytes, answers as values.
//!
//! What belongs to pushing alone is in `report`. Reading speaks protocol version 2 (<https://git-scm.com/docs/protocol-v2>) and falls back to version 0
//! (<https://git-scm.com/docs/pack-protocol>), in which pushing is done always.

use std::io;

use super::pktline::{Packet, PacketReader, line, put_delimiter, put_flush, put_line};
use crate::config_repo::error::RemoteError;
use crate::config_repo::object::{CommitId, ObjectId};
use crate::config_repo::receive::PackReceiver;

/// How we name ourselves.
pub(super) const AGENT: &str = concat!("tagrelay/", env!("CARGO_PKG_VERSION"));

/// A program of Git on the other side.
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

/// What a server can do, as it says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities(Vec<String>);

impl Capabilities {
    fn parse(text: &str) -> Self {
        Self(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|capability| capability.split('=').next() == Some(name))
    }

    /// Whether a command of version 2 has a feature, as in `fetch=shallow filter`.
    pub(super) fn can(&self, command: &str, feature: &str) -> bool {
        self.0.iter().any(|capability| {
            let features = capability.split_once('=').filter(|(name, _)| *name == command);
            features.is_some_and(|(_, features)| features.split(' ').any(|word| word == feature))
        })
    }

    /// SHA-1 is what a server means that says nothing.
    fn check_object_format(&self) -> Result<(), RemoteError> {
        match self.0.iter().find_map(|capability| capability.strip_prefix("object-format=")) {
            None | Some("sha1") => Ok(()),
            Some(other) => Err(RemoteError::Protocol {
                reason: format!("the repository names its objects by {other}, and only sha1 is supported"),
            }),
        }
    }
}

/// What a server says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advertisement {
    /// Version 2: what it can do. References are asked for.
    Version2(Capabilities),
    /// Versions 0 and 1: all references, of which we keep ours and a few names for an error message.
    Version0 { capabilities: Capabilities, references: References },
}

/// What is known of the references of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct References {
    pub(super) tip: Option<ObjectId>,
    pub(super) other_branches: Vec<String>,
    /// Every branch, without `refs/heads/`.
    pub(super) branches: Vec<(String, CommitId)>,
}

impl References {
    fn note(&mut self, id: ObjectId, name: &str, wanted: &str) {
        if let Some(branch) = name.strip_prefix("refs/heads/") {
            self.branches.push((branch.to_owned(), CommitId(id)));
        }
        if name == wanted {
            self.tip = Some(id);
        } else if let Some(branch) = name.strip_prefix("refs/heads/")
            && self.other_branches.len() < 5
        {
            self.other_branches.push(super::readable(branch.as_bytes()));
        }
    }

    /// Returns the tip of the branch, or the error that says what is there instead.
    pub(super) fn tip_of(&self, branch: &str) -> Result<CommitId, RemoteError> {
        self.tip.map(CommitId).ok_or_else(|| RemoteError::NoBranch {
            branch: branch.to_owned(),
            hint: if self.other_branches.is_empty() {
                "it has no branches at all; push a first commit to it".to_owned()
            } else {
                format!("it has {}", self.other_branches.join(", "))
            },
        })
    }
}

/// Reads what a server says first. `wanted` is the full name of our branch.
pub(super) async fn read_advertisement(reader: &mut PacketReader, wanted: &str) -> Result<Advertisement, ReadError> {
    let mut first = next_line(reader).await?;
    // Over HTTP a service line and a flush come before it.
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
    let mut references = References::default();
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
            references.note(id, name, wanted);
        }
        first = next_line(reader).await?;
    }
    capabilities.check_object_format()?;
    Ok(Advertisement::Version0 { capabilities, references })
}

/// Why an answer could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The wire.
    Lost(io::Error),
    /// The server, in words.
    Said(RemoteError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<RemoteError> for ReadError {
    fn from(error: RemoteError) -> Self {
        Self::Said(error)
    }
}

/// Returns the next line as text, or `None` at the end of a section.
async fn next_line(reader: &mut PacketReader) -> Result<Option<String>, ReadError> {
    match reader.next().await? {
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the conversation").into()),
        Some(Packet::Data(data)) => {
            if let Some(message) = data.strip_prefix(b"ERR ") {
                return Err(server_error(message).into());
            }
            Ok(Some(String::from_utf8_lossy(line(&data)).into_owned()))
        }
        Some(Packet::Flush | Packet::Delimiter | Packet::ResponseEnd) => Ok(None),
    }
}

/// An `ERR` line: hosts say by it that there is no such repository, or that we may not see it.
pub(super) fn server_error(message: &[u8]) -> RemoteError {
    let reason = super::readable(line(message));
    super::refusal(&reason).unwrap_or(RemoteError::Unavailable { reason, ask_again_after: None })
}

/// Asks for the references whose names start with `prefix`.
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
pub(super) async fn read_list(reader: &mut PacketReader, wanted: &str) -> Result<References, ReadError> {
    let mut references = References::default();
    while let Some(text) = next_line(reader).await? {
        if let Some((id, rest)) = text.split_once(' ')
            && let Some(id) = ObjectId::from_hex(id)
        {
            references.note(id, rest.split(' ').next().unwrap_or(rest), wanted);
        }
    }
    Ok(references)
}

/// Asks for one commit and what it consists of, as far as `have` does not have it, in version 2.
pub(super) fn fetch_request_v2(want: CommitId, have: Option<CommitId>) -> Vec<u8> {
    let mut out = Vec::new();
    put_line(&mut out, "command=fetch");
    put_line(&mut out, &format!("agent={AGENT}"));
    put_delimiter(&mut out);
    // Only for thin packs does Git leave out what a client has whose history is cut off
    // (`--objects-edge-aggressive`); without the word it sends the whole commit again.
    for word in ["thin-pack", "ofs-delta", "no-progress"] {
        put_line(&mut out, word);
    }
    put_wants(&mut out, &format!("want {want}"), have);
    // With `done` in the first request there is no negotiation: one round trip, whatever the server has of ours.
    if let Some(have) = have {
        put_line(&mut out, &format!("have {have}"));
    }
    put_line(&mut out, "done");
    put_flush(&mut out);
    out
}

/// The same in version 0.
pub(super) fn fetch_request_v0(
    want: CommitId,
    have: Option<CommitId>,
    capabilities: &Capabilities,
) -> Result<Vec<u8>, RemoteError> {
    if !capabilities.has("side-band-64k") || !capabilities.has("shallow") {
        let reason = "the server can neither speak protocol version 2 nor send one commit alone".to_owned();
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

/// Where the history ends that a server has sent.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    /// Commits whose parents are left out.
    pub(super) shallow: Vec<CommitId>,
    /// Commits whose parents were left out before.
    pub(super) unshallow: Vec<CommitId>,
}

impl Boundary {
    fn note(&mut self, text: &[u8]) {
        let id =
            |prefix: &[u8]| -> Option<CommitId> { std::str::from_utf8(text.strip_prefix(prefix)?).ok()?.parse().ok() };
        self.shallow.extend(id(b"shallow "));
        self.unshallow.extend(id(b"unshallow "));
    }
}

/// Reads the answer to a fetch request and hands the pack on.
pub(super) async fn read_pack(reader: &mut PacketReader, receiver: &mut PackReceiver) -> Result<Boundary, ReadError> {
    let mut in_pack = false;
    let mut boundary = Boundary::default();
    loop {
        let data = match reader.next().await? {
            Some(Packet::Data(data)) => data,
            // Between sections, and before the pack in version 0; at the end of the pack.
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
                return Err(RemoteError::unavailable(super::readable(line(&data[1..]))).into());
            }
            _ if data.starts_with(b"ERR ") => return Err(server_error(&data[4..]).into()),
            // `shallow-info`, `shallow <id>`, `packfile`, `ACK <id>`, `NAK`.
            _ => boundary.note(line(&data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt as _;

    use super::super::pktline::put_data;
    use super::*;

    const REFERENCE: &str = "refs/heads/main";

    fn reader(bytes: Vec<u8>) -> PacketReader {
        PacketReader::new(futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }

    #[tokio::test]
    async fn advertisements_of_both_versions() {
        let id = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let mut out = Vec::new();
        put_line(&mut out, "# service=git-receive-pack");
        put_flush(&mut out);
        put_data(&mut out, format!("{id} refs/heads/dev\0report-status ofs-delta agent=git/2").as_bytes());
        put_line(&mut out, &format!("{id} {REFERENCE}"));
        put_line(&mut out, &format!("{id} refs/tags/v1"));
        put_flush(&mut out);
        let Ok(Advertisement::Version0 { capabilities, references }) =
            read_advertisement(&mut reader(out), REFERENCE).await
        else {
            panic!("not understood")
        };
        assert!(capabilities.has("agent") && !capabilities.has("side-band-64k"));
        assert_eq!(references.tip_of("main").unwrap().to_string(), id);
        assert_eq!(references.other_branches, ["dev"]);

        // An empty repository has capabilities all the same.
        let mut out = Vec::new();
        put_data(&mut out, format!("{} capabilities^{{}}\0report-status", ObjectId::ZERO).as_bytes());
        put_flush(&mut out);
        let Ok(Advertisement::Version0 { capabilities, references }) =
            read_advertisement(&mut reader(out), REFERENCE).await
        else {
            panic!("not understood")
        };
        assert!(capabilities.has("report-status") && references.tip.is_none());

        let mut out = Vec::new();
        ["version 2", "agent=git/2", "fetch=shallow", "object-format=sha256"]
            .iter()
            .for_each(|line| put_line(&mut out, line));
        put_flush(&mut out);
        let Err(ReadError::Said(error)) = read_advertisement(&mut reader(out), REFERENCE).await else {
            panic!("taken")
        };
        assert!(error.to_string().contains("sha256"), "{error}");

        let mut out = Vec::new();
        put_line(&mut out, "ERR Repository not found.");
        let Err(ReadError::Said(error)) = read_advertisement(&mut reader(out), REFERENCE).await else {
            panic!("taken")
        };
        assert!(matches!(error, RemoteError::NotFound { .. }), "{error}");
    }
}
