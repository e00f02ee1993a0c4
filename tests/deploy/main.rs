//! The files in `deploy/` agree with each other and with the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod files;
mod monitoring;
