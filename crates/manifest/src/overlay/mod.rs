//! Kustomizations of an environment whose images come from a base outside the environment.
//!
//! The environment's own files contain no version of such an image. The image is nevertheless a site ([`Format::Inherited`]): it
//! runs the version of the base, and an additional entry in `images` sets a new version.
//!
//! [`read_overlay`] follows the kustomization's local references through [`Surroundings`] and returns the visited paths.
//! [`Overlays`] knows which other files of the environment may set the version.

mod addition;
mod base;
mod entry;
mod images;
mod inherited;
mod insert;
mod json_patches;
mod overlays;
mod read;
mod surroundings;
mod walk;

pub use inherited::{Inherited, Overlay};
pub use insert::edit_overlay;
pub use overlays::Overlays;
pub use read::{is_overlay_path, read_overlay};
pub use surroundings::{Beside, Surroundings};
