//! The report of a push, and its meaning.

use std::io;

use bytes::Buf as _;

use super::pktline::{Packet, PacketReader, line};
use super::protocol::{ReadError, server_error};
use super::server_text::{hook_output, one_line};
use crate::error::PushError;

/// The error for a push that is answered in protocol version 2, which has no pushes.
pub(super) const UNKNOWN_PUSH_PROTOCOL: &str = "the server answers pushes in an unknown protocol";

/// The report of a push.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// `ok`, or why the pack could not be unpacked.
    unpack: Option<String>,
    /// Whether our branch moved, or why not.
    branch: Option<Result<(), String>>,
    /// The output of hooks and of the host.
    output: Vec<u8>,
}

/// The longest kept output of hooks.
const MAX_OUTPUT_BYTES: usize = 4096;

/// Reads the report of a push to its end. The output of post-receive hooks may follow.
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
            report.read_line(line(&data), reference);
            continue;
        }
        match data.first() {
            Some(1) => {
                inner.extend_from_slice(&data[1..]);
                if report.read_lines(&mut inner, reference)? {
                    return Ok(report);
                }
            }
            Some(2) => report.keep_output(&data[1..]),
            Some(3) => {
                report.keep_output(&data[1..]);
                return Ok(report);
            }
            _ if data.starts_with(b"ERR ") => return Err(server_error(&data[4..]).into()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown sideband").into()),
        }
    }
}

