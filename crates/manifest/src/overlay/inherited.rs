//! The images that a kustomization takes from a base.

use std::collections::BTreeSet;

use tagrelay_image::Repository;

use super::super::site::{Note, Site};

/// The images that a kustomization takes from outside its environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The images from outside the environment without an entry. Each name is listed once per version.
    pub inherited: Vec<Inherited>,
    /// Unsupported constructs, with reasons.
    pub notes: Vec<Note>,
    /// Every visited path, existing or not. A change at one of these paths may change the result.
    pub looked_at: BTreeSet<String>,
    /// The folders of the environment's kustomizations that the overlay includes.
    pub(super) children: BTreeSet<String>,
    /// The images with an entry in the overlay.
    pub(super) names: BTreeSet<Repository>,
}

/// An image from a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// The name in the rendered base; kustomize compares it letter by letter.
    pub(super) name: String,
    /// The site: the version of the base, at the line of the reference that leads to the image.
    pub site: Site,
}
