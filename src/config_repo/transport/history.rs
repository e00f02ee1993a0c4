//! The history of a repository: its branches and its commits, without what is in them.
//!
//! For the room of source repositories, which keeps nothing else, and for what became of a push (`ancestry`).

use std::path::{Path, PathBuf};

use url::Url;

use super::Transport;
use super::http::explain;
use super::pktline::{put_delimiter, put_flush, put_line};
use super::protocol::{self, AGENT, Advertisement, Capabilities, Service};
use super::stream::StreamReading;
use super::{Reading, Remote};
use crate::config_repo::error::{OpenError, RemoteError};
use crate::config_repo::folder::{MirrorError, git_error, open_objects};
use crate::config_repo::object::{CommitId, ObjectId, commit_parents};
use crate::config_repo::receive::PackReceiver;
use crate::config_repo::settings::{Authentication, CommitSettings, RemoteSettings};

const HEADS: &str = "refs/heads/";

/// At most this many commits are told to a server as had: more than it needs to find what is common.
const MAX_HAVES: usize = 256;

/// A repository whose history is read.
pub(crate) struct History(Transport);

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct HistoryRequest {
    /// Commits whose history shall be known.
    pub(crate) wants: Vec<CommitId>,
    /// Commits whose history is known, but for what lies behind `shallow`.
    pub(crate) haves: Vec<CommitId>,
    /// Commits whose parents were left out.
    pub(crate) shallow: Vec<CommitId>,
    /// How deep the history shall be; `None`: as deep as it was.
    pub(crate) depth: Option<u32>,
    /// Leave out everything but commits.
    pub(crate) filter: bool,
}

/// What came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fetched {
    /// Commits with their parents.
    pub(crate) commits: Vec<(CommitId, Vec<CommitId>)>,
    /// Commits whose parents are left out now.
    pub(crate) shallow: Vec<CommitId>,
    /// Commits whose parents are no longer left out.
    pub(crate) unshallow: Vec<CommitId>,
}

impl History {
    pub(crate) fn new(url: Url, authentication: Authentication, ca_bundle: Option<PathBuf>) -> Result<Self, OpenError> {
        // The transport wants the settings of a branch that is written; nothing of them is used here.
        let settings = RemoteSettings {
            name: url.to_string(),
            url,
            branch: "main".to_owned(),
            authentication,
            ca_bundle,
            commits: CommitSettings::default(),
            mirror: PathBuf::new(),
        };
        Transport::new(&settings).map(Self)
    }

    pub(crate) async fn read(&self) -> Result<HistoryReading<'_>, RemoteError> {
        self.0.read_history().await
    }
}

impl Transport {
    /// Begins to read the history of the remote.
    pub(in crate::config_repo) async fn read_history(&self) -> Result<HistoryReading<'_>, RemoteError> {
        self.begin_history().await.map_err(|error| error.redacted(&self.redaction()))
    }

    async fn begin_history(&self) -> Result<HistoryReading<'_>, RemoteError> {
        let (reading, capabilities) = match (&self.remote, self.read().await?) {
            (Remote::Http(remote), Reading::Http(mut reading)) => {
                match remote.advertisement(Service::UploadPack, HEADS).await? {
                    Advertisement::Version2(capabilities) => (Reading::Http(reading), Known::Version2(capabilities)),
                    Advertisement::Version0 { capabilities, references } => {
                        reading.version0 = Some(capabilities.clone());
                        (Reading::Http(reading), Known::Version0(capabilities, references.branches))
                    }
                }
            }
            (_, Reading::Stream(reading)) => {
                let known = match &reading.advertisement {
                    Advertisement::Version2(capabilities) => Known::Version2(capabilities.clone()),
                    Advertisement::Version0 { capabilities, references } => {
                        Known::Version0(capabilities.clone(), references.branches.clone())
                    }
                };
                (Reading::Stream(reading), known)
            }
            (Remote::Stream(_), Reading::Http(_)) => {
                return Err(RemoteError::unavailable("the transport changed in between"));
            }
        };
        Ok(HistoryReading { reading, known: capabilities })
    }
}

