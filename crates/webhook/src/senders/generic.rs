//! A CI job, or another client that sends a request after a push.
//!
//! The body is `{"image": "host/repository:tag[@digest]"}` or `{"repository": "host/repository", "tag": "…",
//! "digest": "…"?}`, with optional `"id"` (a second request with the same id is a redelivery) and `"pushed_at"`. Without a
//! host, the receiver's `registry` applies, else Docker Hub.
//!
//! `"sent_at"` is the time of the request. The signature covers it, so a signed request cannot be replayed later. Without
//! `"id"` and `"pushed_at"`, it distinguishes requests.

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
        // Of the CI system: GitHub Actions and GitLab CI sign one for each job.
        Credential::IdentityToken,
    ],
    host: Host::Body,
    read,
    events: "one request after each push",
    sample,
};

/// Allowed difference between `sent_at` and the local time. Generous, for machines without time synchronisation.
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
            None => return findings.malformed("`sent_at` is not a time: write it as 2026-01-31T12:00:00Z"),
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
    // Normalisation decides what is a host: `uyou/a` has none, `localhost/a` has one.
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

/// Returns an id for a request without `id` and `pushed_at`: `sent_at`. A retry by curl has the same one, a repeated job
/// another.
fn unnamed(body: Node<'_>) -> Option<String> {
    let sent_at = body.get("sent_at").text().filter(|_| !body.get("pushed_at").is_present());
    sent_at.map(|sent_at| format!("sent {sent_at}"))
}

/// Returns the path as written: `library/` belongs to Docker Hub only, and `registry` may name another host.
fn path<'a>(name: &'a str, repository: &'a Repository) -> &'a str {
    if name.contains('/') { repository.path() } else { name }
}

/// A sample body.
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
