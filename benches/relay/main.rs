//! Measures the built program between a registry and a Git server, from the webhook to the branch.
//!
//! `cargo bench --bench relay`, or only a part of it: `cargo bench --bench relay -- latency burst accept memory idle catch-up login`.
//! docs/benchmarks.md explains the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod accept;
mod burst;
mod catch_up;
mod latency;
mod login;
mod size;
mod world;

use tagrelay_test_support::Fleet;
use tagrelay_test_support::fleet::Builder;

/// Names another build of the program to measure, for example one with another allocator.
const OTHER: &str = "TAGRELAY_BENCH_PROGRAM";

fn program() -> String {
    std::env::var(OTHER).unwrap_or_else(|_| env!("CARGO_BIN_EXE_tagrelay").to_owned())
}

/// Begins a fleet of the built program.
fn fleet() -> Builder {
    Fleet::builder(&program())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let [first, kind] = arguments.as_slice()
        && first == accept::PEER
    {
        return runtime.block_on(accept::serve(kind));
    }
    // Cargo adds options such as `--bench`.
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let parts = ["latency", "burst", "accept", "memory", "idle", "catch-up", "login"];
    if let Some(unknown) = wanted.iter().find(|name| !parts.contains(&name.as_str())) {
        panic!("there is no part {unknown:?}; there are {}", parts.join(", "));
    }
    runtime.block_on(async {
        for part in parts.into_iter().filter(|part| wanted.is_empty() || wanted.iter().any(|name| name == part)) {
            match part {
                "latency" => latency::run().await,
                "burst" => burst::run().await,
                "accept" => accept::run().await,
                "memory" => size::memory().await,
                "catch-up" => catch_up::run().await,
                "login" => login::run().await,
                _ => size::idle().await,
            }
        }
    });
}
