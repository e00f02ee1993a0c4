//! Manifests: bytes of YAML in, the places that name a version out, and new bytes for new versions.
//!
//! A [`Site`] is one place that names a version of an image. These forms are known (`docs/manifests.md` has more of each):
//!
//! | [`Format`] | the place | the repository it belongs to |
//! |---|---|---|
//! | `kubernetes` | the scalar under any key `image` that is a reference with a tag or a digest, in an object with `apiVersion` and `kind` | the reference's |
//! | `kustomization` | `newTag` and `digest` of an entry of `images` | `newName`, or else `name` |
//! | `helm-values` | `tag` and `digest` (or `sha`) beside `repository` (or an `image` without version), and `image` references in documents that are no Kubernetes object | `repository`, below `registry` where that is set |
//! | `argocd` | kustomize images, Helm parameters, values and references in an Application and the like | as above |
//! | `compose` | `image` in a Compose file | the reference's |
//! | `marker` | a scalar that a comment marks | the name of the marker, by the settings |
//! | `inherited` | nothing yet: an image from a kustomization's base, for which an entry of `images` is added | the base's |
//! | `rule` | a scalar at a path that the settings name | the rule's, or the reference's |
//!
//! The way of an edit: the bytes are parsed into a flat list of nodes with byte ranges (`tree`), the sites are
//! found in it (`find`), each scalar that must change is written anew in its own style (`notation`, which
//! knows from `plain` what has to be quoted), and the result is only handed out after `proof` has read it
//! back: the bytes, the nodes, and the sites, which say what was wanted (`shape`). A block scalar whose text is YAML goes the
//! same way once more (`embedded`), and so does its proof. Anything
//! but the addressed scalars, comments and line ends included, is copied and never written.
//!
//! Beside what the keys say there is what somebody says (`claims`): markers in comments, and rules of the settings.
//!
//! What a kustomization takes from a base outside of its environment is read by `overlay`, which is handed the files
//! beside it, and is set by an entry that is added; that has a proof of its own.
//!
//! Everything is pure, bounded and free of panics for any input: files, nesting, nodes and aliases have limits,
//! and aliases are followed but never expanded.

#![warn(unreachable_pub)]

mod ambiguous;
mod argocd;
mod claims;
mod document;
mod edit;
mod embedded;
mod file_name;
mod find;
mod finder;
mod found;
mod json_patch;
mod lines;
mod markers;
mod notation;
mod overlay;
mod patches;
mod plain;
mod prefilter;
mod proof;
mod read;
mod refused;
mod registries;
mod settings;
mod shape;
mod sharing;
mod site;
mod site_path;
mod slots;
mod task;
mod tree;
mod unclear;
mod values;

pub use edit::{Edited, SiteChange, edit, edit_with};
pub use file_name::is_manifest_path;
pub use overlay::{Beside, Inherited, Overlay, Overlays, Surroundings, edit_overlay, is_overlay_path, read_overlay};
pub use prefilter::may_hold_sites;
pub use read::{read, scan};
pub use refused::Refused;
pub use settings::{ImageNames, InvalidSiteRule, ManifestSettings, Pin, RulePart, SiteRule};
pub use shape::Wanted;
pub use site::{Format, Note, Reading, Site, Unreadable};
pub use site_path::InvalidSitePath;
