//! Google Artifact Registry and Container Registry: messages of the Pub/Sub topic `gcr`, delivered by a push
//! subscription (<https://cloud.google.com/artifact-registry/docs/configure-notifications>).
//!
//! The credential is a token in the push URL, an OpenID Connect token of a service account, or both.

use std::borrow::Cow;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::json;

use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, quoted, split_reference};
use crate::json::{self, Node};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "gar",
    title: "Google Artifact Registry",
    credentials: &[Credential::Query("token"), Credential::IdentityToken],
    host: Host::Body,
    read,
    events: "a push subscription of the Pub/Sub topic gcr",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let envelope = message.body.get("message");
    if !envelope.is_present() {
        // With payload unwrapping, the body is the data itself, and the other attributes may be headers.
        let delivery = message.header("x-goog-pubsub-message-id").map(str::to_owned);
        let time = message.header("x-goog-pubsub-publish-time").and_then(crate::time::parse);
        return read_data(message.body, time, delivery, findings);
    }
    let id = envelope.get("messageId").text().or_else(|| envelope.get("message_id").text());
    let time = envelope.get("publishTime").time().or_else(|| envelope.get("publish_time").time());
    let data = envelope.get("data").text().unwrap_or_default();
    let Ok(data) = base64::engine::general_purpose::STANDARD.decode(data.as_bytes()) else {
        return findings.malformed("`message.data` is not Base64");
    };
    match json::parse_text(&data) {
        Ok(data) => read_data(Node::new(&data), time, id.map(Cow::into_owned), findings),
        Err(reason) => findings.malformed(format!("`message.data`: {reason}")),
    }
}

fn read_data(data: Node<'_>, pushed_at: Option<Timestamp>, delivery: Option<String>, findings: &mut Findings<'_>) {
    match data.get("action").text().as_deref() {
        Some("INSERT") => {}
        Some("DELETE") => return findings.ignore(IgnoredClass::Delete, "the action is `DELETE`"),
        Some(other) => return findings.ignore(IgnoredClass::Other, format!("the action is {}", quoted(other))),
        None => return findings.ignore(IgnoredClass::Other, "the data has no `action`: it is not about an image"),
    }
    let (tag, digest) = (data.get("tag").text(), data.get("digest").text());
    let tagged = tag.as_deref().and_then(split_reference);
    findings.push(Push {
        at: "`tag`",
        host: tagged.map(|reference| reference.host),
        path: tagged.map(|reference| reference.path),
        tag: tagged.and_then(|reference| reference.tag),
        digest: digest.as_deref().and_then(split_reference).and_then(|reference| reference.digest),
        pushed_at,
        delivery,
    });
}

/// A sample message of Pub/Sub.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let mut data = json!({ "action": "INSERT", "tag": push.reference() });
    if let Some(digest) = &push.digest {
        data["digest"] = format!("{}@{digest}", push.repository).into();
    }
    let data = base64::engine::general_purpose::STANDARD.encode(data.to_string());
    Ok(SampleMessage::json(json!({
        "message": { "data": data, "messageId": push.id, "publishTime": push.pushed_at.to_string() },
        "subscription": "projects/sample/subscriptions/tagrelay",
    })))
}
