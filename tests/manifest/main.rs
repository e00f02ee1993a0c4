//! Manifests: found sites, and the bytes that edits change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bounds;
mod checks;
mod corpus;
mod finds;
mod overlays;
mod properties;
mod public;

// The module names that `checks` uses, here and in the fuzz targets.
