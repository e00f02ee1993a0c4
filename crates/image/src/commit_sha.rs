use serde::{Deserialize, Serialize};

use super::string_newtype;

/// A full Git commit id: 40 lower-case hexadecimal digits (SHA-1), or 64 (SHA-256 repositories).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitSha(String);

string_newtype!(CommitSha, InvalidCommitSha);

/// Why a string is not a full commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a full commit id (40 or 64 lower-case hexadecimal digits)")]
pub struct InvalidCommitSha(pub String);

impl CommitSha {
    /// Returns the full id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first seven digits.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl std::str::FromStr for CommitSha {
    type Err = InvalidCommitSha;

    fn from_str(text: &str) -> Result<Self, InvalidCommitSha> {
        let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hexadecimal && matches!(text.len(), 40 | 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidCommitSha(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_ids_are_accepted() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(sha.parse::<CommitSha>().unwrap().short(), "0123456");
        assert!("a".repeat(64).parse::<CommitSha>().is_ok());
        for text in ["", "0123456", &sha.to_uppercase(), &sha[1..], &format!("g{}", &sha[1..])] {
            assert_eq!(text.parse::<CommitSha>(), Err(InvalidCommitSha(text.to_owned())));
        }
    }
}
