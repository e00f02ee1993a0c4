use crate::image::{Digest, Repository, Tag, Version};

/// An image as a sender announced it. Nothing about it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedImage {
    /// The repository.
    pub repository: Repository,
    /// The tag that is said to be there.
    pub tag: Tag,
}

/// An image that its registry has confirmed, with the digest that the registry gave.
///
/// The fields are private and only this room fills them, so a function that asks for this type cannot be handed an
/// image that nobody has asked the registry about:
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

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Returns what the tag pointed at when the registry was asked; `None` only where nobody asked it
    /// ([`Registries::take_unchecked`](super::Registries::take_unchecked)).
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns tag and digest as the version that an environment can run.
    pub fn version(&self) -> Version {
        Version::tagged(self.tag.clone(), self.digest.clone())
    }
}
