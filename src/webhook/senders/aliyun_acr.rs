//! Alibaba Cloud Container Registry: <https://www.alibabacloud.com/help/en/acr/user-guide/manage-webhooks>.
//!
//! The body names the region only. That tells the host of the Personal edition; the Enterprise edition has a host for
//! each instance, which `registry` must name. Times are local, without an offset, so they are left out.

use crate::webhook::findings::{Findings, Push};
use crate::webhook::sender::{Credential, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "aliyun-acr",
    title: "Alibaba Cloud Container Registry",
    credentials: &[Credential::Query("token")],
    host: Host::Body,
    read,
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
