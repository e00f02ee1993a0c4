//! The images that a kustomization takes from elsewhere.

use std::collections::BTreeSet;

use tagrelay_image::Repository;

use super::super::site::{Note, Site};

/// What a kustomization takes from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The images that come from outside of the environment and for which it has no entry, each name once for each version.
    pub inherited: Vec<Inherited>,
    /// What cannot be done, and why.
    pub notes: Vec<Note>,
    /// Every path that was looked at, those where nothing is included: a change there may change all of this.
    pub looked_at: BTreeSet<String>,
    /// The folders of the environment's kustomizations that it builds upon.
    pub(super) children: BTreeSet<String>,
    /// The images that its own entries are about.
    pub(super) names: BTreeSet<Repository>,
}

/// An image that comes from a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// The name as the rendered base has it: kustomize compares letter by letter.
    pub(super) name: String,
    /// The site: what the base says, at the line of the reference through which it comes.
    pub site: Site,
}
