//! The commands of the built program, with and without a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod client;
mod demo;
mod init;
mod local;
mod serve;
mod set;
mod shells;
mod version;

use std::process::Command;

use tagrelay_test_support::command::{self, Workplace};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tagrelay");

/// Returns the program with these arguments, separated by blanks, and an empty environment.
fn tagrelay(arguments: &str) -> Command {
    command::program(PROGRAM, arguments)
}

fn workplace() -> Workplace {
    Workplace::new(PROGRAM)
}
