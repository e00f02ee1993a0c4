use crate::secret::Secret;

use super::Kind;

/// One configured webhook target: `POST /webhooks/{name}`.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// The last part of the URL.
    pub name: String,
    /// Who sends.
    pub kind: Kind,
    /// What the sender must know. `None` only where `unauthenticated` says that this is meant.
    pub secret: Option<Secret>,
    /// A second secret that is valid during a rotation.
    pub previous_secret: Option<Secret>,
    /// Everybody may send. Only for networks where nobody else can.
    pub unauthenticated: bool,
    /// The registry's host, for senders whose body names none.
    pub registry: Option<String>,
}
