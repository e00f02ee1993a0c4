//! CloudEvents of any sender, for example of an EventBridge input transformer: structured, batched and binary
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>).
//!
//! There is no standard for image events. Accepted are the events that the CloudEvents receiver of Argo CD Image Updater
//! accepts: `type` contains `container` or `image` and not pull, delete or scan; `data` has `repository` or
//! `repositoryName`, `tag` or `imageTag`, `digest` or `imageDigest`, `registry` or `registryUrl`, or one reference in
//! `image`. The host may also be part of the repository or of `source`.

use std::borrow::Cow;

use serde_json::json;

use super::ecr;
use crate::cloud_event::CloudEvent;
use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, host_of_url, is_host, quoted, split_reference};
use crate::json::Node;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "cloudevents",
    title: "a sender of CloudEvents",
    credentials: &[
        Credential::Authorization,
        Credential::CustomHeader,
        Credential::Query("token"),
        Credential::Query("access_token"),
    ],
    host: Host::Body,
    read,
    events: "push events whose `type` contains container or image",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    if message.body.is_array() {
        for (index, event) in message.body.items().enumerate() {
            let at = format!("event {index}");
            match CloudEvent::structured(event) {
                Some(event) => read_event(&at, &event, findings),
                None => findings.malformed(format!("{at} has no `specversion` and `type`")),
            }
        }
        return;
    }
    match CloudEvent::of(message) {
        Some(event) => read_event("the event", &event, findings),
        None => findings.malformed("the request is not a CloudEvent: neither `ce-type` nor `specversion` and `type`"),
    }
}

fn read_event(at: &str, event: &CloudEvent<'_>, findings: &mut Findings<'_>) {
    if let Some(class) = class_of(&event.kind) {
        return findings.ignore(class, format!("the type of {at} is {}", quoted(&event.kind)));
    }
    let data = event.data();
    let image = data.get("image").text();
    let image = image.as_deref().and_then(split_reference);
    let repository = first(data, &["repository", "repositoryName"]);
    let named = repository.as_deref().and_then(split_reference).filter(|named| is_host(named.host));
    let registry = first(data, &["registry", "registryUrl"]);
    let host = match (image.or(named), &registry) {
        (Some(reference), _) => Some(reference.host.to_owned()),
        (None, Some(registry)) => host_of_url(registry).or_else(|| Some(registry.trim_end_matches('/').to_owned())),
        (None, None) => event.source.as_deref().and_then(host_of_source),
    };
    findings.push(Push {
        at,
        host: host.as_deref(),
        path: image.or(named).map(|reference| reference.path).or(repository.as_deref()),
        tag: first(data, &["tag", "imageTag"]).as_deref().or(image.and_then(|image| image.tag)),
        digest: first(data, &["digest", "imageDigest"]).as_deref().or(image.and_then(|image| image.digest)),
        pushed_at: event.time,
        delivery: event.delivery(),
    });
}

/// Returns the class of an event; `None`: it is a push.
fn class_of(kind: &str) -> Option<IgnoredClass> {
    let kind = kind.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    if !says(&["container", "image"]) {
        Some(IgnoredClass::Other)
    } else if says(&["pull"]) {
        Some(IgnoredClass::Pull)
    } else if says(&["delete", "remove", "untag"]) {
        Some(IgnoredClass::Delete)
    } else if says(&["scan", "vulnerabilit"]) {
        Some(IgnoredClass::Scan)
    } else if says(&["fail"]) {
        Some(IgnoredClass::Failed)
    } else {
        None
    }
}

fn first<'a>(data: Node<'a>, names: &[&str]) -> Option<Cow<'a, str>> {
    names.iter().find_map(|name| data.get(name).text())
}

/// Returns the registry's host of a source: a URL, `host/…`, or `urn:aws:ecr:<region>:<account>:repository/…`.
fn host_of_source(source: &str) -> Option<String> {
    if let Some(rest) = source.strip_prefix("urn:aws:ecr:").or_else(|| source.strip_prefix("arn:aws:ecr:")) {
        let (region, rest) = rest.split_once(':')?;
        let (account, _) = rest.split_once(':')?;
        return Some(ecr::host(account, region));
    }
    host_of_url(source).or_else(|| source.split('/').next().filter(|host| is_host(host)).map(str::to_owned))
}

/// A sample event in structured mode.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let body = json!({
        "specversion": "1.0",
        "id": push.id,
        "source": format!("https://{}", push.repository.registry()),
        "type": "org.example.container.image.push",
        "time": push.pushed_at.to_string(),
        "datacontenttype": "application/json",
        "data": {
            "registry": push.repository.registry(),
            "repository": push.repository.path(),
            "tag": push.tag.as_str(),
            "digest": push.digest(),
        },
    });
    Ok(SampleMessage::new("application/cloudevents+json", body))
}
