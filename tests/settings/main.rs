//! `tagrelay.toml`: what is accepted, what is refused, and what the example and the reference say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod example;
mod faults;
mod random;
mod texts;
mod whole;
