//! Manifests: which sites are found, and which bytes an edit changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bounds;
mod checks;
mod corpus;
mod finds;
mod overlays;
mod properties;
mod public;

// The names by which `checks` knows both here and in the fuzz targets.
use tagrelay::{image, manifest};
