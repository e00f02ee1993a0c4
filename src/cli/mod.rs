//! The commands, one file each; `api` is the client that several of them share, `output` prints.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 invalid arguments. Results go to standard output, everything else to standard
//! error.

mod api;
mod check;
pub mod demo;
mod events;
mod freezes;
mod holds;
mod output;
mod promote;
mod rollback;
mod serve;
mod sites;
mod status;
mod webhook;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use output::BAD;

/// The default settings file.
const DEFAULT_SETTINGS: &str = "tagrelay.toml";

/// Relays image tags from container registries to the Git repository that Argo CD watches.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Start with `tagrelay demo`: it runs everything on this machine. `tagrelay COMMAND --help` has examples."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Options),
    Sites(sites::Options),
    Check(check::Options),
    Serve(serve::Options),
    Status(status::Options),
    Promote(promote::Options),
    Rollback(rollback::Options),
    Events(events::Options),
    Holds(holds::Options),
    Hold(holds::AddOptions),
    Release(holds::ReleaseOptions),
    Freezes(freezes::Options),
    Freeze(freezes::FreezeOptions),
    Thaw(freezes::ThawOptions),
    Webhook(webhook::Options),
}

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Also prints help and version. A closed pipe is not an error.
            let _ = answer.print();
            return if answer.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    dispatch(arguments.command).unwrap_or_else(|error| {
        if !is_closed_pipe(&error) {
            output::note(&format!("{BAD}error:{BAD:#} {}", output::clean(&format!("{error:#}"))));
        }
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("threads cannot be started")?;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(options) => demo::run(options).await,
            Command::Sites(options) => sites::run(options).await,
            Command::Check(options) => check::run(options).await,
            Command::Serve(options) => serve::run(options).await,
            Command::Status(options) => status::run(options).await,
            Command::Promote(options) => promote::run(options).await,
            Command::Rollback(options) => rollback::run(options).await,
            Command::Events(options) => events::run(options).await,
            Command::Holds(options) => holds::run(options).await,
            Command::Hold(options) => holds::add(options).await,
            Command::Release(options) => holds::release(options).await,
            Command::Freezes(options) => freezes::list(options).await,
            Command::Freeze(options) => freezes::freeze(options).await,
            Command::Thaw(options) => freezes::thaw(options).await,
            Command::Webhook(options) => webhook::run(options).await,
        }
    });
    // Do not wait for blocking work such as a fetch: its result is not needed any more.
    runtime.shutdown_background();
    result
}

/// Returns whether the reader of standard output closed it, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken))
}
