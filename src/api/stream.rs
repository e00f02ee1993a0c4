use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::domain::{EventState, RequestKind, UpdateState};
use crate::store::RolloutState;

/// A message of `GET /api/v1/stream`.
///
/// Messages are not stored. A client that was disconnected reads the lists instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamMessage {
    pub at: Timestamp,
    #[serde(flatten)]
    pub subject: StreamSubject,
}

/// The subject of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StreamSubject {
    /// A push event was received or changed its state.
    Event {
        id: String,
        repository: String,
        tag: String,
        state: Word<EventState>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An update changed its state.
    Update {
        id: String,
        /// The id of the event, promotion or rollback.
        cause_id: String,
        environment: String,
        repository: String,
        /// The tag, or the digest.
        version: String,
        state: Word<UpdateState>,
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The rollout of a committed update changed its state.
    Rollout {
        /// The id of the update.
        update: String,
        /// The id of the event, promotion or rollback.
        cause_id: String,
        environment: String,
        repository: String,
        /// The tag, or the digest.
        version: String,
        commit: String,
        state: Word<RolloutState>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A promotion or rollback was requested.
    Request { id: String, request: Word<RequestKind>, environment: String, actor: String },
    /// A hold was made or has ended.
    Hold {
        id: String,
        environment: String,
        repository: String,
        /// `made` or `released`.
        state: String,
    },
    /// A freeze began or ended.
    Freeze {
        environment: String,
        /// `frozen` or `thawed`.
        state: String,
        /// The causes and the end in one sentence.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A kind that this version does not know.
    #[serde(other, skip_serializing)]
    Other,
}
