use serde::{Deserialize, Serialize};

use super::{Digest, InvalidDigest, InvalidRepository, InvalidTag, Repository, Tag, Version};

/// A normalised image reference: `registry/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    /// The normalised repository.
    pub repository: Repository,
    /// The tag as written. There is no default: `nginx` has no tag.
    pub tag: Option<Tag>,
    /// The digest as written.
    pub digest: Option<Digest>,
}

/// Why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// The part before the tag is invalid.
    #[error(transparent)]
    Repository(#[from] InvalidRepository),
    /// The part after the last colon is invalid.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// The part after the `@` is invalid.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl ImageReference {
    /// Returns the version; `None`: the reference has neither tag nor digest.
    pub fn version(&self) -> Option<Version> {
        Version::from_parts(self.tag.clone(), self.digest.clone())
    }

    /// Splits the text of a reference into name, tag and digest, without validating them.
    ///
    /// The parts are slices of `text`, from which the editor computes their positions. A port belongs to the name, because
    /// only a colon after the last slash begins a tag.
    pub fn split(text: &str) -> (&str, Option<&str>, Option<&str>) {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        match rest[after_slash..].rfind(':') {
            Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..]), digest),
            None => (rest, None, digest),
        }
    }
}

impl std::str::FromStr for ImageReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (name, tag, digest) = Self::split(text);
        Ok(Self {
            repository: name.parse()?,
            tag: tag.map(str::parse).transpose()?,
            digest: digest.map(str::parse).transpose()?,
        })
    }
}

impl std::fmt::Display for ImageReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for ImageReference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<ImageReference> for String {
    fn from(reference: ImageReference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_combination_of_parts_is_parsed() {
        for (written, expected) in [
            ("nginx", "docker.io/library/nginx".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("localhost:5000/a", "localhost:5000/a".to_owned()),
            ("localhost:5000/a:b", "localhost:5000/a:b".to_owned()),
            (&format!("a/b@{DIGEST}"), format!("docker.io/a/b@{DIGEST}")),
            (&format!("a/b:c@{DIGEST}"), format!("docker.io/a/b:c@{DIGEST}")),
        ] {
            let reference: ImageReference = written.parse().unwrap();
            assert_eq!(reference.to_string(), expected);
            assert_eq!(expected.parse::<ImageReference>().unwrap(), reference);
        }
    }

    #[test]
    fn each_invalid_part_is_refused() {
        assert!(matches!("A B:c".parse::<ImageReference>(), Err(InvalidReference::Repository(_))));
        assert!(matches!("a:".parse::<ImageReference>(), Err(InvalidReference::Tag(_))));
        assert!(matches!("a:b@sha256:0".parse::<ImageReference>(), Err(InvalidReference::Digest(_))));
    }
}
