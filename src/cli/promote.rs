//! `tagrelay promote`.

use std::process::ExitCode;

use clap::Args;

use super::api::{Api, FollowOptions, ServerOptions, follow};
use super::exit::usage;
use super::output;
use super::preview;
use crate::api::{PreviewView, PromotionBody};

/// Promotes the versions that one environment runs, or a named version, to another environment.
///
/// The server verifies each image with its registry, commits and pushes; the command waits for the commit. Exit code 0: the
/// versions are on the branch. 1: refused, with the reasons. 3: still waiting. 5: a part of them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay promote production --dry-run             show what would move, and the diff
  tagrelay promote production                       all versions that staging runs
  tagrelay promote production user-service          one service; several, and globs work, too
  tagrelay promote production --wait-for healthy -w 10m
  tagrelay promote production user-service --when-ready
                                                    as soon as its soak time has passed
  tagrelay promote production user-service --tag 9f8e7d6c5b4a39281706f5e4d3c2b1a098765432
  tagrelay promote production user-service \\
    --expect user-service=1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b

The token needs the permission promote:ENVIRONMENT, and override:ENVIRONMENT for --override.")]
pub(super) struct Options {
    /// The environment that changes; with --to, a repository
    #[arg(value_name = "ENVIRONMENT", required_unless_present = "to")]
    first: Option<String>,
    /// The repositories, by whole name, last component or glob [default: all that both environments run]
    #[arg(value_name = "REPOSITORY")]
    rest: Vec<String>,
    /// The environment that changes
    #[arg(short = 'e', long, alias = "environment", value_name = "ENVIRONMENT")]
    to: Option<String>,
    /// A repository (may be given several times)
    #[arg(short, long = "repository", value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// The environment whose versions are promoted [default: the only one in promote_from]
    #[arg(long, value_name = "ENVIRONMENT")]
    from: Option<String>,
    /// A tag to promote instead of the version that the other environment runs
    #[arg(long)]
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
    /// Wait on the server until the gate opens, instead of being refused
    #[arg(long, conflicts_with = "overrides")]
    when_ready: bool,
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
    let Options {
        first,
        rest,
        to,
        repositories: named,
        from,
        tag,
        expect,
        dry_run,
        reason,
        overrides,
        when_ready,
        json,
        follow: how,
        server,
    } = options;
    let (to, repositories) = sort(first.into_iter().chain(rest).collect(), to, named);
    if tag.is_some() && repositories.is_empty() {
        return Err(usage(
            "--tag needs the repositories that it is a tag of, as in `tagrelay promote production user-service`",
        ));
    }
    let api = Api::new(server)?;
    let expect = expect.into_iter().collect();
    let repositories = expand(&api, &to, repositories).await?;
    let body = PromotionBody { to, from, repositories, tag, expect, dry_run, reason, overrides, wait: when_ready };
    if !dry_run {
        return Ok(ExitCode::from(follow(&api, "promotions", &body, &how, json).await?.code));
    }
    let answer = api.post(&["promotions"], &body).await?;
    let shown: PreviewView = answer.read()?;
    if json {
        answer.print()?;
    } else {
        output::print(&preview::render(&shown, &body.to, output::screen_width()))?;
    }
    Ok(ExitCode::from(preview::exit_code(&shown)))
}

/// Returns the target and the repositories.
fn sort(names: Vec<String>, to: Option<String>, mut repositories: Vec<String>) -> (String, Vec<String>) {
    let mut names = names.into_iter();
    let to = to.or_else(|| names.next()).unwrap_or_default();
    repositories.extend(names);
    (to, repositories)
}

/// Replaces globs by the repositories that they select.
async fn expand(api: &Api, to: &str, repositories: Vec<String>) -> anyhow::Result<Option<Vec<String>>> {
    if repositories.is_empty() {
        return Ok(None);
    }
    let places = super::places::Places { environment: to.to_owned(), repositories };
    if places.are_words() {
        return Ok(Some(places.repositories));
    }
    Ok(Some(places.find(api).await?.into_iter().map(|place| place.cell.repository).collect()))
}
