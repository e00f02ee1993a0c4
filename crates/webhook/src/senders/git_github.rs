//! The repositories of GitHub: the event `push`
//! (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).

use crate::delivery::IgnoredClass;
use crate::findings::{Findings, quoted};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "git-github",
    title: "GitHub's repositories",
    host: Host::None,
    read,
    events: "Just the push event",
    sample,
    ..super::ghcr::SENDER
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    match message.header("X-GitHub-Event") {
        Some("ping") => findings.ignore(IgnoredClass::Ping, "GitHub tests the webhook"),
        Some("push") | None => read_push(message, findings),
        Some(other) => findings.ignore(IgnoredClass::Other, format!("the event is {}", quoted(other))),
    }
}

/// Reads the fields of a push, which GitLab and Gitea send too.
pub(super) fn read_push(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    findings.moved(body.get("ref").text().as_deref(), body.get("after").text().as_deref());
}

pub(super) fn sample(_: &SamplePush) -> Result<SampleMessage, String> {
    Err("this kind of receiver accepts commits, not images: there is nothing to send".to_owned())
}
