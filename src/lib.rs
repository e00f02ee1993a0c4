//! Tagrelay relays image tags from a container registry to the Git repository that Argo CD watches.
//!
//! This is the table of contents of the daemon. `docs/architecture.md` says what each room takes and gives, and in which
//! order an event passes through them.

// The tests see the inside of the daemon; nothing else depends on it.
#![allow(missing_docs)]

pub mod access;
mod api;
#[cfg(test)]
mod architecture;
pub mod argocd;
pub mod cli;
pub mod clock;
pub mod config_repo;
pub mod domain;
pub mod http;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod server;
pub mod settings;
pub mod source_repo;
pub mod store;
pub mod telemetry;
