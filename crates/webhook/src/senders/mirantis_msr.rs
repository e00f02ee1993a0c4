//! Mirantis Secure Registry 2 and 3, formerly Docker Trusted Registry
//! (<https://docs.mirantis.com/msr/3.1/ops/manage-webhooks/webhook-types.html>).
//!
//! `imageName` has the host in older releases only; set `registry` for newer ones. MSR 4 is based on Harbor. The test button
//! sends a push of `foo/bar`.

use serde_json::json;

use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, is_host, quoted, split_reference};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "mirantis-msr",
    title: "Mirantis Secure Registry",
    credentials: &[Credential::Query("token")],
    host: Host::Body,
    read,
    events: "Tag pushed",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    let Some(kind) = body.get("type").text() else {
        return findings.malformed("the body has no `type`");
    };
    if let Some(class) = class_of(&kind) {
        return findings.ignore(class, format!("the event is {}", quoted(&kind)));
    }
    let contents = body.get("contents");
    let name = contents.get("imageName").text();
    let name = name.as_deref().and_then(split_reference);
    let path = match (contents.get("namespace").text(), contents.get("repository").text()) {
        (Some(namespace), Some(repository)) => Some(format!("{namespace}/{repository}")),
        _ => name.map(|name| name.path.to_owned()),
    };
    findings.push(Push {
        at: "contents",
        host: name.map(|name| name.host).filter(|host| is_host(host)),
        path: path.as_deref(),
        tag: contents.get("tag").text().as_deref(),
        digest: contents.get("digest").text().as_deref(),
        pushed_at: contents.get("pushedAt").time().or_else(|| body.get("createdAt").time()),
        ..Push::default()
    });
}

/// Returns the class of an event; `None`: it is a push of a tag.
fn class_of(kind: &str) -> Option<IgnoredClass> {
    Some(match kind {
        "TAG_PUSH" => return None,
        "TAG_PULL" | "MANIFEST_PULL" => IgnoredClass::Pull,
        "MANIFEST_PUSH" => IgnoredClass::Untagged,
        "PROMOTION" => IgnoredClass::Replication,
        _ if kind.ends_with("_DELETE") || kind == "REPO_DELETED" => IgnoredClass::Delete,
        _ if kind.ends_with("_MIRRORING") => IgnoredClass::Replication,
        _ if kind.starts_with("SCAN") => IgnoredClass::Scan,
        _ => IgnoredClass::Other,
    })
}

/// A sample event.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let (namespace, repository) = push.owner_and_name("Mirantis Secure Registry")?;
    Ok(SampleMessage::json(json!({
        "type": "TAG_PUSH",
        "createdAt": push.pushed_at.to_string(),
        "contents": {
            "namespace": namespace,
            "repository": repository,
            "tag": push.tag.as_str(),
            "digest": push.digest(),
            "imageName": push.reference(),
            "os": "linux",
            "architecture": "amd64",
            "author": "sample",
            "pushedAt": push.pushed_at.to_string(),
        },
        "location": format!("/repositories/{namespace}/{repository}/tags/{}", push.tag),
    })))
}
