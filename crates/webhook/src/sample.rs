//! Sample requests: the push, and the message in which a sender announces it.

use jiff::Timestamp;
use serde_json::Value;

use tagrelay_image::{Digest, Repository, Tag};

/// The push in a sample request.
#[derive(Debug, Clone)]
pub struct SamplePush {
    /// The repository of the image.
    pub repository: Repository,
    /// Its tag.
    pub tag: Tag,
    /// Its digest, for senders that send one.
    pub digest: Option<Digest>,
    /// The time of the push.
    pub pushed_at: Timestamp,
    /// The sender's id of the push. Samples with the same id are the same event.
    pub id: String,
}

impl SamplePush {
    /// Returns the repository's path, split after the first component.
    ///
    /// # Errors
    ///
    /// If the path has only one component, which the sender `title` does not allow.
    pub(crate) fn owner_and_name(&self, title: &str) -> Result<(&str, &str), String> {
        let path = self.repository.path();
        path.split_once('/').ok_or_else(|| format!("{title} has no repository `{path}`: it needs two parts"))
    }

    /// Returns `host/repository:tag`.
    pub(crate) fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// Returns the digest as JSON: text or `null`.
    pub(crate) fn digest(&self) -> Value {
        self.digest.as_ref().map_or(Value::Null, |digest| digest.as_str().into())
    }

    /// Returns the digits of the digest as JSON: text or `null`.
    pub(crate) fn digest_digits(&self) -> Value {
        self.digest().as_str().and_then(|digest| digest.split_once(':')).map_or(Value::Null, |(_, hex)| hex.into())
    }
}

/// The message of a sender for a push. Members with `null` are removed before sending.
pub(crate) struct SampleMessage {
    /// The headers without the credential.
    pub headers: Vec<(&'static str, String)>,
    pub body: Value,
}

impl SampleMessage {
    /// Creates a message with a content type and no other headers.
    pub(crate) fn new(content_type: &str, body: Value) -> Self {
        Self { headers: vec![("content-type", content_type.to_owned())], body }
    }

    /// Creates a JSON message.
    pub(crate) fn json(body: Value) -> Self {
        Self::new("application/json", body)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
