use super::credential::Credential;
use super::findings::Findings;
use super::json::Node;
use super::sample::{SampleMessage, SamplePush};
use super::sns::Certificates;

/// The media type that the configuration of a Helm chart has, where a sender tells it.
pub(crate) const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";

/// What is known of a sender: its row of the table.
pub(crate) struct Sender {
    /// The `kind` in the settings.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What it can show to be let in. Any one of them suffices.
    pub credentials: &'static [Credential],
    /// Where the registry's host comes from.
    pub host: Host,
    /// Reads an authenticated body.
    pub read: fn(&Message<'_>, &mut Findings<'_>),
    /// Which events are to be ticked at the sender, as words for people.
    pub events: &'static str,
    /// Writes what the sender would send, or says why it would not.
    pub sample: fn(&SamplePush) -> Result<SampleMessage, String>,
}

/// Where the host of the registry comes from when the receiver's `registry` is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// The body names it, always or mostly.
    Body,
    /// No body names it, but there is only one (or a usual one).
    Default(&'static str),
    /// No body names it: the receiver's `registry` must be set.
    Setting,
    /// There is none: the sender tells of commits and not of images.
    None,
}

/// An authenticated request.
pub(crate) struct Message<'a> {
    /// The headers of the request.
    pub headers: &'a http::HeaderMap,
    /// The JSON document in the body.
    pub body: Node<'a>,
    /// Whether the sender has shown the secret: `false` where everybody may send.
    pub secret_shown: bool,
    /// The certificates of Amazon SNS that are known.
    pub certificates: &'a Certificates,
    /// The time of the request.
    pub now: jiff::Timestamp,
}

impl<'a> Message<'a> {
    /// Returns the value of a header, if it is present and text.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
    }
}
