//! The one seam to a Git server: ask for the tip of a branch, fetch it one commit deep, push with the expected old
//! commit.
//!
//! A small client of our own instead of libgit2's transports, because every round trip that is not needed is what a
//! person waits for: a push is one request on a connection that is kept. libgit2's own `file` push compares nothing
//! and runs no hooks, so `file` goes through Git's own programs, with the same bytes as everywhere else.

mod history;
mod http;
mod known_hosts;
mod local;
mod pktline;
mod protocol;
mod quiet;
mod report;
mod ssh;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use super::error::{OpenError, PushError, RemoteError};
use super::object::{CommitId, NewObject};
use super::pack::{self, Deltas};
use super::receive::PackReceiver;
use super::settings::RemoteSettings;
use crate::secret::Redaction;
pub(crate) use history::{Fetched, History, HistoryRequest};
use http::HttpRemote;
pub(super) use http::in_full;
use protocol::Capabilities;
use stream::StreamRemote;

/// How long a server may be silent. Hooks of a host run while we wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// The slowest link that is worth waiting for, in bytes a second.
const SLOWEST_LINK: u64 = 4 << 10;

/// Returns how long a server may be silent that is sent so much: what is on its way gives no sign of its progress.
fn patience_for(bytes: usize) -> Duration {
    PATIENCE + Duration::from_secs(bytes as u64 / SLOWEST_LINK)
}

/// How long a push may take in all, besides the time of a slow link. A server that waits for a hook says now and then that it is still there.
const PUSH_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How long a connection may take to come up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// One branch of one remote repository.
pub(super) struct Transport {
    remote: Remote,
    branch: String,
    /// `refs/heads/<branch>`.
    reference: String,
}

enum Remote {
    Http(HttpRemote),
    Stream(StreamRemote),
}

/// One push: a branch, where it stands, where it shall stand, and what the server lacks.
pub(super) struct Push {
    pub(super) old: CommitId,
    pub(super) new: CommitId,
    pub(super) objects: Arc<Vec<NewObject>>,
}

/// The most bytes that are packed at once on an async thread: some tenths of a millisecond, and to hand less over to
/// another thread costs as much.
const SMALL: usize = 32 << 10;

impl Push {
    async fn pack(&self, capabilities: &Capabilities, deltas: Deltas) -> Result<Vec<u8>, PushError> {
        let deltas = if capabilities.has("no-thin") { Deltas::Whole } else { deltas };
        let pack = if self.size() <= SMALL {
            pack::write(&self.objects, deltas)
        } else {
            let objects = self.objects.clone();
            let packing = tokio::task::spawn_blocking(move || pack::write(&objects, deltas)).await;
            // Nothing has been sent.
            packing.map_err(|error| PushError::Unavailable { reason: error.to_string(), ask_again_after: None })?
        };
        pack.map_err(|error| PushError::Refused { reason: error.to_string() })
    }

    /// Returns how many bytes the objects have.
    fn size(&self) -> usize {
        self.objects.iter().map(|object| object.data.len()).sum()
    }
}

impl Transport {
    pub(super) fn new(settings: &RemoteSettings) -> Result<Self, OpenError> {
        let address = |reason: &str| OpenError::Address { name: settings.name.clone(), reason: reason.to_owned() };
        let remote = match settings.url.scheme() {
            "http" | "https" => Remote::Http(HttpRemote::new(settings)?),
            "file" => Remote::Stream(StreamRemote::local(settings)?),
            "ssh" => Remote::Stream(StreamRemote::ssh(settings)?),
            other => {
                return Err(address(&format!("`{other}` is no address that is supported; use https, ssh or file")));
            }
        };
        let reference = format!("refs/heads/{}", settings.branch);
        // The rules of `git check-ref-format`, as libgit2 knows them.
        if !git2::Reference::is_valid_name(&reference) {
            return Err(OpenError::Branch { name: settings.name.clone(), branch: settings.branch.clone() });
        }
        Ok(Self { remote, branch: settings.branch.clone(), reference })
    }

