//! Whole-program scenarios: the built binary between a registry and a Git server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code)]

#[path = "../support/argocd.rs"]
mod argocd;
#[path = "../support/docker_registry.rs"]
mod docker_registry;
#[path = "../support/fleet.rs"]
mod fleet;
#[path = "../support/git_http.rs"]
mod git_http;
#[path = "../support/git_tls.rs"]
mod git_tls;
#[path = "../support/issuer.rs"]
mod issuer;
#[path = "../support/source.rs"]
mod source;

mod bad_input;
mod catch_up;
mod dead_letters;
mod failures;
mod follow_up;
mod freezes;
mod git_hosts;
mod hand_commits;
mod late_registry;
mod limits;
mod main_job;
mod order;
mod readings;
mod receivers;
mod reload;
mod requests;
mod stopping;
