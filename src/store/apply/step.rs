use jiff::Timestamp;

use crate::domain::{AttemptedUpdate, Party, UpdateInput, Wait};
use tagrelay_image::Digest;

/// An input to an update.
#[derive(Debug, Clone)]
pub(in crate::store) struct Step {
    pub(in crate::store) update_id: String,
    pub(in crate::store) input: UpdateInput,
    pub(in crate::store) reason: Option<String>,
    /// The party that answered; `None`: the registry if the update is unverified, otherwise the branch.
    pub(in crate::store) party: Option<Party>,
    /// When a postponed try is due; `None`: at once.
    pub(in crate::store) until: Option<Timestamp>,
    /// The digest that the registry confirmed.
    pub(in crate::store) digest: Option<Digest>,
    /// The wait causes, if the update waits.
    pub(in crate::store) waits: Vec<Wait>,
    /// The criterion that decided about the order, and the comparison in words.
    pub(in crate::store) basis: Option<(String, String)>,
    /// The commit and its changes, if the update landed.
    pub(in crate::store) landed: Option<AttemptedUpdate>,
    /// Whether Argo CD is followed.
    pub(in crate::store) follow: bool,
}

impl Step {
    pub(in crate::store) fn new(update_id: impl Into<String>, input: UpdateInput) -> Self {
        Self {
            update_id: update_id.into(),
            input,
            reason: None,
            party: None,
            until: None,
            digest: None,
            waits: Vec::new(),
            basis: None,
            landed: None,
            follow: false,
        }
    }

    pub(in crate::store) fn because(self, reason: impl Into<Option<String>>) -> Self {
        Self { reason: reason.into(), ..self }
    }
}
