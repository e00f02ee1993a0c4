//! `tagrelay serve`: runs the service.

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

const NO_SIGNALS: &str = "signals cannot be received";

/// Runs the service: receives webhooks, commits new tags, serves the API.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay serve                                   with tagrelay.toml in this folder
  tagrelay serve --config /etc/tagrelay/tagrelay.toml --log-format json

It runs until SIGTERM or Ctrl-C and ends with exit code 0. Pending updates continue at the next start.
Changed settings, and changed files that they name, are reloaded automatically, or at SIGHUP. If they have a fault, the old \
settings stay in force.
TAGRELAY_LOG sets the levels of the log, as in TAGRELAY_LOG=info,tagrelay::relay=debug.")]
pub(super) struct Options {
    /// The settings file
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_SETTINGS)]
    config: PathBuf,
    /// The format of log lines [default: text on a terminal, otherwise json]
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
    // Before the server starts, so that no signal is lost.
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
                tracing::error!(reason, "stopping; a new process can continue from the store");
                server.stop().await;
                anyhow::bail!("{reason}; a new process can continue from the store");
            }
            () = reloader.changed() => drop(reloader.reload(&mut server, "a file has changed").await),
            Some(()) = hangups.recv() => drop(reloader.reload(&mut server, "SIGHUP").await),
            Some(reply) = asked.recv() => {
                // Fails if the client has disconnected.
                let _ = reply.send(reloader.reload(&mut server, "the API").await);
            }
        }
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = server.stop() => tracing::info!("stopped"),
        () = signals.wait() => tracing::warn!("stopped by a second signal; pending updates continue at the next start"),
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

    /// Waits for one of them.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
