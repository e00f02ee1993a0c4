//! The commands, one file each; `api` is the client that several of them share, `output` prints.
//!
//! Exit codes are in `exit`. Results go to standard output, everything else to standard error.

mod api;
mod check;
mod completion;
pub mod demo;
mod diff;
#[cfg(test)]
mod documentation;
mod events;
mod exit;
mod freezes;
mod history;
mod holds;
mod init;
mod links;
mod manual;
mod names;
mod open;
mod output;
mod places;
mod preview;
mod promote;
mod promotions;
mod receivers;
mod reload;
mod rollback;
mod serve;
mod sites;
mod status;
mod webhook;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use output::{BAD, Times};

/// The default settings file.
const DEFAULT_SETTINGS: &str = "tagrelay.toml";

/// Version, commit and date: `0.1.0 (0123456789ab 2026-12-01)`.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TAGRELAY_BUILD"), ")");

/// Relays image tags from container registries to the Git repository that Argo CD watches.
#[derive(Parser)]
#[command(
    version = VERSION,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Start with `tagrelay demo`: it runs everything on this machine. `tagrelay help COMMAND` has examples.

Servers and tokens can be named once, in ~/.config/tagrelay/config.toml:
  context = \"test\"
  [contexts.test]
  server = \"http://127.0.0.1:8080\"
  token = { env = \"TAGRELAY_TOKEN\" }
  [contexts.prod]
  server = \"https://tagrelay.example.com\"
  token = { command = [\"pass\", \"tagrelay/prod\"] }"
)]
struct Arguments {
    /// The context in ~/.config/tagrelay/config.toml: a server and its token [default: TAGRELAY_CONTEXT, or that of the file]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    context: Option<String>,
    /// How times are printed
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        help_heading = "Global options",
        hide_possible_values = true
    )]
    time: Option<Times>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Options),
    Init(init::Options),
    Sites(sites::Options),
    Check(check::Options),
    Serve(serve::Options),
    Status(status::Options),
    History(history::Options),
    Diff(diff::Options),
    Promote(promote::Options),
    Promotions(promotions::Options),
    Rollback(rollback::Options),
    Events(events::Options),
    Holds(holds::Options),
    Hold(holds::AddOptions),
    Release(holds::ReleaseOptions),
    Freezes(freezes::Options),
    Freeze(freezes::FreezeOptions),
    Thaw(freezes::ThawOptions),
    Receivers(receivers::Options),
    Reload(reload::Options),
    Open(open::Options),
    Webhook(webhook::Options),
    Completion(completion::Options),
    Manual(manual::Options),
    #[command(name = "__complete")]
    Complete(completion::CompleteOptions),
}

/// Returns the description of all commands.
fn program() -> clap::Command {
    let mut program = Arguments::command();
    program.build();
    program
}

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Also prints help and version. A closed pipe is not an error.
            let _ = answer.print();
            return if answer.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let Arguments { context, time, command } = arguments;
    if let Some(context) = context {
        api::select_context(context);
    }
    if let Some(time) = time {
        output::set_times(time);
    }
    dispatch(command).unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitCode::FAILURE;
        }
        output::note(&format!("{BAD}error:{BAD:#} {}", output::clean(&format!("{error:#}"))));
        if error.downcast_ref::<exit::Usage>().is_some() {
            output::note("\nFor more information, try '--help'.");
        }
        exit_code(&error)
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("threads cannot be started")?;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(options) => demo::run(options).await,
            Command::Init(options) => init::run(options).await,
            Command::Sites(options) => sites::run(options).await,
            Command::Check(options) => check::run(options).await,
            Command::Serve(options) => serve::run(options).await,
            Command::Status(options) => status::run(options).await,
            Command::History(options) => history::run(options).await,
            Command::Diff(options) => diff::run(options).await,
            Command::Promote(options) => promote::run(options).await,
            Command::Promotions(options) => promotions::run(options).await,
            Command::Rollback(options) => rollback::run(options).await,
            Command::Events(options) => events::run(options).await,
            Command::Holds(options) => holds::run(options).await,
            Command::Hold(options) => holds::add(options).await,
            Command::Release(options) => holds::release(options).await,
            Command::Freezes(options) => freezes::list(options).await,
            Command::Freeze(options) => freezes::freeze(options).await,
            Command::Thaw(options) => freezes::thaw(options).await,
            Command::Receivers(options) => receivers::run(options).await,
            Command::Reload(options) => reload::run(options).await,
            Command::Open(options) => open::run(options).await,
            Command::Webhook(options) => webhook::run(options).await,
            Command::Completion(options) => completion::run(&options),
            Command::Manual(options) => manual::run(&options, &program()),
            Command::Complete(options) => completion::complete(options, &program()).await,
        }
    });
    // Do not wait for blocking work such as a fetch: its result is not needed any more.
    runtime.shutdown_background();
    result
}

/// Returns the exit code of an error.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let code = error.chain().find_map(|cause| match cause.downcast_ref::<exit::Usage>() {
        Some(_) => Some(exit::USAGE),
        None => cause.downcast_ref::<api::ApiError>().map(api::ApiError::exit_code),
    });
    ExitCode::from(code.unwrap_or(exit::REFUSED))
}

/// Returns whether the reader of standard output closed it, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken))
}
