//! Whole-program scenarios: the built binary between a registry and a Git server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bad_input;
mod catch_up;
mod ci_notify;
mod dead_letters;
mod decisions;
mod deployment_marks;
mod environment_tags;
mod failures;
mod follow_up;
mod foreign_answers;
mod freezes;
mod gated_updates;
mod gates;
mod git_hosts;
mod hand_commits;
mod kills;
mod late_registry;
mod limits;
mod main_job;
mod order;
mod permissions;
mod reading;
mod readings;
mod receivers;
mod reload;
mod requests;
mod stopping;
mod suspects;
#[cfg(feature = "otel")]
mod telemetry;
mod upgrade;

use tagrelay_test_support::Fleet;
use tagrelay_test_support::fleet::Builder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tagrelay");

/// A fleet of the built program.
fn fleet() -> Builder {
    Fleet::builder(PROGRAM)
}
