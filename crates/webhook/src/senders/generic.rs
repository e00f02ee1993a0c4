//! A CI job, or anybody else who can send a request after a push.
//!
//! The body is `{"image": "host/repository:tag[@digest]"}` or `{"repository": "host/repository", "tag": "…",
//! "digest": "…"?}`, with optional `"id"` (a second request with the same id is a repetition) and `"pushed_at"`.
//! Without a host the receiver's `registry` is meant, and without that Docker Hub, as everywhere.
//!
//! `"sent_at"` is the time of the request. Where it is told it is checked, and as the signature covers it nobody can
//! send the same request again later. Where neither `"id"` nor `"pushed_at"` is told, requests that were sent at other
//! times are not repetitions of each other.

use std::borrow::Cow;

use jiff::SignedDuration;

use serde_json::json;

use crate::credential::{Credential, Hash, Signed};
use crate::findings::{Findings, Push};
use crate::json::Node;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};
use tagrelay_image::{ImageReference, Repository};

pub(super) const SENDER: Sender = Sender {
    name: "generic",
    title: "a CI job",
    credentials: &[
        Credential::Hmac {
            header: "X-Tagrelay-Signature",
            prefix: "sha256=",
            hash: Hash::Sha256,
            signed: Signed::Body,
        },
        Credential::Bearer,
    ],
    host: Host::Body,
    read,
    events: "one request after each push",
    sample,
};

/// How far `sent_at` may be from the time here: enough for clocks that nobody sets.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(10);

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    if body.get("sent_at").is_present() {
        match body.get("sent_at").time() {
            Some(time) if message.now.duration_since(time).abs() <= MAX_AGE => {}
            Some(_) => {
                return findings.refuse(
                    "`sent_at` is more than 10 minutes from the time here: the request is repeated, or a clock is wrong",
                );
            }
            None => return findings.malformed("`sent_at` is no time: write it as 2026-01-31T12:00:00Z"),
        }
    }
    let (image, repository) = (body.get("image").text(), body.get("repository").text());
    let (at, name, tag, digest) = match (&image, &repository) {
        (Some(image), _) => {
            let (name, tag, digest) = ImageReference::split(image);
            ("image", name, tag, digest)
        }
        (None, Some(repository)) => ("repository", &**repository, None, None),
        (None, None) => {
            return findings.malformed(
                "the body has neither `image` (`host/repository:tag`) nor `repository` and `tag`, each a string",
            );
        }
    };
    // Normalising knows what is a host and what is not: `uyou/a` has none, `localhost/a` has one.
    let repository = match name.parse::<Repository>() {
        Ok(repository) => repository,
        Err(error) => return findings.malformed(format!("`{at}`: {error}")),
    };
    let (member_tag, member_digest) = (body.get("tag").text(), body.get("digest").text());
    findings.push(Push {
        at: &format!("`{at}`"),
        host: Some(repository.registry()),
        path: Some(path(name, &repository)),
        tag: tag.or(member_tag.as_deref()),
        digest: digest.or(member_digest.as_deref()),
        pushed_at: body.get("pushed_at").time(),
        delivery: body.get("id").text().map(Cow::into_owned).or_else(|| unnamed(body)),
    });
}

/// Returns what tells a request without id and time of the push from the next one: curl repeats the body as it is, and
/// a job that runs again writes another time.
fn unnamed(body: Node<'_>) -> Option<String> {
    let sent_at = body.get("sent_at").text().filter(|_| !body.get("pushed_at").is_present());
    sent_at.map(|sent_at| format!("sent {sent_at}"))
}

/// Returns the path as it was written: `library/` belongs to Docker Hub only, and `registry` may name another one.
fn path<'a>(name: &'a str, repository: &'a Repository) -> &'a str {
    if name.contains('/') { repository.path() } else { name }
}

/// What a CI job should send.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    Ok(SampleMessage::json(json!({
        "repository": push.repository.as_str(),
        "tag": push.tag.as_str(),
        "digest": push.digest(),
        "id": push.id,
        "pushed_at": push.pushed_at.to_string(),
        "sent_at": push.pushed_at.to_string(),
    })))
}
