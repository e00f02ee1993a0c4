//! Why an edit leaves a file alone.

use tagrelay_image::Repository;

use super::site::Unreadable;

/// Why a file was left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The file could not be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// Two different versions of one repository were asked for at once.
    #[error("two different versions of {repository} are wanted at once")]
    Contradiction {
        /// The repository of both.
        repository: Repository,
    },
    /// The site names a digest and none is known for the wanted version.
    #[error(
        "line {line}: {repository} is named by its digest here, and no digest is known for the wanted version: tag \
         and digest would disagree"
    )]
    DigestUnknown {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The site names a tag and the wanted version is only a digest.
    #[error("line {line}: {repository} is named by a tag here, and the wanted version has only a digest")]
    TagUnknown {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The scalar is anchored, and an alias would carry the change to something that shall not change.
    #[error(
        "line {line}: the version of {repository} is shared through an anchor, and a change would reach line {other_line} \
         too, where it would change something else: write the version out in both places"
    )]
    Shared {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
        /// The line that would change as well.
        other_line: u32,
    },
    /// The scalar is written in a way in which the new value has no place.
    #[error("line {line}: the version of {repository} is written in a way that cannot be edited: write it in one line")]
    Notation {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The site is in a text inside the file, and the lines of the text are not those of the file.
    #[error(
        "line {line}: the version of {repository} is in a text that is folded or quoted, which cannot be edited in \
         place: write the text as a literal block (`|`)"
    )]
    NotLiteral {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The image comes from a base, and the kustomization is written in a way that has no place for an entry.
    #[error(
        "line {line}: {repository} comes from here and has no entry under `images`, and none can be added: {reason}"
    )]
    NoPlace {
        /// The repository of the site.
        repository: Repository,
        /// The line of the reference to the base.
        line: u32,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// What the new version makes of the file is not what the file was: a marked value decides what the keys around it
    /// mean, say.
    #[error(
        "line {line}: with the wanted version of {repository} here, the file would name other versions in other places: \
         what is written here decides that"
    )]
    OtherSites {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The new bytes did not pass the proof. This is a defect of the editor; the file is left alone.
    #[error("the edit could not be proven to change only the version: {reason}")]
    Unprovable {
        /// What the proof found.
        reason: String,
    },
}

impl Refused {
    /// Returns the repository to blame, without which the rest of an edit may go on; `None` when it is the file.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Unreadable(_) | Self::Unprovable { .. } => None,
            Self::Contradiction { repository }
            | Self::DigestUnknown { repository, .. }
            | Self::TagUnknown { repository, .. }
            | Self::Shared { repository, .. }
            | Self::NotLiteral { repository, .. }
            | Self::NoPlace { repository, .. }
            | Self::OtherSites { repository, .. }
            | Self::Notation { repository, .. } => Some(repository),
        }
    }

    /// Returns the same with its lines moved to where they are in the file.
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
            | Self::NoPlace { line, .. }
            | Self::OtherSites { line, .. }
            | Self::Notation { line, .. } => *line = in_file(*line),
        }
        self
    }
}

/// A site, for the reasons of a refusal.
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

    pub(crate) fn not_literal(&self) -> Refused {
        Refused::NotLiteral { repository: self.repository.clone(), line: self.line }
    }
}
