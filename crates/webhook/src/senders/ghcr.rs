//! GitHub's container registry: the events `package` and `registry_package`
//! (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#package>).
//!
//! There is one event per manifest: platforms of an index without a tag, the index with one. Owners may be in upper case,
//! references are lower-case. GitHub Enterprise Server has its own registry: set `registry`.

use serde_json::json;

use crate::credential::{Credential, Hash, Signed};
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, quoted};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{HELM_CONFIG, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "ghcr",
    title: "GitHub",
    credentials: &[Credential::Hmac {
        header: "X-Hub-Signature-256",
        prefix: "sha256=",
        hash: Hash::Sha256,
        signed: Signed::Body,
    }],
    host: Host::Default("ghcr.io"),
    read,
    events: "Packages, and Registry packages if offered",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let event = message.header("X-GitHub-Event");
    match event {
        Some("ping") => return findings.ignore(IgnoredClass::Ping, "GitHub tests the webhook"),
        Some("package" | "registry_package") | None => {}
        Some(other) => return findings.ignore(IgnoredClass::Other, format!("the event is {}", quoted(other))),
    }
    let body = message.body;
    let (name, package) = match body.get("registry_package") {
        package if package.is_present() => ("registry_package", package),
        _ => ("package", body.get("package")),
    };
    if !package.is_present() {
        return findings.malformed("the body has neither `package` nor `registry_package`");
    }
    let package_type = package.get("package_type").text().unwrap_or_default();
    if !["container", "docker"].iter().any(|known| package_type.eq_ignore_ascii_case(known)) {
        return findings.ignore(IgnoredClass::Other, format!("the package type is {}", quoted(&package_type)));
    }
    match body.get("action").text().as_deref() {
        Some("published" | "updated" | "create") => {}
        Some("deleted") => return findings.ignore(IgnoredClass::Delete, "the action is `deleted`"),
        Some(other) => return findings.ignore(IgnoredClass::Other, format!("the action is {}", quoted(other))),
        None => return findings.malformed("the body has no `action`"),
    }
    let version = package.get("package_version");
    let container = version.get("container_metadata");
    let config = container.get("manifest").get("config");
    if config.get("media_type").text().is_some_and(|media_type| media_type == HELM_CONFIG) {
        return findings.ignore(IgnoredClass::Chart, "the manifest's configuration belongs to a Helm chart");
    }
    let owner = package.get("namespace").text().or_else(|| package.get("owner").get("login").text());
    let path = match (owner, package.get("name").text()) {
        (Some(owner), Some(name)) => Some(format!("{owner}/{name}").to_lowercase()),
        _ => None,
    };
    // `tag.digest` is unreliable on some events; the version's name is the digest.
    let digest = version.get("version").text().or_else(|| container.get("manifest").get("digest").text());
    findings.push(Push {
        at: name,
        path: path.as_deref(),
        tag: container.get("tag").get("name").text().as_deref(),
        digest: digest.as_deref(),
        pushed_at: version.get("updated_at").time().or_else(|| package.get("updated_at").time()),
        delivery: message.header("X-GitHub-Delivery").map(str::to_owned),
        ..Push::default()
    });
}

/// A sample event.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let (owner, name) = push.owner_and_name("GitHub")?;
    let body = json!({
        "action": "published",
        "package": {
            "name": name,
            "namespace": owner,
            "ecosystem": "CONTAINER",
            "package_type": "CONTAINER",
            "owner": { "login": owner },
            "updated_at": push.pushed_at.to_string(),
            "package_version": {
                "version": push.digest(),
                "container_metadata": {
                    "tag": { "name": push.tag.as_str(), "digest": push.digest() },
                    "manifest": { "digest": push.digest() },
                },
            },
        },
    });
    Ok(SampleMessage::json(body).header("x-github-event", "package").header("x-github-delivery", &push.id))
}
