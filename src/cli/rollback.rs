//! `tagrelay rollback`.

use std::process::ExitCode;

use clap::Args;

use super::api::{Api, FollowOptions, ServerOptions, follow};
use crate::api::RollbackBody;

/// Returns an environment to an earlier version of a repository, and holds it there.
///
/// The hold keeps automation from overwriting the rollback; `tagrelay holds` shows it, `tagrelay release` ends it. Exit
/// code 0: the version is on the branch. 1: refused, with the reason.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay rollback --environment production user-service
  tagrelay rollback --environment production user-service --hold-for 4h --reason 'it leaks'
  tagrelay rollback --environment production user-service \\
    --to 1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b

The token from TAGRELAY_TOKEN or --token-file needs the permission rollback:ENVIRONMENT.")]
pub(super) struct Options {
    /// The repository, by whole name (docker.io/uyou/user-service) or last component (user-service)
    repository: String,
    /// The environment that changes
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: String,
    /// The tag to go back to [default: the previous version]
    #[arg(long, value_name = "TAG")]
    to: Option<String>,
    /// How long the hold lasts, as 30m, 4h or 2d [default: until it is released]
    #[arg(long, value_name = "TIME")]
    hold_for: Option<String>,
    /// The reason, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    follow: FollowOptions,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { repository, environment, to, hold_for, reason, json, follow: how, server } = options;
    let api = Api::new(server)?;
    follow(&api, "rollbacks", &RollbackBody { environment, repository, to, hold_for, reason }, how, json).await
}
