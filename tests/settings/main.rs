//! `tagrelay.toml`: accepted and refused settings, the example and the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod example;
mod faults;
mod random;
mod texts;
mod whole;
