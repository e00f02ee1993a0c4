//! What is wanted of a file, and in which shape each site says it.

use std::collections::BTreeMap;

use tagrelay_image::{Repository, Version};

use super::found::Found;
use super::refused::{Blamed, Refused};
use super::settings::{ManifestSettings, Pin};

/// The version that every site of a repository shall name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository whose sites are set.
    pub repository: Repository,
    /// The version that they get.
    pub version: Version,
}

/// What is wanted of a file.
pub(crate) struct Order<'order> {
    wanted: BTreeMap<&'order Repository, &'order Version>,
    pins: bool,
}

impl<'order> Order<'order> {
    /// # Errors
    ///
    /// [`Refused::Contradiction`].
    pub(crate) fn new(wanted: &'order [Wanted], settings: &ManifestSettings) -> Result<Self, Refused> {
        let mut versions = BTreeMap::new();
        for Wanted { repository, version } in wanted {
            if versions.insert(repository, version).is_some_and(|other| other != version) {
                return Err(Refused::Contradiction { repository: repository.clone() });
            }
        }
        Ok(Self { wanted: versions, pins: settings.pin == Pin::Digest })
    }

    /// Returns whether a repository has a wanted version.
    pub(crate) fn wants(&self, repository: &Repository) -> bool {
        self.wanted.contains_key(repository)
    }

    /// Returns what a site shall say; `None` where nothing is wanted of its repository.
    pub(crate) fn version_of(&self, found: &Found) -> Option<Result<Version, Missing>> {
        let version = self.wanted.get(&found.site.repository)?;
        Some(shaped_like(&found.site.version, version, self.pins && found.is_pinnable))
    }

    /// Returns whether `new` is the site `old` with what the order wants of it.
    pub(crate) fn is_carried_out(&self, old: &Found, new: &Found) -> bool {
        let is_same = old.site.repository == new.site.repository && old.site.format == new.site.format;
        is_same
            && match self.version_of(old) {
                Some(wanted) => wanted.is_ok_and(|wanted| wanted == new.site.version),
                None => old.site.version == new.site.version,
            }
    }

    /// Returns what an entry for an image of a base shall say, as [`version_of`](Self::version_of).
    pub(crate) fn version_beside(&self, repository: &Repository, old: &Version) -> Option<Result<Version, Missing>> {
        Some(shaped_like(old, self.wanted.get(repository)?, self.pins))
    }
}

/// What the wanted version lacks.
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

/// Returns the parts of `version` that a site which says `old` says, and the digest where it pins.
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
