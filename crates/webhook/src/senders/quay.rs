//! Quay, hosted and self-hosted: <https://docs.projectquay.io/use_quay.html#repository-notifications>.
//!
//! There is no event name, digest or id: a body with `updated_tags` is a push. After three consecutive failures, Quay disables
//! the notification. Its test notification looks like a push of `latest` and `foo`.

use std::borrow::Cow;

use serde_json::json;

use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, split_reference};
use crate::json::Node;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "quay",
    title: "Quay",
    credentials: &[Credential::Query("token")],
    host: Host::Body,
    read,
    events: "Push to Repository",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    let tags = body.get("updated_tags");
    if !tags.is_present() {
        return read_other(body, findings);
    }
    let url = body.get("docker_url").text();
    let url = url.as_deref().and_then(split_reference);
    let repository = body.get("repository").text();
    let path = url.map(|url| url.path).or(repository.as_deref());
    // Until 2014 it was an object: tag -> image id.
    let listed = tags.items().map(Node::text);
    let names = listed.chain(tags.members().map(|(tag, _)| Some(Cow::Borrowed(tag))));
    for (index, tag) in names.enumerate() {
        findings.push(Push {
            at: &format!("updated_tags[{index}]"),
            host: url.map(|url| url.host),
            path,
            tag: tag.as_deref(),
            ..Push::default()
        });
    }
}

fn read_other(body: Node<'_>, findings: &mut Findings<'_>) {
    let has = |name| body.get(name).is_present();
    if has("build_id") || has("docker_tags") {
        findings.ignore(IgnoredClass::Build, "the notification is about a build");
    } else if has("vulnerability") {
        findings.ignore(IgnoredClass::Scan, "the notification is about a vulnerability");
    } else if has("message") {
        findings.ignore(IgnoredClass::Replication, "the notification is about mirroring");
    } else if has("docker_url") {
        findings.ignore(IgnoredClass::Other, "the notification names no `updated_tags`");
    }
}

/// A sample notification.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let (namespace, name) = push.owner_and_name("Quay")?;
    Ok(SampleMessage::json(json!({
        "repository": push.repository.path(),
        "namespace": namespace,
        "name": name,
        "docker_url": push.repository.as_str(),
        "homepage": format!("https://{}/repository/{}", push.repository.registry(), push.repository.path()),
        "updated_tags": [push.tag.as_str()],
    })))
}
