//! `tagrelay promote`.

use std::process::ExitCode;

use clap::Args;

use super::api::{Api, FollowOptions, ServerOptions, follow, state_style};
use super::output::{self, Cell, DIM, Table, clean, colour_diff, short_commit, short_version};
use crate::api::{PreviewState, PreviewView, PromotionBody};

/// Promotes the versions that one environment runs, or a named version, to another environment.
///
/// The server verifies each image with its registry, commits and pushes; the command waits for the commit. Exit code 0: the
/// versions are on the branch. 1: refused, wholly or partly, with the reasons.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay promote --to production --dry-run        show the change as a diff
  tagrelay promote --to production                  all versions that staging runs
  tagrelay promote --to production user-service     one service
  tagrelay promote --to production user-service --tag 9f8e7d6c5b4a39281706f5e4d3c2b1a098765432
  tagrelay promote --to production user-service \\
    --expect user-service=1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b

The token from TAGRELAY_TOKEN or --token-file needs the permission promote:ENVIRONMENT, and override:ENVIRONMENT for
--override.")]
pub(super) struct Options {
    /// The repositories, by whole name (docker.io/uyou/user-service) or last component (user-service) [default: all that
    /// both environments run]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// The environment that changes
    #[arg(long, value_name = "ENVIRONMENT")]
    to: String,
    /// The environment whose versions are promoted [default: the only one in promote_from]
    #[arg(long, value_name = "ENVIRONMENT")]
    from: Option<String>,
    /// A tag to promote instead of the version that the other environment runs
    #[arg(long, requires = "repositories")]
    tag: Option<String>,
    /// The tag that you believe the environment runs; otherwise the promotion is refused
    #[arg(long, value_name = "REPOSITORY=TAG", value_parser = parse_expectation)]
    expect: Vec<(String, String)>,
    /// Show the change without making it
    #[arg(long)]
    dry_run: bool,
    /// The reason, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Promote even if the source is not as healthy as promote_when and soak demand, or the environment is frozen;
    /// --reason goes into the commit
    #[arg(long = "override", requires = "reason")]
    overrides: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    follow: FollowOptions,
    #[command(flatten)]
    server: ServerOptions,
}

fn parse_expectation(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((repository, tag)) if !repository.is_empty() && !tag.is_empty() => {
            Ok((repository.to_owned(), tag.to_owned()))
        }
        _ => Err("write REPOSITORY=TAG, as in user-service=1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b"),
    }
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { repositories, to, from, tag, expect, dry_run, reason, overrides, json, follow: how, server } =
        options;
    let api = Api::new(server)?;
    let repositories = (!repositories.is_empty()).then_some(repositories);
    let expect = expect.into_iter().collect();
    let body = PromotionBody { to, from, repositories, tag, expect, dry_run, reason, overrides };
    if !dry_run {
        return follow(&api, "promotions", &body, how, json).await;
    }
    let answer = api.post(&["promotions"], &body).await?;
    let preview: PreviewView = answer.read()?;
    if json {
        answer.print()?;
    } else {
        output::print(&render(&preview))?;
    }
    let refused = preview.updates.iter().any(|update| update.state == PreviewState::Refused);
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn render(preview: &PreviewView) -> String {
    let mut text = match &preview.diff {
        Some(diff) => colour_diff(diff),
        None => format!("{DIM}no diff: the token lacks the permission read{DIM:#}\n"),
    };
    if !text.is_empty() {
        text.push('\n');
    }
    let mut table = Table::new(&["repository", "version", "would be", "because"]);
    for update in &preview.updates {
        table.row(vec![
            Cell::plain(&update.repository),
            Cell::plain(&short_version(update.tag.as_deref(), update.digest.as_deref())),
            Cell::new(update.state.as_str(), state_style(update.state.as_str())),
            Cell::plain(update.reason.as_deref().unwrap_or_default()),
        ]);
    }
    text.push_str(&table.render(0));
    let parent = clean(short_commit(&preview.parent)).into_owned();
    text.push_str(&format!("{DIM}dry run on top of commit {parent}: nothing was changed{DIM:#}\n"));
    text
}
