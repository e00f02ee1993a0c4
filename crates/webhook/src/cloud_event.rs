//! CloudEvents 1.0: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.

use std::borrow::Cow;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Value;

use super::json::{self, Node};
use super::sender::Message;

/// The attributes of an event, from `ce-*` headers (binary mode) or from the body (structured mode). The content type is
/// ignored, because many senders use `application/json`.
#[derive(Debug, Clone)]
pub(crate) struct CloudEvent<'a> {
    /// The type of the event.
    pub kind: Cow<'a, str>,
    pub source: Option<Cow<'a, str>>,
    pub time: Option<Timestamp>,
    id: Option<Cow<'a, str>>,
    data: Data<'a>,
}

#[derive(Debug, Clone)]
enum Data<'a> {
    Place(Node<'a>),
    /// The data is a string with JSON.
    Inner(Box<Value>),
}

impl<'a> CloudEvent<'a> {
    /// Reads the event of a request; `None`: it has none.
    pub(crate) fn of(message: &Message<'a>) -> Option<Self> {
        Self::structured(message.body).or_else(|| {
            Some(Self {
                kind: message.header("ce-type")?.into(),
                source: message.header("ce-source").map(Cow::Borrowed),
                id: message.header("ce-id").map(Cow::Borrowed),
                time: message.header("ce-time").and_then(super::time::parse),
                data: Data::Place(message.body),
            })
        })
    }

    /// Reads an event from a JSON object.
    pub(crate) fn structured(body: Node<'a>) -> Option<Self> {
        body.get("specversion").text()?;
        Some(Self {
            kind: body.get("type").text()?,
            source: body.get("source").text(),
            id: body.get("id").text(),
            time: body.get("time").time(),
            data: data(body),
        })
    }

    pub(crate) fn data(&self) -> Node<'_> {
        match &self.data {
            Data::Place(node) => *node,
            Data::Inner(value) => Node::new(value),
        }
    }

    /// Returns the id together with the source; only both are unique.
    pub(crate) fn delivery(&self) -> Option<String> {
        Some(format!("{} {}", self.source.as_ref()?, self.id.as_ref()?))
    }
}

/// Returns the data of a structured event: a value, JSON in a string, or JSON in Base64.
fn data(body: Node<'_>) -> Data<'_> {
    let place = body.get("data");
    let encoded = body.get("data_base64").text();
    let decoded = encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).ok());
    let inner = match (place.text(), decoded) {
        (Some(text), _) => json::parse_text(text.as_bytes()).ok(),
        (None, Some(bytes)) => json::parse_text(&bytes).ok(),
        (None, None) => None,
    };
    inner.map_or(Data::Place(place), |value| Data::Inner(Box::new(value)))
}
