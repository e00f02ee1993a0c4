//! JFrog Artifactory: <https://jfrog.com/help/r/jfrog-platform-administration-documentation/docker-webhook-events>.
//!
//! `X-JFrog-Event-Auth` is the secret, or the signature of the body if "use secret for payload signing" is on.
//!
//! The repository is Artifactory's repository plus the path, as with the "repository path" access method. With the subdomain
//! or port method, images are pulled by another name, which the image rules must use.

use serde_json::json;

use crate::credential::{Credential, Hash, Signed};
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, host_of_url, quoted};
use crate::json::Node;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "artifactory",
    title: "Artifactory",
    credentials: &[
        Credential::Hmac { header: "X-JFrog-Event-Auth", prefix: "", hash: Hash::Sha256, signed: Signed::Body },
        Credential::Header("X-JFrog-Event-Auth"),
    ],
    host: Host::Body,
    read,
    events: "Docker: Tag was pushed",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    let domain = body.get("domain").text().unwrap_or_default();
    if domain != "docker" {
        return findings.ignore(IgnoredClass::Other, format!("the domain is {}", quoted(&domain)));
    }
    match body.get("event_type").text().as_deref() {
        Some("pushed") => {}
        Some("deleted") => return findings.ignore(IgnoredClass::Delete, "the event is `deleted`"),
        Some(other) => return findings.ignore(IgnoredClass::Other, format!("the event is {}", quoted(other))),
        None => return findings.malformed("the body has no `event_type`"),
    }
    let data = body.get("data");
    if data.get("image_type").text().is_some_and(|kind| kind == "oci" || kind == "helm") {
        return findings.ignore(IgnoredClass::Chart, "`data.image_type` is the type of a Helm chart");
    }
    let host = body.get("jpd_origin").text().as_deref().and_then(host_of_url);
    let digest = data.get("sha256").text().map(|digits| format!("sha256:{digits}"));
    findings.push(Push {
        at: "data",
        host: host.as_deref(),
        path: path(data).as_deref(),
        tag: data.get("tag").text().as_deref(),
        digest: digest.as_deref(),
        ..Push::default()
    });
}

/// Returns the repository: `repo_key`, and `path` without its last two segments (tag and file). `image_name` is only the last
/// segment of a nested name.
fn path(data: Node<'_>) -> Option<String> {
    let key = data.get("repo_key").text()?;
    let name = match data.get("path").text() {
        Some(path) => path.rsplitn(3, '/').nth(2)?.trim_start_matches('/').to_owned(),
        None => data.get("image_name").text()?.into_owned(),
    };
    Some(format!("{key}/{name}"))
}

/// The event of a pushed tag.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let (key, name) = push.owner_and_name("Artifactory")?;
    Ok(SampleMessage::json(json!({
        "domain": "docker",
        "event_type": "pushed",
        "data": {
            "repo_key": key,
            "path": format!("{name}/{}/manifest.json", push.tag),
            "name": "manifest.json",
            "sha256": push.digest_digits(),
            "image_name": name.rsplit('/').next(),
            "tag": push.tag.as_str(),
            "platforms": [],
        },
        "subscription_key": "tagrelay",
        "jpd_origin": format!("https://{}", push.repository.registry()),
        "source": "sample",
    })))
}
