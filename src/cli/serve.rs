//! `tagrelay serve`: the service itself.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::http::Reloads;
use crate::server::{self, Reloader};
use crate::settings::Settings;
use crate::telemetry::{LogFormat, start_logs};

const NO_SIGNALS: &str = "signals of the system cannot be received";

/// Runs the service: takes webhooks, commits new tags, serves the API.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay serve                                   with tagrelay.toml in this folder
  tagrelay serve --config /etc/tagrelay/tagrelay.toml --log-format json

It runs until SIGTERM or Ctrl-C and ends with exit code 0. What is pending then goes on at the next start.
Changed settings, and changed files that they name, are read by themselves, or at SIGHUP: all of them, or none where one
has a fault.
TAGRELAY_LOG sets the levels of the log, as in TAGRELAY_LOG=info,tagrelay::relay=debug.")]
pub(super) struct Options {
    /// The settings
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_SETTINGS)]
    config: PathBuf,
    /// How log lines look [default: text on a terminal, json elsewhere]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(&options.config) {
        Ok(settings) => settings,
        Err(faults) => {
            super::output::print_faults(&faults);
            return Ok(ExitCode::FAILURE);
        }
    };
    let format = options.log_format.unwrap_or_else(default_format);
    start_logs(format);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    // From here on a signal is not lost, however early it comes.
    let mut signals = Signals::listen()?;
    let mut hangups = signal(SignalKind::hangup()).context(NO_SIGNALS)?;
    let mut reloader = Reloader::new(options.config, &settings);
    let (reloads, mut asked) = Reloads::new();
    let mut server = tokio::select! {
        server = server::start(settings, Some(reloads)) => server?,
        () = signals.wait() => return Ok(ExitCode::SUCCESS),
    };
    let operations = server.operations_address().map(tracing::field::display);
    tracing::info!(address = %server.address(), operations, "listening");
    loop {
        tokio::select! {
            () = signals.wait() => break,
            reason = server.failed() => {
                tracing::error!(reason, "ending, so that a new process goes on");
                anyhow::bail!("{reason}; a new process goes on from the store");
            }
            () = reloader.changed() => drop(reloader.reload(&mut server, "a file has changed").await),
            Some(()) = hangups.recv() => drop(reloader.reload(&mut server, "SIGHUP").await),
            Some(reply) = asked.recv() => {
                // Nobody waits any more where the client has gone.
                let _ = reply.send(reloader.reload(&mut server, "the API").await);
            }
        }
    }
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        () = server.stop() => tracing::info!("stopped"),
        () = signals.wait() => tracing::warn!("ended by a second signal; what is pending goes on at the next start"),
    }
    Ok(ExitCode::SUCCESS)
}

fn default_format() -> LogFormat {
    if std::io::stdout().is_terminal() { LogFormat::Text } else { LogFormat::Json }
}

/// The signals that end the program.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context(NO_SIGNALS);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Returns when one has come.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
