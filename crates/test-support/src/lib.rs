//! Shared by tests and benchmarks: the built program and the servers that it uses.
//!
//! - program: [`fleet`] (with registry and config repository, [`upstream`]), [`command`] (single commands), [`settings`]
//!   (texts of settings)
//! - Git: [`git`] (a remote), [`source`] (a source repository), [`git_http`], [`git_tls`] and [`git_ssh`] (servers),
//!   [`slow_link`] and [`delay`] (slow networks)
//! - registries: [`docker_registry`], [`guarded_registry`], [`collector`] (an endpoint for notifications)
//! - clouds: [`moto`] (AWS), [`fake`] (any other service)
//! - others: [`argocd`], [`issuer`] (OpenID Connect), [`otlp`] (a collector of traces), [`promtool`], [`pyyaml`]
//! - benchmarks: [`manifests`], [`measure`], [`wire`]
//! - [`peer`]: optional programs; [`folder`]: the files of this repository
//!
//! The program's path is an argument, because only test binaries know `env!("CARGO_BIN_EXE_tagrelay")`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "only tests use it")]

pub mod argocd;
pub mod collector;
pub mod command;
pub mod delay;
pub mod docker_registry;
pub mod fake;
pub mod fleet;
pub mod folder;
pub mod git;
pub mod git_http;
pub mod git_ssh;
pub mod git_tls;
pub mod guarded_registry;
pub mod issuer;
pub mod manifests;
pub mod measure;
pub mod moto;
pub mod otlp;
pub mod peer;
pub mod promtool;
pub mod pyyaml;
pub mod settings;
pub mod slow_link;
pub mod source;
pub mod upstream;
pub mod wire;

pub use fleet::{Builder, Fleet};

/// Installs ring as the process' TLS provider, unless there is one already.
pub fn install_tls_provider() {
    // It fails if another test installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
