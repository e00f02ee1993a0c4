//! zot: CloudEvents in binary mode (<https://zotregistry.dev/latest/articles/events/>).
//!
//! The body names no host. `manifest` is the manifest itself, as a string.

use crate::webhook::cloud_event::CloudEvent;
use crate::webhook::delivery::IgnoredClass;
use crate::webhook::findings::{Findings, Push, quoted};
use crate::webhook::json::{self, Node};
use crate::webhook::sender::{Credential, HELM_CONFIG, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "zot",
    title: "zot",
    credentials: &[Credential::Authorization, Credential::CustomHeader],
    host: Host::Setting,
    read,
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
        return findings.ignore(IgnoredClass::Chart, "the manifest's configuration is that of a Helm chart");
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
