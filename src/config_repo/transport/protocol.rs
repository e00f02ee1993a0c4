//! What is said over a wire, whichever wire it is: requests as bytes, answers as values.
//!
//! Reading speaks protocol version 2 (<https://git-scm.com/docs/protocol-v2>) and falls back to version 0
//! (<https://git-scm.com/docs/pack-protocol>), in which pushing is done always.

use std::io;

use bytes::{Buf as _, Bytes};

use super::pktline::{Packet, PacketReader, line, put_data, put_delimiter, put_flush, put_line};
use crate::config_repo::error::{PushError, RemoteError};
use crate::config_repo::mirror::PackReceiver;
use crate::config_repo::object::{CommitId, ObjectId};

/// How we name ourselves.
pub(super) const AGENT: &str = concat!("tagrelay/", env!("CARGO_PKG_VERSION"));

/// Pushing has no version 2: whoever answers in it speaks of something else.
pub(super) const UNKNOWN_PUSH_PROTOCOL: &str = "the server answers pushes in an unknown protocol";

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
fn server_error(message: &[u8]) -> RemoteError {
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

/// The command of a push, without the pack that follows it.
pub(super) fn push_command(
    reference: &str,
    old: CommitId,
    new: CommitId,
    capabilities: &Capabilities,
) -> Result<Vec<u8>, PushError> {
    if !capabilities.has("report-status") {
        return Err(PushError::Refused { reason: "the server does not report whether a push succeeded".to_owned() });
    }
    let mut words = String::new();
    for word in ["report-status", "side-band-64k"] {
        if capabilities.has(word) {
            words.push(' ');
            words.push_str(word);
        }
    }
    if capabilities.has("object-format") {
        words.push_str(" object-format=sha1");
    }
    if capabilities.has("agent") {
        words.push_str(&format!(" agent={AGENT}"));
    }
    let mut out = Vec::new();
    put_data(&mut out, format!("{old} {new} {reference}\0{words}").as_bytes());
    put_flush(&mut out);
    Ok(out)
}

/// What a server says of a push.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// `ok`, or why the pack was not taken in.
    unpack: Option<String>,
    /// What became of our branch: `Ok`, or the reason against it.
    branch: Option<Result<(), String>>,
    /// What hooks and the host said to a person.
    messages: String,
}

