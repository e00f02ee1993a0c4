//! Finds the versions in manifests and sets them.
//!
//! A [`Site`] is a position that names a version of an image (`docs/manifests.md` has the details):
//!
//! | [`Format`] | position | repository |
//! |---|---|---|
//! | `kubernetes` | a reference with tag or digest under any key `image`, in an object with `apiVersion` and `kind` | the reference's |
//! | `kustomization` | `newTag` and `digest` of an entry of `images` | `newName`, else `name` |
//! | `helm-values` | `tag` and `digest` (or `sha`) next to `repository` (or an `image` without version), and `image` references in other documents | `repository`, below `registry` if that is set |
//! | `argocd` | kustomize images, Helm parameters, values and references in an Application and similar | as above |
//! | `compose` | `image` in a Compose file | the reference's |
//! | `marker` | a scalar with a marker in a comment | the marker's |
//! | `inherited` | none yet: an image of a kustomization's base, for which an entry of `images` is added | the base's |
//! | `rule` | a scalar at a path in the settings | the rule's, or the reference's |
//!
//! An edit parses the bytes into a flat list of nodes with byte ranges (`tree`), finds the sites (`find`), and rewrites each
//! changed scalar in its own style (`notation`; `plain` decides which texts need quotes). All other bytes, including comments and
//! line endings, are copied. The result is returned only after `proof` has parsed it again and compared bytes, nodes and sites
//! (`shape`). A block scalar with YAML is edited and proven in the same way (`embedded`).
//!
//! Sites are also named explicitly (`claims`): by markers in comments and by rules in the settings.
//!
//! `overlay` handles images that a kustomization takes from a base outside its environment. The caller provides the other files.
//! `overlay` adds an entry, with a proof of its own.
//!
//! Everything is pure and free of panics for any input. Files, nesting, nodes and aliases are limited, and aliases are never
//! expanded.

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
mod protected;
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
