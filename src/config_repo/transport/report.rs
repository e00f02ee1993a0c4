//! Pushing: the command, and what a server says of it.

use std::io;

use bytes::{Buf as _, Bytes};

use super::pktline::{Packet, PacketReader, line, put_data, put_flush};
use super::protocol::{AGENT, Capabilities, ReadError, server_error};
use crate::config_repo::error::PushError;
use crate::config_repo::object::CommitId;

/// Pushing has no version 2: whoever answers in it speaks of something else.
pub(super) const UNKNOWN_PUSH_PROTOCOL: &str = "the server answers pushes in an unknown protocol";

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
            // `receive.maxInputSize`: fewer changes make a smaller pack.
            (Some(unpack), _) if unpack != "ok" && messages.contains("exceeds maximum allowed size") => {
                Err(PushError::Refused { reason: explained("the push is too large") })
            }
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

/// The body of a push: the command, then the pack.
pub(super) fn push_body(command: Vec<u8>, pack: Vec<u8>) -> Bytes {
    let mut body = command;
    body.extend_from_slice(&pack);
    body.into()
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::super::pktline::put_line;
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
    async fn the_refusals_of_hosts_are_final_and_keep_their_words() {
        for (host, reason, words) in [
            (
                "GitHub",
                "protected branch hook declined",
                "error: GH006: Protected branch update failed for refs/heads/main.\nerror: Changes must be made through a pull \
                 request.\n",
            ),
            (
                "GitHub",
                "push declined due to repository rule violations",
                "error: GH013: Repository rule violations found for refs/heads/main.\n",
            ),
            (
                "GitLab",
                "pre-receive hook declined",
                "GitLab: You are not allowed to push code to protected branches on this project.\n",
            ),
            ("Gitea", "pre-receive hook declined", "Gitea: Not allowed to push to protected branch main\n"),
            ("Forgejo", "pre-receive hook declined", "Forgejo: Not allowed to push to protected branch main\n"),
            ("Git", "hook declined", "no deployments on Fridays\n"),
            ("Git", "branch is currently checked out", ""),
            ("Git", "deny updating a hidden ref", ""),
            ("Gerrit", "prohibited by Gerrit: not permitted: update", ""),
        ] {
            let report = report(&["unpack ok", &format!("ng {REFERENCE} {reason}")], words).await;
            let Err(PushError::Refused { reason: told }) = report.judge() else {
                panic!("{host}: {reason}: not refused")
            };
            let kept = words.split_whitespace().all(|word| told.contains(word));
            assert!(told.starts_with(reason) && kept, "{host}: {told}");
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
}
