use std::sync::Arc;

use bytes::Bytes;

use super::pktline::{put_data, put_flush};
use super::protocol::{AGENT, Capabilities};
use crate::branch_name::BranchName;
use crate::error::PushError;
use crate::object::{CommitId, NewObject};
use crate::pack::{self, Deltas};

/// Up to this size a pack is built on the async thread, in some tenths of a millisecond. A handover to another thread
/// would cost as much.
const SMALL_PACK: usize = 32 << 10;

/// One move of a branch, from the expected old commit to a new one.
#[derive(Debug)]
pub struct Push {
    /// The commit that the branch must be at.
    pub old: CommitId,
    /// The commit to move to.
    pub new: CommitId,
    /// The objects that the server lacks.
    pub objects: Arc<Vec<NewObject>>,
}

impl Push {
    /// The total size of the objects in bytes.
    pub(super) fn size(&self) -> usize {
        self.objects.iter().map(|object| object.data.len()).sum()
    }

    /// Builds the request: the command, then the pack.
    pub(super) async fn body(
        &self,
        branch: &BranchName,
        capabilities: &Capabilities,
        deltas: Deltas,
    ) -> Result<Bytes, PushError> {
        let mut body = self.command(branch, capabilities)?;
        body.extend_from_slice(&self.pack(capabilities, deltas).await?);
        Ok(body.into())
    }

    fn command(&self, branch: &BranchName, capabilities: &Capabilities) -> Result<Vec<u8>, PushError> {
        if !capabilities.has("report-status") {
            return Err(PushError::Refused {
                reason: "the server does not report whether a push succeeded".to_owned(),
            });
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
        put_data(&mut out, format!("{} {} {}\0{words}", self.old, self.new, branch.reference()).as_bytes());
        put_flush(&mut out);
        Ok(out)
    }

    async fn pack(&self, capabilities: &Capabilities, deltas: Deltas) -> Result<Vec<u8>, PushError> {
        let deltas = if capabilities.has("no-thin") { Deltas::Whole } else { deltas };
        let pack = if self.size() <= SMALL_PACK {
            pack::write(&self.objects, deltas)
        } else {
            let objects = self.objects.clone();
            let packing = tokio::task::spawn_blocking(move || pack::write(&objects, deltas)).await;
            // Nothing has been sent yet.
            packing.map_err(|error| PushError::Unavailable { reason: error.to_string(), ask_again_after: None })?
        };
        pack.map_err(|error| PushError::Refused { reason: error.to_string() })
    }
}
