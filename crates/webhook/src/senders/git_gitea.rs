//! The repositories of Gitea and Forgejo: the event `push` (<https://docs.gitea.com/usage/webhooks>).

use super::{git_github, gitea};
use crate::delivery::IgnoredClass;
use crate::findings::{Findings, quoted};
use crate::sender::{Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "git-gitea",
    title: "Gitea's or Forgejo's repositories",
    // Forgejo sends Gitea's header in addition to its own.
    credentials: &[gitea::OWN_SIGNATURE, gitea::HUB_SIGNATURE],
    read,
    events: "Push Events",
    ..git_github::SENDER
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    match message.header("X-Forgejo-Event").or_else(|| message.header("X-Gitea-Event")) {
        Some("push") | None => git_github::read_push(message, findings),
        Some(other) => findings.ignore(IgnoredClass::Other, format!("the event is {}", quoted(other))),
    }
}
