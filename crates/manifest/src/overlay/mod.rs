//! Kustomizations of an environment whose images come from a base outside of it.
//!
//! Such an image has no version in the environment's own files. It is a site nevertheless ([`Format::Inherited`]): it
//! runs what the base says, and another version is set by an entry that is added to `images`.
//!
//! Whether that is so cannot be seen in the kustomization alone: [`read_overlay`] follows its local references
//! through [`Surroundings`] and tells which paths it looked at, and [`Overlays`] knows what else of the environment
//! may decide the version.

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
