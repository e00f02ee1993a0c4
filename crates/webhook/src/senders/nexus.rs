//! Sonatype Nexus Repository: repository webhooks for components
//! (<https://help.sonatype.com/en/webhooks.html>), signed with HMAC-SHA1, the only algorithm that it supports.
//!
//! The body names neither the host nor the port of the Docker connector.

use serde_json::json;

use crate::credential::{Credential, Hash, Signed};
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, quoted};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "nexus",
    title: "Nexus Repository",
    credentials: &[Credential::Hmac {
        header: "X-Nexus-Webhook-Signature",
        prefix: "",
        hash: Hash::Sha1,
        signed: Signed::Body,
    }],
    host: Host::Setting,
    read,
    events: "Component",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    let component = body.get("component");
    if !component.is_present() {
        // An asset is a file of a component; the component's event has the tag.
        let reason =
            if body.get("asset").is_present() { "the event is about an asset" } else { "there is no component" };
        return findings.ignore(IgnoredClass::Other, reason);
    }
    let format = component.get("format").text().unwrap_or_default();
    if format != "docker" {
        let class = if format == "helm" { IgnoredClass::Chart } else { IgnoredClass::Other };
        return findings.ignore(class, format!("the format is {}", quoted(&format)));
    }
    match body.get("action").text().as_deref() {
        Some("CREATED" | "UPDATED") => {}
        Some("DELETED") => return findings.ignore(IgnoredClass::Delete, "the action is `DELETED`"),
        Some(other) => return findings.ignore(IgnoredClass::Other, format!("the action is {}", quoted(other))),
        None => return findings.malformed("the body has no `action`"),
    }
    findings.push(Push {
        at: "component",
        path: component.get("name").text().as_deref(),
        tag: component.get("version").text().as_deref(),
        pushed_at: body.get("timestamp").time(),
        delivery: message.header("X-Nexus-Webhook-Delivery").map(str::to_owned),
        ..Push::default()
    });
}

/// A sample event.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let body = json!({
        "timestamp": push.pushed_at.to_string(),
        "initiator": "sample",
        "repositoryName": "docker-hosted",
        "action": "CREATED",
        "component": { "format": "docker", "name": push.repository.path(), "version": push.tag.as_str() },
    });
    let message = SampleMessage::new("application/json; charset=UTF-8", body);
    Ok(message.header("x-nexus-webhook-id", "rm:repository:component").header("x-nexus-webhook-delivery", &push.id))
}
