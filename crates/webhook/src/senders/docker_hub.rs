//! Docker Hub: <https://docs.docker.com/docker-hub/repos/manage/webhooks/>.
//!
//! There is no digest and no id. A multi-arch image is announced once per manifest, with the same tag. `callback_url` is
//! obsolete and must not be called.

use serde_json::json;

use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, Push};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{HELM_CONFIG, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "docker-hub",
    title: "Docker Hub",
    credentials: &[Credential::Query("token")],
    host: Host::Default("docker.io"),
    read,
    events: "only pushes exist",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let push = message.body.get("push_data");
    let repository = message.body.get("repository");
    if !push.is_present() {
        return findings.malformed("the body has no `push_data`");
    }
    if push.get("media_type").text().is_some_and(|media_type| media_type == HELM_CONFIG) {
        return findings.ignore(IgnoredClass::Chart, "`push_data.media_type` is the type of a Helm chart");
    }
    let parts = (repository.get("namespace").text(), repository.get("name").text());
    let path = repository.get("repo_name").text().or(match parts {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}").into()),
        _ => None,
    });
    findings.push(Push {
        path: path.as_deref(),
        tag: push.get("tag").text().as_deref(),
        pushed_at: push.get("pushed_at").time(),
        ..Push::default()
    });
}

/// A sample body.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let (namespace, name) = push.owner_and_name("Docker Hub")?;
    Ok(SampleMessage::json(json!({
        "push_data": { "pushed_at": push.pushed_at.as_second(), "images": [], "tag": push.tag.as_str(), "pusher": "sample" },
        "repository": {
            "status": "Active",
            "repo_name": push.repository.path(),
            "namespace": namespace,
            "name": name,
            "owner": namespace,
            "repo_url": format!("https://hub.docker.com/r/{namespace}/{name}"),
        },
    })))
}
