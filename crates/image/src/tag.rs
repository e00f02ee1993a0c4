use serde::{Deserialize, Serialize};

use super::string_newtype;

/// The longest tag that the distribution specification allows, in bytes.
const MAX_TAG_BYTES: usize = 128;

/// The lengths of full commit SHAs, and of an abbreviated one.
const SHA_LENGTHS: [usize; 2] = [40, 64];
const SHORT_SHA_LENGTH: usize = 7;

/// The tag of an image: a word character followed by up to 127 word characters, dots and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

string_newtype!(Tag, InvalidTag);

/// Why a string is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTag {
    /// The text is empty.
    #[error("a tag is empty")]
    Empty,
    /// The tag is longer than the specification allows.
    #[error("a tag has {0} bytes, and at most {MAX_TAG_BYTES} are allowed")]
    TooLong(usize),
    /// The tag contains an invalid character, or begins with a dot or dash.
    #[error("tag `{0}` has an invalid character (valid: letters, digits and `_`, then also `.` and `-`)")]
    Character(String),
}

impl Tag {
    /// Returns the tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tag with a full commit SHA at its end cut to seven digits: `9f8e7d6`, `dev-9f8e7d6`. Any other tag is returned
    /// whole.
    pub fn short(&self) -> &str {
        let cut = SHA_LENGTHS.into_iter().find_map(|length| {
            // A tag is ASCII, so every index is a character boundary.
            let (before, sha) = self.0.split_at(self.0.len().checked_sub(length)?);
            let is_apart = !before.ends_with(|last: char| last.is_ascii_alphanumeric());
            (is_apart && sha.parse::<super::CommitSha>().is_ok()).then_some(before.len() + SHORT_SHA_LENGTH)
        });
        &self.0[..cut.unwrap_or(self.0.len())]
    }
}

impl std::str::FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let bytes = text.as_bytes();
        let Some((first, rest)) = bytes.split_first() else {
            return Err(InvalidTag::Empty);
        };
        if bytes.len() > MAX_TAG_BYTES {
            return Err(InvalidTag::TooLong(bytes.len()));
        }
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if word(first) && rest.iter().all(|byte| word(byte) || matches!(byte, b'.' | b'-')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTag::Character(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_the_specification_are_accepted() {
        for text in ["latest", "_x", "1.2.3-rc.1", "123e456", &"a".repeat(128)] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn invalid_tags_are_refused_with_the_cause() {
        assert_eq!("".parse::<Tag>(), Err(InvalidTag::Empty));
        assert_eq!("a".repeat(129).parse::<Tag>(), Err(InvalidTag::TooLong(129)));
        for text in [".a", "-a", "a b", "a:b", "ä", "a\n", "a/b", "{{ .Tag }}"] {
            assert_eq!(text.parse::<Tag>(), Err(InvalidTag::Character(text.to_owned())));
        }
    }

    #[test]
    fn commit_sha_at_the_end_is_shortened() {
        let sha: Tag = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432".parse().unwrap();
        assert_eq!(sha.short(), "9f8e7d6");
        assert_eq!(format!("dev-{sha}").parse::<Tag>().unwrap().short(), "dev-9f8e7d6");
        assert_eq!("ab".repeat(32).parse::<Tag>().unwrap().short(), "abababa");
        for whole in ["v1.2.3".to_owned(), "latest".to_owned(), format!("a{sha}"), "ab".repeat(33)] {
            assert_eq!(whole.parse::<Tag>().unwrap().short(), whole);
        }
    }
}
