//! Repositories, tags, digests and references of container images. Pure.
//!
//! Values are normalised when they are parsed, so two values are equal if they name the same thing: `nginx`, `library/nginx`
//! and `index.docker.io/library/nginx` are all `docker.io/library/nginx`.
//!
//! The grammar is that of the OCI distribution specification
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests>) and, for references in
//! manifests, of <https://github.com/distribution/reference>.

#![warn(unreachable_pub)]

mod commit_sha;
mod digest;
mod reference;
mod repository;
mod tag;

pub use commit_sha::{CommitSha, InvalidCommitSha};
pub use digest::{Digest, InvalidDigest};
pub use reference::{ImageReference, InvalidReference};
pub use repository::{InvalidRepository, Repository};
pub use tag::{InvalidTag, Tag};

use serde::{Deserialize, Serialize};

/// A version of a repository: a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Version {
    /// Creates a version with a tag, and the digest if it is known.
    pub fn tagged(tag: Tag, digest: Option<Digest>) -> Self {
        Self { tag: Some(tag), digest }
    }

    /// Creates a version with a digest only.
    pub fn pinned(digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest) }
    }

    /// Creates a version from the parts in a manifest; `None`: both are missing.
    pub fn from_parts(tag: Option<Tag>, digest: Option<Digest>) -> Option<Self> {
        (tag.is_some() || digest.is_some()).then_some(Self { tag, digest })
    }

    /// Returns the tag; `None`: only the digest is known.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest; `None`: only the tag is known.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the tag, else the digest, for display. A commit SHA is shortened to 7 digits, a digest to 12.
    pub fn short(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => tag.short().to_owned(),
            (None, Some(digest)) => digest.short(),
            (None, None) => String::new(),
        }
    }

    /// As [`Version::short`], but with the digest if `other` has the same tag, as two versions of a moving tag do.
    pub fn short_beside(&self, other: &Self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) if other.tag.as_ref() == Some(tag) => {
                format!("{}@{}", tag.short(), digest.short())
            }
            _ => self.short(),
        }
    }
}

/// Writes `tag`, `tag@digest` or `@digest`.
impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(tag) = &self.tag {
            write!(f, "{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Implements the string conversions of a newtype: `Display`, `AsRef<str>`, and `TryFrom<String>` and `Into<String>` for
/// serde.
macro_rules! string_newtype {
    ($name:ident, $error:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.as_str().to_owned()
            }
        }
    };
}
use string_newtype;
