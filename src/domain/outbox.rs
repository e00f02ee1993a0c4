use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A change of state, as an entry of the outbox. Written in the transaction of the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The number of the entry: one more than that of the entry before. Also the id on the stream.
    #[serde(skip)]
    pub sequence: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub change: Change,
}

/// The kind of change, with its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// An event arrived or changed its state.
    Event {
        id: String,
        repository: String,
        tag: String,
        state: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An update was made or changed its state.
    Update {
        id: String,
        /// The event or request.
        cause_id: String,
        environment: String,
        repository: String,
        /// The tag or digest.
        version: String,
        state: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The rollout of a committed update changed its state.
    Rollout {
        update: String,
        /// The event or request.
        cause_id: String,
        environment: String,
        repository: String,
        /// The tag or digest.
        version: String,
        commit: String,
        state: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A promotion or rollback was requested.
    Request {
        id: String,
        /// `promotion` or `rollback`.
        request: String,
        environment: String,
        actor: String,
    },
    /// A hold was made or has ended.
    Hold {
        id: String,
        environment: String,
        repository: String,
        /// `made` or `released`.
        state: String,
    },
    /// A freeze or a freeze window of an environment began or ended.
    Freeze {
        environment: String,
        /// `frozen` or `thawed`.
        state: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl Change {
    /// Returns the `kind` in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Event { .. } => "event",
            Self::Update { .. } => "update",
            Self::Rollout { .. } => "rollout",
            Self::Request { .. } => "request",
            Self::Hold { .. } => "hold",
            Self::Freeze { .. } => "freeze",
        }
    }
}
