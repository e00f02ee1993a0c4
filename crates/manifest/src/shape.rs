//! The wanted versions, and the form of each site.

use std::collections::BTreeMap;

use tagrelay_image::{Repository, Version};

use super::found::Found;
use super::refused::{Blamed, Refused};
use super::settings::{ManifestSettings, Pin};

/// The wanted version of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository whose sites are set.
    pub repository: Repository,
    /// The version that the sites get.
    pub version: Version,
}

/// All wanted versions for a file.
pub(crate) struct WantedVersions<'wanted> {
    wanted: BTreeMap<&'wanted Repository, &'wanted Version>,
    pins: bool,
}

impl<'wanted> WantedVersions<'wanted> {
    /// # Errors
    ///
    /// [`Refused::Contradiction`].
    pub(crate) fn new(wanted: &'wanted [Wanted], settings: &ManifestSettings) -> Result<Self, Refused> {
        let mut versions = BTreeMap::new();
        for Wanted { repository, version } in wanted {
            if versions.insert(repository, version).is_some_and(|other| other != version) {
                return Err(Refused::Contradiction { repository: repository.clone() });
            }
        }
        Ok(Self { wanted: versions, pins: settings.pin == Pin::Digest })
    }

    /// Returns whether a version of the repository is wanted.
    pub(crate) fn wants(&self, repository: &Repository) -> bool {
        self.wanted.contains_key(repository)
    }

    /// Returns the wanted version of a site in its form; `None`: no version of the repository is wanted.
    pub(crate) fn version_of(&self, found: &Found) -> Option<Result<Version, Missing>> {
        let version = self.wanted.get(&found.site.repository)?;
        Some(shaped_like(&found.site.version, version, self.pins && found.is_pinnable))
    }

    /// Returns whether `new` is the site `old` with its wanted version.
    pub(crate) fn is_carried_out(&self, old: &Found, new: &Found) -> bool {
        let is_same = old.site.repository == new.site.repository && old.site.format == new.site.format;
        is_same
            && match self.version_of(old) {
                Some(wanted) => wanted.is_ok_and(|wanted| wanted == new.site.version),
                None => old.site.version == new.site.version,
            }
    }

    /// Returns the wanted version of an entry for an image of a base, in the form of `old`. See [`version_of`](Self::version_of).
    pub(crate) fn version_beside(&self, repository: &Repository, old: &Version) -> Option<Result<Version, Missing>> {
        Some(shaped_like(old, self.wanted.get(repository)?, self.pins))
    }
}

/// The part that the wanted version lacks.
pub(crate) enum Missing {
    Tag,
    Digest,
}

impl Missing {
    pub(crate) fn at(self, place: &Blamed) -> Refused {
        let (repository, line) = (place.repository.clone(), place.line);
        match self {
            Self::Tag => Refused::TagUnknown { repository, line },
            Self::Digest => Refused::DigestUnknown { repository, line },
        }
    }
}

/// Returns the parts of `version` in the form of `old`, with the digest if it is pinned.
fn shaped_like(old: &Version, version: &Version, pins: bool) -> Result<Version, Missing> {
    let tag = match old.tag() {
        Some(_) => Some(version.tag().cloned().ok_or(Missing::Tag)?),
        None => None,
    };
    let digest = match old.digest() {
        None if !pins => None,
        _ => Some(version.digest().cloned().ok_or(Missing::Digest)?),
    };
    Version::from_parts(tag, digest).ok_or(Missing::Tag)
}
