use serde::{Deserialize, Serialize};

use super::string_newtype;

/// The digest of a manifest: `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits.
///
/// Only the algorithms that the OCI image specification registers are accepted
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.0/descriptor.md#registered-algorithms>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

string_newtype!(Digest, InvalidDigest);

/// Why a string is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// The algorithm is missing or not registered.
    #[error("digest `{0}` begins with neither `sha256:` nor `sha512:`")]
    Algorithm(String),
    /// The wrong number of digits, or a character that is not a lower-case hexadecimal digit.
    #[error("digest `{0}` does not have the number of lower-case hexadecimal digits that its algorithm requires")]
    Digits(String),
}

impl Digest {
    /// Returns the digest as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the algorithm and the first twelve digits.
    pub fn short(&self) -> String {
        self.0.chars().take("sha256:".len() + 12).collect()
    }

    /// Returns the SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes))))
    }
}

impl std::str::FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (digits, expected) = if let Some(digits) = text.strip_prefix("sha256:") {
            (digits, 64)
        } else if let Some(digits) = text.strip_prefix("sha512:") {
            (digits, 128)
        } else {
            return Err(InvalidDigest::Algorithm(text.to_owned()));
        };
        let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() == expected && hexadecimal {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDigest::Digits(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_an_empty_text() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn invalid_digests_are_refused_with_the_cause() {
        let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in ["", "md5:00", digits] {
            assert!(matches!(text.parse::<Digest>(), Err(InvalidDigest::Algorithm(_))), "{text}");
        }
        for text in ["sha256:00".to_owned(), format!("sha512:{digits}"), format!("sha256:{}", digits.to_uppercase())] {
            assert!(matches!(text.parse::<Digest>(), Err(InvalidDigest::Digits(_))), "{text}");
        }
    }
}
