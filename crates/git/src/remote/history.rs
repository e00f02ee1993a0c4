//! The history of a repository: its branches and its commits, without their files.

use std::path::Path;

use super::pktline::{put_delimiter, put_flush, put_line};
use super::protocol::{AGENT, Advertisement, Boundary, Capabilities, HEADS};
use super::reading::{Conversation, Reading};
use crate::error::RemoteError;
use crate::mirror::{MirrorError, PackReceiver, git_error, open_objects};
use crate::object::{CommitId, ObjectId, commit_parents};

/// A request names at most this many known commits, which is enough to find a common one.
const MAX_HAVES: usize = 256;

/// Which commits to fetch.
#[derive(Debug, Clone, Default)]
pub struct HistoryRequest {
    /// Commits to fetch together with their history.
    pub wants: Vec<CommitId>,
    /// Commits whose history is known already, up to the `shallow` commits.
    pub haves: Vec<CommitId>,
    /// Known commits whose parents are unknown.
    pub shallow: Vec<CommitId>,
    /// The depth of the history; `None`: to the root, or to the `shallow` commits.
    pub depth: Option<u32>,
    /// Fetch only commits, without trees and blobs. Needs [`HistoryReading::can_filter`].
    pub filter: bool,
}

/// The result of a [`HistoryRequest`].
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// Commits with their parents.
    pub commits: Vec<(CommitId, Vec<CommitId>)>,
    /// Commits whose parents were left out.
    pub shallow: Vec<CommitId>,
    /// Commits whose parents were left out before and are included now.
    pub unshallow: Vec<CommitId>,
}

/// A conversation that reads a history.
pub struct HistoryReading<'a> {
    reading: Reading<'a>,
    advertisement: Advertisement,
}

impl<'a> HistoryReading<'a> {
    pub(super) fn new(reading: Reading<'a>, advertisement: Advertisement) -> Self {
        Self { reading, advertisement }
    }

    /// Returns every branch, without `refs/heads/`, and its commit.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn branches(&mut self) -> Result<Vec<(String, CommitId)>, RemoteError> {
        if let Advertisement::Version0 { branches, .. } = &self.advertisement {
            return Ok(branches.0.clone());
        }
        let listed = match &mut self.reading.0 {
            Conversation::Http(http) => http.list(HEADS).await,
            Conversation::Stream(stream) => stream.list(HEADS).await,
        };
        listed.map(|branches| branches.0).map_err(|error| error.redacted(&self.reading.redaction()))
    }

    /// Whether the server can leave out trees and blobs.
    pub fn can_filter(&self) -> bool {
        match &self.advertisement {
            Advertisement::Version2(capabilities) => capabilities.can("fetch", "filter"),
            Advertisement::Version0 { capabilities, .. } => capabilities.has("filter"),
        }
    }

    /// Fetches commits. `folder` holds the pack during the call and is removed at its end.
    ///
    /// # Errors
    ///
    /// If the server does not send the commits, or the folder cannot be written.
    pub async fn fetch(&mut self, request: &HistoryRequest, folder: &Path) -> Result<Fetched, RemoteError> {
        let body = match &self.advertisement {
            Advertisement::Version2(_) => fetch_request_v2(request),
            Advertisement::Version0 { capabilities, .. } => fetch_request_v0(request, capabilities)?,
        };
        let pack_folder = folder.join("objects/pack");
        let made = std::fs::create_dir_all(&pack_folder);
        made.map_err(|source| MirrorError::Disk { path: pack_folder.clone(), source })?;
        let mut receiver = PackReceiver::start(folder.to_owned());
        let received = self.receive(body, &mut receiver).await;
        let finished = receiver.finish(received.is_ok()).await;
        let place = folder.to_owned();
        let commits = tokio::task::spawn_blocking(move || {
            let commits = finished.and_then(|()| commits_in(&place));
            let _ = std::fs::remove_dir_all(&place);
            commits
        });
        let commits = commits.await.map_err(MirrorError::from)?;
        // Report an error of our disk first: a full disk also ends the conversation.
        let commits = if received.is_ok() { commits? } else { Vec::new() };
        let boundary = received.map_err(|error| error.redacted(&self.reading.redaction()))?;
        Ok(Fetched { commits, shallow: boundary.shallow, unshallow: boundary.unshallow })
    }

    async fn receive(&mut self, body: Vec<u8>, receiver: &mut PackReceiver) -> Result<Boundary, RemoteError> {
        match &mut self.reading.0 {
            Conversation::Http(http) => http.receive_pack(body, receiver).await,
            Conversation::Stream(stream) => stream.receive_pack(&body, receiver).await,
        }
    }
}

const FILTER: &str = "filter tree:0";

fn fetch_request_v2(request: &HistoryRequest) -> Vec<u8> {
    let mut out = Vec::new();
    put_line(&mut out, "command=fetch");
    put_line(&mut out, &format!("agent={AGENT}"));
    put_delimiter(&mut out);
    for word in ["ofs-delta", "no-progress"] {
        put_line(&mut out, word);
    }
    request.wants.iter().for_each(|want| put_line(&mut out, &format!("want {want}")));
    put_limits(&mut out, request);
    put_haves(&mut out, request);
    put_line(&mut out, "done");
    put_flush(&mut out);
    out
}

fn fetch_request_v0(request: &HistoryRequest, capabilities: &Capabilities) -> Result<Vec<u8>, RemoteError> {
    if !capabilities.has("side-band-64k") || (request.depth.is_some() && !capabilities.has("shallow")) {
        let reason = "the server supports neither protocol version 2 nor shallow fetches".to_owned();
        return Err(RemoteError::Protocol { reason });
    }
    let mut out = Vec::new();
    let mut words = String::new();
    for word in ["side-band-64k", "ofs-delta", "no-progress", "shallow", "filter"] {
        if capabilities.has(word) {
            words.push(' ');
            words.push_str(word);
        }
    }
    for (index, want) in request.wants.iter().enumerate() {
        put_line(&mut out, &format!("want {want}{}", if index == 0 { words.as_str() } else { "" }));
    }
    put_limits(&mut out, request);
    put_flush(&mut out);
    put_haves(&mut out, request);
    put_line(&mut out, "done");
    Ok(out)
}

fn put_limits(out: &mut Vec<u8>, request: &HistoryRequest) {
    request.shallow.iter().for_each(|id| put_line(out, &format!("shallow {id}")));
    if let Some(depth) = request.depth {
        put_line(out, &format!("deepen {depth}"));
    }
    if request.filter {
        put_line(out, FILTER);
    }
}

fn put_haves(out: &mut Vec<u8>, request: &HistoryRequest) {
    request.haves.iter().take(MAX_HAVES).for_each(|have| put_line(out, &format!("have {have}")));
}

/// Returns the commits of an object folder, with their parents.
fn commits_in(folder: &Path) -> Result<Vec<(CommitId, Vec<CommitId>)>, MirrorError> {
    let git = |source| git_error(folder, source);
    let objects = open_objects(folder)?;
    let mut ids = Vec::new();
    objects
        .foreach(|id| {
            ids.push(*id);
            true
        })
        .map_err(git)?;
    let mut commits = Vec::new();
    for id in ids {
        // A server that cannot filter also sends trees and blobs. Only their headers are read.
        if objects.read_header(id).map_err(git)?.1 == git2::ObjectType::Commit {
            let object = objects.read(id).map_err(git)?;
            let own = ObjectId::from_bytes(id.as_bytes()).map(CommitId);
            commits.extend(own.map(|own| (own, commit_parents(object.data()))));
        }
    }
    Ok(commits)
}
