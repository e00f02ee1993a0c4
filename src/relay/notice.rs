use jiff::Timestamp;
use serde::Serialize;

/// Something that has just happened, for whoever watches the stream. Not durable: the store is.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// When.
    pub at: Timestamp,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
}

/// What a notice is about.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Subject {
    /// A push event came, or has changed its state.
    Event {
        /// The event.
        id: String,
        /// Its repository.
        repository: String,
        /// Its tag.
        tag: String,
        /// Its state.
        state: String,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An update has changed its state.
    Update {
        /// The update.
        id: String,
        /// The event or request that it comes from.
        cause_id: String,
        /// The environment.
        environment: String,
        /// The repository.
        repository: String,
        /// The tag or digest.
        version: String,
        /// Its state.
        state: String,
        /// The commit on the branch.
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What was committed has come further in Argo CD.
    Rollout {
        /// The update.
        update: String,
        /// The event or request that it comes from.
        cause_id: String,
        /// The environment.
        environment: String,
        /// The repository.
        repository: String,
        /// The tag or digest.
        version: String,
        /// The commit on the branch.
        commit: String,
        /// How far it is.
        state: String,
        /// Why it is not further, or what went wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A promotion or rollback was asked for.
    Request {
        /// The request.
        id: String,
        /// `promotion` or `rollback`.
        request: String,
        /// The environment.
        environment: String,
        /// Who asked.
        actor: String,
    },
    /// A hold was made or has ended.
    Hold {
        /// The hold.
        id: String,
        /// The environment.
        environment: String,
        /// The repository.
        repository: String,
        /// `made` or `released`.
        state: String,
    },
    /// An environment is frozen, or is no longer.
    Freeze {
        /// The environment.
        environment: String,
        /// `frozen` or `thawed`.
        state: String,
        /// By what, and until when.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl Notice {
    /// Returns the word for what it is about, which is its `kind` in JSON.
    pub fn kind(&self) -> &'static str {
        match self.subject {
            Subject::Event { .. } => "event",
            Subject::Update { .. } => "update",
            Subject::Rollout { .. } => "rollout",
            Subject::Request { .. } => "request",
            Subject::Hold { .. } => "hold",
            Subject::Freeze { .. } => "freeze",
        }
    }
}
