//! Harbor 1.9 and later: <https://goharbor.io/docs/main/working-with-projects/project-configuration/configure-webhooks/>.
//!
//! Two formats: its own, and since 2.8 CloudEvents with the same content under `data`. The policy's Auth Header comes
//! as `Authorization` exactly as it was typed. Children of an index come as pushes with the digest as their tag.

use std::borrow::Cow;

use crate::webhook::delivery::IgnoredClass;
use crate::webhook::findings::{Findings, Push, quoted, split_reference};
use crate::webhook::json::Node;
use crate::webhook::sender::{Credential, Host, Message, Sender};

pub(super) const SENDER: Sender =
    Sender { name: "harbor", title: "Harbor", credentials: &[Credential::Authorization], host: Host::Body, read };

/// Reads both formats of Harbor; registries made from Harbor send them too.
pub(super) fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    let Some(kind) = body.get("type").text() else {
        return findings.malformed("the body has no `type`");
    };
    if let Some(class) = class_of(&kind) {
        return findings.ignore(class, format!("the event is {}", quoted(&kind)));
    }
    let is_cloud_event = body.get("specversion").is_present();
    let (data, name) = if is_cloud_event { (body.get("data"), "data") } else { (body.get("event_data"), "event_data") };
    let pushed_at = if is_cloud_event { body.get("time").time() } else { body.get("occur_at").time() };
    let mut resources = data.get("resources").items().enumerate().peekable();
    if resources.peek().is_none() {
        return findings.malformed(format!("`{name}.resources` is no list of pushed artifacts"));
    }
    for (index, resource) in resources {
        let (tag, digest) = (resource.get("tag").text(), resource.get("digest").text());
        let url = resource.get("resource_url").text();
        let url = url.as_deref().and_then(split_reference);
        let path = url.map(|url| Cow::Borrowed(url.path)).or_else(|| full_name(data.get("repository")));
        let delivery = match (cloud_event_id(body), body.get("occur_at").text()) {
            (Some(id), _) if index == 0 => Some(id),
            (Some(id), _) => Some(format!("{id} {index}")),
            // There is no id, but a repeated delivery has the same second, tag and digest, and what differs in none
            // of the three is the same push.
            (None, Some(second)) => Some(format!(
                "{second} {}:{} {}",
                path.as_deref().unwrap_or_default(),
                tag.as_deref().unwrap_or_default(),
                digest.as_deref().unwrap_or_default()
            )),
            (None, None) => None,
        };
        findings.push(Push {
            at: &format!("{name}.resources[{index}]"),
            host: url.map(|url| url.host),
            path: path.as_deref(),
            tag: tag.as_deref().or(url.and_then(|url| url.tag)),
            digest: digest.as_deref(),
            pushed_at,
            delivery,
        });
    }
}

/// Returns what an event is, or `None` for a push. The second and third names of each are those of Harbor 1 and of
/// CloudEvents.
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

/// Returns the id of a CloudEvent, which is unique together with its source
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#id>).
fn cloud_event_id(body: Node<'_>) -> Option<String> {
    body.get("specversion").text()?;
    Some(format!("{} {}", body.get("source").text()?, body.get("id").text()?))
}
