//! Alibaba Cloud Container Registry: <https://www.alibabacloud.com/help/en/acr/user-guide/manage-webhooks>.
//!
//! The body names only the region, which gives the host of the Personal Edition. The Enterprise Edition has one host per
//! instance, which `registry` must name. Times are local without an offset, so they are ignored.

use serde_json::json;

use crate::credential::Credential;
use crate::findings::{Findings, Push};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "aliyun-acr",
    title: "Alibaba Cloud Container Registry",
    credentials: &[Credential::Query("token")],
    host: Host::Body,
    read,
    events: "only pushes exist; the trigger is All",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let push = message.body.get("push_data");
    let repository = message.body.get("repository");
    if !push.is_present() {
        return findings.malformed("the body has no `push_data`");
    }
    let parts = (repository.get("namespace").text(), repository.get("name").text());
    let path = repository.get("repo_full_name").text().or(match parts {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}").into()),
        _ => None,
    });
    let host = repository.get("region").text().map(|region| format!("registry.{region}.aliyuncs.com"));
    findings.push(Push {
        host: host.as_deref(),
        path: path.as_deref(),
        tag: push.get("tag").text().as_deref(),
        digest: push.get("digest").text().as_deref(),
        pushed_at: push.get("pushed_at").time(),
        ..Push::default()
    });
}

/// A sample body.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let (namespace, name) = push.owner_and_name("Alibaba Cloud")?;
    let host = push.repository.registry();
    // A host of the Enterprise Edition has the region in another position; `registry` overrides it.
    let region = host.strip_prefix("registry.").and_then(|rest| rest.strip_suffix(".aliyuncs.com"));
    Ok(SampleMessage::json(json!({
        "push_data": {
            "digest": push.digest(),
            "pushed_at": push.pushed_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            "tag": push.tag.as_str(),
        },
        "repository": {
            "name": name,
            "namespace": namespace,
            "region": region.unwrap_or("cn-hangzhou"),
            "repo_full_name": push.repository.path(),
            "repo_type": "PRIVATE",
        },
    })))
}
