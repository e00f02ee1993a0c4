//! The words of the field: repositories, tags, digests and references of container images.
//!
//! Pure values. Everything is parsed once, at the edge, and normalised while it is parsed, so that two
//! values that are equal name the same thing: `nginx`, `library/nginx` and `index.docker.io/library/nginx`
//! are all `docker.io/library/nginx`. The grammar is that of the OCI distribution specification
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests>) and, for
//! what a Kubernetes manifest may hold, of <https://github.com/distribution/reference>.

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

/// What an environment runs of a repository, or shall run: a tag, a digest or both.
///
/// At least one of the two is present: the constructors take care of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Version {
    /// Returns the version that a tag names, with the digest where it is known.
    pub fn tagged(tag: Tag, digest: Option<Digest>) -> Self {
        Self { tag: Some(tag), digest }
    }

    /// Returns the version that a digest alone names.
    pub fn pinned(digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest) }
    }

    /// Returns the version of the parts found in a manifest, or `None` when neither is present.
    pub fn from_parts(tag: Option<Tag>, digest: Option<Digest>) -> Option<Self> {
        (tag.is_some() || digest.is_some()).then_some(Self { tag, digest })
    }

    /// Returns the tag; `None` where only a digest is known.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest; `None` where only a tag is known.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns a form for people: the tag where there is one, else the digest; commit SHAs and digests cut
    /// to 7 and 12 hexadecimal digits.
    pub fn short(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => tag.short().to_owned(),
            (None, Some(digest)) => digest.short(),
            (None, None) => String::new(),
        }
    }

    /// Returns a form for people that tells the version from `other`: as [`Version::short`], with the digest where both
    /// have the same tag, as those of a moving tag do.
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

/// Implements the string conversions that every newtype of this module has: `Display`, `AsRef<str>`,
/// `TryFrom<String>` and serde as a string that is validated when it is read.
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
