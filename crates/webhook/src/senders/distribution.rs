//! CNCF Distribution: <https://distribution.github.io/distribution/about/notifications/>.
//!
//! The operator chooses the headers in the endpoint's configuration. Version 2 may put unrelated events into one envelope.
//! After any other answer than 2xx and 3xx, the registry retries forever and delays all later events.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, host_of_url, quoted};
use crate::json::Node;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{HELM_CONFIG, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "distribution",
    title: "Distribution",
    credentials: &[Credential::Authorization, Credential::CustomHeader, Credential::Query("token")],
    host: Host::Body,
    read,
    events: "all; the endpoint's `ignore: {actions: [pull, mount, delete]}` reduces them to pushes",
    sample,
};

/// Reads an envelope. GitLab's registry sends the same format.
pub(super) fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let events = message.body.get("events");
    if !events.is_array() {
        return findings.malformed("the body has no list `events`");
    }
    if !events.is_present() {
        return findings.ignore(IgnoredClass::Other, "`events` is empty");
    }
    for (index, event) in events.items().enumerate() {
        let delivery = event.get("id").text().map(Cow::into_owned);
        read_event(&format!("events[{index}]"), event, delivery, findings);
    }
}

/// Reads one event with the sender's id `delivery`. Azure's registry sends it without an envelope.
pub(super) fn read_event(at: &str, event: Node<'_>, delivery: Option<String>, findings: &mut Findings<'_>) {
    let Some(action) = event.get("action").text() else {
        return findings.malformed(format!("{at} has no `action`"));
    };
    let class = match &*action {
        "push" => None,
        "pull" => Some(IgnoredClass::Pull),
        "delete" => Some(IgnoredClass::Delete),
        _ => Some(IgnoredClass::Other),
    };
    if let Some(class) = class {
        return findings.ignore(class, format!("{at}: the action is {}", quoted(&action)));
    }
    let target = event.get("target");
    let is_chart = |reference: Node<'_>| reference.get("mediaType").text().is_some_and(|text| text == HELM_CONFIG);
    if target.get("references").items().any(is_chart) {
        return findings.ignore(IgnoredClass::Chart, format!("{at} refers to the configuration of a Helm chart"));
    }
    let url = target.get("url").text();
    let host = event.get("request").get("host").text();
    let host = host.or_else(|| url.as_deref().and_then(host_of_url).map(Cow::Owned));
    findings.push(Push {
        at,
        host: host.as_deref(),
        path: target.get("repository").text().as_deref(),
        tag: target.get("tag").text().as_deref(),
        digest: target.get("digest").text().as_deref(),
        pushed_at: event.get("timestamp").time(),
        delivery,
    });
}

/// A sample envelope.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let body = json!({ "events": [sample_event(push)] });
    Ok(SampleMessage::new("application/vnd.docker.distribution.events.v2+json", body))
}

/// A sample event.
pub(super) fn sample_event(push: &SamplePush) -> Value {
    json!({
        "id": push.id,
        "timestamp": push.pushed_at.to_string(),
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "repository": push.repository.path(),
            "tag": push.tag.as_str(),
            "digest": push.digest(),
        },
        "request": { "host": push.repository.registry(), "method": "PUT", "useragent": "tagrelay" },
        "actor": { "name": "sample" },
    })
}