    /// Begins to read the remote.
    pub(super) async fn read(&self) -> Result<Reading<'_>, RemoteError> {
        Ok(match &self.remote {
            Remote::Http(http) => Reading::Http(http.read(&self.branch, &self.reference)),
            Remote::Stream(stream) => Reading::Stream(Box::new(stream.read(&self.branch, &self.reference).await?)),
        })
    }

    /// Moves the branch from `old` to `new`, or says why not. One attempt.
    pub(super) async fn push(&self, push: &Push) -> Result<(), PushError> {
        let pushing = async {
            match &self.remote {
                Remote::Http(http) => http.push(&self.reference, push).await,
                Remote::Stream(stream) => stream.push(&self.reference, push).await,
            }
        };
        // What the server says leaves this room without what we have shown it, here and in [`Reading`].
        let pushing = async { pushing.await.map_err(|error| error.redacted(&self.redaction())) };
        // What is sent is packed, and not larger than that.
        let patience = PUSH_PATIENCE + (patience_for(push.size()) - PATIENCE);
        let minutes = patience.as_secs() / 60;
        let unknown = |_| Err(PushError::unknown(format!("it had no end after {minutes} minutes")));
        tokio::time::timeout(patience, pushing).await.unwrap_or_else(unknown)
    }

    /// Returns what takes out of a server's words what we have shown it.
    fn redaction(&self) -> Redaction {
        match &self.remote {
            Remote::Http(http) => http.redaction(),
            // A key proves itself by a signature: nothing that an SSH server sees is a secret.
            Remote::Stream(_) => Redaction::none(),
        }
    }
}

/// A conversation in which the remote is read.
pub(super) enum Reading<'a> {
    Http(http::HttpReading<'a>),
    Stream(Box<stream::StreamReading>),
}

impl Reading<'_> {
    /// Returns where the branch stands.
    pub(super) async fn tip(&mut self) -> Result<CommitId, RemoteError> {
        let tip = match self {
            Self::Http(http) => http.tip().await,
            Self::Stream(stream) => stream.tip().await,
        };
        tip.map_err(|error| error.redacted(&self.redaction()))
    }

    /// Returns what takes out of the server's words what we have shown it.
    fn redaction(&self) -> Redaction {
        match self {
            Self::Http(http) => http.remote.redaction(),
            Self::Stream(_) => Redaction::none(),
        }
    }

    /// Fetches the commit `want` alone, without its parents; what `have` consists of is not sent again.
    pub(super) async fn fetch(
        &mut self,
        want: CommitId,
        have: Option<CommitId>,
        receiver: &mut PackReceiver,
    ) -> Result<(), RemoteError> {
        let fetched = match self {
            Self::Http(http) => http.fetch(want, have, receiver).await,
            Self::Stream(stream) => stream.fetch(want, have, receiver).await,
        };
        fetched.map_err(|error| error.redacted(&self.redaction()))
    }
}

/// Returns what a server said, fit for one line of a log: no control characters, white space as single spaces, at
/// most 1,000 characters.
fn readable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let words: Vec<&str> = clean.split_whitespace().collect();
    words.join(" ").chars().take(1000).collect()
}

/// Returns what a server's words say that ends a conversation for good; `None` where it may be a passing trouble.
///
/// SSH servers have no other way of saying it: the words are those of Git, GitHub, GitLab and Gitea.
fn refusal(words: &str) -> Option<RemoteError> {
    const MISSING: [&str; 5] =
        ["not found", "does not exist", "not exported", "does not appear to be a git repository", "no such repository"];
    const FORBIDDEN: [&str; 7] =
        ["permission", "read only", "read-only", "not allowed", "access denied", "unauthorized", "write access"];
    let lower = words.to_ascii_lowercase();
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    if any(&MISSING) {
        Some(RemoteError::NotFound { reason: words.to_owned() })
    } else if any(&FORBIDDEN) {
        Some(RemoteError::Unauthorized { reason: words.to_owned() })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_end_a_conversation_are_known() {
        for words in [
            "ERROR: Repository not found. fatal: Could not read from remote repository.",
            "fatal: '/srv/x.git' does not appear to be a git repository",
        ] {
            assert!(matches!(refusal(words), Some(RemoteError::NotFound { .. })), "{words}");
        }
        for words in [
            "ERROR: The key you are authenticating with has been marked as read only.",
            "ERROR: Permission to uyou/config.git denied to tagrelay.",
            "remote: ERROR: This deploy key does not have write access to this project.",
            "Gitea: Unauthorized",
        ] {
            assert!(matches!(refusal(words), Some(RemoteError::Unauthorized { .. })), "{words}");
        }
        assert!(refusal("error: remote server is shutting down").is_none());
    }

    #[test]
    fn a_slow_link_has_the_time_that_it_needs() {
        assert_eq!(patience_for(500), PATIENCE);
        // 20 MiB at 20 KiB/s are 1,024 seconds.
        assert!(patience_for(20 << 20) > PATIENCE + Duration::from_secs(1_024));
    }

    #[test]
    fn what_servers_say_fits_into_a_line() {
        assert_eq!(readable(b"two\r\n\tlines \x1b[1m \xff"), "two lines [1m \u{fffd}");
        assert_eq!(readable(&[b'x'; 5000]).len(), 1000);
    }
}
