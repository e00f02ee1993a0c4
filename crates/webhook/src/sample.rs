//! The push of a sample request, and the message in which a sender announces it.

use jiff::Timestamp;
use serde_json::Value;

use tagrelay_image::{Digest, Repository, Tag};

/// The push that a sample request tells of.
#[derive(Debug, Clone)]
pub struct SamplePush {
    /// Where the image lies.
    pub repository: Repository,
    /// Its tag.
    pub tag: Tag,
    /// Its digest, for senders that tell one.
    pub digest: Option<Digest>,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// The sender's own id of it. Two samples with one id are the same event.
    pub id: String,
}

impl SamplePush {
    /// Returns the repository without its host, split into its first component and the rest.
    ///
    /// # Errors
    ///
    /// When it has one component only, which `title` has no repositories of.
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

/// What a sender's file makes of a push. Members that are `null` are left out when it is sent.
pub(crate) struct SampleMessage {
    /// The headers but the credential.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Value,
}

impl SampleMessage {
    /// Returns a message with a content type and no other headers.
    pub(crate) fn new(content_type: &str, body: Value) -> Self {
        Self { headers: vec![("content-type", content_type.to_owned())], body }
    }

    /// Returns a message of JSON.
    pub(crate) fn json(body: Value) -> Self {
        Self::new("application/json", body)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
