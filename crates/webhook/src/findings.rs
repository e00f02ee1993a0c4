use std::collections::HashSet;

use jiff::Timestamp;

use super::delivery::{Delivery, Errand, Ignored, IgnoredClass, MovedBranch, PushEvent, Reply};
use tagrelay_image::{CommitSha, Digest, ImageReference, Repository, Tag};

/// Limit of a reason, in characters. It appears in answers, logs and the store, and may quote the body.
const MAX_REASON: usize = 300;

/// Limit of listed ignored parts of a request. More are only counted.
const MAX_IGNORED: usize = 100;

/// Limit of a sender's id that is stored unchanged, in bytes.
const MAX_DELIVERY_BYTES: usize = 300;

/// Collects and validates the events of a body.
pub(crate) struct Findings<'a> {
    /// The host in the receiver's settings, which overrides the body.
    prescribed: Option<&'a str>,
    /// The host for bodies without one.
    default: Option<&'a str>,
    seen: HashSet<(Repository, Tag, Option<Digest>)>,
    delivery: Delivery,
    refused: Option<String>,
    /// The number of ignored parts that are not listed.
    unlisted: usize,
}

/// A push as found in a body, unvalidated.
#[derive(Debug, Default)]
pub(crate) struct Push<'a> {
    /// Its position in the body for messages, such as `events[2]`; empty: the body itself.
    pub at: &'a str,
    pub host: Option<&'a str>,
    /// The repository without its host.
    pub path: Option<&'a str>,
    /// The tag. Missing, empty or a digest if no tag was pushed.
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
    /// The time of the push.
    pub pushed_at: Option<Timestamp>,
    /// The sender's id of the push.
    pub delivery: Option<String>,
}

impl<'a> Findings<'a> {
    /// Creates an empty collection for a receiver.
    pub(crate) fn new(prescribed: Option<&'a str>, default: Option<&'a str>) -> Self {
        Self { prescribed, default, seen: HashSet::new(), delivery: Delivery::default(), refused: None, unlisted: 0 }
    }

    /// Adds a push, or the reason why it is invalid.
    pub(crate) fn push(&mut self, push: Push<'_>) {
        let at = if push.at.is_empty() { "the body" } else { push.at };
        let Some(tag) = push.tag.filter(|tag| !tag.is_empty()) else {
            return self.ignore(IgnoredClass::Untagged, format!("{at} was pushed without a tag"));
        };
        if tag.parse::<Digest>().is_ok() || tag.starts_with("sha256:") || tag.starts_with("sha512:") {
            return self.ignore(IgnoredClass::Untagged, format!("{at} was pushed by its digest, without a tag"));
        }
        let Some(path) = push.path else {
            return self.malformed(format!("{at} names no repository"));
        };
        let Some(host) = self.prescribed.or(push.host).or(self.default) else {
            let advice = "set `registry` of the receiver";
            return self.malformed(format!("{at} names no registry host: {advice}"));
        };
        let repository = match Repository::new(host, path) {
            Ok(repository) => repository,
            Err(error) => return self.malformed(format!("{at}: {error}")),
        };
        let tag = match tag.parse::<Tag>() {
            Ok(tag) => tag,
            Err(error) => return self.malformed(format!("{at}: {error}")),
        };
        // The registry returns the real digest, so an invalid one is dropped.
        let digest = push.digest.and_then(|digest| digest.parse::<Digest>().ok());
        if self.seen.insert((repository.clone(), tag.clone(), digest.clone())) {
            let delivery = push.delivery.map(shorten_delivery);
            self.delivery.events.push(PushEvent { repository, tag, digest, pushed_at: push.pushed_at, delivery });
        }
    }

    /// Adds a moved reference of a config repository. A commit of zeros means that it was deleted.
    pub(crate) fn moved(&mut self, reference: Option<&str>, commit: Option<&str>) {
        let Some(reference) = reference else {
            return self.malformed("the body has no `ref`");
        };
        let Some(branch) = reference.strip_prefix("refs/heads/").filter(|branch| !branch.is_empty()) else {
            return self.ignore(IgnoredClass::Other, format!("{} is not a branch", quoted(reference)));
        };
        let Some(Ok(commit)) = commit.map(str::parse::<CommitSha>) else {
            return self.malformed("`after` in the body is not a commit id");
        };
        let commit = Some(commit).filter(|commit| commit.as_str().bytes().any(|digit| digit != b'0'));
        self.delivery.moved.push(MovedBranch { branch: branch.to_owned(), commit });
    }

    /// Adds something that is not a push of a tag.
    pub(crate) fn ignore(&mut self, class: IgnoredClass, reason: impl Into<String>) {
        if self.delivery.ignored.len() >= MAX_IGNORED {
            self.unlisted += 1;
            return;
        }
        self.delivery.ignored.push(Ignored { class, reason: presentable(&reason.into()) });
    }

    /// Adds a fault of the body or a part of it.
    pub(crate) fn malformed(&mut self, reason: impl Into<String>) {
        self.ignore(IgnoredClass::Malformed, reason);
    }

    /// Sets the answer that the sender requires.
    pub(crate) fn reply(&mut self, reply: Reply) {
        self.delivery.reply = Some(reply);
    }

    /// Sets the request that must be sent to the sender.
    pub(crate) fn errand(&mut self, errand: Errand) {
        self.delivery.errand = Some(errand);
    }

    /// Refuses the whole request, because a proof in the body is invalid.
    pub(crate) fn refuse(&mut self, reason: impl Into<String>) {
        self.refused = Some(reason.into());
    }

    /// Returns whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        let told = &self.delivery;
        told.events.is_empty() && told.moved.is_empty() && told.ignored.is_empty() && self.refused.is_none()
    }

    /// Returns the delivery.
    ///
    /// # Errors
    ///
    /// The reason if the request was refused.
    pub(crate) fn into_delivery(mut self) -> Result<Delivery, String> {
        if self.unlisted > 0 {
            let reason = format!("and {} more parts of the request", self.unlisted);
            self.delivery.ignored.push(Ignored { class: IgnoredClass::Other, reason });
        }
        self.refused.map_or(Ok(self.delivery), Err)
    }
}

/// Splits a reference with a host: `host[:port]/path[:tag][@digest]`, optionally after `http://` or `https://`.
pub(crate) fn split_reference(text: &str) -> Option<SplitReference<'_>> {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let (name, tag, digest) = ImageReference::split(text);
    let (host, path) = name.split_once('/')?;
    Some(SplitReference { host, path, tag, digest })
}

/// The parts of a reference, unvalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SplitReference<'a> {
    /// The registry's host, with its port.
    pub host: &'a str,
    /// The path in the registry.
    pub path: &'a str,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

/// Returns host and port of a URL in the form of image references.
pub(crate) fn host_of_url(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Returns whether the first component of a reference is a host by the rule of `docker pull`: it contains a dot or colon,
/// or is `localhost`.
pub(crate) fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Returns a text of the body for a message: short, in backquotes; `absent` if it is missing.
pub(crate) fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    if text.is_empty() {
        return "absent".to_owned();
    }
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// Hashes a long id, which only has to be the same in redeliveries.
fn shorten_delivery(id: String) -> String {
    if id.len() <= MAX_DELIVERY_BYTES { id } else { Digest::of(id.as_bytes()).to_string() }
}

fn presentable(reason: &str) -> String {
    let mut clean: String =
        reason.chars().take(MAX_REASON).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if reason.chars().nth(MAX_REASON).is_some() {
        clean.push('…');
    }
    clean
}
