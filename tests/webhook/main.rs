//! Webhooks: credentials, bodies and signatures of every sender.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bodies;
mod credentials;
mod git;
mod properties;
mod samples;
mod signatures;
