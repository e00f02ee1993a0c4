use serde::Serialize;

use tagrelay_image::{CommitSha, Digest, Repository, Tag};

/// What an authenticated request was found to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// The pushes, in the order of the body; one per distinct repository, tag and digest.
    pub events: Vec<PushEvent>,
    /// The branches of a config repository that have moved.
    pub moved: Vec<MovedBranch>,
    /// What the request said beside pushes of tagged images.
    pub ignored: Vec<Ignored>,
    /// The answer that the sender waits for, where it wants a certain one (a handshake). It is sent with 200 in the
    /// place of our own answer.
    pub reply: Option<Reply>,
    /// What has to be done out there before the request can be believed, or because it was.
    pub errand: Option<Errand>,
}

/// A request to be made to a sender's own service. The addresses are checked: only the sender's hosts, over HTTPS.
/// Redirects must not be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Fetch the certificate there, hand it to [`Receiver::learn_certificate`](super::Receiver::learn_certificate),
    /// then let the receiver have the same request again. Where that cannot be done now, 503 makes the sender repeat
    /// the request.
    LearnCertificate(url::Url),
    /// Send one GET there: it confirms a subscription.
    Visit(url::Url),
}

/// What a sender says happened: a tag of a repository was pushed.
///
/// A hint, never believed without asking the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEvent {
    /// Where the image lies.
    pub repository: Repository,
    /// The tag that was pushed.
    pub tag: Tag,
    /// The digest that the sender says the tag has, where it says one.
    pub digest: Option<Digest>,
    /// When the sender says it happened.
    pub pushed_at: Option<jiff::Timestamp>,
    /// The sender's own id of this event, the same when it is delivered again. `None` where the sender has none.
    pub delivery: Option<String>,
}

/// What a Git host says happened: a branch of a config repository has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedBranch {
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// Where the host says it stands; `None` where it is gone.
    pub commit: Option<CommitSha>,
}

/// A part of a request that is no push of a tagged image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// What it is instead.
    pub class: IgnoredClass,
    /// What was found, and where in the body.
    pub reason: String,
}

/// Why a part of a request was not taken for a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IgnoredClass {
    /// An image was pulled.
    Pull,
    /// An image or a tag was deleted.
    Delete,
    /// A vulnerability scan began, ended or found something.
    Scan,
    /// A Helm chart, not an image.
    Chart,
    /// A manifest or blob was pushed by its digest: a platform of a multi-arch image, a layer.
    Untagged,
    /// The sender tries out whether we listen.
    Ping,
    /// The sender asks whether its events are wanted.
    Handshake,
    /// The registry built an image, or failed to.
    Build,
    /// A project has reached its quota.
    Quota,
    /// An image was copied to or from another registry.
    Replication,
    /// The push did not succeed.
    Failed,
    /// The sender is known and the body makes no sense, or lacks what a push must say.
    Malformed,
    /// Something else that moves no tag.
    Other,
}

impl IgnoredClass {
    /// Returns the word for it in answers, logs and metrics.
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

/// An answer that a sender waits for: a JSON document, sent with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The document.
    pub json: serde_json::Value,
}
