use serde::Serialize;

use tagrelay_image::{CommitSha, Digest, Repository, Tag};

/// The content of an authenticated request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Pushes in the order of the body, without duplicates of repository, tag and digest.
    pub events: Vec<PushEvent>,
    /// Branches of a config repository that moved.
    pub moved: Vec<MovedBranch>,
    /// The parts of the request that are not pushes of tags.
    pub ignored: Vec<Ignored>,
    /// The answer that the sender requires (a handshake), sent with 200 instead of ours.
    pub reply: Option<Reply>,
    /// A request to the sender that is needed before or after this delivery is processed.
    pub errand: Option<Errand>,
}

/// A request to the sender's service. The address has been checked: only the sender's hosts, over HTTPS. Redirects must
/// not be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Fetch the certificate, pass it to [`Receiver::learn_certificate`](super::Receiver::learn_certificate), then pass
    /// the same request to the receiver again. If that fails, answer 503, so that the sender retries.
    LearnCertificate(url::Url),
    /// Send one GET to this address, which confirms a subscription.
    Visit(url::Url),
}

/// A sender's announcement that a tag was pushed. A hint: the registry must confirm it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEvent {
    /// The repository of the image.
    pub repository: Repository,
    /// The tag that was pushed.
    pub tag: Tag,
    /// The digest of the tag according to the sender, if it names one.
    pub digest: Option<Digest>,
    /// The time of the push according to the sender.
    pub pushed_at: Option<jiff::Timestamp>,
    /// The sender's id of the event, the same in redeliveries. `None`: it has none.
    pub delivery: Option<String>,
}

/// A Git host's announcement that a branch of a config repository moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedBranch {
    /// Without `refs/heads/`.
    pub branch: String,
    /// The new tip; `None`: the branch was deleted.
    pub commit: Option<CommitSha>,
}

/// A part of a request that is not a push of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Why it is not a push of a tag.
    pub class: IgnoredClass,
    /// The content that was found, and its position in the body.
    pub reason: String,
}

/// The class of an ignored part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IgnoredClass {
    /// An image was pulled.
    Pull,
    /// An image or a tag was deleted.
    Delete,
    /// A vulnerability scan started, ended or found something.
    Scan,
    /// A Helm chart, not an image.
    Chart,
    /// A manifest or blob was pushed by digest: a platform of a multi-arch image, a layer.
    Untagged,
    /// The sender tests the connection.
    Ping,
    /// The sender asks whether its events are accepted.
    Handshake,
    /// The registry built an image, or failed to.
    Build,
    /// A project reached its quota.
    Quota,
    /// An image was copied to or from another registry.
    Replication,
    /// The push failed.
    Failed,
    /// The body is invalid, or lacks a required part of a push.
    Malformed,
    /// Another event that moves no tag.
    Other,
}

impl IgnoredClass {
    /// Returns its name in answers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Delete => "delete",
            Self::Scan => "scan",
            Self::Chart => "chart",
            Self::Untagged => "untagged",
            Self::Ping => "ping",
            Self::Handshake => "handshake",
            Self::Build => "build",
            Self::Quota => "quota",
            Self::Replication => "replication",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for IgnoredClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An answer that a sender requires: a JSON document, sent with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The document.
    pub json: serde_json::Value,
}
