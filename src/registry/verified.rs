use tagrelay_image::{Digest, Repository, Tag, Version};

/// An image as a sender announced it, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedImage {
    /// The announced repository.
    pub repository: Repository,
    /// The announced tag.
    pub tag: Tag,
}

/// An image that its registry has confirmed, with the digest that the registry returned.
///
/// Only this room sets the private fields, so a function that takes this type never gets an unverified image:
///
/// ```compile_fail
/// # use tagrelay::registry::{UnverifiedImage, VerifiedImage};
/// fn believe(image: UnverifiedImage) -> VerifiedImage {
///     VerifiedImage { repository: image.repository, tag: image.tag, digest: None }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedImage {
    repository: Repository,
    tag: Tag,
    digest: Option<Digest>,
}

impl VerifiedImage {
    pub(super) fn confirmed(image: &UnverifiedImage, digest: Digest) -> Self {
        Self { repository: image.repository.clone(), tag: image.tag.clone(), digest: Some(digest) }
    }

    pub(super) fn unchecked(image: &UnverifiedImage) -> Self {
        Self { repository: image.repository.clone(), tag: image.tag.clone(), digest: None }
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Returns the digest of the tag; `None` only if verification is off.
    ///
    /// See [`Registries::take_unchecked`](super::Registries::take_unchecked).
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns tag and digest as a version.
    pub fn version(&self) -> Version {
        Version::tagged(self.tag.clone(), self.digest.clone())
    }
}
