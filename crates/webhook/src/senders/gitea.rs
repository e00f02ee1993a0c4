//! Gitea: the event `package` (<https://docs.gitea.com/usage/webhooks>).
//!
//! Each manifest of an index has its own event, with the digest as its version. Events with a tag have no digest. If the
//! webhook sends a form, the signature covers the JSON in the field `payload`.

use serde_json::json;

use crate::credential::{Credential, Hash, Signed};
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, host_of_url, quoted};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

/// The signature in Gitea's header.
pub(super) const OWN_SIGNATURE: Credential =
    Credential::Hmac { header: "X-Gitea-Signature", prefix: "", hash: Hash::Sha256, signed: Signed::Payload };

/// The same signature in GitHub's header.
pub(super) const HUB_SIGNATURE: Credential =
    Credential::Hmac { header: "X-Hub-Signature-256", prefix: "sha256=", hash: Hash::Sha256, signed: Signed::Payload };

pub(super) const SENDER: Sender = Sender {
    name: "gitea",
    title: "Gitea",
    credentials: &[OWN_SIGNATURE, HUB_SIGNATURE],
    host: Host::Body,
    read,
    events: "Custom Events: Package",
    sample,
};

/// Reads an event of Gitea or Forgejo.
pub(super) fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let event = message.header("X-Forgejo-Event").or_else(|| message.header("X-Gitea-Event"));
    if let Some(event) = event.filter(|event| *event != "package") {
        return findings.ignore(IgnoredClass::Other, format!("the event is {}", quoted(event)));
    }
    let body = message.body;
    let package = body.get("package");
    if !package.is_present() {
        return findings.malformed("the body has no `package`");
    }
    let package_type = package.get("type").text().unwrap_or_default();
    if package_type != "container" {
        return findings.ignore(IgnoredClass::Other, format!("the package type is {}", quoted(&package_type)));
    }
    match body.get("action").text().as_deref() {
        Some("created") => {}
        Some("deleted") => return findings.ignore(IgnoredClass::Delete, "the action is `deleted`"),
        Some(other) => return findings.ignore(IgnoredClass::Other, format!("the action is {}", quoted(other))),
        None => return findings.malformed("the body has no `action`"),
    }
    let owner = package.get("owner");
    let owner = owner.get("login").text().or_else(|| owner.get("username").text());
    let path = match (owner, package.get("name").text()) {
        // Owners may be in upper case, references are lower-case.
        (Some(owner), Some(name)) => Some(format!("{owner}/{name}").to_lowercase()),
        _ => None,
    };
    let delivery = message.header("X-Forgejo-Delivery").or_else(|| message.header("X-Gitea-Delivery"));
    findings.push(Push {
        at: "package",
        host: package.get("html_url").text().as_deref().and_then(host_of_url).as_deref(),
        path: path.as_deref(),
        tag: package.get("version").text().as_deref(),
        pushed_at: package.get("created_at").time(),
        delivery: delivery.map(str::to_owned),
        ..Push::default()
    });
}

/// A sample event.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let message = sample_of(push, "Gitea")?;
    Ok(message.header("x-gitea-event", "package").header("x-gitea-delivery", &push.id))
}

/// A sample body without headers; `title`: the sender's name.
pub(super) fn sample_of(push: &SamplePush, title: &str) -> Result<SampleMessage, String> {
    let (owner, name) = push.owner_and_name(title)?;
    let host = push.repository.registry();
    Ok(SampleMessage::json(json!({
        "action": "created",
        "package": {
            "owner": { "login": owner, "username": owner },
            "type": "container",
            "name": name,
            "version": push.tag.as_str(),
            "html_url": format!("https://{host}/{owner}/-/packages/container/{}/{}", name.replace('/', "%2F"), push.tag),
            "created_at": push.pushed_at.to_string(),
        },
        "sender": { "login": "sample" },
    })))
}