/// What the server said first.
enum Known {
    Version2(Capabilities),
    Version0(Capabilities, Vec<(String, CommitId)>),
}

/// A conversation in which a history is read.
pub(crate) struct HistoryReading<'a> {
    reading: Reading<'a>,
    known: Known,
}

impl HistoryReading<'_> {
    /// Returns every branch, without `refs/heads/`, and where it stands.
    pub(crate) async fn heads(&mut self) -> Result<Vec<(String, CommitId)>, RemoteError> {
        let heads = self.ask_heads().await;
        heads.map_err(|error| error.redacted(&self.reading.redaction()))
    }

    async fn ask_heads(&mut self) -> Result<Vec<(String, CommitId)>, RemoteError> {
        if let Known::Version0(_, branches) = &self.known {
            return Ok(branches.clone());
        }
        let request = protocol::list_request(HEADS);
        let references = match &mut self.reading {
            Reading::Http(http) => {
                let mut reader = http.request(request).await?;
                let references = protocol::read_list(&mut reader, HEADS).await.map_err(explain)?;
                reader.drain().await;
                references
            }
            Reading::Stream(stream) => list(stream, &request).await?,
        };
        Ok(references.branches)
    }

    /// Returns whether the server can leave out files and folders.
    pub(crate) fn can_filter(&self) -> bool {
        match &self.known {
            Known::Version2(capabilities) => capabilities.can("fetch", "filter"),
            Known::Version0(capabilities, _) => capabilities.has("filter"),
        }
    }

    /// Fetches commits. `folder` is used for what comes, and is gone afterwards.
    pub(crate) async fn fetch(&mut self, request: &HistoryRequest, folder: &Path) -> Result<Fetched, RemoteError> {
        let body = match &self.known {
            Known::Version2(_) => fetch_request_v2(request),
            Known::Version0(capabilities, _) => fetch_request_v0(request, capabilities)?,
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
        // First whether our side failed: a disk that is full also breaks the conversation off.
        let commits = if received.is_ok() { commits? } else { Vec::new() };
        let boundary = received.map_err(|error| error.redacted(&self.reading.redaction()))?;
        Ok(Fetched { commits, shallow: boundary.shallow, unshallow: boundary.unshallow })
    }

    async fn receive(&mut self, body: Vec<u8>, receiver: &mut PackReceiver) -> Result<protocol::Boundary, RemoteError> {
        match &mut self.reading {
            Reading::Http(http) => {
                let mut reader = http.request(body).await?;
                let boundary = protocol::read_pack(&mut reader, receiver).await.map_err(explain)?;
                reader.drain().await;
                Ok(boundary)
            }
            Reading::Stream(stream) => {
                let received = match stream.duplex.send(&body).await {
                    Ok(()) => protocol::read_pack(&mut stream.duplex.reader, receiver).await,
                    Err(error) => Err(error.into()),
                };
                match received {
                    Ok(boundary) => Ok(boundary),
                    Err(error) => Err(stream.duplex.complaints.explain(error).await),
                }
            }
        }
    }
}

async fn list(stream: &mut StreamReading, request: &[u8]) -> Result<protocol::References, RemoteError> {
    let listed = match stream.duplex.send(request).await {
        Ok(()) => protocol::read_list(&mut stream.duplex.reader, HEADS).await,
        Err(error) => Err(error.into()),
    };
    match listed {
        Ok(references) => Ok(references),
        Err(error) => Err(stream.duplex.complaints.explain(error).await),
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
        let reason = "the server can neither speak protocol version 2 nor send a part of the history".to_owned();
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

/// Returns the commits below a folder with `objects`, with their parents.
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
        // A server that cannot filter sends files and folders too; of those not more than the header is read.
        if objects.read_header(id).map_err(git)?.1 == git2::ObjectType::Commit {
            let object = objects.read(id).map_err(git)?;
            let own = ObjectId::from_bytes(id.as_bytes()).map(CommitId);
            commits.extend(own.map(|own| (own, commit_parents(object.data()))));
        }
    }
    Ok(commits)
}
