//! zot: CloudEvents in binary mode (<https://zotregistry.dev/latest/articles/events/>).
//!
//! The body names no host. `manifest` is the manifest as a string.

use serde_json::json;

use crate::cloud_event::CloudEvent;
use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, quoted};
use crate::json::{self, Node};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{HELM_CONFIG, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "zot",
    title: "zot",
    credentials: &[Credential::Authorization, Credential::CustomHeader],
    host: Host::Setting,
    read,
    events: "all, no choice",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let Some(event) = CloudEvent::of(message) else {
        return findings.malformed("the request has no `Ce-Type`");
    };
    let class = match &*event.kind {
        "zotregistry.image.updated" => None,
        "zotregistry.image.deleted" => Some(IgnoredClass::Delete),
        "zotregistry.image.scanned" => Some(IgnoredClass::Scan),
        "zotregistry.image.lint_failed" => Some(IgnoredClass::Failed),
        _ => Some(IgnoredClass::Other),
    };
    if let Some(class) = class {
        return findings.ignore(class, format!("the event is {}", quoted(&event.kind)));
    }
    let data = event.data();
    if is_chart(data) {
        return findings.ignore(IgnoredClass::Chart, "the manifest's configuration belongs to a Helm chart");
    }
    findings.push(Push {
        path: data.get("name").text().as_deref(),
        tag: data.get("reference").text().as_deref(),
        digest: data.get("digest").text().as_deref(),
        pushed_at: event.time,
        delivery: event.delivery(),
        ..Push::default()
    });
}

fn is_chart(data: Node<'_>) -> bool {
    let manifest = data.get("manifest").text();
    let manifest = manifest.and_then(|text| json::parse_text(text.as_bytes()).ok());
    let config = manifest.as_ref().map(|manifest| Node::new(manifest).get("config"));
    config.and_then(|config| config.get("mediaType").text()).is_some_and(|media_type| media_type == HELM_CONFIG)
}

/// A sample event.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let message = SampleMessage::json(json!({
        "name": push.repository.path(),
        "reference": push.tag.as_str(),
        "digest": push.digest(),
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
    }));
    Ok(message
        .header("ce-specversion", "1.0")
        .header("ce-id", &push.id)
        .header("ce-source", "zotregistry.dev")
        .header("ce-type", "zotregistry.image.updated")
        .header("ce-time", push.pushed_at.to_string()))
}
