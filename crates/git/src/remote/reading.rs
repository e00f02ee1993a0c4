use tagrelay_secret::Redaction;

use super::http::HttpReading;
use super::stream::StreamReading;
use crate::branch_name::BranchName;
use crate::error::RemoteError;
use crate::mirror::PackReceiver;
use crate::object::CommitId;

/// A conversation that reads a repository.
pub struct Reading<'a>(pub(super) Conversation<'a>);

pub(super) enum Conversation<'a> {
    /// One request per step.
    Http(HttpReading<'a>),
    /// One running program of Git.
    Stream(Box<StreamReading>),
}

impl Reading<'_> {
    /// Returns the commit that the branch is at.
    ///
    /// # Errors
    ///
    /// If there is no such branch, or the server does not answer.
    pub async fn tip(&mut self, branch: &BranchName) -> Result<CommitId, RemoteError> {
        let tip = match &mut self.0 {
            Conversation::Http(http) => http.tip(branch).await,
            Conversation::Stream(stream) => stream.tip(branch).await,
        };
        tip.map_err(|error| error.redacted(&self.redaction()))
    }

    /// Fetches the commit `want` without its parents. Objects of `have` are not sent again.
    ///
    /// # Errors
    ///
    /// If the server does not send the commit. Errors of the local disk are reported by [`PackReceiver::finish`].
    pub async fn fetch(
        &mut self,
        want: CommitId,
        have: Option<CommitId>,
        receiver: &mut PackReceiver,
    ) -> Result<(), RemoteError> {
        let fetched = match &mut self.0 {
            Conversation::Http(http) => http.fetch(want, have, receiver).await,
            Conversation::Stream(stream) => stream.fetch(want, have, receiver).await,
        };
        fetched.map_err(|error| error.redacted(&self.redaction()))
    }

    /// Returns the redaction of our credentials, for texts of the server.
    pub(super) fn redaction(&self) -> Redaction {
        match &self.0 {
            Conversation::Http(http) => http.remote.redaction(),
            Conversation::Stream(_) => Redaction::none(),
        }
    }
}