/// How much of what hooks say is kept.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Reads the report of a push, up to its end; what follows is the output of hooks that run after it.
pub(super) async fn read_report(
    reader: &mut PacketReader,
    reference: &str,
    sideband: bool,
) -> Result<Report, ReadError> {
    let mut report = Report::default();
    let mut inner = bytes::BytesMut::new();
    loop {
        let data = match reader.next().await? {
            Some(Packet::Data(data)) => data,
            Some(_) | None => return Ok(report),
        };
        if !sideband {
            report.note(line(&data), reference);
            continue;
        }
        match data.first() {
            Some(1) => {
                inner.extend_from_slice(&data[1..]);
                if report.take_lines(&mut inner, reference)? {
                    return Ok(report);
                }
            }
            Some(2) => report.keep_message(&data[1..]),
            Some(3) => {
                report.keep_message(&data[1..]);
                return Ok(report);
            }
            _ if data.starts_with(b"ERR ") => return Err(server_error(&data[4..]).into()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown sideband").into()),
        }
    }
}

impl Report {
    /// Takes whole lines out of what came through the sideband. Returns whether the report is complete.
    fn take_lines(&mut self, inner: &mut bytes::BytesMut, reference: &str) -> io::Result<bool> {
        while inner.len() >= 4 {
            let length = std::str::from_utf8(&inner[..4]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            match length {
                Some(0) => return Ok(true),
                Some(length) if length >= 4 && inner.len() >= length => {
                    let mut packet = inner.split_to(length);
                    packet.advance(4);
                    self.note(line(&packet), reference);
                }
                Some(length) if length >= 4 => return Ok(false),
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the report of the push is garbled")),
            }
        }
        Ok(false)
    }

    fn note(&mut self, text: &[u8], reference: &str) {
        let text = String::from_utf8_lossy(text);
        if let Some(result) = text.strip_prefix("unpack ") {
            self.unpack = Some(result.to_owned());
        } else if text.strip_prefix("ok ") == Some(reference) {
            self.branch = Some(Ok(()));
        } else if let Some((name, reason)) = text.strip_prefix("ng ").and_then(|rest| rest.split_once(' '))
            && name == reference
        {
            self.branch = Some(Err(super::readable(reason.as_bytes())));
        }
    }

    fn keep_message(&mut self, text: &[u8]) {
        let room = MAX_MESSAGE_BYTES.saturating_sub(self.messages.len());
        self.messages.push_str(&String::from_utf8_lossy(&text[..text.len().min(room)]));
    }

    /// Decides what the report means.
    pub(super) fn judge(self) -> Result<(), PushError> {
        let messages = super::readable(self.messages.as_bytes());
        let explained = |reason: &str| match messages.as_str() {
            "" => reason.to_owned(),
            messages => format!("{reason}: {messages}"),
        };
        match (self.unpack.as_deref(), self.branch) {
            (_, Some(Ok(()))) => Ok(()),
            (Some(unpack), _) if unpack != "ok" => Err(PushError::Unavailable {
                reason: explained(&format!("the pack was not taken in ({unpack})")),
                ask_again_after: None,
            }),
            // A server that lost an object, is tidying up just now, or has no room; nobody decided against us.
            (_, Some(Err(reason))) if is_trouble(&reason, &messages) => {
                Err(PushError::Unavailable { reason: explained(&reason), ask_again_after: None })
            }
            (_, Some(Err(reason))) if is_race(&reason) => Err(PushError::Outdated { reason: explained(&reason) }),
            (_, Some(Err(reason))) => Err(PushError::Refused { reason: explained(&reason) }),
            (_, None) => Err(PushError::unknown(explained("the server did not say what became of the branch"))),
        }
    }

    /// Whether the pack itself was the trouble.
    pub(super) fn pack_was_refused(&self) -> bool {
        self.unpack.as_deref().is_some_and(|unpack| unpack != "ok")
    }
}

/// Whether a server's reason against a branch means that somebody else was faster.
///
/// The words of Git's `builtin/receive-pack.c` and `refs/files-backend.c`, which GitHub, GitLab and Gitea pass on,
/// of JGit's `ReceiveCommand` (Gerrit, Bitbucket) and of Azure DevOps (TF401028).
fn is_race(reason: &str) -> bool {
    const RACES: [&str; 12] = [
        "non-fast-forward",
        "non-fast forward",
        "fetch first",
        "stale info",
        "cannot lock ref",
        "failed to update ref",
        "failed to lock",
        "incorrect old value",
        "reference already exists",
        "remote ref changed",
        "remote ref updated",
        "already been updated",
    ];
    let reason = reason.to_ascii_lowercase();
    RACES.iter().any(|race| reason.contains(race))
}

/// Whether a server's reason against a branch, or the words of its hooks, mean that it has trouble of its own.
///
/// The reasons are those of Git's `builtin/receive-pack.c` and of GitHub. GitLab's hook declines every push while the
/// service that knows the permissions is away, and says so only in its words (`gitlab-shell`, `internal/gitlabnet`).
fn is_trouble(reason: &str, messages: &str) -> bool {
    const REASONS: [&str; 7] = [
        "missing necessary objects",
        "unpacker error",
        "unable to migrate objects",
        "transaction failed",
        "failed to start transaction",
        "internal server error",
        "internal error",
    ];
    const WORDS: [&str; 2] = ["internal api unreachable", "internal api error (5"];
    let holds = |text: &str, phrases: &[&str]| {
        let text = text.to_ascii_lowercase();
        phrases.iter().any(|phrase| text.contains(phrase))
    };
    holds(reason, &REASONS) || (reason.ends_with("hook declined") && holds(messages, &WORDS))
}

/// The body of a push: the command, then the pack.
pub(super) fn push_body(command: Vec<u8>, pack: Vec<u8>) -> Bytes {
    let mut body = command;
    body.extend_from_slice(&pack);
    body.into()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    const REFERENCE: &str = "refs/heads/main";

    fn reader(bytes: Vec<u8>) -> PacketReader {
        PacketReader::new(futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }

    /// A report as a server sends it: lines inside the sideband, and words of hooks around them.
    async fn report(lines: &[&str], words: &str) -> Report {
        let mut inner = Vec::new();
        lines.iter().for_each(|line| put_line(&mut inner, line));
        put_flush(&mut inner);
        let mut out = Vec::new();
        put_data(&mut out, &[b"\x02", words.as_bytes()].concat());
        // Cut in the middle of a line: the sideband knows nothing of what it carries.
        let (left, right) = inner.split_at(inner.len() / 2);
        put_data(&mut out, &[b"\x01", left].concat());
        put_data(&mut out, &[b"\x01", right].concat());
        put_flush(&mut out);
        read_report(&mut reader(out), REFERENCE, true).await.unwrap()
    }

    #[tokio::test]
    async fn reports_are_judged() {
        for (lines, expected) in [
            (&["unpack ok", "ok refs/heads/main"][..], "Ok(())"),
            (&["unpack ok", "ng refs/heads/main non-fast-forward"], "Outdated"),
            (&["unpack ok", "ng refs/heads/main fetch first"], "Outdated"),
            (&["unpack ok", "ng refs/heads/main failed to update ref"], "Outdated"),
            (
                &["unpack ok", "ng refs/heads/main cannot lock ref 'refs/heads/main': is at 1 but expected 2"],
                "Outdated",
            ),
            (&["unpack ok", "ng refs/heads/main incorrect old value provided"], "Outdated"),
            (&["unpack ok", "ng refs/heads/main remote ref updated since checkout"], "Outdated"),
            (
                &["unpack ok", "ng refs/heads/main TF401028: The reference has already been updated by another client"],
                "Outdated",
            ),
            (&["unpack ok", "ng refs/heads/main pre-receive hook declined"], "Refused"),
            (&["unpack ok", "ng refs/heads/main protected branch hook declined"], "Refused"),
            (&["unpack ok", "ng refs/heads/main deny updating a hidden ref"], "Refused"),
            (&["unpack ok", "ng refs/heads/main missing necessary objects"], "Unavailable"),
            (&["unpack index-pack abnormal exit", "ng refs/heads/main unpacker error"], "Unavailable"),
            (&["unpack ok", "ng refs/heads/main unable to migrate objects to permanent storage"], "Unavailable"),
            (&["unpack ok", "ng refs/heads/main transaction failed"], "Unavailable"),
            (&["unpack ok", "ng refs/heads/main Internal Server Error"], "Unavailable"),
            (&["unpack ok", "ok refs/heads/other"], "Unknown"),
            (&["unpack ok"], "Unknown"),
            (&[], "Unknown"),
        ] {
            let judged = format!("{:?}", report(lines, "").await.judge());
            assert!(judged.contains(expected), "{lines:?}: {judged}");
        }
    }

    #[tokio::test]
    async fn the_words_of_hooks_are_kept_in_one_line() {
        let report = report(&["unpack ok", "ng refs/heads/main hook declined"], "GH006: no\n\x1b[31m  way\n").await;
        let Err(PushError::Refused { reason }) = report.judge() else { panic!("not refused") };
        assert_eq!(reason, "hook declined: GH006: no [31m way");
        // GitLab's hook cannot ask whether it may let us in.
        let report = self::report(
            &["unpack ok", "ng refs/heads/main pre-receive hook declined"],
            "GitLab: Internal API unreachable\n",
        );
        assert!(matches!(report.await.judge(), Err(PushError::Unavailable { .. })));
        // A hook whose words sound like a race decides nothing.
        let report = self::report(&["unpack ok", "ng refs/heads/main hook declined"], "fetch first!").await;
        assert!(matches!(report.judge(), Err(PushError::Refused { .. })));
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
