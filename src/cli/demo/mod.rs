//! `tagrelay demo`: shows on one machine how a pushed image becomes a commit and reaches production.
//!
//! - `workspace` is the temporary folder, `platform` and `example` its config repository, `peer` its registry;
//! - `stage` starts them together with the real server, `api` is the client;
//! - `tour` walks through the steps, `trials` are those in which something goes wrong, `afterwards` shows the stream until Ctrl-C;
//! - `screen` and `commits` print.
//!
//! Everything that is shown comes from the API, its stream or the Git repository. A step that fails ends the demo.

mod afterwards;
mod api;
mod commits;
mod example;
mod peer;
mod platform;
mod screen;
mod stage;
mod tour;
mod trials;
mod workspace;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::bail;

use super::output::{self, DIM};
use super::serve::Signals;
use screen::Screen;
use stage::Stage;
use workspace::Workspace;

/// The exit code of a program ended by Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// How many lines of the log are shown after a failure.
const LOG_LINES: usize = 5;

/// Shows on this machine how a pushed image becomes a commit and reaches production.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tagrelay demo                                    the tour, then a running system to play with
  tagrelay demo --once                             the tour only; exit code 1 if a step did not happen
  tagrelay demo --no-tour --registry-port 5000     the running system only, to push images to 127.0.0.1:5000
  tagrelay demo --registry docker-registry         with CNCF Distribution instead of the embedded registry

It needs Git and no network: registry, config repository and server are made in a temporary folder, which is removed \
at the end.")]
pub struct Options {
    /// End after the tour
    #[arg(long)]
    once: bool,
    /// Leave out the tour
    #[arg(long, conflicts_with = "once")]
    no_tour: bool,
    /// The registry to use; `docker-registry` must be installed
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = RegistryChoice::Embedded)]
    registry: RegistryChoice,
    /// The port of the server on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The port of the registry on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    registry_port: u16,
}

/// The kind of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RegistryChoice {
    /// In this program, in memory
    Embedded,
    /// The program `docker-registry` (CNCF Distribution)
    DockerRegistry,
}

/// Runs the demo. Exit code 0: the tour succeeded.
///
/// # Errors
///
/// The step that failed, and the reason.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    need_git().await?;
    let workspace = Workspace::create()?;
    workspace.take_log()?;
    let result = show(&options, &workspace, &mut signals).await;
    if result.is_err() {
        print_complaints(&workspace);
    }
    // An error of the tour is more important than one of removing its folder.
    let removed = workspace.remove();
    let code = result?;
    removed?;
    Ok(code)
}

async fn show(options: &Options, workspace: &Workspace, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::of_stdout();
    screen.title(
        "Tagrelay: an image push becomes a commit, and a promotion moves production",
        "A registry, a config repository and the server run on this machine, for as long as this program.",
    )?;
    let Some(mut stage) = set_stage(options, workspace, screen, signals).await? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let result = perform(&mut stage, options, signals).await;
    tokio::select! {
        () = stage.strike() => {}
        // A second Ctrl-C.
        () = signals.wait() => {}
    }
    result
}

/// Starts everything. `None`: Ctrl-C came first, and everything was stopped again.
async fn set_stage<'a>(
    options: &Options,
    workspace: &'a Workspace,
    screen: Screen,
    signals: &mut Signals,
) -> anyhow::Result<Option<Stage<'a>>> {
    let mut setting = std::pin::pin!(Stage::set(options, workspace, screen));
    tokio::select! {
        stage = &mut setting => return stage.map(Some),
        () = signals.wait() => {}
    }
    tokio::select! {
        stage = &mut setting => stage?.strike().await,
        () = signals.wait() => {}
    }
    Ok(None)
}

async fn perform(stage: &mut Stage<'_>, options: &Options, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    if !options.no_tour {
        tokio::select! {
            done = tour::run(stage) => done?,
            () = signals.wait() => return Ok(ExitCode::from(INTERRUPTED)),
        }
    }
    if !options.once {
        // The stream has messages of the tour itself.
        stage.stream = stage.api.stream().await?;
        afterwards::show_what_to_try(stage)?;
        tokio::select! {
            done = afterwards::follow(stage) => done?,
            () = signals.wait() => stage.screen.heading("Stopping and cleaning up.")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks that Git is installed: it serves the `file://` remote, with hooks and locks.
async fn need_git() -> anyhow::Result<()> {
    const HINT: &str = "the demo needs Git: install it (Debian: apt-get install git) and see that it is in PATH";
    let mut git = tokio::process::Command::new("git");
    git.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = git.status().await.map_err(|error| anyhow::anyhow!("git cannot be run ({error}); {HINT}"))?;
    if !status.success() {
        bail!("`git --version` failed ({status}); {HINT}");
    }
    Ok(())
}

/// Prints the last warnings and errors of the log, because the log is removed with the folder.
fn print_complaints(workspace: &Workspace) {
    for line in workspace.complaints(LOG_LINES) {
        output::note(&format!("{DIM}log: {}{DIM:#}", output::clean(&line)));
    }
}

/// Waits for `what`, at most for `limit`.
async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => bail!("timed out after {} s: {what}", limit.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_times_out() {
        let never = within(Duration::from_millis(1), "the end of time", std::future::pending::<anyhow::Result<()>>());
        assert_eq!(never.await.unwrap_err().to_string(), "timed out after 0 s: the end of time");
    }
}
