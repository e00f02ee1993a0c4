//! Sites with their scalars.

use std::ops::Range;

use tagrelay_image::{Digest, ImageReference};

use super::site::Site;
use super::tree::NodeId;

/// A site with its scalars.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) site: Site,
    /// The maps that have this site, including through aliases and merge keys.
    ///
    /// Empty for a site that a marker or rule creates.
    pub(crate) homes: Vec<NodeId>,
    pub(crate) tag: Option<Part>,
    pub(crate) digest: Option<Part>,
    /// Whether `@digest` may be added after the tag.
    pub(crate) is_pinnable: bool,
}

/// The position of a tag or digest.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    /// Every node through which sites reach the scalar: the scalar itself, or its aliases.
    pub(crate) reached_by: Vec<NodeId>,
    /// The position of the tag or digest in the scalar's value, in bytes.
    pub(crate) range: Range<usize>,
    /// Whether the digest is written without `sha256:`, as under the key `sha`.
    pub(crate) is_bare: bool,
}

/// A tag or digest as written, with its position.
pub(crate) type Written<'tree> = (&'tree str, Part);

impl Found {
    /// The scalars of the site, which order it in the text.
    pub(crate) fn place(&self) -> (NodeId, NodeId) {
        let node = |part: &Option<Part>| part.as_ref().map(|part| part.node);
        let tag = node(&self.tag);
        let digest = node(&self.digest);
        (tag.or(digest).unwrap_or_default(), digest.or(tag).unwrap_or_default())
    }

    /// Merges `copy` if it is the same site, reached through other nodes.
    pub(crate) fn joins(&mut self, copy: &mut Self) -> bool {
        let is_same = self.place() == copy.place() && self.site == copy.site;
        if is_same {
            if !self.homes.ends_with(&copy.homes) {
                self.homes.append(&mut copy.homes);
            }
            for (part, other) in [(&mut self.tag, &mut copy.tag), (&mut self.digest, &mut copy.digest)] {
                if let (Some(part), Some(other)) = (part, other) {
                    part.reached_by.append(&mut other.reached_by);
                }
            }
        }
        is_same
    }

    /// Returns whether the repository is under its own key and not in the same text as the tag.
    pub(crate) fn is_beside_its_name(&self) -> bool {
        self.parts().all(|part| part.range.start == 0)
    }

    /// Returns the tag and the digest of the site, if it has them.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.tag.iter().chain(&self.digest)
    }
}

impl Part {
    /// Returns the part that consists of the whole scalar.
    pub(crate) fn whole(at: NodeId, node: NodeId, text: &str) -> Self {
        Self::inside(at, node, 0..text.len())
    }

    /// Returns the part that consists of these bytes of the scalar's value.
    pub(crate) fn inside(at: NodeId, node: NodeId, range: Range<usize>) -> Self {
        Self { node, reached_by: vec![at], range, is_bare: false }
    }

    /// Returns the digest in the text of the part.
    pub(crate) fn digest_of(&self, text: &str) -> Option<Digest> {
        if self.is_bare { format!("sha256:{text}").parse().ok() } else { text.parse().ok() }
    }

    /// Splits the text from a byte on into the name of a reference, its tag and its digest.
    pub(crate) fn of_reference(
        at: NodeId,
        node: NodeId,
        text: &str,
        start: usize,
    ) -> (&str, Option<Written<'_>>, Option<Written<'_>>) {
        let (name, tag, digest) = ImageReference::split(&text[start..]);
        let behind = start + name.len() + 1;
        let tag = tag.map(|tag| (tag, Self::inside(at, node, behind..behind + tag.len())));
        let digest = digest.map(|digest| (digest, Self::inside(at, node, text.len() - digest.len()..text.len())));
        (name, tag, digest)
    }

    /// Returns the tag, and the digest that may follow it in the same scalar.
    pub(crate) fn tag_and_digest(at: NodeId, node: NodeId, text: &str) -> (Written<'_>, Option<Written<'_>>) {
        match text.split_once('@') {
            Some((tag, digest)) => (
                (tag, Self::inside(at, node, 0..tag.len())),
                Some((digest, Self::inside(at, node, tag.len() + 1..text.len()))),
            ),
            None => ((text, Self::whole(at, node, text)), None),
        }
    }
}
