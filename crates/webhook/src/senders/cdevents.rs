//! CDEvents: `dev.cdevents.artifact.published`, over CloudEvents
//! (<https://github.com/cdevents/spec/blob/v0.4.1/continuous-integration.md#artifact-published>).
//!
//! The image is a package URL of the type `oci`
//! (<https://github.com/package-url/purl-spec/blob/main/types-doc/oci-definition.md>).

use serde_json::json;

use crate::cloud_event::CloudEvent;
use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push, quoted, split_reference};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "cdevents",
    title: "a sender of CDEvents",
    credentials: &[
        Credential::Authorization,
        Credential::CustomHeader,
        Credential::Query("token"),
        Credential::Query("access_token"),
    ],
    host: Host::Body,
    read,
    events: "dev.cdevents.artifact.published",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let event = CloudEvent::of(message);
    let body = event.as_ref().map_or(message.body, CloudEvent::data);
    let context = body.get("context");
    let Some(kind) = context.get("type").text().or_else(|| event.as_ref().map(|event| event.kind.clone())) else {
        return findings.malformed("the body has no `context.type`");
    };
    if !kind.starts_with("dev.cdevents.artifact.published.") {
        let class =
            if kind.starts_with("dev.cdevents.artifact.deleted.") { IgnoredClass::Delete } else { IgnoredClass::Other };
        return findings.ignore(class, format!("the type is {}", quoted(&kind)));
    }
    let Some(id) = body.get("subject").get("id").text() else {
        return findings.malformed("the body has no `subject.id`");
    };
    let Some(package) = PackageUrl::parse(&id) else {
        return findings.malformed(format!("`subject.id` is not a package URL: {}", quoted(&id)));
    };
    if package.kind != "oci" {
        return findings.ignore(IgnoredClass::Other, format!("the package is of type {}", quoted(&package.kind)));
    }
    let url = package.repository_url.as_deref().and_then(split_reference);
    let delivery = match (context.get("source").text(), context.get("id").text()) {
        (Some(source), Some(id)) => Some(format!("{source} {id}")),
        _ => event.as_ref().and_then(CloudEvent::delivery),
    };
    findings.push(Push {
        at: "`subject.id`",
        host: url.map(|url| url.host),
        path: url.map(|url| url.path),
        tag: package.tag.as_deref(),
        digest: package.version.as_deref(),
        pushed_at: context.get("timestamp").time(),
        delivery,
    });
}

/// The parts of a package URL that name an image.
struct PackageUrl {
    kind: String,
    version: Option<String>,
    repository_url: Option<String>,
    tag: Option<String>,
}

impl PackageUrl {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split('#').next()?;
        let (name, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, name) = name.split_once('/')?;
        let version = name.rsplit_once('@').map(|(_, version)| decode(version));
        // In a package URL, `+` stands for itself.
        let qualifiers = qualifiers.replace('+', "%2B");
        let qualifier = |wanted: &str| {
            let mut pairs = url::form_urlencoded::parse(qualifiers.as_bytes());
            pairs.find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.into_owned())
        };
        Some(Self {
            kind: kind.to_ascii_lowercase(),
            version,
            repository_url: qualifier("repository_url"),
            tag: qualifier("tag"),
        })
    }
}

fn decode(text: &str) -> String {
    let pair = format!("v={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A sample event in binary mode.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    const KIND: &str = "dev.cdevents.artifact.published.0.2.0";
    let path = push.repository.path();
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let mut package = format!("pkg:oci/{}", path.rsplit('/').next().unwrap_or(path));
    if let Some(digest) = &push.digest {
        package.extend(["@", &encode(digest.as_str())]);
    }
    package.extend(["?repository_url=", push.repository.as_str(), "&tag=", &encode(push.tag.as_str())]);
    let body = json!({
        "context": {
            "version": "0.4.1",
            "id": push.id,
            "source": "/tagrelay/sample",
            "type": KIND,
            "timestamp": push.pushed_at.to_string(),
        },
        "subject": { "id": package, "source": "/tagrelay/sample", "type": "artifact", "content": {} },
    });
    Ok(SampleMessage::new("application/cdevents+json", body)
        .header("ce-specversion", "1.0")
        .header("ce-id", &push.id)
        .header("ce-source", "/tagrelay/sample")
        .header("ce-type", KIND)
        .header("ce-time", push.pushed_at.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualifiers_may_be_in_any_order_and_encoded() {
        let text = "pkg:OCI/a@sha256%3Aab?arch=amd64&tag=1.0%2Bx&Repository_URL=host%3A5000%2Fb%2Fa#sub";
        let package = PackageUrl::parse(text).unwrap();
        assert_eq!(package.kind, "oci");
        assert_eq!(package.version.as_deref(), Some("sha256:ab"));
        assert_eq!(package.tag.as_deref(), Some("1.0+x"));
        assert_eq!(package.repository_url.as_deref(), Some("host:5000/b/a"));
        assert!(PackageUrl::parse("oci/a@b").is_none());
        assert!(PackageUrl::parse("pkg:oci").is_none());
    }
}
