//! Harbor 1.9 and later: <https://goharbor.io/docs/main/working-with-projects/project-configuration/configure-webhooks/>.
//!
//! There are two formats: Harbor's own, and since 2.8 CloudEvents with the same content in `data`. The policy's Auth Header
//! is sent as `Authorization`, unchanged. Children of an index are announced with the digest as their tag.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::json;

use crate::cloud_event::CloudEvent;
use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, quoted, split_reference};
use crate::json::Node;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "harbor",
    title: "Harbor",
    credentials: &[Credential::Authorization],
    host: Host::Body,
    read,
    events: "Artifact pushed",
    sample,
};

/// Reads both formats of Harbor. Registries based on Harbor send them too.
pub(super) fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    let event = CloudEvent::of(message);
    let kind = event.as_ref().map(|event| event.kind.clone()).or_else(|| body.get("type").text());
    let Some(kind) = kind else {
        return findings.malformed("the body has no `type`");
    };
    if let Some(class) = class_of(&kind) {
        return findings.ignore(class, format!("the event is {}", quoted(&kind)));
    }
    match event {
        Some(event) => read_resources("data", event.data(), event.time, event.delivery(), findings),
        None => {
            // There is no id. A redelivery has the same second, tag and digest, and two pushes with all three equal are
            // the same push.
            let second = body.get("occur_at").text().map(Cow::into_owned);
            read_resources("event_data", body.get("event_data"), body.get("occur_at").time(), second, findings);
        }
    }
}

fn read_resources(
    name: &str,
    data: Node<'_>,
    pushed_at: Option<Timestamp>,
    delivery: Option<String>,
    findings: &mut Findings<'_>,
) {
    let resources = data.get("resources");
    if !(resources.is_array() && resources.is_present()) {
        return findings.malformed(format!("`{name}.resources` is not a list of pushed artifacts"));
    }
    for (index, resource) in resources.items().enumerate() {
        let (tag, digest) = (resource.get("tag").text(), resource.get("digest").text());
        let url = resource.get("resource_url").text();
        let url = url.as_deref().and_then(split_reference);
        let path = url.map(|url| Cow::Borrowed(url.path)).or_else(|| full_name(data.get("repository")));
        let tag = tag.as_deref().or(url.and_then(|url| url.tag));
        let (path, digest) = (path.as_deref(), digest.as_deref());
        let what = [path, tag, digest].map(Option::unwrap_or_default).join(" ");
        findings.push(Push {
            at: &format!("{name}.resources[{index}]"),
            host: url.map(|url| url.host),
            path,
            tag,
            digest,
            pushed_at,
            delivery: delivery.as_ref().map(|delivery| format!("{delivery} {what}")),
        });
    }
}

/// Returns the class of an event; `None`: it is a push. The second and third names are those of Harbor 1 and CloudEvents.
fn class_of(kind: &str) -> Option<IgnoredClass> {
    Some(match kind {
        "PUSH_ARTIFACT" | "pushImage" | "harbor.artifact.pushed" => return None,
        "PULL_ARTIFACT" | "pullImage" | "harbor.artifact.pulled" => IgnoredClass::Pull,
        "DELETE_ARTIFACT" | "deleteImage" | "harbor.artifact.deleted" => IgnoredClass::Delete,
        _ if kind.to_ascii_lowercase().contains("chart") => IgnoredClass::Chart,
        _ if kind.to_ascii_lowercase().contains("scan") => IgnoredClass::Scan,
        _ if kind.to_ascii_lowercase().contains("quota") => IgnoredClass::Quota,
        _ if kind.to_ascii_lowercase().contains("replication") => IgnoredClass::Replication,
        _ => IgnoredClass::Other,
    })
}

fn full_name(repository: Node<'_>) -> Option<Cow<'_, str>> {
    repository.get("repo_full_name").text().or_else(|| {
        let (namespace, name) = (repository.get("namespace").text()?, repository.get("name").text()?);
        Some(format!("{namespace}/{name}").into())
    })
}

/// A sample body.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    sample_of("PUSH_ARTIFACT", push)
}

/// A sample body in Harbor's format, with `kind` as the event.
pub(super) fn sample_of(kind: &str, push: &SamplePush) -> Result<SampleMessage, String> {
    let (namespace, name) = push.owner_and_name("Harbor")?;
    Ok(SampleMessage::json(json!({
        "type": kind,
        "occur_at": push.pushed_at.as_second(),
        "operator": "sample",
        "event_data": {
            "resources": [
                { "digest": push.digest(), "tag": push.tag.as_str(), "resource_url": push.reference() },
            ],
            "repository": {
                "namespace": namespace,
                "name": name,
                "repo_full_name": push.repository.path(),
                "repo_type": "private",
            },
        },
    })))
}
