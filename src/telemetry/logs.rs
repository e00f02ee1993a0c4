use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// The format of log lines on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: coloured on a terminal.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// Starts logging to standard output.
///
/// The environment variable `TAGRELAY_LOG` sets the levels; default: `info`
/// (<https://docs.rs/tracing-subscriber/0.3/tracing_subscriber/filter/struct.EnvFilter.html>).
///
/// Does nothing if a subscriber is already installed, as in tests.
pub fn start_logs(format: LogFormat) {
    let filter =
        EnvFilter::builder().with_env_var("TAGRELAY_LOG").try_from_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(
                fmt::layer().with_writer(std::io::stdout).with_ansi(std::io::stdout().is_terminal()).with_target(false),
            )
            .try_init(),
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stdout)).try_init()
        }
    };
    // A second start in one test process fails, because the first subscriber stays.
    drop(started);
}
