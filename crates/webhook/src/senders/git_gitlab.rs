//! The repositories of GitLab: push events
//! (<https://docs.gitlab.com/user/project/integrations/webhook_events/#push-events>). System hooks of a self-managed
//! GitLab have the same body.

use super::git_github;
use crate::credential::Credential;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, quoted};
use crate::sender::{Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "git-gitlab",
    title: "GitLab's repositories",
    credentials: &[Credential::Header("X-Gitlab-Token")],
    read,
    events: "Push events",
    ..git_github::SENDER
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    match message.body.get("object_kind").text().as_deref() {
        Some("push") => git_github::read_push(message, findings),
        Some(other) => findings.ignore(IgnoredClass::Other, format!("the event is {}", quoted(other))),
        None => findings.malformed("the body has no `object_kind`"),
    }
}
