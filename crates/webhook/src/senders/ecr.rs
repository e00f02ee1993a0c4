//! AWS ECR. It has no webhook: an EventBridge rule sends its events to an API destination, or to an SNS topic with an HTTPS
//! subscription (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>).
//!
//! The host is derived from account and region. An SNS message has the secret as the password (or `?token=`) of the
//! subscribed URL, and a signature that is verified in addition.

use std::borrow::Cow;

use serde_json::json;
use url::Url;

use crate::credential::Credential;
use crate::delivery::{Errand, IgnoredClass};
use crate::findings::{Findings, Push, quoted};
use crate::json::{self, Node};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{HELM_CONFIG, Host, Message, Sender};
use crate::sns::{self, Checked};

pub(super) const SENDER: Sender = Sender {
    name: "ecr",
    title: "AWS ECR",
    credentials: &[Credential::CustomHeader, Credential::Authorization, Credential::Query("token")],
    host: Host::Body,
    read,
    events: "an EventBridge rule for the source aws.ecr, the detail type ECR Image Action and the action PUSH",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    if body.get("detail-type").is_present() {
        return read_event(body, findings);
    }
    let Some(kind) = body.get("Type").text() else {
        return findings.malformed("the body is neither an event of EventBridge nor a message of SNS");
    };
    match sns::check(body, message.certificates, message.now) {
        Checked::Genuine => read_message(&kind, message, findings),
        Checked::Unknown(address) => {
            findings.ignore(
                IgnoredClass::Failed,
                "the signature of the SNS message cannot be checked without its certificate",
            );
            findings.errand(Errand::LearnCertificate(address));
        }
        Checked::Refused(reason) => findings.refuse(reason),
    }
}

/// Reads a message with a valid signature.
fn read_message(kind: &str, message: &Message<'_>, findings: &mut Findings<'_>) {
    let body = message.body;
    match kind {
        "Notification" => {
            let text = body.get("Message").text().unwrap_or_default();
            match json::parse_text(text.as_bytes()) {
                Ok(event) => read_event(Node::new(&event), findings),
                Err(reason) => findings.malformed(format!("`Message`: {reason}")),
            }
        }
        "SubscriptionConfirmation" => {
            let url = body.get("SubscribeURL").text().and_then(|url| Url::parse(&url).ok());
            match url.filter(sns::is_confirmation_address) {
                // Without a secret, any SNS topic could subscribe.
                Some(url) if message.secret_shown => {
                    findings.ignore(IgnoredClass::Handshake, "SNS asks to confirm the subscription: confirmed");
                    findings.errand(Errand::Visit(url));
                }
                Some(_) => findings.ignore(
                    IgnoredClass::Handshake,
                    "SNS asks to confirm the subscription: the receiver has no secret, so confirm it by hand",
                ),
                None => findings.malformed("`SubscribeURL` is not an address of Amazon SNS"),
            }
        }
        _ => findings.ignore(IgnoredClass::Other, format!("the message is {}", quoted(kind))),
    }
}

fn read_event(event: Node<'_>, findings: &mut Findings<'_>) {
    let detail_type = event.get("detail-type").text().unwrap_or_default();
    if detail_type != "ECR Image Action" {
        let class = match &*detail_type {
            "ECR Image Scan" => IgnoredClass::Scan,
            other if other.contains("Scan") => IgnoredClass::Scan,
            other if other.contains("Replication") => IgnoredClass::Replication,
            _ => IgnoredClass::Other,
        };
        return findings.ignore(class, format!("`detail-type` is {}", quoted(&detail_type)));
    }
    let detail = event.get("detail");
    let result = detail.get("result").text().unwrap_or_default();
    if result != "SUCCESS" {
        return findings.ignore(IgnoredClass::Failed, format!("`detail.result` is {}", quoted(&result)));
    }
    let action = detail.get("action-type").text().unwrap_or_default();
    match &*action {
        "PUSH" => {}
        "DELETE" => return findings.ignore(IgnoredClass::Delete, "`detail.action-type` is `DELETE`"),
        _ => return findings.ignore(IgnoredClass::Other, format!("`detail.action-type` is {}", quoted(&action))),
    }
    if detail.get("artifact-media-type").text().is_some_and(|media_type| media_type == HELM_CONFIG) {
        return findings.ignore(IgnoredClass::Chart, "`detail.artifact-media-type` is the type of a Helm chart");
    }
    let host = match (event.get("account").text(), event.get("region").text()) {
        (Some(account), Some(region)) => Some(host(&account, &region)),
        _ => None,
    };
    findings.push(Push {
        at: "detail",
        host: host.as_deref(),
        path: detail.get("repository-name").text().as_deref(),
        tag: detail.get("image-tag").text().as_deref(),
        digest: detail.get("image-digest").text().as_deref(),
        pushed_at: event.get("time").time(),
        delivery: event.get("id").text().map(Cow::into_owned),
    });
}

/// Returns the host of an account's registry in a region.
pub(super) fn host(account: &str, region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("{account}.dkr.ecr.{region}.amazonaws.com{china}")
}

/// A sample event of EventBridge.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let host = push.repository.registry();
    let parts = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com");
    let parts = parts.and_then(|parts| parts.split_once(".dkr.ecr."));
    let Some((account, region)) = parts else {
        return Err(format!("`{host}` is not a registry of ECR: it is ACCOUNT.dkr.ecr.REGION.amazonaws.com"));
    };
    let body = json!({
        "version": "0",
        "id": push.id,
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": account,
        "region": region,
        "time": push.pushed_at.to_string(),
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "action-type": "PUSH",
            "repository-name": push.repository.path(),
            "image-tag": push.tag.as_str(),
            "image-digest": push.digest(),
        },
    });
    Ok(SampleMessage::new("application/json; charset=utf-8", body))
}
