//! The files in `deploy/` match each other and the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod chart;
mod chart_docs;
mod chart_rendering;
mod cluster_settings;
mod files;
mod monitoring;
mod platform_ci;
mod platform_docs;
mod platform_environments;
mod platform_etcd;
mod platform_gateway;
mod platform_monitoring;
mod platform_rendering;
mod platform_secrets;
mod platform_tree;
mod pod_security;
mod release;
mod setup;
