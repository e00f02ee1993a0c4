use super::credential::Credential;
use super::findings::Findings;
use super::json::Node;
use super::sample::{SampleMessage, SamplePush};
use super::sns::Certificates;

/// The media type of a Helm chart's configuration, if a sender reports it.
pub(crate) const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";

/// A sender: one row of the table.
pub(crate) struct Sender {
    /// The `kind` in the settings.
    pub name: &'static str,
    /// Its name for users.
    pub title: &'static str,
    /// Its credentials. Any one of them suffices.
    pub credentials: &'static [Credential],
    /// The source of the registry's host.
    pub host: Host,
    /// Reads an authenticated body.
    pub read: fn(&Message<'_>, &mut Findings<'_>),
    /// The events that must be enabled at the sender, for users.
    pub events: &'static str,
    /// Creates a sample request, or the reason why it cannot.
    pub sample: fn(&SamplePush) -> Result<SampleMessage, String>,
}

/// The source of the registry's host if the receiver's `registry` is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// The body names it, always or usually.
    Body,
    /// The body does not name it, but there is a default.
    Default(&'static str),
    /// The body does not name it, and `registry` is required.
    Setting,
    /// None: the sender announces commits, not images.
    None,
}

/// An authenticated request.
pub(crate) struct Message<'a> {
    pub headers: &'a http::HeaderMap,
    /// The JSON document in the body.
    pub body: Node<'a>,
    /// Whether the sender proved that it knows the secret; `false` if the receiver has none.
    pub secret_shown: bool,
    /// The cached certificates of Amazon SNS.
    pub certificates: &'a Certificates,
    /// When the request arrived.
    pub now: jiff::Timestamp,
}

impl<'a> Message<'a> {
    /// Returns the value of a header, if it is present and UTF-8.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
    }
}
