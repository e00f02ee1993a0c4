//! The files in `deploy/` match each other and the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod files;
mod monitoring;
