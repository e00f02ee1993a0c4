//! Entries in `images` of a kustomization, existing and missing ones.

use tagrelay_image::Version;

use super::super::refused::Blamed;

/// An entry of `images`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) new_name: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
    /// The line of the tag, or else of the digest.
    pub(super) version_line: u32,
}

impl Entry {
    /// Returns whether an entry of another text has the same content.
    pub(super) fn says_like(&self, other: &Self) -> bool {
        let Self { name, line: _, new_name, tag, digest, version_line: _ } = self;
        (name, new_name, tag, digest) == (&other.name, &other.new_name, &other.tag, &other.digest)
    }

    /// Returns whether this is the entry that was added.
    pub(super) fn is(&self, wanted: &NewEntry<'_>) -> bool {
        self.name == wanted.name
            && self.new_name.is_none()
            && self.tag.as_deref() == wanted.version.tag().map(|tag| tag.as_str())
            && self.digest.as_deref() == wanted.version.digest().map(|digest| digest.as_str())
    }

    /// Whether the entry sets a version, and not only another name.
    pub(super) fn has_version(&self) -> bool {
        self.tag.is_some() || self.digest.is_some()
    }
}

/// A missing entry.
pub(super) struct NewEntry<'a> {
    pub(super) name: &'a str,
    pub(super) version: Version,
    /// The version that runs without the entry.
    pub(super) old: Version,
    pub(super) place: Blamed,
    /// Whether one of the images runs another version.
    pub(super) is_needed: bool,
}

impl NewEntry<'_> {
    /// Returns the keys and values of the entry.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tag = self.version.tag().map(|tag| tag.as_str());
        let digest = self.version.digest().map(|digest| digest.as_str());
        let fields = [("name", Some(self.name)), ("newTag", tag), ("digest", digest)];
        fields.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}