impl Report {
    /// Reads and removes the complete lines of `inner`. Returns whether the report is complete.
    fn read_lines(&mut self, inner: &mut bytes::BytesMut, reference: &str) -> io::Result<bool> {
        while inner.len() >= 4 {
            let length = std::str::from_utf8(&inner[..4]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            match length {
                Some(0) => return Ok(true),
                Some(length) if length >= 4 && inner.len() >= length => {
                    let mut packet = inner.split_to(length);
                    packet.advance(4);
                    self.read_line(line(&packet), reference);
                }
                Some(length) if length >= 4 => return Ok(false),
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the report of the push is malformed")),
            }
        }
        Ok(false)
    }

    fn read_line(&mut self, text: &[u8], reference: &str) {
        let text = String::from_utf8_lossy(text);
        if let Some(result) = text.strip_prefix("unpack ") {
            self.unpack = Some(result.to_owned());
        } else if text.strip_prefix("ok ") == Some(reference) {
            self.branch = Some(Ok(()));
        } else if let Some((name, reason)) = text.strip_prefix("ng ").and_then(|rest| rest.split_once(' '))
            && name == reference
        {
            self.branch = Some(Err(one_line(reason.as_bytes())));
        }
    }

    fn keep_output(&mut self, text: &[u8]) {
        let room = MAX_OUTPUT_BYTES.saturating_sub(self.output.len());
        self.output.extend_from_slice(&text[..text.len().min(room)]);
    }

    /// Returns the result of the push for the caller.
    pub(super) fn into_result(self) -> Result<(), PushError> {
        if let Some(Ok(())) = self.branch {
            return Ok(());
        }
        let output = hook_output(&self.output);
        let explained = |reason: &str| match output.as_str() {
            "" => reason.to_owned(),
            output => format!("{reason}: {output}"),
        };
        let unavailable = |reason: String| Err(PushError::Unavailable { reason, ask_again_after: None });
        match (self.unpack.as_deref(), self.branch) {
            // `receive.maxInputSize`. A push with fewer changes may fit.
            (Some(unpack), _) if unpack != "ok" && output.contains("exceeds maximum allowed size") => {
                Err(PushError::Refused { reason: explained("the push is too large") })
            }
            (Some(unpack), _) if unpack != "ok" => unavailable(explained(&format!("unpacking failed ({unpack})"))),
            (_, Some(Err(reason))) if is_server_failure(&reason, &output) => unavailable(explained(&reason)),
            (_, Some(Err(reason))) if is_race(&reason) => Err(PushError::Outdated { reason: explained(&reason) }),
            (_, Some(Err(reason))) => Err(PushError::Refused { reason: explained(&reason) }),
            (_, None | Some(Ok(()))) => Err(PushError::unknown(explained("the server did not report on the branch"))),
        }
    }

    /// Whether the server failed to unpack the pack.
    pub(super) fn pack_failed(&self) -> bool {
        self.unpack.as_deref().is_some_and(|unpack| unpack != "ok")
    }
}

/// Whether the reason of a rejection means that the branch moved.
///
/// The phrases come from Git's `builtin/receive-pack.c` and `refs/files-backend.c`, which GitHub, GitLab and Gitea pass
/// on, from JGit's `ReceiveCommand` (Gerrit, Bitbucket) and from Azure DevOps (TF401028).
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

/// Whether a rejection is a failure of the server (a lost object, maintenance, a full disk) and not a decision.
///
/// The reasons come from Git's `builtin/receive-pack.c` and from GitHub. GitLab's hook declines every push while its
/// permission service is down, and only the output of the hook shows it (`gitlab-shell`, `internal/gitlabnet`).
fn is_server_failure(reason: &str, output: &str) -> bool {
    const REASONS: [&str; 7] = [
        "missing necessary objects",
        "unpacker error",
        "unable to migrate objects",
        "transaction failed",
        "failed to start transaction",
        "internal server error",
        "internal error",
    ];
    const OUTPUTS: [&str; 2] = ["internal api unreachable", "internal api error (5"];
    let contains = |text: &str, phrases: &[&str]| {
        let text = text.to_ascii_lowercase();
        phrases.iter().any(|phrase| text.contains(phrase))
    };
    contains(reason, &REASONS) || (reason.ends_with("hook declined") && contains(output, &OUTPUTS))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt as _;

    use super::super::pktline::{put_data, put_flush, put_line};
    use super::*;

    const REFERENCE: &str = "refs/heads/main";

    fn reader(bytes: Vec<u8>) -> PacketReader {
        PacketReader::new(futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }

    /// A report as a server sends it: lines in the sideband, after the output of hooks.
    async fn report(lines: &[&str], output: &str) -> Report {
        let mut inner = Vec::new();
        lines.iter().for_each(|line| put_line(&mut inner, line));
        put_flush(&mut inner);
        let mut out = Vec::new();
        put_data(&mut out, &[b"\x02", output.as_bytes()].concat());
        // The sideband may cut a line.
        let (left, right) = inner.split_at(inner.len() / 2);
        put_data(&mut out, &[b"\x01", left].concat());
        put_data(&mut out, &[b"\x01", right].concat());
        put_flush(&mut out);
        read_report(&mut reader(out), REFERENCE, true).await.unwrap()
    }

    #[tokio::test]
    async fn reports_become_results() {
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
            let result = format!("{:?}", report(lines, "").await.into_result());
            assert!(result.contains(expected), "{lines:?}: {result}");
        }
    }

    #[tokio::test]
    async fn rejections_of_hosts_are_refused_with_their_text() {
        for (reason, output, expected) in [
            // GitHub
            (
                "protected branch hook declined",
                "error: GH006: Protected branch update failed for refs/heads/main.\nerror: Changes must be made through a pull \
                 request.\n",
                "protected branch hook declined: GH006: Protected branch update failed for refs/heads/main. Changes must be \
                 made through a pull request.",
            ),
            // Gitea, Forgejo
            (
                "pre-receive hook declined",
                "error: \nerror: Not allowed to push to protected branch main\nerror: \n",
                "pre-receive hook declined: Not allowed to push to protected branch main",
            ),
            ("hook declined", "no deployments on Fridays\n", "hook declined: no deployments on Fridays"),
            ("branch is currently checked out", "", "branch is currently checked out"),
            ("deny updating a hidden ref", "", "deny updating a hidden ref"),
            ("prohibited by Gerrit: not permitted: update", "", "prohibited by Gerrit: not permitted: update"),
            (
                "TF402455: Pushes to this branch are not permitted; you must use a pull request to update this branch.",
                "",
                "TF402455: Pushes to this branch are not permitted; you must use a pull request to update this branch.",
            ),
        ] {
            let report = report(&["unpack ok", &format!("ng {REFERENCE} {reason}")], output).await;
            let Err(PushError::Refused { reason }) = report.into_result() else { panic!("{reason}: not refused") };
            assert_eq!(reason, expected);
        }
    }

    #[tokio::test]
    async fn output_of_a_hook_does_not_make_a_race() {
        let report = report(&["unpack ok", "ng refs/heads/main hook declined"], "fetch first!").await;
        assert!(matches!(report.into_result(), Err(PushError::Refused { .. })));
    }

    #[tokio::test]
    async fn hook_that_cannot_reach_gitlab_is_a_server_failure() {
        let output = "GitLab: Internal API unreachable\n";
        let report = report(&["unpack ok", "ng refs/heads/main pre-receive hook declined"], output).await;
        assert!(matches!(report.into_result(), Err(PushError::Unavailable { .. })));
    }
}
