//! Azure Container Registry: its webhook
//! (<https://learn.microsoft.com/azure/container-registry/container-registry-webhook-reference>), and Event Grid in both
//! schemas (<https://learn.microsoft.com/azure/event-grid/event-schema-container-registry>).
//!
//! A webhook's body is like one event of Distribution. Event Grid wraps events into an array, and first sends a validation
//! code that must be returned.

use std::borrow::Cow;

use serde_json::json;

use super::distribution;
use crate::cloud_event::CloudEvent;
use crate::credential::Credential;
use crate::delivery::{IgnoredClass, Reply};
use crate::findings::{Findings, quoted};
use crate::json::{self, Node};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::{HELM_CONFIG, Host, Message, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "acr",
    title: "Azure Container Registry",
    credentials: &[
        Credential::Authorization,
        Credential::CustomHeader,
        Credential::Query("token"),
        Credential::IdentityToken,
    ],
    host: Host::Body,
    read,
    events: "push; with Event Grid: Container Image Pushed",
    sample,
};

fn read(message: &Message<'_>, findings: &mut Findings<'_>) {
    if message.body.is_array() {
        for (index, event) in message.body.items().enumerate() {
            read_grid_event(&format!("event {index}"), event, findings);
        }
    } else if message.body.get("eventType").is_present() || message.body.get("specversion").is_present() {
        read_grid_event("the event", message.body, findings);
    } else {
        let delivery = message.body.get("id").text().map(Cow::into_owned);
        read_push("the body", message.body, delivery, findings);
    }
}

fn read_grid_event(at: &str, event: Node<'_>, findings: &mut Findings<'_>) {
    if let Some(event) = CloudEvent::structured(event) {
        return read_grid_data(at, &event.kind, event.data(), event.delivery(), findings);
    }
    let kind = event.get("eventType").text().unwrap_or_default();
    let data = event.get("data");
    let delivery = event.get("id").text().map(Cow::into_owned);
    // In 2020 the data was a string with JSON.
    match data.text() {
        Some(text) => match json::parse_text(text.as_bytes()) {
            Ok(inner) => read_grid_data(at, &kind, Node::new(&inner), delivery, findings),
            Err(reason) => findings.malformed(format!("`data` of {at}: {reason}")),
        },
        None => read_grid_data(at, &kind, data, delivery, findings),
    }
}

fn read_grid_data(at: &str, kind: &str, data: Node<'_>, delivery: Option<String>, findings: &mut Findings<'_>) {
    match kind {
        "Microsoft.EventGrid.SubscriptionValidationEvent" => match data.get("validationCode").text() {
            Some(code) => {
                findings.reply(Reply { json: json!({ "validationResponse": code }) });
                findings.ignore(IgnoredClass::Handshake, "Event Grid validates the subscription: confirmed");
            }
            None => findings.malformed(format!("{at} asks for a validation and has no `data.validationCode`")),
        },
        "Microsoft.ContainerRegistry.ImagePushed" => read_push(at, data, delivery, findings),
        "Microsoft.ContainerRegistry.ImageDeleted" => {
            findings.ignore(IgnoredClass::Delete, format!("{at} is `ImageDeleted`"));
        }
        "Microsoft.ContainerRegistry.ChartPushed" | "Microsoft.ContainerRegistry.ChartDeleted" => {
            findings.ignore(IgnoredClass::Chart, format!("{at} refers to a Helm chart"));
        }
        "" => findings.malformed(format!("{at} has no `eventType`")),
        other => findings.ignore(IgnoredClass::Other, format!("{at} is {}", quoted(other))),
    }
}

fn read_push(at: &str, event: Node<'_>, delivery: Option<String>, findings: &mut Findings<'_>) {
    let action = event.get("action").text().unwrap_or_default();
    let target = event.get("target");
    let media_type = target.get("mediaType").text().unwrap_or_default();
    match &*action {
        "ping" => findings.ignore(IgnoredClass::Ping, "the registry tests the webhook"),
        _ if action.starts_with("chart_") || media_type.contains("helm.chart") || media_type == HELM_CONFIG => {
            findings.ignore(IgnoredClass::Chart, format!("{at} refers to a Helm chart"));
        }
        _ => distribution::read_event(at, event, delivery, findings),
    }
}

/// A sample body of the registry's webhook.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    Ok(SampleMessage::json(distribution::sample_event(push)))
}
