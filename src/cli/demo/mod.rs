//! `tagrelay demo`: the whole way of an image on one machine, with a registry of its own.

pub mod push;
pub mod registry;

use std::time::Duration;

/// Returns an HTTP client for peers on this machine: it uses no proxy, and it trusts no certificate authority, so that
/// it works where none is installed. Requests end after ten seconds.
fn local_client() -> reqwest::Result<reqwest::Client> {
    crate::registry::install_tls_provider();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build()
}
