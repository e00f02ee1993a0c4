//! The container registry of a self-managed GitLab: the notifications of Distribution, set up in `gitlab.rb` under
//! `registry['notifications']` (<https://docs.gitlab.com/administration/packages/container_registry/#configure-container-registry-notifications>).
//!
//! gitlab.com has no such webhook. The webhook of a GitLab *project* announces commits, not images.

use super::distribution;
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, quoted};
use crate::sender::{Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "gitlab-registry",
    title: "GitLab's registry",
    read,
    events: "all, no choice",
    ..distribution::SENDER
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    match message.header("X-Gitlab-Event") {
        Some(event) => findings.ignore(
            IgnoredClass::Other,
            format!("a project's webhook ({}) has no images: use the registry's notifications", quoted(event)),
        ),
        None => distribution::read(message, findings),
    }
}
