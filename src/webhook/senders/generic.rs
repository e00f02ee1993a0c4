//! A CI job, or anybody else who can send a request after a push.
//!
//! The body is `{"image": "host/repository:tag[@digest]"}` or `{"repository": "host/repository", "tag": "…",
//! "digest": "…"?}`, with optional `"id"` (a second request with the same id is a repetition) and `"pushed_at"`.
//! Without a host the receiver's `registry` is meant, and without that Docker Hub, as everywhere.

use std::borrow::Cow;

use crate::image::{ImageReference, Repository};
use crate::webhook::findings::{Findings, Push};
use crate::webhook::sender::{Credential, Hash, Host, Message, Sender, Signed};

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
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
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
        delivery: body.get("id").text().map(Cow::into_owned),
    });
}

/// Returns the path as it was written: `library/` belongs to Docker Hub only, and `registry` may name another one.
fn path<'a>(name: &'a str, repository: &'a Repository) -> &'a str {
    if name.contains('/') { repository.path() } else { name }
}
