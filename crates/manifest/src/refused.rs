//! Why an edit is refused.

use tagrelay_image::Repository;

use super::protected::Protection;
use super::site::Unreadable;

/// Why a file was left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The file could not be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// Two different versions of one repository were requested.
    #[error("two different versions of {repository} were requested")]
    Contradiction {
        /// The repository.
        repository: Repository,
    },
    /// The site has a digest, and the digest of the wanted version is unknown.
    #[error(
        "line {line}: {repository} is named by its digest here, and no digest is known for the wanted version: tag \
         and digest would disagree"
    )]
    DigestUnknown {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
    },
    /// The site has a tag, and the wanted version has only a digest.
    #[error("line {line}: the site of {repository} has a tag, but the wanted version has only a digest")]
    TagUnknown {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
    },
    /// The scalar is anchored, and an alias would carry the change to another value.
    #[error(
        "line {line}: the version of {repository} is shared through an anchor, and a change would reach line {other_line} \
         too, where it would change something else: write the version out in both places"
    )]
    Shared {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
        /// The line that would change too.
        other_line: u32,
    },
    /// The notation of the scalar cannot hold the new value.
    #[error("line {line}: the version of {repository} is written in a way that cannot be edited: write it in one line")]
    Notation {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
    },
    /// The site is in a text inside the file whose lines differ from those of the file.
    #[error(
        "line {line}: the version of {repository} is in a text that is folded or quoted, which cannot be edited in \
         place: write the text as a literal block (`|`)"
    )]
    NotLiteral {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
    },
    /// A checksum covers the site, or a tool writes its file.
    #[error("line {line}: the version of {repository} is left alone: {advice}")]
    Protected {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
        /// The cause, and what to do.
        advice: &'static str,
    },
    /// The image comes from a base, and no entry can be added to the kustomization.
    #[error(
        "line {line}: {repository} comes from here and has no entry under `images`, and none can be added: {reason}"
    )]
    NoPlace {
        /// The site's repository.
        repository: Repository,
        /// The line of the reference to the base.
        line: u32,
        /// The cause, and what to do.
        reason: &'static str,
    },
    /// The edit would change the sites of the file.
    ///
    /// For example, a marked value may determine the meaning of the keys around it.
    #[error(
        "line {line}: with the wanted version of {repository} here, the file would name other versions in other places: \
         what is written here decides that"
    )]
    OtherSites {
        /// The site's repository.
        repository: Repository,
        /// The site's line.
        line: u32,
    },
    /// The proof failed because of a bug in the editor. The file is left alone.
    #[error("the edit could not be proven to change only the version: {reason}")]
    Unprovable {
        /// The result of the proof.
        reason: String,
    },
}

impl Refused {
    /// Returns the repository at fault; `None`: the file is at fault. Without this repository, the edit may succeed.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Unreadable(_) | Self::Unprovable { .. } => None,
            Self::Contradiction { repository }
            | Self::DigestUnknown { repository, .. }
            | Self::TagUnknown { repository, .. }
            | Self::Shared { repository, .. }
            | Self::NotLiteral { repository, .. }
            | Self::Protected { repository, .. }
            | Self::NoPlace { repository, .. }
            | Self::OtherSites { repository, .. }
            | Self::Notation { repository, .. } => Some(repository),
        }
    }

    /// Returns the same refusal with its lines moved to their position in the file.
    pub(crate) fn at(mut self, in_file: impl Fn(u32) -> u32) -> Self {
        match &mut self {
            Self::Unreadable(_) | Self::Unprovable { .. } | Self::Contradiction { .. } => {}
            Self::Shared { line, other_line, .. } => {
                *line = in_file(*line);
                *other_line = in_file(*other_line);
            }
            Self::DigestUnknown { line, .. }
            | Self::TagUnknown { line, .. }
            | Self::NotLiteral { line, .. }
            | Self::Protected { line, .. }
            | Self::NoPlace { line, .. }
            | Self::OtherSites { line, .. }
            | Self::Notation { line, .. } => *line = in_file(*line),
        }
        self
    }
}

/// A site in the message of a refusal.
#[derive(Debug, Clone)]
pub(crate) struct Blamed {
    pub(crate) repository: Repository,
    pub(crate) line: u32,
}

impl Blamed {
    pub(crate) fn shared(&self, other_line: u32) -> Refused {
        Refused::Shared { repository: self.repository.clone(), line: self.line, other_line }
    }

    pub(crate) fn notation(&self) -> Refused {
        Refused::Notation { repository: self.repository.clone(), line: self.line }
    }

    pub(crate) fn protected(&self, protection: Protection) -> Refused {
        Refused::Protected { repository: self.repository.clone(), line: self.line, advice: protection.advice() }
    }

    pub(crate) fn not_literal(&self) -> Refused {
        Refused::NotLiteral { repository: self.repository.clone(), line: self.line }
    }
}
